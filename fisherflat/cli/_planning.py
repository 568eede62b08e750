"""What a command would take, before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat.cli import _options as options
from fisherflat.cli._output import answer, say

if TYPE_CHECKING:
    from fisherflat.studies.layers import Plan


def planned(
    paths: Iterable[str | Path],
    prompts: Sequence[Any],
    loading: options.Loading,
    what: Mapping[str, Any],
    workers: int = 1,
) -> None:
    """Say what it would take to analyse some models, one after the other."""
    from fisherflat.report import plan

    found: Plan | None = None
    for path in paths:
        one = plan(loading.load(str(path)), prompts, **what)
        found = one if found is None else found + one
    tell(found, workers)


def tell(found: Plan | None, workers: int = 1) -> None:
    """Say what a plan is; nothing is left to do where there is none."""
    if found is None:
        say("nothing is left to measure")
        return
    say(f"plan: {found.in_words(workers)}")
    answer({"kind": "Plan", **asdict(found)})
