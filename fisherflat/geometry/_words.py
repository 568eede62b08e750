"""What a curvature is called: the four words that tables, sentences, figures and the shell share.

They are decided by the estimate of its error. No tolerance is absolute, so that no word depends on units.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import torch

from fisherflat._arrays import some
from fisherflat._display import Card, displayed
from fisherflat._typing import Float, Int, Tensor
from fisherflat.errors import DegenerateImmersionWarning, PrecisionWarning, warn


@displayed
class Verdict(StrEnum):
    """What is known of a scalar curvature, from its value and its error; as a string, the word itself.

    >>> from fisherflat.geometry import Verdict
    >>> [str(word) for word in Verdict]
    ['flat (proved)', 'flat to its error', 'undecided', 'curved']
    """

    #: zero whatever the numbers are: a curve, a piece of the whole space, or a map that is affine by its structure
    PROVED = "flat (proved)"
    #: it may be zero, and its error is small against the terms that cancel in it
    FLAT = "flat to its error"
    #: the error exceeds the value, and is not small: nothing is known, not even the sign
    UNDECIDED = "undecided"
    #: the value exceeds its error, and the surface is known to bend, so that its sign is known
    CURVED = "curved"

    def _card(self) -> Card:
        return Card(self.value)


_WORDS = tuple(Verdict)
#: what is carried to other points is at least so many last places
_FLOOR = 8.0
#: what a verdict needs: the value, the terms that cancel in it, how much the surface bends, and where to estimate
JUDGED = ("scalar_curvature", "cancellation_scale", "second_fundamental_form_norm", "skewness")
#: which errors to estimate: at one point in so many, those of the most skew tangents; to the others they are carried
ERRORS = {"sample": 64, "all": 1}
#: the words for a curvature that is zero as far as is known
FLAT_WORDS = (Verdict.PROVED, Verdict.FLAT)


def decided(
    scalar_curvature: Float[Tensor, "*batch"],
    error: Float[Tensor, "*batch"],
    scale: Float[Tensor, "*batch"],
    turn: Float[Tensor, "*batch"],
    *,
    proved: bool = False,
) -> Int[Tensor, "*batch"]:
    """Which word each curvature gets, as a position among `Verdict`; -1 where there is no number.

    A curvature is *curved* where it exceeds its error and the surface is known to bend: what is zero to its error says
    nothing in products. Else it is *flat to its error* where half the digits of the terms that cancel in it are right,
    or where to half the digits the surface does not bend at all.

    **Args:** `scale`, the size of the terms that cancel (`Geometry.cancellation_scale`); `turn`, what the function
    of that name gives; `proved`: by structure the surface is flat.
    """
    half = torch.finfo(scalar_curvature.dtype).eps ** 0.5
    word = torch.where((error <= half * scale) | (turn <= half), 1, 2)
    word = torch.where((scalar_curvature.abs() > error) & turn.isinf(), 3, word)
    return torch.where(scalar_curvature.isnan(), -1, torch.zeros_like(word) if proved else word)


def turn(
    form: Float[Tensor, "*batch"], error: Float[Tensor, "*batch"], size: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """By how much a surface may turn within a length as large as its values, in radians; infinite where it does bend.

    **Args:** `form`, `|II|`, with its `error`; `size`, the length of the whitened value.
    """
    return torch.where(form <= error, (form + error) * size, float("inf"))


def words(codes: Int[Tensor, "*batch"]) -> Any:
    """Positions among `Verdict` as words, nested as the tensor is; `None` for -1."""

    def named(code: Any) -> Any:
        return [named(one) for one in code] if isinstance(code, list) else None if code < 0 else str(_WORDS[code])

    return named(codes.tolist())


def sample(skewness: Float[Tensor, " P"], one_in: int) -> Int[Tensor, " n"]:
    """At which points errors are estimated: one in so many, at least one, those where digits are fewest.

    That is where the tangents that were worked with are most skew. A condition number would not do: it is that of the
    chart's own coordinates, and where it is worst others have been taken, which keep more digits than its neighbours.
    """
    worst = skewness.nan_to_num(nan=0.0).argsort(descending=True, stable=True)
    return worst[: -(-len(skewness) // one_in)].sort()[0]


def carried(
    errors: Float[Tensor, "n *rest"], scales: Float[Tensor, " n"], to: Float[Tensor, " P"]
) -> Float[Tensor, "P *rest"]:
    """Errors where none were estimated: the largest of those that were, relative to a scale that is known everywhere.

    **Args:** `errors`, NaN where a point has no geometry, and `scales` at some points; `to`, the scales at others of
    the same chart.

    **Returns:** the errors there, infinite where none was estimated at all.
    """
    here, there = (scale.reshape(-1, *(1,) * (errors.dim() - 1)) for scale in (scales, to))
    relative = torch.where(here > 0, errors / here, 0.0).nan_to_num(nan=-1.0).amax(0)
    least = _FLOOR * torch.finfo(to.dtype).eps
    return there * torch.where(relative < 0, float("inf"), relative.clamp_min(least))


def exceptional(codes: Int[Tensor, " P"], chosen: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """Which points deserve an error of their own, too: those that are not curved by a carried one, while others are.

    Where a term cancels at some points alone, what is carried to them says nothing.

    **Args:** `codes`, as `decided` gives them; `chosen`, where errors were estimated.
    """
    curved = codes == _WORDS.index(Verdict.CURVED)
    odd = (codes > 0) & ~curved & curved.any()
    odd[chosen] = False
    return odd.nonzero()[:, 0] if some(odd) else chosen[:0]


def filled(errors: Float[Tensor, " n"], at: Int[Tensor, " n"], scales: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """Errors at all points: those that were estimated at some, and what is carried over to the others."""
    found = carried(errors, scales[at], scales)
    found[at] = torch.where(errors.isnan(), found[at], errors)
    return found


def warn_of_stuck(reasons: Sequence[str], count: int) -> None:
    """One warning that of so many points some could not be computed in more bits."""
    if reasons:
        warn(
            f"{len(reasons)} of {count} points could not be computed in more bits, and what their errors say stands; "
            f"the first because {reasons[0]}",
            PrecisionWarning,
        )


def warn_of(degenerate: Tensor, near: Tensor) -> None:
    """One warning of each kind, at the line that called the method that called `measure`."""
    if some(degenerate):
        warn(
            f"{int(degenerate.sum())} of {degenerate.numel()} points are degenerate or outside the map's domain; "
            "their curvature is NaN",
            DegenerateImmersionWarning,
        )
    if some(near):
        warn(
            f"{int(near.sum())} of {near.numel()} points are nearly degenerate: the map hardly tells some directions "
            "of the chart apart there, and few digits may be right; measure(u, quantities, error=True) says how many",
            PrecisionWarning,
        )
