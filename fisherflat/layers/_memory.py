"""The feed-forward layer as a key-value memory."""

from __future__ import annotations

from torch import nn

from fisherflat._arrays import tensors
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.layers._activations import MLP_ACTIVATIONS, Activation, named


class KeyValueMemory(nn.Module):
    """`FF(x) = f(x Kᵀ) V`: h keys, each with a value that it adds to the output as much as the input matches it.

    Geva, Schuster, Berant, Levy, *Transformer Feed-Forward Layers Are Key-Value Memories* (arXiv 2012.14913), equation
    1, with the biases that it leaves out: `m(x) = f(x Kᵀ + c)` are the *memory coefficients*, the output is `m V + b`.
    It is affine in its coefficients, so flat where they are the coordinates; f is what can bend it where inputs move.

    **Args:**

    - `key`: K, `[h, d]`; `value`: V, `[h, D]`.
    - `activation`: f, by name as in `GatedMLP`, or a callable that acts entry by entry.
    - `key_bias`: c, `[h]`; `value_bias`: b, `[D]`. All tensors are copied and become parameters.

    **Raises:** `InputError` where the shapes do not fit, or the tensors are not of one floating dtype.

    >>> import torch, fisherflat as ff
    >>> memory = ff.layers.KeyValueMemory(torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> memory(torch.tensor([1.0, -1.0])).tolist()  # the first key matches, the second does not
    [1.0, 2.0]
    """

    def __init__(
        self,
        key: Tensor,
        value: Tensor,
        activation: str | Activation = "relu",
        *,
        key_bias: Tensor | None = None,
        value_bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        given = {"key": key, "value": value, "key_bias": key_bias, "value_bias": value_bias}
        tensors(**{name: tensor for name, tensor in given.items() if tensor is not None or name in ("key", "value")})
        shapes = {name: tuple(tensor.shape) for name, tensor in given.items() if tensor is not None}
        memories = len(key) if key.dim() == value.dim() == 2 else -1
        fitting = {"value": (memories, *value.shape[1:2]), "key_bias": (memories,), "value_bias": value.shape[-1:]}
        if any(shapes.get(name, shape) != shape for name, shape in fitting.items()):
            raise InputError(f"a memory needs key [h, d], value [h, D] and biases [h] and [D], got {shapes}")
        dtypes = {tensor.dtype for tensor in given.values() if tensor is not None}
        if not key.is_floating_point() or len(dtypes) > 1:
            raise InputError(f"a memory needs one floating dtype, got {', '.join(sorted(map(str, dtypes)))}")
        self._activation = named(activation, MLP_ACTIVATIONS, functions=True)
        self.activation = activation
        self.key = nn.Parameter(key.detach().clone())
        self.value = nn.Parameter(value.detach().clone())
        self.key_bias = None if key_bias is None else nn.Parameter(key_bias.detach().clone())
        self.value_bias = None if value_bias is None else nn.Parameter(value_bias.detach().clone())

    def coefficients(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch h"]:
        """The memory coefficients: how much each value is added.

        **Raises:** `InputError` where the last axis of `x` is not of the keys' width.
        """
        if x.shape[-1:] != self.key.shape[1:]:
            width = self.key.shape[1]
            raise InputError(f"keys of width {width} expect [..., {width}], got {list(x.shape)}")
        return self._activation(nn.functional.linear(x, self.key, self.key_bias))

    def recall(self, coefficients: Float[Tensor, "*batch h"]) -> Float[Tensor, "*batch D"]:
        """The output for given memory coefficients, in which it is affine."""
        return nn.functional.linear(coefficients, self.value.T, self.value_bias)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch D"]:
        """Apply the layer to each vector of the last axis."""
        return self.recall(self.coefficients(x))

    def extra_repr(self) -> str:
        """The sizes, for `print`."""
        return f"memories={len(self.key)}, width={self.key.shape[1]}, activation={self.activation!r}"
