"""Penalties on the geometry that a map draws: towards flat, towards a given curvature, isometric, volume-preserving."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, SupportsIndex

import torch
from torch import nn

from fisherflat._arrays import choice, integer, number, some
from fisherflat._display import displayed
from fisherflat._modes import unrounded
from fisherflat._typing import Float, Tensor
from fisherflat.errors import DegenerateImmersionWarning, InputError, PrecisionWarning, without
from fisherflat.geometry import Geometry, StatisticalManifold
from fisherflat.jets import Jet
from fisherflat.jets.engines import TensorAlgebra, evaluated, memory_budget, packed
from fisherflat.jets.graph import Graph
from fisherflat.jets.rules import Series
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Family, Gaussian, ParametricFamily, framed
from fisherflat.spaces.jets import size
from fisherflat.training._gradients import Accumulated

#: of a geometry at points `[P]` and a target: the penalty at each
Rule = Callable[[Geometry, float], Tensor]

#: how many inputs the spread of the outputs is taken over, where it is the unit of length
_REFERENCE = 32


def _squared_form(g: Geometry) -> Float[Tensor, " P"]:
    """`|II|^2`, by the Gauss equation `scal = scal^N + |tr II|^2 - |II|^2`; it has a gradient also where it is zero."""
    trace = (g.k * g.mean_curvature).square().sum(-1)
    return trace - (g.scalar_curvature - g.ambient_scalar_curvature)


def _length(square: Tensor, target: float) -> Tensor:
    """`(|x| - target)^2` of `|x|^2`."""
    return square if target == 0 else (square.clamp_min(0).sqrt() - target).square()


#: quantity -> what is penalised
PENALTIES: dict[str, Rule] = {
    "scalar_curvature": lambda g, target: (g.scalar_curvature - target).square(),
    "sectional_curvature": lambda g, target: (g.scalar_curvature / (g.k * (g.k - 1)) - target).square(),
    "second_fundamental_form_norm": lambda g, target: _length(_squared_form(g), target),
    "mean_curvature_norm": lambda g, target: _length(g.mean_curvature.square().sum(-1), target),
    "metric": lambda g, target: (g.metric[..., 0, 0].sqrt() - target).square(),
    "volume_density": lambda g, target: (g.volume_density.log() - math.log(target)).square(),
}
#: targets of lengths and volumes are positive
_POSITIVE = ("metric", "volume_density")


@displayed
class CurvaturePenalty:
    """A term for a training loss: how far the geometry of a part of a model is from a wanted one, over drawn points.

    Called in each step, it draws points and directions anew, from a generator of its own, and returns an unbiased
    estimate of `weight * E[penalty]`, the expectation being over points of the chart and planes of its directions. The
    gradient by the part's weights comes with it (see docs/training.md); it can be added to any loss.

    **Args:**

    - `part`: an `nn.Module` or a callable, as `mean` of `StatisticalManifold`; a decoder, a layer, a block. What it is
      in eval mode is penalised.
    - `chart`: where points are drawn, `u` normal with deviation `spread` around its point, and which directions are
      looked at.
    - `quantity`: `"scalar_curvature"`, `"sectional_curvature"` (of the drawn directions, averaged over their planes),
      `"second_fundamental_form_norm"`, `"mean_curvature_norm"`, `"metric"` (the length that a unit vector gets) or
      `"volume_density"`: what is squared is its distance from `target`, for the volume density that of logarithms.
    - `target`: a number, in units of 1 / covariance for curvatures.
    - `weight`: a factor.
    - `family`: as in `StatisticalManifold`. By default Gaussians whose variance is that of the part's own outputs over
      32 inputs drawn once, computed anew in each step with its gradient: so nothing is gained by making all outputs
      larger.
    - `directions`: how many are drawn at each point, at random among those of the chart and orthonormal in its
      coordinates; default 2, or all of a chart that has fewer.
    - `points`: how many a step. `spread`: in coordinates of the chart. `seed`, of the generator.
    - `dtype`, the working precision; `memory`, a budget in bytes for the tape, which is that of some points at a time.

    **Attributes:** `degenerate`, how many points have added nothing so far, because there is no geometry or no finite
    gradient; `drawn`, of how many.

    **Raises:** `InputError` for an unknown quantity, a target that is none, a curvature of one direction; `MapError`
    where no gradient can reach the part's weights.

    >>> import torch, fisherflat as ff
    >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5))
    >>> penalty = ff.training.CurvaturePenalty(decoder, ff.charts.identity(2), weight=0.1)
    >>> loss = decoder(torch.zeros(2)).square().sum() + penalty()
    >>> loss.backward()
    >>> decoder[0].weight.grad.shape
    torch.Size([8, 2])
    """

    @unrounded
    def __init__(
        self,
        part: nn.Module | Callable[[Tensor], Tensor] | Graph,
        chart: Chart,
        quantity: str = "scalar_curvature",
        target: float = 0.0,
        weight: float = 1.0,
        *,
        family: Family | ParametricFamily | None = None,
        directions: SupportsIndex | None = None,
        points: SupportsIndex = 8,
        spread: float = 1.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        memory: int | None = None,
    ) -> None:
        self.quantity = choice(quantity, "quantity", PENALTIES)
        self.target, self.weight = number(target, "target", math.inf), number(weight, "weight", math.inf)
        spread, seed = number(spread, "spread", math.inf), integer(seed, "seed")
        if not math.isfinite(self.target) or (quantity in _POSITIVE and self.target <= 0):
            kind = "a positive number" if quantity in _POSITIVE else "a finite number"
            raise InputError(f"the target of {quantity} must be {kind}, got {target!r}")
        if not math.isfinite(self.weight) or not math.isfinite(spread) or spread < 0:
            raise InputError(f"weight and spread must be finite, and spread not negative; got {weight!r}, {spread!r}")
        self.points, self.spread = integer(points, "points", 1), spread
        manifold = StatisticalManifold(
            part, chart, family, dtype=dtype, degenerate="nan", memory=memory, differentiable=True
        )
        self.chart, self._memory, self.dtype = chart, memory, dtype
        chosen = min(2, chart.k) if directions is None else integer(directions, "directions", 1)
        if chosen > chart.k:
            raise InputError(f"directions are drawn among those of the chart, which has {chart.k}; got {chosen}")
        if chosen == 1 and quantity in ("scalar_curvature", "sectional_curvature"):
            raise InputError(f"{quantity} takes at least two directions: a curve has no curvature of its own")
        self.directions = chosen
        engine: Any = manifold.engine
        self._graph, self._program, self._shape = engine.graph, engine.program, manifold.output_shape
        self._tape_per_point = engine.tape_per_point
        self.family = family
        self.generator = torch.Generator().manual_seed(seed)
        self._reference = self._inputs(_REFERENCE) if family is None else None
        self.degenerate, self.drawn = 0, 0

    @classmethod
    def isometric(cls, part: Any, chart: Chart, target: float = 1.0, weight: float = 1.0, **options: Any) -> Any:
        """A decoder that keeps lengths: `E (|J v| - target)^2` over unit vectors v.

        Gropp, Atzmon & Lipman, *Isometric autoencoders*, arXiv 2006.09289, 2020. **Args:** as above; by default the
        covariance is 1, so that lengths are those of the outputs.
        """
        return cls(part, chart, "metric", target, weight, **{"family": Gaussian(), **options})

    @classmethod
    def volume_preserving(
        cls, part: Any, chart: Chart, target: float = 1.0, weight: float = 1.0, **options: Any
    ) -> Any:
        """A decoder that keeps areas of the drawn planes: `E (log sqrt(det g) - log target)^2`, covariance 1."""
        return cls(part, chart, "volume_density", target, weight, **{"family": Gaussian(), **options})

    @classmethod
    def minimum_intrinsic(cls, part: Any, chart: Chart, weight: float = 1.0, **options: Any) -> Any:
        """A surface as flat as can be in itself: `E scal^2`.

        As proposed for autoencoders by Lee & Park, *On explicit curvature regularization in deep generative models*,
        2023, whose sums over planes and whose units are others.
        """
        return cls(part, chart, "scalar_curvature", 0.0, weight, **options)

    @classmethod
    def minimum_extrinsic(cls, part: Any, chart: Chart, weight: float = 1.0, **options: Any) -> Any:
        """A surface as straight as can be in its space: `E |II|^2` (Lee & Park 2023, as above)."""
        return cls(part, chart, "second_fundamental_form_norm", 0.0, weight, **options)

    def _inputs(self, count: int) -> Tensor:
        u = self.spread * torch.randn(count, self.chart.k, generator=self.generator, dtype=torch.float64)
        return self.chart(u.to(self.chart.point.device)).to(self.dtype)

    def _bases(self, count: int) -> Tensor:
        """Directions at each point, `[count, directions, *shape]`, uniform among the planes of the chart."""
        k, basis = self.chart.k, self.chart.basis
        drawn = torch.randn(count, k, self.directions, generator=self.generator, dtype=torch.float64)
        frames = torch.linalg.qr(drawn)[0].to(basis.device)
        return torch.einsum("pkd,k...->pd...", frames, basis).to(self.dtype)

    @unrounded
    def __call__(self, at: Tensor | None = None) -> Tensor:
        """The penalty, with its gradient.

        **Args:** `at`, base points `[P, *shape]` in the place of drawn ones, such as the codes of a batch; where they
        require a gradient they get one.

        **Returns:** a tensor of one number, in float64.

        **Raises:** `InputError` where `at` does not fit the chart.
        """
        inputs = self._inputs(self.points) if at is None else self._checked(at)
        count = len(inputs)
        bases = self._bases(count)
        scale = bases.flatten(2).norm(dim=-1)
        sums = Accumulated(self._program, (inputs,))

        def losses(points: Tensor) -> Tensor:
            (base,) = sums.others
            rows = torch.cat([base[points][None], bases[points].transpose(0, 1)])
            jet = Jet(self._jets(rows, sums.constants), self.directions)
            family = self.family if self.family is not None else self._calibrated(sums.constants)
            found = framed(family, jet, self._shape)
            given = Jet(found.coefficients, self.directions)
            g = Geometry(given, "nan", scale=scale[points], ambient=found.ambient)
            if some(g.degenerate):  # whatever else they are, they are left out
                return torch.where(g.degenerate, math.nan, 0.0)
            return PENALTIES[self.quantity](g, self.target)

        with without(DegenerateImmersionWarning, PrecisionWarning):
            for points in torch.arange(count, device=inputs.device).split(self._together):
                sums.add(losses, points)
        found = sums.result(self.weight / count)
        self.degenerate, self.drawn = self.degenerate + sums.lost, self.drawn + count
        return found

    def _checked(self, at: Tensor) -> Tensor:
        if not isinstance(at, Tensor) or not at.is_floating_point() or at.shape[1:] != self.chart.point.shape:
            shape = list(at.shape) if isinstance(at, Tensor) else type(at).__name__
            raise InputError(
                f"at must be floating-point inputs [points, *{list(self.chart.point.shape)}] of the part, got {shape}"
            )
        if not len(at):
            raise InputError("at holds no points")
        return at.to(self.chart.point.device, self.dtype)

    def _jets(self, rows: Tensor, constants: dict[int, Tensor]) -> Tensor:
        algebra = TensorAlgebra(constants=constants, tape=True)
        return packed(algebra, evaluated(algebra, self._graph, Series(rows, self.directions)))

    def _calibrated(self, constants: dict[int, Tensor]) -> Gaussian:
        """The variance of the outputs over the reference inputs, with its gradient."""
        assert self._reference is not None
        algebra = TensorAlgebra(constants=constants, tape=True)
        values = evaluated(algebra, self._graph, Series(self._reference[None], self.directions)).data[0]
        return Gaussian.calibrated(values.double())

    @property
    def _together(self) -> int:
        """How many points' tapes fit into memory at a time."""
        bytes_per_point = self._tape_per_point * size(self.directions) // size(self.chart.k)
        return max(1, memory_budget(self.chart.point.device, self._memory) // max(bytes_per_point, 1))

    def state_dict(self) -> dict[str, Any]:
        """The state of the generator and what was counted, to go on from."""
        return {"generator": self.generator.get_state(), "degenerate": self.degenerate, "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.generator.set_state(state["generator"])
        self.degenerate, self.drawn = state["degenerate"], state["drawn"]

    def __repr__(self) -> str:
        return (
            f"CurvaturePenalty({self.quantity} -> {self.target:g}, weight={self.weight:g}, {self.chart!r}, "
            f"directions={self.directions}, points={self.points})"
        )
