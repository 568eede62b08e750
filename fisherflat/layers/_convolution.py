"""The layer of gated convolutional networks."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from fisherflat._arrays import sizes
from fisherflat._renamed import former, renamed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.layers._activations import GATE_ACTIVATIONS, named


class GatedConv1d(nn.Module):
    """The gated linear unit over a causal convolution, `h(X) = (X * W + b) ⊗ σ(X * V + c)`.

    Dauphin, Fan, Auli, Grangier, *Language Modeling with Gated Convolutional Networks* (arXiv 1612.08083), equation 1.
    The sequence is continued by `kernel - 1` zeros at its beginning, so that a token depends on itself and on the
    `kernel - 1` before it. `W` and `V` are the `nn.Conv1d` `value` and `gate`; there is no residual.

    With its gate held it is a convolution, hence affine, hence flat; the gate is what can bend it.

    **Args:**

    - `width`: the number of channels d.
    - `kernel`: how many tokens the convolution spans.
    - `activation`: σ, by name as in `Gate` (`"identity"` is the paper's bilinear layer).
    - `bias`: whether b and c, which the paper has, are there.

    **Raises:** `InputError` for an unknown activation or a size that is not positive.

    >>> import torch, fisherflat as ff
    >>> ff.layers.GatedConv1d(4, kernel=3)(torch.zeros(7, 4)).shape
    torch.Size([7, 4])
    """

    @renamed(dim="width")
    def __init__(self, width: int, kernel: int, activation: str = "sigmoid", bias: bool = False) -> None:
        super().__init__()
        width, kernel = sizes("a gated convolution", width=width, kernel=kernel)
        self._activation = named(activation, GATE_ACTIVATIONS)
        self.width, self.kernel, self.activation = width, kernel, activation
        self.value = nn.Conv1d(width, width, kernel, bias=bias)
        self.gate = nn.Conv1d(width, width, kernel, bias=bias)

    dim = former("width")

    def forward(self, x: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n d"]:
        """The layer at a sequence `[n, d]`, or a batch of them `[batch, n, d]`.

        **Raises:** `InputError` where `x` has another shape.
        """
        if x.dim() not in (2, 3) or x.shape[-1] != self.width:
            raise InputError(
                f"a gated convolution of {self.width} channels expects [n, {self.width}], got {list(x.shape)}"
            )
        channels = F.pad(x.mT, (self.kernel - 1, 0))
        return (self.value(channels) * self._activation(self.gate(channels))).mT

    def extra_repr(self) -> str:
        """The activation, for `print`."""
        return f"activation={self.activation!r}"
