"""The units of a gated MLP: the one form in which its symmetries are studied, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch

from fisherflat._display import displayed
from fisherflat._modes import lasting
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.gated_mlp._homogeneity import PROOFS, Homogeneity, homogeneity_evidence, is_named
from fisherflat.layers import Activation, BilinearAttention, GatedMLP


@displayed
class Factors(NamedTuple):
    """The two factors of each unit's score at some inputs, `[..., h]` each.

    **Attributes:** `gate`, the pre-activations `g_i·x`; `up`, the linear factors `u_i·x`.
    """

    gate: Tensor
    up: Tensor


@displayed
@dataclass(frozen=True, eq=False)
class GatedUnits:
    """`y(x) = b + Σ_i v_i φ(g_i·x) (u_i·x)`: the weights of a gated MLP in float64, unit by unit.

    `gated_units` extracts them.

    **Attributes:**

    - `gate`, `up`: the `g_i` and `u_i`, `[h, n]`, where n is the width d, or d + 1 where there are biases.
    - `value`: the `v_i`, `[h, D]`; `bias`: b, `[D]`, or `None`.
    - `activation`: φ; `name`: what φ is called.
    - `constant`: whether inputs are continued by a coordinate 1, whose weights are the biases of gate and up.

    >>> import fisherflat as ff
    >>> ff.symmetry.gated_units(ff.layers.GatedMLP(4, 6, bias=True)).gate.shape
    torch.Size([6, 5])
    """

    gate: Float[Tensor, "h n"]
    up: Float[Tensor, "h n"]
    value: Float[Tensor, "h out"]
    activation: Activation = field(repr=False)
    name: str
    constant: bool = False
    bias: Float[Tensor, " out"] | None = None

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch out"]:
        """The MLP."""
        y = self.scores(x) @ self.value
        return y if self.bias is None else y + self.bias

    @property
    def width(self) -> int:
        """The width d of the inputs."""
        return self.gate.shape[1] - self.constant

    @cached_property
    def homogeneity(self) -> Homogeneity:
        """The degree of the activation and how it is known."""
        known = self.name in PROOFS and is_named(self.activation, self.name)
        return homogeneity_evidence(self.name if known else self.activation)

    @property
    def degree(self) -> float:
        """The degree p of the activation; 1, which most tend to for large arguments, where it is not homogeneous."""
        return 1 if self.homogeneity.degree is None else self.homogeneity.degree

    def inputs(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch n"]:
        """`x` in float64, with the constant coordinate where there is one.

        **Raises:** `InputError` where the last axis is not of the MLP's width.
        """
        if x.dim() < 1 or x.shape[-1] != self.width:
            raise InputError(f"a gated MLP of width {self.width} expects [..., {self.width}], got {list(x.shape)}")
        x = x.detach().to(self.gate)
        return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1) if self.constant else x

    def factors(self, x: Float[Tensor, "*batch d"]) -> Factors:
        """The pre-activations `g_i·x` and the linear factors `u_i·x`, `[..., h]` each."""
        x = self.inputs(x)
        return Factors(x @ self.gate.T, x @ self.up.T)

    def scores(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch h"]:
        """What each unit weighs its value with, `φ(g_i·x) (u_i·x)`."""
        z, w = self.factors(x)
        return self.activation(z) * w

    def activated(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """`φ(z)` and `φ'(z)`; at a kink the derivative that torch takes."""
        with lasting(), torch.enable_grad():
            z = z.detach().clone().requires_grad_()  # a tensor of this mode, whatever that was before
            value = self.activation(z)
            (slope,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), slope

    @classmethod
    def of_layer(cls, mlp: GatedMLP) -> GatedUnits:
        """A copy of a layer's weights: training the layer further does not change it."""
        bias = mlp.gate.bias is not None

        def weight(layer: torch.nn.Linear) -> Tensor:
            columns = [layer.weight, layer.bias[:, None]] if bias else [layer.weight]
            return torch.cat(columns, 1).detach().double()

        return cls(
            weight(mlp.gate),
            weight(mlp.up),
            mlp.down.weight.detach().double().T.clone(),
            mlp._activation,
            mlp.activation,
            bias,
            mlp.down.bias.detach().double().clone() if bias else None,
        )

    def as_bilinear_attention(self) -> BilinearAttention:
        """The same map as attention with interaction matrices of rank 1, exact up to rounding.

        **Raises:** `InputError` where the output is not of the width of the input.
        """
        return BilinearAttention(
            self.gate[:, None],
            self.up[:, None],
            self.value,
            self.name if self.name != "gelu_tanh" and is_named(self.activation, self.name) else self.activation,
            constant=self.constant,
            bias=self.bias,
        )
