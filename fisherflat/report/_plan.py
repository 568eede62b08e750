"""What an analysis would take, before it is run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fisherflat.errors import InputError
from fisherflat.models import as_model
from fisherflat.studies.layers import Plan, Settings
from fisherflat.studies.layers import plan as planned


def plan(model: Any, prompts: Any, **options: Any) -> Plan:
    """How many rows `fisherflat.analyze` would give, and about how much time and memory it would take.

    A pilot of a few seconds measures one part of each kind, and nothing is written.

    **Args:** `model`, `prompts` and `options` as in `fisherflat.analyze`; what does not change the table, such as
    `folder` or `jobs`, is left aside.

    **Returns:** a `Plan` with `rows`, `tasks`, `seconds` (of one process) and `memory` (bytes); printed, a sentence.

    **Raises:** `CheckpointError` for a model that cannot be read; `InputError` for prompts or options that are wrong.

    >>> import fisherflat as ff
    >>> ff.plan("python-llama", "def mean(values):", layers=[0], parts=["mlp"], readings=["live"], points=2).rows
    10
    """
    settings = {name: value for name, value in options.items() if name not in _ASIDE}
    try:
        chosen = Settings.several(**settings)
    except TypeError as error:
        raise InputError(f"plan takes the options of analyze: {error}") from error
    loaded = as_model(model)
    first, *others = [planned(loaded, prompts, one) for one in chosen]
    return replace(sum(others, first), models=1)


#: options of `analyze` that do not change the table
_ASIDE = {"jobs", "runner", "folder", "resume", "overwrite", "depth", "progress"}
