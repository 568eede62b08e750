"""The claim of a certificate about curvature in words."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import Any

from fisherflat.certificates._bounds import rounded

VERDICTS = ("flat", "curved", "undecided")

#: argument -> the verdict that it supports, and the argument in words
ARGUMENTS = {
    "affine": ("flat", "every node is constant or affine in the coordinates"),
    "affine by pieces": (
        "flat",
        "between its kinks every node is constant or affine in the coordinates, and the kinks lie on the borders of "
        "finitely many polyhedra",
    ),
    "one coordinate": ("flat", "a curve has no intrinsic curvature"),
    "full dimension": ("flat", "an immersed manifold of the dimension of its space is an open piece of that space"),
    "enclosure": ("curved", "the enclosure of the curvature excludes zero"),
    "zero enclosed": ("undecided", "the enclosure of the curvature contains zero at the largest precision tried"),
    "degenerate immersion": ("undecided", "the determinant of the metric could not be bounded away from zero"),
    "not finite": (
        "undecided",
        "the map or its derivatives are not finite there, so that the point is outside its domain",
    ),
    "open decision": ("undecided", "the map asks for a sign or an order that is open there (a kink or a jump)"),
    "held in floats": ("undecided", "what is held could not be computed in ball arithmetic"),
    "unsupported op": ("undecided", "an op on the way has no rule in ball arithmetic"),
}


def claim(c: Any) -> str:
    """The statement of a `CurvatureCertificate` in one sentence."""
    return f"{_reading(c)}: {_CLAIMS[c.verdict](c)}."


def _reading(c: Any) -> str:
    text = f"Reading {c.reading}"
    if not c.held_nodes:
        return text
    count = len(c.held_nodes)
    where = "the chart's point" if c.base is None else "another input"
    return f"{text} ({count} node{'s' if count > 1 else ''} held at {where})"


def _flat(c: Any) -> str:
    if c.argument == "affine":
        rank, exact = c.rank if c.rank is not None else (0, False)
        k = c.chart.k
        degenerate = f" (the rank of the map is {rank} < k = {k})" if exact and rank < k else ""
        least = "" if exact or rank == k else "at least "
        return (
            "the manifold is flat everywhere, because the map is affine on this chart and its image an affine "
            f"subspace of dimension {least}{rank}{degenerate}, so that its second fundamental form vanishes identically"
        )
    if c.argument == "affine by pieces":
        return (
            f"the manifold is flat wherever the map is immersed and none of {len(c.kinks)} of its nodes is at a kink "
            "or a jump, because between those the map is affine on this chart"
        )
    why = f"it fills its space, k = D = {c.outputs}" if c.argument == "full dimension" else "it has one coordinate"
    return f"the manifold is flat wherever the map is smooth and immersed, because {why}"


def _curved(c: Any) -> str:
    low, high = rounded(c.enclosure[0], 32, ROUND_FLOOR), rounded(c.enclosure[1], 32, ROUND_CEILING)
    place = f"at u = {_numbers(c, c.point)}"
    if c.radius:
        place = f"at every u within {_number(c, c.radius)} of {_numbers(c, c.point)} in each coordinate"
    what = "the Gauss curvature"
    if c.plane is not None:
        what = f"the sectional curvature of the plane of {' and '.join(_numbers(c, vector) for vector in c.plane)}"
    sign = "positive" if low > 0 else "negative"
    own = not hasattr(c.family, "covariance")  # a metric of its own
    unit = f"in the Fisher metric of {type(c.family).__name__}" if own else "in units of 1 / covariance"
    text = f"{what} {place} is {sign}, between {low} and {high} {unit}"
    if c.schema > 1 and not own:
        text += f", under {_covariance(c)}"
    if c.analytic is not None:
        where = "R^k"
        if c.analytic.restricted:
            where = "the connected part, around this point, of the coordinates for which the map is defined"
        text += f", and it is nonzero almost everywhere on {where} (wherever the map is an immersion)"
    return text


def _undecided(c: Any) -> str:
    between = f" (between {c.enclosure[0]:.3g} and {c.enclosure[1]:.3g})" if c.enclosure is not None else ""
    return f"nothing is claimed, because {ARGUMENTS[c.argument][1]}{between}"


def _covariance(c: Any) -> str:
    covariance = c.family.covariance
    if covariance.dim() == 0:
        return f"the covariance {_number(c, covariance.item())}"
    return "the stated covariance, " + ("one variance an output" if covariance.dim() == 1 else "a matrix")


def _numbers(c: Any, values: Iterable[float]) -> str:
    return "(" + ", ".join(_number(c, value) for value in values) + ")"


def _number(c: Any, value: float) -> str:
    """All the digits that tell it apart from other floats; files of the first schema have six."""
    return f"{value:g}" if c.schema == 1 else repr(value).removesuffix(".0")


_CLAIMS = {"flat": _flat, "curved": _curved, "undecided": _undecided}
