"""What a figure is of, in lines above it: the model, what it read, what σ is, and what lines, bars and cells are."""

from __future__ import annotations

from collections.abc import Sequence

from fisherflat.studies import in_words

#: how many letters of a prompt are shown
SHOWN = 44
#: what an analysis calibrates
OF_PART = "σ²: mean variance of each part's own outputs, at words"
OF_DEPTH = {
    "calibrated": "σ²: mean variance of the outputs, at each depth its own",
    "fixed": "σ²: mean variance of what enters the first block, at all depths",
}
OF_END = "σ²: mean variance of what the last block puts out"


def caption(model: str, what: str, texts: Sequence[str], *more: str) -> tuple[str, ...]:
    """The lines: the model and what is shown of it, what it read, and the rest.

    >>> from fisherflat.report._captions import caption
    >>> caption("python-llama", "heads", ["def mean(values):", "x"])
    ('python-llama: heads', 'on “def mean(values):” and 1 more prompt')
    """
    return (f"{model}: {what}", *([_read(texts)] if texts else []), *more)


def unit_of(family: str | None, otherwise: str) -> str:
    """What lengths are measured in: the family's own metric, or what is said otherwise."""
    return otherwise if family is None else f"Fisher metric of {in_words(family)}"


def _read(texts: Sequence[str]) -> str:
    first = " ".join(texts[0].split())
    first = first if len(first) <= SHOWN else f"{first[: SHOWN - 1]}…"
    others = len(texts) - 1
    more = f" and {others} more prompt{'s' if others > 1 else ''}" if others else ""
    return f"on “{first}”{more}"


def intervals(what: str, over: str, undecided: bool) -> str:
    """What lines and bars or bands are, `what` the intervals are drawn as, and `over` what is averaged."""
    crosses = "; crosses: undecided points, left out" if undecided else ""
    return f"means over {over}; {what}: 95 % intervals{crosses}"
