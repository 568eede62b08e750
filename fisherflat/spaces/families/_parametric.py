"""What geometry needs of a family whose Fisher metric changes with its parameters.

The parameters of a family with their Fisher metric are a Riemannian manifold N, which need not be flat, and a map with
a chart is a surface in it. At a point all that matters is, in an orthonormal frame of N: the tangents of the surface,
its covariant second derivatives, and the curvature of N on its tangents. The Gauss equation then reads
`R_ijlm = R^N_ijlm + II_im . II_jl - II_il . II_jm` (Lee, *Introduction to Riemannian Manifolds*, 2018, theorem 8.5).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch

from fisherflat._arrays import some
from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError, MapError
from fisherflat.spaces.jets import Jet, pairs


@displayed
@dataclass(frozen=True)
class Ambient:
    """The manifold of a family's parameters around some points, in the frames that `Framed` is in.

    **Attributes:**

    - `ambient_dim`: its dimension.
    - `curvature`: `R(x_a, x_b, x_c, x_d)` `[P, k, k, k, k]` of vectors `x` `[P, k, F]`, `None` where it is flat.
    - `cubic`: the vector `c` `[P, F]` with `c . z = E[l_x l_y l_z]` for all z, `l_x` the score along x (the
      Amari-Chentsov tensor), of vectors x and y `[P, F]`; `None` where it vanishes.
    - `uncertainty`: one minus the probability of the likeliest outcome `[P]`, of families of finitely many outcomes.
    - `outside`: what is wrong, where coefficients are no numbers because outputs are no parameters of the family.
    - `extreme`: which parameter may be why the metric is beyond numbers, where it is.

    >>> import fisherflat as ff
    >>> ff.families.Ambient(3).curvature is None  # Euclidean space
    True
    """

    ambient_dim: int
    curvature: Callable[[Tensor], Tensor] | None = None
    cubic: Callable[[Tensor, Tensor], Tensor] | None = None
    uncertainty: Tensor | None = None
    outside: str | None = None
    extreme: str | None = None

    def reshaped(self, count: int, batch: Sequence[int]) -> Ambient:
        """The same for `count` points in another shape."""

        def over(function: Callable[..., Tensor] | None) -> Callable[..., Tensor] | None:
            if function is None:
                return None

            def call(*vectors: Tensor) -> Tensor:
                found = function(*(v.reshape(count, *v.shape[len(batch) :]) for v in vectors))
                return found.reshape(*batch, *found.shape[1:])

            return call

        uncertainty = None if self.uncertainty is None else self.uncertainty.reshape(tuple(batch))
        return replace(self, curvature=over(self.curvature), cubic=over(self.cubic), uncertainty=uncertainty)

    def replaced(self, where: Tensor, other: Ambient) -> Ambient:
        """That of `other` at the points of a mask `[P]`, which are all that it has: frames may follow directions."""

        def merged(
            mine: Callable[..., Tensor] | None, its: Callable[..., Tensor] | None
        ) -> Callable[..., Tensor] | None:
            if mine is None or its is None:
                return mine

            def call(*vectors: Tensor) -> Tensor:
                found = mine(*vectors).clone()
                found[where] = its(*(v[where] for v in vectors))
                return found

            return call

        curvature, cubic = merged(self.curvature, other.curvature), merged(self.cubic, other.cubic)
        return replace(self, curvature=curvature, cubic=cubic)


@displayed
@dataclass(frozen=True)
class Framed:
    """A surface in a family: its 2-jet in orthonormal frames of the parameters' manifold, and that manifold.

    **Attributes:** `coefficients` `[P, S, F]`: a row that does not matter, tangents, covariant second derivatives as
    `Jet` orders them; `ambient`.
    """

    coefficients: Float[Tensor, "P S F"]
    ambient: Ambient


@displayed
class ParametricFamily(ABC):
    """A family whose parameters are the outputs of a map, in the last axis; leading axes are independent.

    To add one, write its two methods; docs/extending.md says where.

    >>> import fisherflat as ff
    >>> isinstance(ff.families.Poisson(), ff.families.ParametricFamily), ff.families.Poisson().ambient_dim((2, 3))
    (True, 6)
    """

    #: whether `framed` of each direction alone, k times as many points, costs no more than of all at a time
    directions_alone = True

    @abstractmethod
    def ambient_dim(self, shape: tuple[int, ...]) -> int:
        """How many dimensions the manifold of parameters has for outputs of a shape.

        **Raises:** `InputError` where outputs of this shape cannot be the family's parameters.
        """

    @abstractmethod
    def framed(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        """The surface of the 2-jet `[P, S, D]` of a map with outputs of a shape, flattened."""

    def together(self, outputs: list[Tensor]) -> Tensor:
        """Several outputs of a map as one, joined along their last axis.

        **Raises:** `MapError` where they are not what the family's parameters are made of.
        """
        parts = [part.reshape(1) if part.dim() == 0 else part for part in outputs]
        wanted, sizes = self.several, [part.shape[-1] for part in parts]
        alike = {part.shape[:-1] for part in parts}
        if wanted is None or not wanted[1](sizes) or len(alike) > 1:
            what = "one tensor" if wanted is None else f"one tensor, or {wanted[0]}"
            shapes = " and ".join(str(list(part.shape)) for part in outputs)
            raise MapError(f"{self!r} takes {what}; the map returned tensors of shapes {shapes}")
        return torch.cat(parts, -1)

    @property
    def several(self) -> tuple[str, Callable[[list[int]], bool]] | None:
        """What several outputs are, in words, and whether so long ones are that; `None` where there must be one."""
        return None

    def apart(self, coefficients: Tensor, k: int, shape: tuple[int, ...]) -> Framed:
        """The surface of a map whose second derivatives are sums of n parts, with those parts kept apart.

        **Args:** `coefficients` `[P, 1 + k + n m, D]`, value, first derivatives, and the second ones of each part, of
        which there are `m = k (k + 1) / 2`.

        **Returns:** coefficients `[P, 1 + k + (n + 1) m, F]`: covariant second derivatives are affine in the map's own,
        and what they are without any comes last. The parts add up to those of `framed`.
        """
        m = k * (k + 1) // 2
        count, rows, size = coefficients.shape
        first = coefficients[:, : 1 + k]
        second = coefficients[:, 1 + k :].reshape(count, (rows - 1 - k) // m, m, size)
        every = torch.cat([second.new_zeros(count, 1, m, size), second], 1)
        jets = torch.cat([first[:, None].expand(-1, every.shape[1], -1, -1), every], 2).flatten(0, 1)
        found = self.framed(Jet(jets, k), shape).coefficients.unflatten(0, (count, -1))
        own, parts = found[:, :1, 1 + k :], found[:, 1:, 1 + k :]
        whole = self.framed(Jet(torch.cat([first, second.sum(1)], 1), k), shape)
        kept = [whole.coefficients[:, : 1 + k], (parts - own).flatten(1, 2), own[:, 0]]
        return Framed(torch.cat(kept, 1), whole.ambient)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def last(shape: tuple[int, ...], family: Any, least: int, what: str) -> int:
    """The length of the last axis. **Raises:** `InputError` where it is below `least`."""
    found = shape[-1] if shape else 1
    if found < least:
        raise InputError(
            f"{type(family).__name__} takes {what} in the last axis, at least {least} numbers; the map's outputs have "
            f"shape {list(shape)}"
        )
    return found


def leading(shape: tuple[int, ...]) -> int:
    """How many independent members outputs of a shape are."""
    count = 1
    for size in shape[:-1]:
        count *= size
    return count


def rows(jet: Jet, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Value `[P, 1, L, n]`, first `[P, k, L, n]` and second derivatives `[P, m, L, n]`, L the leading axes as one."""
    data = jet.coefficients.reshape(*jet.coefficients.shape[:2], leading(shape), shape[-1] if shape else 1)
    return data[:, :1], data[:, 1 : 1 + jet.k], data[:, 1 + jet.k :]


def places(k: int) -> tuple[list[int], list[int]]:
    """The first and the second indices of the pairs `i <= j`, in the order of second derivatives."""
    first, second = zip(*pairs(k), strict=True)
    return list(first), list(second)


def products(first: Tensor, k: int, times: Callable[[Tensor, Tensor], Tensor] = lambda a, b: a * b) -> Tensor:
    """`times(first_i, first_j)` for the pairs `i <= j`."""
    i, j = places(k)
    return times(first[:, i], first[:, j])


class Sheet:
    """The coefficients of a surface as they are made: in one place, or on a tape.

    Families cost what passes over second derivatives cost, so that results go where they belong: `first` and `second`
    are for the argument `out` of what makes them, a part of the last axis each, `None` where there is a tape.

    **Args:** `jet`, of the map; `members`, how many are independent; `sizes`, of the parts of the last axis.
    """

    def __init__(self, jet: Jet, members: int, *sizes: int) -> None:
        given = jet.coefficients
        self._k, self._whole = jet.k, None
        self.first: Sequence[Tensor | None] = [None] * len(sizes)
        self.second: Sequence[Tensor | None] = self.first
        if not (torch.is_grad_enabled() and given.requires_grad):
            self._whole = given.new_empty(*given.shape[:2], members, sum(sizes))
            self._whole[:, 0] = 0
            self.first = self._whole[:, 1 : 1 + jet.k].split(sizes, -1)
            self.second = self._whole[:, 1 + jet.k :].split(sizes, -1)

    def room(self, like: Tensor) -> Tensor | None:
        """For a result of this shape, its entries side by side."""
        return None if self._whole is None else torch.empty_like(like, memory_format=torch.contiguous_format)

    def over(self, x: Tensor) -> Tensor | None:
        """`x` itself, where what is made of it may take its place."""
        return None if self._whole is None else x

    def plus(self, seconds: Tensor, one: Tensor, other: Tensor, factor: float = 1.0) -> Tensor:
        """`seconds + factor one_i other_j`, for the pairs `i <= j`."""
        rows = seconds.split([*range(self._k, 0, -1)], 1)
        added = [
            torch.addcmul(row, one[:, i : i + 1], other[:, i:], value=factor, out=self.over(row))
            for i, row in enumerate(rows)
        ]
        return torch.cat(added, 1) if self._whole is None else seconds

    def joined(self, tangents: Sequence[Tensor], seconds: Sequence[Tensor]) -> Tensor:
        """The coefficients `[P, S, F]`, of all parts."""
        if self._whole is not None:
            return self._whole.flatten(2)
        return joined(torch.cat([*tangents], -1), torch.cat([*seconds], -1))


def joined(tangents: Tensor, seconds: Tensor) -> Tensor:
    """The coefficients `[P, S, F]` of rows `[P, ., *any]`."""
    blank = tangents.new_zeros(len(tangents), 1, tangents[0, 0].numel())
    return torch.cat([blank, tangents.flatten(2), seconds.flatten(2)], 1)


def jointly(rest: Tensor) -> Tensor:
    """One minus the probability that all of some independent variables take their likeliest value, `[P]`.

    **Args:** `rest` `[P, ...]`, one minus the probability of that value, for each.
    """
    return torch.expm1(torch.log1p(-rest.flatten(1)).sum(-1)).abs()


class Remarks(TypedDict, total=False):
    """What `Ambient` says of parameters."""

    outside: str
    extreme: str


def inverse(logarithm: Tensor) -> Tensor:
    """`exp(-l)`, no number where `exp(l)` is none."""
    return (-logarithm).exp().masked_fill(logarithm.exp().isinf(), math.nan)


def remarks(logarithm: Tensor, what: str, bounded: Tensor) -> Remarks:
    """What is wrong with logarithms that are not `bounded`, and which is so far from 0 that squares may overflow.

    **Args:** `what`, what the logarithms are of.
    """
    given = logarithm.detach()
    bad, far = ~bounded, given.abs() > math.log(torch.finfo(given.dtype).max) / 4
    if some(bad):
        worst = float(given[bad].reshape(-1)[0])
        why = "its exponential, or one over that, is not finite: clamp it"
        why = why if math.isfinite(worst) else "which is not finite"
        return {"outside": f"the logarithm of {what} is {worst:.6g}, {why}"}
    if not some(far):
        return {}
    worst = float(given[far].reshape(-1)[0])
    why = "and powers of its exponential are too large or too small for numbers: clamp it"
    return {"extreme": f"the logarithm of {what} is {worst:.6g}, {why}"}


def gram(x: Tensor) -> Tensor:
    """Inner products `[P, L, k, k]` of vectors `[P, k, L, n]`."""
    apart = x.transpose(1, 2).contiguous()
    return apart @ apart.mT


def spheres(inner: Tensor, curvature: float | Tensor) -> Tensor:
    """The curvature tensor of products of spaces of one curvature, or of `[P, L]`, by inner products `[P, L, k, k]`."""
    scaled = (curvature[..., None, None] if isinstance(curvature, Tensor) else curvature) * inner
    found = torch.einsum("plad,plbc->pabcd", scaled, inner)
    return found - found.mT


def areas(x: Tensor, factor: float, k: int) -> Tensor:
    """The curvature tensor `factor x_ab . x_cd` of vectors `[P, m, F]` that change sign with `a < b`."""
    i, j = torch.triu_indices(k, k, 1, device=x.device)
    found, inner = x.new_zeros(len(x), *[k] * 4), factor * (x @ x.mT)
    (a, c), (b, d) = (torch.meshgrid(side, side, indexing="ij") for side in (i, j))
    for one, two, three, four in ((a, b, c, d), (b, a, d, c)):
        found[:, one, two, three, four], found[:, one, two, four, three] = inner, -inner
    return found
