"""The geometry of a gated MLP from its weights alone: its 2-jet in closed form, with no graph and no engine.

With `z_i = g_i·x`, `w_i = u_i·x`, and `a_i = ∂_a z_i`, `a'_i = ∂_a w_i` along a direction a,

    y      = b + Σ_i v_i φ(z_i) w_i
    ∂_a y  = Σ_i v_i (φ'(z_i) a_i w_i + φ(z_i) a'_i)
    ∂_ab y = Σ_i v_i (φ''(z_i) a_i b_i w_i + φ'(z_i) (a_i b'_i + a'_i b_i))

Without activation `φ' = 1` and `φ'' = 0`: the Hessian `Σ_i v_i (a_i b'_i + a'_i b_i)` is the same at every input, and
is twice the interaction matrix of each output on the two directions. The curvature still changes with the input,
because the tangent plane does.
"""

from __future__ import annotations

from typing import Any

import torch

from fisherflat._modes import lasting
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.gated_mlp._interaction import units_of
from fisherflat.gated_mlp._units import GatedUnits
from fisherflat.geometry import Geometry, refined
from fisherflat.jets import Jet, pairs
from fisherflat.layers import Activation
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian


def weight_jet(mlp: Any, chart: Chart, u: Any) -> Jet:
    """The 2-jet of a gated MLP on a chart from its weights, exact to rounding for every activation.

    The formulas are at the head of this module.

    **Args:**

    - `mlp`: a `fisherflat.layers.BilinearAttention`, or anything that `gated_units` takes without an input.
    - `chart`: of inputs `[..., d]`, in which each vector of the last axis is a token.
    - `u`: coordinates `[*batch, k]`.

    **Returns:** the jet `[*batch, S, D]` of the outputs of all tokens, flattened, in output units, as
    `StatisticalManifold.jet` returns it.

    **Raises:** `InputError` where MLP and chart do not fit.

    >>> import torch, fisherflat as ff
    >>> chart = ff.charts.affine(torch.zeros(4), torch.eye(4)[:2])
    >>> ff.symmetry.weight_jet(ff.layers.GatedMLP(4, 6), chart, [0.1, 0.2]).coefficients.shape  # 1 + k + k (k + 1) / 2
    torch.Size([6, 4])
    """
    points = chart.coordinates(u)
    jets = _Weights(units_of(mlp), chart).jet(points.reshape(-1, chart.k))
    return Jet(jets.reshape(*points.shape[:-1], *jets.shape[1:]), chart.k)


class _Weights:
    """What gives jets of units on a chart, as an engine does.

    **Raises:** `InputError` where they do not fit.
    """

    def __init__(self, units: GatedUnits, chart: Chart) -> None:
        if chart.point.shape[-1:] != (units.width,):
            raise InputError(
                f"an MLP of width {units.width} needs a chart of that width, not {list(chart.point.shape)}"
            )
        self._units, self._chart = units, chart

    def jet(self, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"] | None = None) -> Float[Tensor, "P S D"]:
        """The 2-jets at the points, along the chart's directions or along others at each point."""
        inputs, width = self._chart(u), self._units.width
        directions = self._chart.basis.reshape(self._chart.k, -1, width)
        if basis is not None:
            directions = basis.reshape(len(u), self._chart.k, -1, width)
        return unit_jets(self._units, inputs.reshape(len(u), -1, width), directions).flatten(2)


def weight_geometry(
    mlp: Any, chart: Chart, u: Any, *, family: Gaussian | None = None, degenerate: str = "raise"
) -> Geometry:
    """Metric, second fundamental form and all curvature of a gated MLP from its weights.

    **Args:**

    - `mlp`, `chart`, `u`: as in `weight_jet`.
    - `family`, `degenerate`: as in `StatisticalManifold`.

    **Returns:** a `Geometry`, as `StatisticalManifold.at` returns it; it can tell the errors of its quantities.

    **Raises:** `InputError` as `weight_jet`; `DegenerateImmersionError` where the metric is singular.

    >>> import torch, fisherflat as ff
    >>> mlp, chart = ff.layers.GatedMLP(4, 6), ff.charts.affine(torch.ones(4), torch.eye(4)[:2])
    >>> closed = ff.symmetry.weight_geometry(mlp, chart, [0.1, 0.2]).scalar_curvature
    >>> torch.allclose(closed, ff.StatisticalManifold(mlp, chart).scalar_curvature([0.1, 0.2]))
    True
    """
    points, engine = chart.coordinates(u), _Weights(units_of(mlp), chart)
    flat = points.reshape(-1, chart.k)
    jet = engine.jet(flat)
    family = family if family is not None else Gaussian()
    family.check(jet.shape[-1])
    return refined(engine, chart, flat, jet, family, degenerate).reshaped(points.shape[:-1])


def unit_jets(
    units: GatedUnits, x: Float[Tensor, "points n d"], basis: Float[Tensor, "*points k n d"]
) -> Float[Tensor, "points S n out"]:
    """The coefficients of the jets of all tokens' outputs where the tokens `x` move along `basis`, or one at each."""
    z, w = (factor.unsqueeze(1) for factor in units.factors(x))
    a, b = (basis @ weight[:, : units.width].T for weight in (units.gate, units.up))
    value, slope, bend = derivatives(units.activation, z)
    i, j = torch.tensor(pairs(basis.shape[-3]), device=basis.device).T
    (ai, bi), (aj, bj) = ((a.index_select(-3, at), b.index_select(-3, at)) for at in (i, j))
    scores = [value * w, slope * a * w + value * b, bend * ai * aj * w + slope * (ai * bj + aj * bi)]
    jets = torch.cat(scores, 1) @ units.value
    if units.bias is not None:
        jets[:, 0] += units.bias
    return jets


def derivatives(activation: Activation, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """φ, φ' and φ'' at z, entry by entry; at a kink what torch takes."""
    with lasting(), torch.enable_grad():
        found = [activation(z := z.detach().clone().requires_grad_())]
        for _ in range(2):
            last = found[-1]
            if last.requires_grad:
                found += torch.autograd.grad(last.sum(), z, create_graph=True, materialize_grads=True)
            else:  # constant: the slope of an affine activation, or of one that is affine piece by piece
                found.append(torch.zeros_like(z))
    value, slope, bend = (tensor.detach() for tensor in found)
    return value, slope, bend
