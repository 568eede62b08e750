"""Low-rank bilinear pooling of two vectors by a Hadamard product."""

from __future__ import annotations

from torch import nn

from fisherflat._arrays import sizes
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.layers._activations import GATE_ACTIVATIONS, named
from fisherflat.layers._linear import linear


class LowRankBilinearPooling(nn.Module):
    """`f = Pᵀ(σ(Uᵀx) ∘ σ(Vᵀy)) + b`: a bilinear form in x and y for each output, all of them of rank at most `rank`.

    Kim, On, Lim, Kim, Ha, Zhang, *Hadamard Product for Low-rank Bilinear Pooling* (arXiv 1610.04325), section 3. With
    `bias` the projections have biases too, as in its full model; σ is tanh there. For a map of one input see `Joined`.

    Without activation it is affine in each argument alone, hence flat, and curved where both move: along one direction
    of each the second fundamental form has its mixed entry alone, `II_xx = II_yy = 0`, so the curvature `-|II_xy|²` per
    unit area is never positive. `x = y` with `U`, `V` as gate and up is the gated MLP.

    **Args:**

    - `first`, `second`: the widths of x and y.
    - `rank`: of the forms; `outputs`: how many forms.
    - `activation`: σ, by name as in `Gate`.
    - `bias`: whether the three projections have a bias.

    **Raises:** `InputError` for an unknown activation or a size that is not positive.

    >>> import torch, fisherflat as ff
    >>> ff.layers.LowRankBilinearPooling(4, 3, rank=6, outputs=5)(torch.zeros(4), torch.zeros(3)).shape
    torch.Size([5])
    """

    def __init__(
        self, first: int, second: int, rank: int, outputs: int, activation: str = "tanh", bias: bool = False
    ) -> None:
        super().__init__()
        first, second, rank, outputs = sizes("pooling", first=first, second=second, rank=rank, outputs=outputs)
        self._activation = named(activation, GATE_ACTIVATIONS)
        self.activation = activation
        self.first = linear(first, rank, bias)
        self.second = linear(second, rank, bias)
        self.output = linear(rank, outputs, bias)

    def forward(
        self, x: Float[Tensor, "*batch first"], y: Float[Tensor, "*batch second"]
    ) -> Float[Tensor, "*batch outputs"]:
        """The pooled features of x and y.

        **Raises:** `InputError` where one of them is of another width.
        """
        widths = self.first.in_features, self.second.in_features
        if (x.shape[-1:], y.shape[-1:]) != ((widths[0],), (widths[1],)):
            raise InputError(f"pooling of widths {widths} got {list(x.shape)} and {list(y.shape)}")
        return self.output(self._activation(self.first(x)) * self._activation(self.second(y)))

    def extra_repr(self) -> str:
        """The activation, for `print`."""
        return f"activation={self.activation!r}"
