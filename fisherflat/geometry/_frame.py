"""The orthonormal frame of a tangent space, and whether there is one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fisherflat._arrays import some
from fisherflat._typing import Bool, Float, Int, Tensor
from fisherflat.errors import DegenerateImmersionError, MapError
from fisherflat.geometry._factored import factored
from fisherflat.jets import Jet, pairs
from fisherflat.spaces.families import Ambient

#: within such a factor of being called degenerate, a point is nearly so
_NEAR = 1024.0


@dataclass(frozen=True)
class Frame:
    """`Q` with orthonormal columns, `R` upper triangular, `J^T = Q R`; where there is none, or nearly none.

    `skewness` is 1 over the sine of the smallest angle between a column of the Jacobian and those before it.
    """

    vectors: Float[Tensor, "*batch D k"]
    triangular: Float[Tensor, "*batch k k"]
    degenerate: Bool[Tensor, "*batch"]
    nearly: Bool[Tensor, "*batch"]
    skewness: Float[Tensor, "*batch"]


def _negligible(ambient_dim: int, dtype: torch.dtype) -> float:
    """What a singular value is to the largest where it is zero to rounding."""
    return 8 * ambient_dim**0.5 * torch.finfo(dtype).eps


def nearly_degenerate(ratio: Float[Tensor, "*batch"], ambient_dim: int) -> Bool[Tensor, "*batch"]:
    """Whether a ratio of singular values is within a factor of a thousand of a zero."""
    return ratio <= _NEAR * _negligible(ambient_dim, ratio.dtype)


def ranked(
    triangular: Float[Tensor, "*batch k k"], scale: Float[Tensor, "*scaled k"], ambient_dim: int
) -> tuple[Float[Tensor, "*batch k"], Int[Tensor, "*batch"]]:
    """Singular values of a Jacobian in units of the lengths `scale` of its columns, descending, and its rank."""
    units = scale.expand(triangular.shape[:-1])
    singular = torch.linalg.svdvals(triangular / torch.where(units > 0, units, 1.0)[..., None, :])
    return singular, (singular > _negligible(ambient_dim, triangular.dtype) * singular[..., :1]).sum(-1)


def meet(a: Tensor, b: Tensor) -> Tensor:
    """Whether two singular values are equal to rounding."""
    return (a - b).abs() <= 64 * torch.finfo(a.dtype).eps * a.abs()


def orthonormal_frame(
    jet: Jet, degenerate: str, u: Tensor | None, scale: Tensor | None, ambient: Ambient | None = None
) -> Frame:
    """The frame of the Jacobian of a jet; arguments and errors are `Geometry`'s.

    **Args:** `ambient`, which knows what a family says of its parameters.
    """
    ambient = ambient or Ambient(jet.coefficients.shape[-1])
    coefficients, k = jet.coefficients, jet.k
    # of what geometry is made, for where the surface lies is no matter; NaN and infinities survive the one pass
    size = torch.linalg.vector_norm(coefficients[..., 1:, :].detach(), dim=(-2, -1))
    finite = torch.isfinite(size) & coefficients[..., 0, :].isfinite().all(-1)
    jacobian = jet.jacobian
    if some(~finite):
        if degenerate == "raise":
            raise not_finite(coefficients[~finite], _place(~finite, u), ambient)
        jacobian = torch.where(finite[..., None, None], jacobian, 0.0)
    q, triangular = factored(jacobian.transpose(-1, -2))
    r = triangular.detach()  # what follows decides, and has no gradient
    columns = r.norm(dim=-2)
    singular, rank = ranked(r, columns if scale is None else scale.detach(), coefficients.shape[-1])
    lost = finite & (columns.amax(-1) < torch.finfo(r.dtype).tiny ** 0.5)  # squares lose digits, or are zero
    bad = ~finite | (rank < k) | lost
    steep = ~bad & _overflows(jet, r, size)
    bad = bad | steep
    if some(bad):
        if degenerate == "raise":
            first = bad.reshape(-1).nonzero()[0, 0]
            found = int(rank.reshape(-1)[first])
            values = ", ".join(f"{s:.3g}" for s in torch.linalg.svdvals(r).reshape(-1, k)[first].tolist())
            what, hint = f"the Jacobian has rank {found} < k = {k}", "the metric is singular there"
            if found == 0:
                hint = "the map does not depend on the coordinates there"
            elif found == k:
                what, hint = TOO_SMALL, "nothing that moves shows in the output"
            if steep.reshape(-1)[first]:
                what, hint = "the curvature is too large for a number", "what moves hardly shows in the output"
            rest = 1.0 if ambient.uncertainty is None else ambient.uncertainty.reshape(-1)[first].item()
            if rest < 2**-40:
                hint = f"the distribution is saturated, 1 - p is {rest:.3g} for the likeliest outcome there"
            hint = ambient.extreme or hint
            raise DegenerateImmersionError(
                f"{what} {_place(bad, u)}, singular values [{values}]: {hint}. Choose other directions or fewer of "
                'them, or pass degenerate="nan"'
            )
        triangular = triangular.masked_fill(bad[..., None, None], float("nan"))
    nearly = ~bad & nearly_degenerate(singular[..., -1] / singular[..., 0], coefficients.shape[-1])
    skewness = (columns / r.diagonal(dim1=-2, dim2=-1).abs()).amax(-1)
    return Frame(q, triangular, bad, nearly, skewness)


def _overflows(jet: Jet, triangular: Tensor, size: Float[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
    """Whether squares of second derivatives along the frame are beyond the largest number."""
    lengths = triangular.diagonal(dim1=-2, dim2=-1).abs()
    most = torch.finfo(size.dtype).max ** 0.5 / jet.k**2
    least = lengths.amin(-1)
    possible = size / least / least > most  # first derivatives count, too
    if not some(possible) or not jet.second.shape[-2]:
        return possible
    first, second = torch.tensor(pairs(jet.k), device=size.device).T
    bend = jet.second.detach().norm(dim=-1) / lengths[..., first] / lengths[..., second]
    return possible & (bend.amax(-1) > most)


#: what is said of a Jacobian whose squares are beyond the smallest number
TOO_SMALL = "the metric is too small for a number"


def not_finite(numbers: Tensor, place: str, ambient: Ambient | None = None) -> MapError:
    """The error for numbers of a map or its derivatives that are not finite, or whose squares are not.

    **Args:** `ambient`, where it may know what is wrong with the parameters of the family.
    """
    if ambient is not None and ambient.outside is not None:
        return MapError(f"the outputs are no parameters of the family {place}: {ambient.outside}")
    if ambient is not None and ambient.extreme is not None:
        return MapError(f"the Fisher information, or how it changes, is beyond numbers {place}: {ambient.extreme}")
    if numbers.isfinite().all():
        return MapError(
            f"the map or its derivatives are so large {place} that their squares are beyond the largest number; "
            "measure it in other units"
        )
    return MapError(f"the map or its derivatives are not finite {place}; is the point in the map's domain?")


def inverse(lower: Float[Tensor, "*batch k k"]) -> Float[Tensor, "*batch k k"]:
    """The inverse of lower triangular matrices."""
    identity = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)


def _place(bad: Tensor, u: Tensor | None) -> str:
    index = int(bad.reshape(-1).nonzero()[0, 0])
    where = f"at point {index}"
    if u is not None:  # points may come in chunks, in which an index would say nothing
        where = f"at u = [{', '.join(f'{c:.6g}' for c in u.reshape(-1, u.shape[-1])[index].tolist())}]"
    more = int(bad.sum()) - 1
    return where + (f" (and at {more} more)" if more else "")
