"""Estimates of the scalar curvature from random planes.

For orthonormal tangents x, y, uniform on the Stiefel manifold, `E K(x, y) = scal / (k (k - 1))`: the mean over planes
is unbiased. Where the surface bends alike in most directions, `|tr II|^2` dominates
`scal = |tr II|^2 - |II|^2 + ambient`, and most of what varies between planes is a trace that can be had exactly at the
price of k second derivatives. What is left to sample is the traceless part `II0 = II - (tr II / k) g`, with
`|II|^2 = |II0|^2 + |tr II|^2 / k`. In the plane of x and y it has three components, each of which estimates its length
without bias:

    E |II0(x, y)|^2 = E |II0(x, x) - II0(y, y)|^2 / 4 = |II0|^2 / ((k - 1) (k + 2)),
    E |II0(x, x) + II0(y, y)|^2 / 4 = |II0|^2 (k - 2) / (k (k - 1) (k + 2)).

They follow from `E x_a x_b y_c y_d = A d_ab d_cd + B (d_ac d_bd + d_ad d_bc)`, `A = (k + 1) / (k (k - 1) (k + 2))` and
`B = -1 / (k (k - 1) (k + 2))` (moments of the Stiefel manifold: Collins & Sniady, *Integration with respect to the Haar
measure*, 2006).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.geometry._tangents import Tangents

#: planes are drawn so many at a time, however many are measured together
UNIT = 16
#: what tells the estimators apart
PAIRS, HYBRID, PROVED, NONE = "pairs", "exact trace and pairs", "proved", "none"


@dataclass(frozen=True)
class Planes:
    """What some random planes say, all `[P]`.

    **Attributes:** `sectional`, their curvatures; `rounding`, what rounding may have left in these; `rest`, unbiased
    estimates of what the scalar curvature is without the trace: `ambient - |II0|^2`.
    """

    sectional: Float[Tensor, " P"]
    rounding: Float[Tensor, " P"]
    rest: Float[Tensor, " P"]


def drawn(count: int, k: int, generator: torch.Generator) -> Float[Tensor, "P 2 k"]:
    """Orthonormal pairs, uniform on the Stiefel manifold; drawn on the CPU, so that every device has the same."""
    found = torch.randn(count, 2, k, generator=generator, dtype=torch.float64)
    x, y = found.unbind(1)
    x = x / x.norm(dim=-1, keepdim=True)
    for _ in range(2):
        y = y - (x * y).sum(-1, keepdim=True) * x
        y = y / y.norm(dim=-1, keepdim=True)
    return torch.stack([x, y], 1)


def measured(tangents: Tangents, xi: Float[Tensor, "P 2 k"], trace: Float[Tensor, " F"] | None) -> Planes:
    """The planes with the frame coefficients `xi`; with the exact trace where it is known."""
    parts = [_measured(tangents, block, trace) for block in xi.to(tangents.frame).split(tangents.block(2))]
    columns = zip(*((p.sectional, p.rounding, p.rest) for p in parts), strict=True)
    return Planes(*(torch.cat(list(column)).cpu() for column in columns))


def _measured(tangents: Tangents, xi: Tensor, trace: Tensor | None) -> Planes:
    k, bent = tangents.k, tangents.bent(xi)
    a, c, b = bent.normal.unbind(1)  # II(x, x), II(x, y), II(y, y)
    cross = c.square().sum(-1)
    sectional = (a * b).sum(-1) - cross + bent.ambient
    left = tangents.rounding * bent.raw
    size = bent.normal.norm(dim=-1)
    da, dc, db = left.unbind(1)
    rounding = size[:, 0] * db + size[:, 2] * da + 2 * size[:, 1] * dc + da * db + dc * dc
    rounding = rounding + tangents.rounding * bent.ambient.abs()
    whole = (k - 1) * (k + 2)
    parts = [whole * cross, whole * (a - b).square().sum(-1) / 4]
    if trace is not None and k > 2:
        both = (a + b - 2 / k * trace).square().sum(-1) / 4
        parts.append(whole * k / (k - 2) * both)
    rest = k * (k - 1) * bent.ambient - torch.stack(parts).mean(0)
    return Planes(sectional, rounding, rest)
