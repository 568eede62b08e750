"""A classifier of points in the plane whose only nonlinear part is one attention layer."""

from __future__ import annotations

import torch
from torch import nn

from fisherflat._typing import Float, Tensor
from fisherflat.layers import Gate, SelfAttention


class PointEncoder(nn.Module):
    """The representation of a point: the attention output at the token that carries the point.

    The sequence is that token, an affine embedding of the point, followed by learned context tokens that do not
    depend on it. Attention is all that is nonlinear, so the geometry of the representation is that of the attention
    operator (arXiv 2604.14702): with the pattern held the ungated representation is affine in the point and its
    manifold is flat; a gate bends it.

    **Args:** `dim`: width of tokens and representation; `heads`; `context`: number of context tokens; `gate`: a
    specification, or None.
    """

    def __init__(self, dim: int, heads: int = 1, context: int = 2, gate: Gate | None = None) -> None:
        super().__init__()
        self.embedding = nn.Linear(2, dim)
        self.context = nn.Parameter(torch.randn(context, dim))
        self.attention = SelfAttention(dim, heads, gate=gate)

    def tokens(self, point: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch n dim"]:
        """The sequence `[..., 1 + context, dim]` for points `[..., 2]`."""
        carrier = self.embedding(point).unsqueeze(-2)
        return torch.cat([carrier, self.context.expand(*point.shape[:-1], *self.context.shape)], -2)

    def forward(self, point: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch dim"]:
        """Representations `[..., dim]` of points `[..., 2]`."""
        return self.attention(self.tokens(point))[..., 0, :]


class PointClassifier(nn.Module):
    """`PointEncoder` with a linear read-out: logit = w · representation + b.

    **Attributes:** `representation`, the encoder: a module from `[2]` to `[dim]`, which `StatisticalManifold` takes as
    its `mean` over `charts.identity(2)` and `fisherflat.freeze` takes as it is; `readout`, an `nn.Linear`.
    """

    def __init__(self, dim: int, heads: int = 1, context: int = 2, gate: Gate | None = None) -> None:
        super().__init__()
        # The gate is drawn last, so that with one seed a gated and an ungated model start from the same shared weights.
        self.readout = nn.Linear(dim, 1)
        self.representation = PointEncoder(dim, heads, context, gate)

    def forward(self, points: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Logits `[...]` of points `[..., 2]`; positive means inside the ring."""
        return self.readout(self.representation(points)).squeeze(-1)
