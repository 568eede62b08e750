"""What a figure is of, in lines above it: the model, what it read, what σ is, and what lines, bars and cells are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fisherflat.studies import in_words

#: how many letters of a prompt are shown
SHOWN = 44
#: covariance, as it is asked for -> what it is of some outputs
_FITTED = {
    "words": "σ²: mean variance of {}, at words",
    "all": "σ²: mean variance of {}, at all tokens",
    "diagonal": "Σ: the variance of each of {}, at words",
    "full": "Σ: the covariance matrix of {}, at words",
}


def caption(model: str, what: str, texts: Sequence[str], *more: str) -> tuple[str, ...]:
    """The lines: the model and what is shown of it, what it read, and the rest.

    >>> from fisherflat.report._captions import caption
    >>> caption("python-llama", "heads", ["def mean(values):", "x"])
    ('python-llama: heads', 'on “def mean(values):” and 1 more prompt')
    """
    return (f"{model}: {what}", *([_read(texts)] if texts else []), *more)


def measured_in(settings: Mapping[str, Any], of: str, default: str = "words") -> str:
    """What the covariance of some settings is, in short, and whose outputs are measured.

    **Args:** `of`, what it is fitted to; `default`, of settings of an older release.

    >>> from fisherflat.report._captions import measured_in
    >>> measured_in({"covariance": "all", "output": "moved"}, "the states")
    'σ²: mean variance of the states, at all tokens; outputs of tokens that move'
    """
    asked = str(settings.get("covariance", default))
    said = _FITTED[asked].format(of) if asked in _FITTED else f"covariance: {asked}, as given"
    return f"{said}; outputs of tokens that move" if settings.get("output") == "moved" else said


def of_part(settings: Mapping[str, Any]) -> str:
    """What curvatures of parts are measured in."""
    return unit_of(settings.get("family"), measured_in(settings, "each part's own outputs"))


def of_depth(settings: Mapping[str, Any], unit: str) -> str:
    """What curvatures along the depth are measured in, calibrated or fixed."""
    of = "the outputs, at each depth its own" if unit == "calibrated" else "what enters the first block, at all depths"
    return measured_in(settings, of, "all")


def of_end(settings: Mapping[str, Any]) -> str:
    """What curvatures behind the last block are measured in."""
    return measured_in(settings, "what the last block puts out", "all")


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
