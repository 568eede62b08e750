"""Softmax self-attention with an optional multiplicative gate."""

from __future__ import annotations

import math

import torch
from torch import nn

from fisherflat._arrays import flag, integer
from fisherflat._renamed import former
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.layers._gate import Gate
from fisherflat.layers._linear import linear


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself, `concat_h(softmax(q_h k_hᵀ / √w) v_h) W_o`, w the head width.

    Written out in plain matrix products: fused kernels have no forward-mode derivative, and the pattern has to be there
    to be read. There is no residual, no norm and no positional encoding; this is the operator whose geometry is
    studied. Without a gate and with the pattern held fixed it is affine in its input, so that its manifold is flat.

    Vaswani et al. 2017 for the layer; Qiu et al., arXiv 2505.06708, for the gate.

    **Args:**

    - `dim`: the width d of the tokens.
    - `heads`: how many; a divisor of `dim`.
    - `causal`: whether a token attends only to itself and to those before it.
    - `gate`: the specification of a gate. The layer binds a copy with weights of its own, `self.gate`.
    - `bias`: whether the projections, that of the gate included, have a bias.

    **Raises:** `InputError` where `heads` does not divide `dim`, or either is not positive.

    >>> import torch, fisherflat as ff
    >>> layer = ff.layers.SelfAttention(8, heads=2, gate=ff.layers.Gate("silu", position="value"))
    >>> layer(torch.zeros(5, 8)).shape, layer.pattern(torch.zeros(5, 8)).shape
    (torch.Size([5, 8]), torch.Size([2, 5, 5]))
    """

    def __init__(
        self, dim: int, heads: int = 1, causal: bool = False, gate: Gate | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        dim, heads, causal = integer(dim, "dim"), integer(heads, "heads"), flag(causal, "causal")
        if gate is not None and not isinstance(gate, Gate):
            raise InputError(f'gate must be a Gate, such as Gate("silu"), or None; got {gate!r}')
        if dim < 1 or heads < 1 or dim % heads:
            raise InputError(f"a width of {dim} cannot be divided into {heads} heads; choose heads that divide dim")
        self.width = dim
        self.heads = heads
        self.causal = causal
        self.query = linear(dim, dim, bias)
        self.key = linear(dim, dim, bias)
        self.value = linear(dim, dim, bias)
        self.output = linear(dim, dim, bias)
        self.gate = None if gate is None else gate.bind(dim, heads, bias)

    dim = former("width")

    def forward(self, x: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n d"]:
        """The attention output `[..., n, d]` for tokens `x` `[..., n, d]`.

        **Raises:** `InputError` where `x` has another shape.
        """
        self._check(x)
        pattern = self._pattern(x)
        heads = pattern @ self._split(self._gated("value", self.value(x), x))
        mixed = heads.transpose(-3, -2).flatten(-2)
        return self._gated("projection", self.output(self._gated("output", mixed, x)), x)

    def pattern(self, x: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch heads n n"]:
        """The attention weights `[..., heads, n, n]` for tokens `x` `[..., n, d]`; each row sums to 1.

        **Raises:** `InputError` where `x` has another shape.
        """
        self._check(x)
        return self._pattern(x)

    def _pattern(self, x: Tensor) -> Tensor:
        query = self._split(self._gated("query", self.query(x), x))
        key = self._split(self._gated("key", self.key(x), x))
        scores = query @ key.transpose(-2, -1) / math.sqrt(self.width // self.heads)
        if self.causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            # each token sees itself, so no row is masked whole and softmax and its derivatives stay finite
            scores = scores.masked_fill(future, -math.inf)
        return scores.softmax(-1)

    def _gated(self, position: str, y: Tensor, x: Tensor) -> Tensor:
        return y * self.gate(x) if self.gate is not None and self.gate.position == position else y

    def _split(self, y: Tensor) -> Tensor:
        """[..., n, d] to [..., heads, n, head width]."""
        return y.unflatten(-1, (self.heads, self.width // self.heads)).transpose(-3, -2)

    def _check(self, x: Tensor) -> None:
        if x.dim() < 2 or x.shape[-1] != self.width:
            raise InputError(f"attention of width {self.width} expects [..., n, {self.width}], got {list(x.shape)}")
