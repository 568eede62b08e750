"""What gradient flow conserves: one number a unit for each continuous symmetry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.gated_mlp._extraction import gated_units


@displayed
@dataclass(frozen=True, eq=False)
class Charges:
    """The charges of each unit, `[h]`, in units of squared weights; see `conserved_charges`.

    **Attributes:**

    - `inverse_scaling`: `|g|² - p|u|²`, p the degree of the activation, or 1 where it has none.
    - `output_scaling`: `|u|² - |v|²`, which gradient flow always conserves.
    - `inverse_scaling_conserved`: whether the symmetry holds, so that gradient flow conserves the first as well.
    """

    inverse_scaling: Float[Tensor, " h"]
    output_scaling: Float[Tensor, " h"]
    inverse_scaling_conserved: bool


def conserved_charges(mlp: Any, at: Any = None) -> Charges:
    """The charges of a gated MLP at its present weights; biases of gate and up belong to `g` and `u`.

    A loss that does not change along a generator t(θ) has `t·∇L = 0`. Under gradient flow, θ' = -∇L, with
    t = (g, -p u) therefore `d/dt (|g|² - p|u|²) = -2 (g·∇_g L - p u·∇_u L) = 0`, and likewise for t = (u, -v)
    (Noether's theorem for gradient flow: Kunin et al., arXiv 2012.04728). Gradient descent conserves it up to the first
    order in its step size.

    **Args:**

    - `mlp`, `at`: as in `gated_units`.

    **Returns:** `Charges`, a number for each unit.

    **Raises:** as `gated_units`.

    >>> import fisherflat as ff
    >>> charges = ff.symmetry.conserved_charges(ff.layers.GatedMLP(4, 6, "relu"))
    >>> charges.output_scaling.shape, charges.inverse_scaling_conserved
    (torch.Size([6]), True)
    """
    units = gated_units(mlp, at)
    gate, up, value = (weight.square().sum(1) for weight in (units.gate, units.up, units.value))
    return Charges(gate - units.degree * up, up - value, units.homogeneity.degree is not None)
