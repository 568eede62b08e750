"""A layer of several inputs as a map of one, which is what charts move."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError


class Joined(nn.Module):
    """`vector ↦ layer(x, y, ...)`, where the vector holds all inputs one after the other, flattened.

    `join` makes the point of a chart and its directions, which may vanish on some of the inputs:

        joined = Joined(layer, x.shape, y.shape)
        chart = charts.affine(joined.join(x, y), torch.stack([joined.join(dx, None), joined.join(None, dy)]))

    An input that is to stand still altogether is better held in a function, `lambda x: layer(x, y)`: then it is a
    constant of the traced graph, which a proof of flatness can use, and a direction of zeros is not.

    **Args:**

    - `layer`: a module of several tensors.
    - `shapes`: those of the tensors, in order.

    **Raises:** `InputError` where no shape is given, or one holds no numbers.

    >>> import torch, fisherflat as ff
    >>> joined = ff.layers.Joined(ff.layers.LowRankBilinearPooling(4, 3, 6, 5), [4], [3])
    >>> joined(joined.join(torch.zeros(4), torch.zeros(3))).shape
    torch.Size([5])
    """

    def __init__(self, layer: nn.Module, *shapes: Sequence[int]) -> None:
        super().__init__()
        self.layer, self.shapes = layer, tuple(tuple(shape) for shape in shapes)
        self._sizes = [math.prod(shape) for shape in self.shapes]
        if not self._sizes or min(self._sizes) < 1:
            raise InputError(f"inputs to join need shapes that hold numbers, got {list(self.shapes)}")

    def forward(self, vector: Float[Tensor, " inputs"]) -> Float[Tensor, "..."]:
        """The layer's output.

        **Raises:** `InputError` where the vector is not of the length of all inputs together.
        """
        if vector.shape != (sum(self._sizes),):
            raise InputError(f"joined inputs are one vector of {sum(self._sizes)} numbers, got {list(vector.shape)}")
        parts = vector.split(self._sizes)
        return self.layer(*(part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)))

    def join(self, *parts: Tensor | None) -> Float[Tensor, " inputs"]:
        """The inputs as one vector; `None` stands for zeros, such as the direction of an input that does not move.

        **Raises:** `InputError` where their shapes are not those of the layer's inputs, or all are `None`.
        """
        given = [part for part in parts if part is not None]
        shapes = [shape if part is None else tuple(part.shape) for part, shape in zip(parts, self.shapes, strict=False)]
        if not given or len(parts) != len(self.shapes) or tuple(shapes) != self.shapes:
            raise InputError(f"the inputs to join have the shapes {list(self.shapes)}, got {shapes}")
        blank = given[0].new_zeros
        filled = (
            blank(size) if part is None else part.reshape(-1) for part, size in zip(parts, self._sizes, strict=True)
        )
        return torch.cat(list(filled))
