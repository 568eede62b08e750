"""Compare models, or analyses of them: pair by pair, with intervals and the noise floor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fisherflat.errors import InputError
from fisherflat.models import as_model
from fisherflat.report._analysis import Analysis
from fisherflat.report._analyze import analyze, check_places
from fisherflat.report._comparison import Comparison, folder_of
from fisherflat.report._result import room_for


def compare(
    first: Any,
    *others: Any,
    prompts: Any = None,
    names: Sequence[str] | None = None,
    load: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> Comparison:
    """How the curvature of models, or of analyses, differs: paired differences by layer, part and reading.

    All are compared with the first. What belongs together is subtracted: the same layer, part, reading and prompt, and
    the same position and point as far as all have them, so that what both share cancels. Each difference has a
    bootstrap interval over prompts, positions or points (`fisherflat.statistics.estimate`), and stands beside the noise
    floor: how much two halves of one analysis differ. Profiles over the layers agree in rank and sign, as well as their
    halves can.

    **Args:**

    - `first`, `others`: models (loaded, modules, or what `fisherflat.load` takes), an `Analysis` each, or folders in
      which one was saved. All of them may be given as one list, with the prompts behind it.
    - `prompts`, as in `fisherflat.analyze`; needed where there is a model.
    - `names`, of all of them, for tables and figures (default: those of the models).
    - `load`: options of `fisherflat.load`, for what is given by its path.
    - `folder`: keep what is done there as it comes; `resume`: take what is done from there; `overwrite`: remove it.
    - `progress`: show a bar with the time left, on the error stream.
    - `options`: those of `fisherflat.analyze`, the same for all models.

    **Returns:** a `Comparison`. An interrupt (Ctrl-C) ends it early: `.complete` is false.

    **Raises:** `InputError` for fewer than two, unequal prompts, or analyses in different numbers of directions; and
    what `analyze` raises.

    >>> import fisherflat as ff
    >>> small = {"layers": [0], "parts": ["mlp"], "points": 1, "progress": False}
    >>> found = ff.compare(["python-llama", "python-qwen3-next"], "def mean(values):", **small)
    >>> list(found.table["reading"])
    ['live', 'frozen mlp gate']
    """
    given, prompts = _subjects(first, others, prompts)
    models = [not isinstance(one, Analysis) and not is_saved(one) for one in given]
    if any(models) and prompts is None:
        raise InputError("models are compared on prompts; give some: compare([a, b], prompts)")
    if names is not None and (isinstance(names, str) or len(names) != len(given)):
        raise InputError(f"names must be {len(given)} words, one for each of what is compared, got {names!r}")
    if resume and folder is None:
        raise InputError("resume needs a folder, where results are kept as they come")
    found: list[Analysis] = []
    with nullcontext() if folder is None else room_for(Comparison, folder, overwrite=overwrite or resume):
        check_places((one for one, is_model in zip(given, models, strict=True) if is_model), prompts, load, options)
        for number, (one, is_model) in enumerate(zip(given, models, strict=True)):
            if is_model:
                place = None if folder is None else Path(folder) / folder_of(number)
                kept: dict[str, Any] = {"folder": place, "resume": resume, "overwrite": overwrite} if place else {}
                found.append(analyze(as_model(one, **load or {}), prompts, **options, **kept, progress=progress))
            else:
                found.append(one if isinstance(one, Analysis) else Analysis.load(one))
            if not found[-1].complete and is_model:
                break
    return Comparison(found, names=_named(found, names), expected=len(given))


def _subjects(first: Any, others: Sequence[Any], prompts: Any) -> tuple[list[Any], Any]:
    """What is compared, and the prompts, however they were given."""
    given = [first, *others]
    if isinstance(first, (list, tuple)):
        if len(others) > (prompts is None):
            raise InputError("compare takes a list and prompts, or what is compared one by one and prompts by name")
        given, prompts = list(first), others[0] if others else prompts
    if len(given) < 2:
        raise InputError(f"a comparison is of at least two models or analyses, got {len(given)}")
    return given, prompts


def is_saved(place: Any) -> bool:
    """Whether it is a folder in which an analysis was saved."""
    try:
        return isinstance(place, (str, Path)) and os.path.isfile(Path(place).expanduser() / Analysis.document)
    except (OSError, ValueError):  # a name that no file can have
        return False


def _named(found: Sequence[Analysis], names: Sequence[str] | None) -> list[str]:
    """A name for each; of equal ones the second and so on are numbered."""
    wanted = [*(names or [analysis.model for analysis in found])][: len(found)]
    said: list[str] = []
    for name in wanted:
        numbers = (name if count == 1 else f"{name} ({count})" for count in range(1, len(wanted) + 2))
        said.append(next(each for each in numbers if each not in said))
    return said
