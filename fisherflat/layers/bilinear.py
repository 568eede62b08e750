"""Bilinear attention over static keys and values."""

from __future__ import annotations

from torch import nn

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError


class BilinearAttention(nn.Module):
    """Attention to h static slots with bilinear scores, `y = Σ_i v_i (xᵀ W_i x)` with `W_i = Σ_r q_ir k_irᵀ`.

    A gated MLP without activation is the case of rank 1 (arXiv 2606.22172). There is no softmax, and only the symmetric
    part of each `W_i` acts. The Hessian of the map is constant: its curvature can be read from the weights.

    **Args:** `query` and `key`: the factors `q_ir` and `k_ir`, `[h, rank, d]`; `value`: the static values `v_i`,
    `[h, d]`. They are copied and become parameters.

    **Raises:** `InputError` where the shapes do not fit, or the tensors are not of one floating dtype.
    """

    def __init__(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        super().__init__()
        slots_and_width = (*query.shape[:1], *query.shape[-1:])
        if query.dim() != 3 or key.shape != query.shape or tuple(value.shape) != slots_and_width:
            raise InputError(
                "bilinear attention needs query and key [h, rank, d] and value [h, d], "
                f"got query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}"
            )
        if not query.is_floating_point() or not query.dtype == key.dtype == value.dtype:
            raise InputError(
                f"bilinear attention needs one floating dtype, got {query.dtype}, {key.dtype} and {value.dtype}"
            )
        self.query = nn.Parameter(query.detach().clone())
        self.key = nn.Parameter(key.detach().clone())
        self.value = nn.Parameter(value.detach().clone())

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Apply the layer to each vector of the last axis.

        **Raises:** `InputError` where the last axis of `x` is not of the layer's width.
        """
        slots, rank, dim = self.query.shape
        if x.dim() < 1 or x.shape[-1] != dim:
            raise InputError(f"bilinear attention of width {dim} expects [..., {dim}], got {list(x.shape)}")
        factors = (x @ self.query.flatten(0, 1).T) * (x @ self.key.flatten(0, 1).T)
        return factors.unflatten(-1, (slots, rank)).sum(-1) @ self.value

    def extra_repr(self) -> str:
        """The sizes, for `print`."""
        slots, rank, dim = self.query.shape
        return f"slots={slots}, rank={rank}, dim={dim}"
