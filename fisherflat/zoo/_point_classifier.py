"""A classifier of points in the plane whose only nonlinear part is one attention layer."""

from __future__ import annotations

import torch
from torch import nn

from fisherflat._renamed import renamed
from fisherflat._typing import Float, Tensor
from fisherflat.layers import Gate, SelfAttention


class PointEncoder(nn.Module):
    """The representation of a point: the attention output at the token that carries the point.

    The sequence is that token, an affine embedding of the point, followed by learned context tokens that do not
    depend on it. Attention is all that is nonlinear, so the geometry of the representation is that of the attention
    operator (arXiv 2604.14702): with the pattern held the ungated representation is affine in the point and its
    manifold is flat; a gate bends it.

    **Args:**

    - `width`: of tokens and representation.
    - `heads`: how many, a divisor of `width`.
    - `context`: the number of context tokens.
    - `gate`: a specification, or `None`.

    >>> import torch, fisherflat as ff
    >>> ff.zoo.PointEncoder(8)(torch.zeros(2)).shape
    torch.Size([8])
    """

    @renamed(dim="width")
    def __init__(self, width: int, heads: int = 1, context: int = 2, gate: Gate | None = None) -> None:
        super().__init__()
        self.embedding = nn.Linear(2, width)
        self.context = nn.Parameter(torch.randn(context, width))
        self.attention = SelfAttention(width, heads, gate=gate)

    def tokens(self, point: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch n d"]:
        """The sequence `[..., 1 + context, width]` for points `[..., 2]`."""
        carrier = self.embedding(point).unsqueeze(-2)
        return torch.cat([carrier, self.context.expand(*point.shape[:-1], *self.context.shape)], -2)

    def forward(self, point: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch d"]:
        """Representations `[..., width]` of points `[..., 2]`."""
        return self.attention(self.tokens(point))[..., 0, :]


class PointClassifier(nn.Module):
    """`PointEncoder` with a linear read-out: logit = w · representation + b.

    **Args:** those of `PointEncoder`.

    **Attributes:** `representation`, the encoder: a module from `[2]` to `[width]`, which `StatisticalManifold` takes
    as its `mean` over `charts.identity(2)` and `fisherflat.freeze` takes as it is; `readout`, an `nn.Linear`.

    >>> import torch, fisherflat as ff
    >>> ff.zoo.PointClassifier(8)(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    @renamed(dim="width")
    def __init__(self, width: int, heads: int = 1, context: int = 2, gate: Gate | None = None) -> None:
        super().__init__()
        # The gate is drawn last, so that with one seed a gated and an ungated model start from the same shared weights.
        self.readout = nn.Linear(width, 1)
        self.representation = PointEncoder(width, heads, context, gate)

    def forward(self, points: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Logits `[...]` of points `[..., 2]`; positive means inside the ring."""
        return self.readout(self.representation(points)).squeeze(-1)
