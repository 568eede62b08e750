"""How far a gated MLP is from a symmetry, on given inputs."""

from __future__ import annotations

from typing import Any

import torch

from fisherflat._arrays import as_float64
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.gated_mlp._extraction import gated_units
from fisherflat.gated_mlp._units import GatedUnits


def exchange_defect(mlp: Any, x: Float[Tensor, "*batch d"], *, by_unit: bool = False) -> Tensor:
    """How much the output changes when the gate and up weights of all units are exchanged, g ↔ u.

    The change is relative, `‖y' - y‖ / ‖y‖` over all inputs, y without the constant bias. Without an activation it is 0
    to rounding (arXiv 2606.22172).

    **Args:**

    - `mlp`: anything that `gated_units` takes.
    - `x`: inputs `[..., d]`.
    - `by_unit`: measure the scores `φ(g_i·x)(u_i·x)` of each unit instead.

    **Returns:** a number, or `[h]` by unit.

    **Raises:** as `gated_units`.

    >>> import torch, fisherflat as ff
    >>> x = torch.eye(4, dtype=torch.float64)
    >>> bool(ff.symmetry.exchange_defect(ff.layers.GatedMLP(4, 6, "identity"), x) < 1e-12)
    True
    >>> bool(ff.symmetry.exchange_defect(ff.layers.GatedMLP(4, 6, "silu"), x) < 1e-12)
    False
    """
    x = as_float64(x, "x")
    units = gated_units(mlp, x)
    z, w = units.factors(x)
    return _defect(units, units.activation(z) * w, units.activation(w) * z, by_unit)


def inverse_scaling_defect(
    mlp: Any, x: Float[Tensor, "*batch d"], factor: float | Tensor, *, by_unit: bool = False
) -> Tensor:
    """How much the output changes under inverse scaling, (g, u) → (λg, λ^(-p) u), of all units.

    p is the degree of the activation, and 1 where it is not homogeneous. The change is relative, as in
    `exchange_defect`; it is 0 to rounding where the activation is homogeneous (arXiv 2606.22172).

    **Args:**

    - `mlp`, `x`, `by_unit`: as in `exchange_defect`.
    - `factor`: λ > 0, a number or a tensor of any shape.

    **Returns:** the change for each factor, in the shape of `factor` (followed by `[h]` by unit).

    **Raises:** as `gated_units`; `InputError` for a factor that is not positive.

    >>> import torch, fisherflat as ff
    >>> x = torch.eye(4, dtype=torch.float64)
    >>> bool(ff.symmetry.inverse_scaling_defect(ff.layers.GatedMLP(4, 6, "relu"), x, 3.0) < 1e-12)
    True
    """
    factors = as_float64(factor, "factor")
    if not (factors > 0).all():
        raise InputError("inverse scaling is by positive factors; negative ones are sign flips, see symmetries(mlp)")
    x = as_float64(x, "x")
    units = gated_units(mlp, x)
    z, w = units.factors(x)
    before = units.activation(z) * w
    defects = [
        _defect(units, before, units.activation(scale * z) * w * scale**-units.degree, by_unit)
        for scale in factors.flatten().tolist()
    ]
    return torch.stack(defects).reshape(factors.shape + defects[0].shape)


def _defect(units: GatedUnits, before: Tensor, after: Tensor, by_unit: bool) -> Tensor:
    before, after = (scores.flatten(0, -2) if scores.dim() > 1 else scores[None] for scores in (before, after))
    if by_unit:
        return relative((after - before).norm(dim=0), before.norm(dim=0))
    return relative(((after - before) @ units.value).norm(), (before @ units.value).norm())


def relative(change: Tensor, whole: Tensor) -> Tensor:
    """A ratio that is 0 where nothing changes, also for a unit that is silent on all inputs."""
    return torch.where(change == 0, change, change / whole)
