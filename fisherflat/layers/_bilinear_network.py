"""The layer of bilinear attention networks: attention between two sets of tokens."""

from __future__ import annotations

import torch
from torch import nn

from fisherflat._arrays import sizes
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.layers._activations import GATE_ACTIVATIONS, named
from fisherflat.layers._linear import linear


class BilinearAttentionNetwork(nn.Module):
    """A low-rank bilinear attention map between two sets of tokens, and their joint features pooled by it.

    Kim, Jun, Zhang, *Bilinear Attention Networks* (arXiv 1805.07932), section 3. For tokens X `[n, d1]` and Y
    `[m, d2]`, here in rows where the paper has columns, and for each glimpse g:

        A_g  = softmax(((1 p_gᵀ) ∘ σ(X U)) σ(Y V)ᵀ)          [n, m], over all n·m pairs
        f'_gk = (σ(X U')_k)ᵀ A_g σ(Y V')_k                   the columns k of the projections
        f    = Σ_g P_gᵀ f'_g

    The glimpses share U, V, U' and V' and are concatenated before the projection P; the paper's residual learning of
    glimpses is a stack of such layers. Its first form has no σ, its networks have σ = relu. There are no biases.

    Read as attention, a token of X collects `A σ(Y V')` and multiplies it by `σ(X U')`: an output gate. So with the
    pattern held and no σ the map is affine in X alone and in Y alone, and bilinear, hence curved, in both.

    **Args:**

    - `first`, `second`: the widths d1 and d2.
    - `rank`: of the bilinear forms of the attention, the width of p.
    - `features`: the number K of joint features.
    - `outputs`: the width of f.
    - `glimpses`: how many attention maps.
    - `activation`: σ, by name as in `Gate`.

    **Raises:** `InputError` for an unknown activation or a size that is not positive.

    >>> import torch, fisherflat as ff
    >>> ff.layers.BilinearAttentionNetwork(4, 3, 5, 6, 2)(torch.zeros(7, 4), torch.zeros(8, 3)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        first: int,
        second: int,
        rank: int,
        features: int,
        outputs: int,
        glimpses: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        first, second, rank, features, outputs, glimpses = sizes(
            "a bilinear attention network", first=first, second=second, rank=rank, features=features, outputs=outputs,
            glimpses=glimpses,
        )  # fmt: skip
        self._activation = named(activation, GATE_ACTIVATIONS)
        self.activation, self.glimpses = activation, glimpses
        self.query = linear(first, rank, bias=False)
        self.key = linear(second, rank, bias=False)
        self.glimpse = nn.Parameter(torch.randn(glimpses, rank))
        self.first = linear(first, features, bias=False)
        self.second = linear(second, features, bias=False)
        self.output = linear(glimpses * features, outputs, bias=False)

    def pattern(self, x: Float[Tensor, "n first"], y: Float[Tensor, "m second"]) -> Float[Tensor, "glimpses n m"]:
        """The attention maps A_g; each sums to 1 over all pairs of tokens.

        **Raises:** `InputError` where x or y has another shape.
        """
        self._check(x, y)
        query, key = self._activation(self.query(x)), self._activation(self.key(y))
        scores = (query * self.glimpse[:, None]) @ key.T
        return scores.flatten(1).softmax(-1).view_as(scores)

    def pooled(
        self, pattern: Float[Tensor, "glimpses n m"], x: Float[Tensor, "n first"], y: Float[Tensor, "m second"]
    ) -> Float[Tensor, " outputs"]:
        """The joint features f under given attention maps, in which it is linear.

        **Raises:** `InputError` where x or y has another shape.
        """
        self._check(x, y)
        collected = pattern @ self._activation(self.second(y))
        return self.output((collected * self._activation(self.first(x))).sum(1).flatten())

    def forward(self, x: Float[Tensor, "n first"], y: Float[Tensor, "m second"]) -> Float[Tensor, " outputs"]:
        """The joint features f of the tokens X and Y; for a map of one input see `Joined`.

        **Raises:** `InputError` where x or y has another shape.
        """
        return self.pooled(self.pattern(x, y), x, y)

    def _check(self, x: Tensor, y: Tensor) -> None:
        widths = self.first.in_features, self.second.in_features
        if x.dim() != 2 or y.dim() != 2 or (x.shape[1], y.shape[1]) != widths:
            raise InputError(
                f"this bilinear attention network takes [n, {widths[0]}] and [m, {widths[1]}], "
                f"got {list(x.shape)} and {list(y.shape)}"
            )

    def extra_repr(self) -> str:
        """Glimpses and activation, for `print`."""
        return f"glimpses={self.glimpses}, activation={self.activation!r}"
