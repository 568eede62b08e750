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

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.gated_mlp._interaction import units_of
from fisherflat.gated_mlp._units import GatedUnits
from fisherflat.geometry import Geometry
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
    units, points = units_of(mlp), chart.coordinates(u)
    if chart.point.shape[-1:] != (units.width,):
        raise InputError(f"an MLP of width {units.width} needs a chart of that width, not {list(chart.point.shape)}")
    inputs, basis = chart(points.reshape(-1, chart.k)), chart.basis
    tokens = [states.reshape(len(states), -1, units.width) for states in (inputs, basis)]
    jets = unit_jets(units, *tokens).flatten(2)
    return Jet(jets.reshape(*points.shape[:-1], *jets.shape[1:]), chart.k)


def weight_geometry(
    mlp: Any, chart: Chart, u: Any, *, family: Gaussian | None = None, degenerate: str = "raise"
) -> Geometry:
    """Metric, second fundamental form and all curvature of a gated MLP from its weights.

    **Args:**

    - `mlp`, `chart`, `u`: as in `weight_jet`.
    - `family`, `degenerate`: as in `StatisticalManifold`.

    **Returns:** a `Geometry`, as `StatisticalManifold.at` returns it.

    **Raises:** `InputError` as `weight_jet`; `DegenerateImmersionError` where the metric is singular.

    >>> import torch, fisherflat as ff
    >>> mlp, chart = ff.layers.GatedMLP(4, 6), ff.charts.affine(torch.ones(4), torch.eye(4)[:2])
    >>> closed = ff.symmetry.weight_geometry(mlp, chart, [0.1, 0.2]).scalar_curvature
    >>> torch.allclose(closed, ff.StatisticalManifold(mlp, chart).scalar_curvature([0.1, 0.2]))
    True
    """
    jet = weight_jet(mlp, chart, u)
    family = family if family is not None else Gaussian()
    family.check(jet.coefficients.shape[-1])
    return Geometry(Jet(family.whiten(jet.coefficients), chart.k), degenerate, chart.coordinates(u))


def unit_jets(
    units: GatedUnits, x: Float[Tensor, "points n d"], basis: Float[Tensor, "k n d"]
) -> Float[Tensor, "points S n out"]:
    """The coefficients of the jets of all tokens' outputs where the tokens `x` move along `basis`."""
    z, w = (factor.unsqueeze(1) for factor in units.factors(x))
    a, b = (basis @ weight[:, : units.width].T for weight in (units.gate, units.up))
    value, slope, bend = derivatives(units.activation, z)
    i, j = torch.tensor(pairs(len(basis))).T
    scores = [value * w, slope * a * w + value * b, bend * a[i] * a[j] * w + slope * (a[i] * b[j] + a[j] * b[i])]
    jets = torch.cat(scores, 1) @ units.value
    if units.bias is not None:
        jets[:, 0] += units.bias
    return jets


def derivatives(activation: Activation, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """φ, φ' and φ'' at z, entry by entry; at a kink what torch takes."""
    with torch.enable_grad():
        found = [activation(z := z.detach().requires_grad_())]
        for _ in range(2):
            last = found[-1]
            if last.requires_grad:
                found += torch.autograd.grad(last.sum(), z, create_graph=True, materialize_grads=True)
            else:  # constant: the slope of an affine activation, or of one that is affine piece by piece
                found.append(torch.zeros_like(z))
    value, slope, bend = (tensor.detach() for tensor in found)
    return value, slope, bend
