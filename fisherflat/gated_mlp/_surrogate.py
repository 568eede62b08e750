"""The bilinear surrogate of a gated MLP: its activation replaced by an affine one, unit by unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from fisherflat._arrays import as_float64
from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.gated_mlp._from_weights import derivatives, unit_jets
from fisherflat.gated_mlp._interaction import units_of
from fisherflat.gated_mlp._units import GatedUnits
from fisherflat.geometry import Geometry, refined
from fisherflat.layers import identity
from fisherflat.spaces.charts import affine
from fisherflat.spaces.families import Gaussian

#: how many inputs are differentiated at a time
_CHUNK = 64


@displayed
class Curvatures(NamedTuple):
    """The scalar curvature of a gated MLP and of its surrogate at m inputs, `[m]` each; NaN where a metric is singular.

    **Attributes:** `original`; `surrogate`.
    """

    original: Tensor
    surrogate: Tensor


@displayed
@dataclass(frozen=True, eq=False)
class Surrogate:
    """A bilinear MLP in the place of a gated one; see `bilinear_surrogate`.

    **Attributes:**

    - `units`: the surrogate, `b + Σ_i v_i (α_i + β_i g_i·x)(u_i·x)`, an MLP without activation, for all that takes one.
    - `original`: the units of the gated MLP.
    - `level`, `slope`: α and β, `[h]`.
    - `inputs`: those over which it was made, `[m, d]`.
    """

    units: GatedUnits
    original: GatedUnits
    level: Float[Tensor, " h"]
    slope: Float[Tensor, " h"]
    inputs: Float[Tensor, "m d"]

    @property
    def output_error(self) -> float:
        """The root mean square error of the output over the inputs, relative to that of the output."""
        expected = self.original(self.inputs)
        return float((self.units(self.inputs) - expected).norm() / expected.norm())

    @property
    def unit_errors(self) -> Float[Tensor, " h"]:
        """The same for the score of each unit; NaN where a unit's score is zero on all inputs."""
        expected = self.original.scores(self.inputs)
        return (self.units.scores(self.inputs) - expected).norm(dim=0) / expected.norm(dim=0)

    def scalar_curvatures(self, basis: Float[Tensor, "k d"], *, family: Gaussian | None = None) -> Curvatures:
        """`scal` of the original and of the surrogate at each input, where it moves along the rows of `basis`.

        Both come in closed form from the weights; that of the original is exact to rounding, and
        `scalar_curvature_errors` says how far off that may be.

        **Args:**

        - `basis`: the directions, `[k, d]`.
        - `family`: as in `StatisticalManifold`.

        **Returns:** `Curvatures`, in units of 1 / covariance.

        **Raises:** `InputError` where the directions are not of the inputs' width.
        """
        return self._of_both(basis, family, lambda geometry: geometry.scalar_curvature)

    def scalar_curvature_errors(self, basis: Float[Tensor, "k d"], *, family: Gaussian | None = None) -> Curvatures:
        """How far off rounding may have put the two scalar curvatures at each input, see docs/precision.md.

        **Args** and **Raises:** as in `scalar_curvatures`.

        >>> import torch, fisherflat as ff
        >>> inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
        >>> found = ff.symmetry.bilinear_surrogate(ff.layers.GatedMLP(4, 6), inputs)
        >>> found.scalar_curvature_errors(torch.eye(4)[:2]).original.shape
        torch.Size([5])
        """
        return self._of_both(basis, family, lambda geometry: geometry.error("scalar_curvature"))

    def _of_both(
        self, basis: Float[Tensor, "k d"], family: Gaussian | None, read: Callable[[Geometry], Tensor]
    ) -> Curvatures:
        """What is read off the geometry of the original and of the surrogate at each input."""
        basis = as_float64(basis, "basis")
        if basis.dim() != 2 or basis.shape[1] != self.inputs.shape[1]:
            raise InputError(f"directions are [k, {self.inputs.shape[1]}], got {list(basis.shape)}")
        covariance = family if family is not None else Gaussian()
        covariance.check(self.units.value.shape[1])
        chart = affine(torch.zeros_like(basis[0]), basis)

        def of(units: GatedUnits) -> Tensor:
            engine, found = _AtInputs(units, basis), []
            for x in self.inputs.split(_CHUNK):
                found.append(read(refined(engine, chart, x, engine.jet(x), covariance, "nan")))
            return torch.cat(found)

        return Curvatures(of(self.original), of(self.units))

    def curvature_error(self, basis: Float[Tensor, "k d"], *, family: Gaussian | None = None) -> float:
        """The median over the inputs of `|scal of the surrogate - scal|`, relative to the median of `|scal|`.

        They are medians, because single inputs at which the metric is nearly singular have curvatures of any size.

        **Args** and **Raises:** as in `scalar_curvatures`.
        """
        exact, approximate = self.scalar_curvatures(basis, family=family)
        return float((approximate - exact).abs().nanmedian() / exact.abs().nanmedian())


class _AtInputs:
    """What gives jets of units at inputs, along some directions or along others at each, as an engine does."""

    def __init__(self, units: GatedUnits, basis: Float[Tensor, "k d"]) -> None:
        self._units, self._basis = units, basis

    def jet(self, u: Float[Tensor, "P d"], basis: Float[Tensor, "P k d"] | None = None) -> Float[Tensor, "P S D"]:
        """The 2-jets at the inputs."""
        directions = self._basis if basis is None else basis
        return unit_jets(self._units, u[:, None], directions.unsqueeze(-2))[:, :, 0]


def bilinear_surrogate(mlp: Any, inputs: Float[Tensor, "*batch d"], *, how: str = "tangent") -> Surrogate:
    """The bilinear MLP nearest to a gated one over given inputs: `φ(z) ≈ α_i + β_i z` for unit i.

    - `"tangent"`: the tangent at the typical pre-activation of the unit, its mean over the inputs.
    - `"fit"`: least squares over the inputs for the unit's score, `Σ_x ((φ(z) - α - β z) w)²`. No other affine
      function of z does better for the unit on its own; for the outputs, in which units add up, another might.

    It is exact for an MLP without activation and an approximation otherwise: `.output_error` and `.curvature_error` say
    how good. However near each other the inputs are, the curvature of the tangent misses what φ'' adds.

    **Args:**

    - `mlp`: anything that `gated_units` takes without an input, or a `BilinearAttention`.
    - `inputs`: what enters it, such as `block.mlp_input`, `[*batch, d]`.
    - `how`: `"tangent"` or `"fit"`, see above.

    **Returns:** a `Surrogate`.

    **Raises:** `InputError` where the inputs do not fit, or for another `how`.

    >>> import torch, fisherflat as ff
    >>> inputs = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> ff.symmetry.bilinear_surrogate(ff.layers.GatedMLP(4, 6, "identity"), inputs).output_error < 1e-12
    True
    """
    units = units_of(mlp)
    x = as_float64(inputs, "inputs")
    x = x.reshape(-1, x.shape[-1])
    z, w = units.factors(x)
    if how == "tangent":
        typical = z.mean(0)
        value, slope, _ = derivatives(units.activation, typical)
        level = value - slope * typical
    elif how == "fit":
        level, slope = _fitted(z, units.activation(z), w.square())
    else:
        raise InputError(f'a surrogate is made by "tangent" or "fit", not {how!r}')
    gate, up = units.gate * slope[:, None], units.up
    if not units.constant:
        gate, up = (torch.cat([weight, weight.new_zeros(len(weight), 1)], 1) for weight in (gate, up))
    gate[:, -1] += level
    surrogate = GatedUnits(gate, up, units.value, identity, "identity", True, units.bias)
    return Surrogate(surrogate, units, level, slope, x)


def _fitted(z: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Level and slope of the weighted least-squares line through `target` against `z`, column by column."""
    weight = weight / weight.sum(0).clamp(min=torch.finfo(weight.dtype).tiny)
    centre, mean = (weight * z).sum(0), (weight * target).sum(0)
    spread = (weight * (z - centre).square()).sum(0)
    slope = (weight * (z - centre) * (target - mean)).sum(0) / spread.where(spread > 0, torch.ones_like(spread))
    return mean - slope * centre, slope
