"""All tangents of a surface at a point, where they are too many for a 2-jet along all of them.

The Jacobian is computed a block of directions at a time and its QR, `J^T = Q R`, is kept. `R^-1` takes coefficients in
the orthonormal frame Q to combinations of the chart's directions, along which an engine can be asked for the few second
derivatives that are wanted; their normal parts are what is orthogonal to all of Q.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from fisherflat._arrays import some
from fisherflat._typing import Bool, Float, Tensor
from fisherflat.errors import (
    DegenerateImmersionError,
    FisherflatError,
    InputError,
    OutOfMemoryError,
    UnsupportedOpError,
)
from fisherflat.geometry._engines import Engine
from fisherflat.geometry._frame import TOO_SMALL, nearly_degenerate, not_finite, ranked
from fisherflat.geometry._precision import combined
from fisherflat.geometry._recharted import ILL_CONDITIONED, lengths
from fisherflat.jets import Jet
from fisherflat.jets.engines import CACHED, memory_budget
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Ambient, Family, ParametricFamily, framed, summed

#: what a block of directions may take: as much as pays, and no more
_BLOCK = 64 * 2**20
#: how many matrices of the size of the Jacobian there are while it is factored
_COPIES = 4
#: how often coordinates are changed at most, as in `refined`
_CHANGES = 2
#: how far a tangent may be from where it is alone, relative to its length
_ASTRAY = 1e-3
#: how far off it is looked whether an output moves, in units of the chart
_NEAR = 2.0**-6


@dataclass(frozen=True)
class Bent:
    """Normal vectors `[P, m, F]` of second derivatives along a few tangents of a point.

    **Attributes:** `normal`, `II(x_i, x_j)` for `i <= j`; `raw` `[P, m]`, how long the second derivatives are before
    their tangential parts are taken away; `ambient` `[P]`, the curvature of the family's space on the plane of the
    first two, zero where it is flat or there is no second.
    """

    normal: Float[Tensor, "P m F"]
    raw: Float[Tensor, "P m"]
    ambient: Float[Tensor, " P"]


class Tangents:
    """The orthonormal frame of all tangents at a point, and second derivatives along some of them.

    **Args:** `at` `[k]`, the point; `shape`, of the outputs; `memory`, a budget in bytes.

    **Attributes:** `frame` `[F, k]`; `moved` `[F]`, whether an output moves at all; `problem`, an error where there is
    no frame: `MapError` where the map or its derivatives are not finite, `DegenerateImmersionError` where the rank of
    the Jacobian is below k.

    **Raises:** `OutOfMemoryError` where the Jacobian does not fit, `InputError` where the family's frames follow the
    directions.
    """

    problem: FisherflatError | None = None
    rank: int = 0
    effective_dimension: float = 0.0
    nearly: bool = False

    def __init__(
        self,
        engine: Engine,
        chart: Chart,
        at: Float[Tensor, " k"],
        family: Family | ParametricFamily,
        shape: tuple[int, ...],
        memory: int | None = None,
    ) -> None:
        self.k, self._family, self._shape, self._dtype = chart.k, family, shape, at.dtype
        self._basis, self._at = chart.basis.detach().to(at.dtype), at
        point = chart(at).detach()
        self._engines = {n: engine.on(Chart(point, chart.basis.detach()[:n])) for n in (1, 2) if n <= chart.k}
        self._engine, self._chart, self._point = engine, chart, point
        self._memory = memory_budget(at.device, memory)
        self._ambient = Ambient(0)  # where the last jet was
        self._change: Tensor | None = None  # from the directions in use to the chart's
        self._inverse = torch.eye(self.k, dtype=torch.float64, device=at.device)
        if isinstance(family, ParametricFamily) and self.k > 1:
            self._check_frames()
        self._factor(lengths(chart).double())

    # -- first derivatives ---------------------------------------------------------------------------------------------

    def _factor(self, scale: Float[Tensor, " k"]) -> None:
        """The frame, in coordinates that suit the surface; see `_recharted`."""
        for change in range(_CHANGES + 1):
            jacobian = self._jacobian()
            if some(~torch.linalg.vector_norm(jacobian).isfinite()):
                self.problem = not_finite(jacobian, self._place, self._ambient)
                return
            self.frame, triangular = torch.linalg.qr(jacobian.mT)
            moved = jacobian.ne(0).any(0)
            del jacobian
            columns = triangular.norm(dim=0)
            if not change:
                self.moved = moved
                self._judge(triangular, columns, scale)
            if self.problem is not None:
                return
            self.skewness = float((columns / triangular.diagonal().abs()).max())
            # columns of Q may have either sign, whoever computes them
            signs = triangular.diagonal().sign()
            identity = torch.eye(self.k, dtype=triangular.dtype, device=triangular.device)
            inverse = torch.linalg.solve_triangular(signs[:, None] * triangular, identity, upper=True).mT
            self.frame = self.frame * signs
            self._inverse = inverse if self._change is None else inverse @ self._change
            if self.k == 1 or self.skewness <= ILL_CONDITIONED or change == _CHANGES:
                return
            self._change = self._inverse

    @property
    def _place(self) -> str:
        few = ", ".join(f"{c:.6g}" for c in self._at[:4].tolist())
        return f"at u = [{few}{', ...' if self.k > 4 else ''}]"

    def _judge(self, triangular: Tensor, columns: Tensor, scale: Tensor) -> None:
        singular, rank = ranked(triangular, scale, self.frame.shape[0])
        share = torch.linalg.svdvals(triangular).square()
        self.effective_dimension = float(torch.special.entr(share / share.sum()).sum().exp()) if share[0] > 0 else 0.0
        self.rank = int(rank)
        self.nearly = bool(nearly_degenerate(singular[-1] / singular[0], self.frame.shape[0]))
        instead = 'Choose other directions or fewer of them, or pass degenerate="nan"'
        if self.rank < self.k:
            self.problem = DegenerateImmersionError(
                f"the Jacobian has rank {self.rank} of k = {self.k} {self._place}, so that the metric is singular "
                f"there: the output tells {self.rank} directions apart, of effective dimension "
                f"{self.effective_dimension:.3g}. {instead}"
            )
        elif columns.max() < torch.finfo(columns.dtype).tiny ** 0.5:
            self.problem = DegenerateImmersionError(f"{TOO_SMALL} {self._place}. {instead}")

    @cached_property
    def _moved_nearby(self) -> Bool[Tensor, " F"]:
        """Which outputs move at a random point close by; what is zero here may be so at this point alone."""
        identity = torch.eye(self.k, dtype=torch.float64, device=self._at.device)
        away = torch.randn(self.k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        point = self._chart(self._at + _NEAR * (away / away.norm()).to(self._at)).detach()
        near, found = self._engine.on(Chart(point, self._chart.basis.detach()[:1])), torch.zeros_like(self.moved)
        for block in identity.split(self.block(1)):
            found |= self._along(block[:, None], near)[0][:, 0].ne(0).any(0)
        return found

    def _jacobian(self) -> Float[Tensor, "k F"]:
        identity = torch.eye(self.k, dtype=torch.float64, device=self._at.device)
        directions = identity if self._change is None else self._change
        rows = None
        for block in torch.arange(self.k, device=self._at.device).split(self._together):
            tangents = self._sums(directions[block])[0]
            if rows is None:
                needed = _COPIES * 8 * self.k * tangents.shape[1]
                if needed > self._memory:
                    raise OutOfMemoryError(
                        f"the Jacobian of k = {self.k} directions and {tangents.shape[1]} outputs takes about "
                        f"{needed / 2**30:.2f} GiB with its factors, more than {self._memory / 2**30:.2f}; give more "
                        "memory, or move fewer directions"
                    )
                rows = tangents.new_empty(self.k, tangents.shape[1])
            rows[block] = tangents
        assert rows is not None
        return rows

    def block(self, n: int) -> int:
        """How many jets along n directions each are taken together."""
        engine = self._engines[n]
        entries = self._basis[0].numel() * n + 4 * (1 + n + n * (n + 1) // 2) * max(self.outputs, 1)
        engine_bytes = 0 if engine.chunk_memory is not None else engine.bytes_per_point
        return max(1, min(4096, min(_BLOCK, self._memory // _COPIES) // (8 * entries + engine_bytes)))

    @property
    def _together(self) -> int:
        """How many directions are taken together where only sums of their second derivatives are wanted, or none."""
        most, one = self.block(1), getattr(self._engine, "bytes_per_coefficient", 0)
        return max(1, min(most, CACHED // one)) if one else most

    @property
    def outputs(self) -> int:
        """How many outputs there are."""
        count = 1
        for size in self._shape:
            count *= size
        return count

    def _check_frames(self) -> None:
        """Whether tangents along two directions are the same when each is asked for alone, and so comparable."""
        pair = torch.eye(self.k, dtype=torch.float64, device=self._at.device)[:2]
        together, alone = self._along(pair[None])[0][0], self._along(pair[:, None])[0][:, 0]
        if together.shape != alone.shape or (together - alone).abs().max() > _ASTRAY * alone.abs().max():
            raise InputError(
                f"{self._family!r} sees a surface in frames that follow its directions, so that planes cannot be "
                "compared with all tangents; measure it in few directions, or use Categorical on all logits"
            )

    # -- second derivatives --------------------------------------------------------------------------------------------

    def _along(self, v: Float[Tensor, "P n k"], engine: Any = None) -> tuple[Tensor, Tensor, Ambient]:
        """Tangents `[P, n, F]`, covariant second derivatives `[P, m, F]` and the family's space, along directions."""
        count, n = v.shape[:2]
        coefficients = (engine or self._engines[n]).jet(self._at.new_zeros(count, n), self._directions(v))
        found = framed(self._family, Jet(coefficients, n), self._shape)
        rows, self._ambient = found.coefficients.double(), found.ambient
        return rows[:, 1 : 1 + n], rows[:, 1 + n :], found.ambient

    def _sums(self, v: Float[Tensor, "n k"], seconds: str = "none") -> tuple[Tensor, Tensor]:
        """Tangents `[n, F]` along directions, and the sum of their second derivatives along each, `[F]`, if wanted."""
        if hasattr(self._engine, "collapsed"):
            n = len(v)
            engine: Any = self._engine.on(Chart(self._point, self._chart.basis.detach()[:n]))
            with suppress(UnsupportedOpError):
                rows = engine.collapsed(self._at.new_zeros(1, n), seconds, self._directions(v[None]))
                found = summed(self._family, rows, n, self._shape)
                if found is not None:
                    return found[0, 1 : 1 + n].double(), found[0, 1 + n :].double().sum(0)
        tangents, second, _ = self._along(v[:, None])
        return tangents[:, 0], second.sum((0, 1))

    def bent(self, xi: Float[Tensor, "P n k"]) -> Bent:
        """How the surface bends along tangents with the coefficients `xi` in the frame, `n` of them at a time."""
        with torch.no_grad():
            return self._bent(xi)

    def _bent(self, xi: Tensor) -> Bent:
        tangents, second, ambient = self._along(xi @ self._inverse)
        if not torch.linalg.vector_norm(second).isfinite():
            raise not_finite(second, self._place, ambient)
        normal = self.normal(second)
        curvature = second.new_zeros(len(second))
        if ambient.curvature is not None and xi.shape[1] == 2:
            curvature = ambient.curvature(tangents.to(self._dtype))[:, 0, 1, 1, 0].double()
        return Bent(normal, second.norm(dim=-1), curvature)

    def normal(self, second: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch F"]:
        """What of vectors is orthogonal to all tangents: among as many outputs as there are directions, nothing."""
        if self.open:
            return second.masked_fill(self.moved, 0.0)
        for _ in range(2):  # one projection leaves eps |second| in the tangent space
            second = second - (second @ self.frame) @ self.frame.mT
        return second

    @property
    def open(self) -> bool:
        """Whether no more outputs move than there are directions: an open piece of their space, which is flat.

        At the point itself, and at another close by, where no derivative is zero by chance.
        """
        return self.problem is None and int(self.moved.sum()) == self.k == int((self.moved | self._moved_nearby).sum())

    def directions(self, xi: Float[Tensor, "P n k"]) -> Float[Tensor, "P n *shape"]:
        """Directions in the space of inputs along which tangents have the coefficients `xi` in the frame."""
        return self._directions(xi @ self._inverse)

    def _directions(self, v: Float[Tensor, "P n k"]) -> Float[Tensor, "P n *shape"]:
        if self._change is None:
            return (v.to(self._dtype) @ self._basis.flatten(1)).reshape(*v.shape[:2], *self._basis.shape[1:])
        return combined(v, self._basis).to(self._dtype)

    def trace(self) -> Float[Tensor, " F"]:
        """`tr II`, exactly: the sum of `II(q, q)` over the frame."""
        identity = torch.eye(self.k, dtype=torch.float64, device=self._at.device)
        total = torch.zeros_like(self.frame[:, 0])
        for block in identity.split(self._together):
            total += self._sums(block @ self._inverse, "sum")[1]
        if not torch.linalg.vector_norm(total).isfinite():
            raise not_finite(total, self._place, self._ambient)
        return self.normal(total)

    @property
    def rounding(self) -> float:
        """What rounding leaves in a normal part, relative to the second derivative that it is a part of."""
        return 8 * torch.finfo(self._dtype).eps * min(self.skewness, ILL_CONDITIONED**2)
