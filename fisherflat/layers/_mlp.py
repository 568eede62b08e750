"""The gated MLP (GLU family)."""

from __future__ import annotations

import torch
from torch import nn

from fisherflat._arrays import sizes
from fisherflat._renamed import former
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.layers._activations import MLP_ACTIVATIONS, named
from fisherflat.layers._bilinear import BilinearAttention
from fisherflat.layers._linear import linear


class GatedMLP(nn.Module):
    """The gated linear unit `y = (φ(x W_g) ⊙ x W_u) W_d`.

    Shazeer, *GLU Variants Improve Transformer* (arXiv 2002.05202). With φ = identity it is the bilinear MLP, with
    sigmoid GLU, silu SwiGLU, gelu GEGLU, relu ReGLU.

    **Args:**

    - `dim`: the width d of inputs and outputs.
    - `hidden`: the number of units.
    - `activation`: φ, one of `"identity"`, `"sigmoid"`, `"silu"`, `"gelu"` (exact), `"tanh"`, `"relu"`, `"softplus"`,
      `"relu2"`.
    - `bias`: whether the three projections have a bias.

    **Raises:** `InputError` for an unknown activation or a size that is not positive.

    >>> import torch, fisherflat as ff
    >>> mlp, x = ff.layers.GatedMLP(4, 6).double(), torch.ones(4, dtype=torch.float64)
    >>> torch.allclose(mlp.as_bilinear_attention()(x), mlp(x))
    True
    """

    def __init__(self, dim: int, hidden: int, activation: str = "silu", bias: bool = False) -> None:
        super().__init__()
        dim, hidden = sizes("a gated MLP", dim=dim, hidden=hidden)
        self._activation = named(activation, MLP_ACTIVATIONS)
        self.width = dim
        self.hidden = hidden
        self.activation = activation
        self.gate = linear(dim, hidden, bias)
        self.up = linear(dim, hidden, bias)
        self.down = linear(hidden, dim, bias)

    dim = former("width")

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Apply the MLP to each vector of the last axis.

        **Raises:** `InputError` where the last axis of `x` is not of that width.
        """
        if x.dim() < 1 or x.shape[-1] != self.width:
            raise InputError(f"a gated MLP of width {self.width} expects [..., {self.width}], got {list(x.shape)}")
        return self.down(self._activation(self.gate(x)) * self.up(x))

    def extra_repr(self) -> str:
        """The activation, for `print`."""
        return f"activation={self.activation!r}"

    def as_bilinear_attention(self) -> BilinearAttention:
        """The same map as attention over h static keys and values whose interaction matrices have rank 1.

        The gate is the query factor, with the activation on it, the up projection the key factor, and the columns of
        the down projection are the values. The biases of gate and up become a constant coordinate. Exact up to rounding
        for every activation (arXiv 2606.22172); the weights are copied.
        """
        query, key = (
            layer.weight if layer.bias is None else torch.cat([layer.weight, layer.bias[:, None]], 1)
            for layer in (self.gate, self.up)
        )
        return BilinearAttention(
            query[:, None],
            key[:, None],
            self.down.weight.T,
            self.activation,
            constant=self.gate.bias is not None,
            bias=self.down.bias,
        )
