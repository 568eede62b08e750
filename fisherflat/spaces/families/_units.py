"""In what unit lengths are, by family."""

from __future__ import annotations

from typing import Any

from fisherflat.spaces.families._parametric import ParametricFamily

_POWERS = {-2: "1/σ²", -1: "1/σ", 1: "σ"}


def unit(family: Any, power: int = -2) -> str:
    """The unit of so many lengths multiplied, "" where it is 1; that of curvature is the default.

    The covariance of `Gaussian` is a unit, its standard deviation σ. In a family with a metric of its own lengths are
    pure numbers.

    **Args:** `family`, or its name, or `None` for a `Gaussian`.
    """
    return "" if isinstance(family, (ParametricFamily, str)) else _POWERS[power]


def labelled(what: str, family: Any, power: int = -2) -> str:
    """A quantity with its unit, as on an axis."""
    found = unit(family, power)
    return f"{what} [{found}]" if found else what
