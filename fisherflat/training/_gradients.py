"""Losses over many points whose gradient is taken piece by piece, so that one piece of tape is there at a time.

What comes out is one number that knows the gradient of its weights already: in a training step it is mixed with any
other loss, and backwards it hands on what it knows. So memory does not grow with the number of points, and a gradient
that is no number is seen before it reaches a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fisherflat._arrays import some
from fisherflat.errors import OutOfMemoryError
from fisherflat.jets.graph import Constants


class _Known(torch.autograd.Function):
    """A number with the gradients that were computed with it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *sources: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, *(gradient.to(known.dtype) * known for known in ctx.gradients)


class Accumulated:
    """A sum of losses of points, and its gradient by live weights and other tensors.

    **Args:** `program`, how the constants of the map's graph are made; `others`, further tensors that the losses depend
    on, such as base points.

    **Attributes:** `constants` and `others`, to compute the losses with; `total`, so far; `lost`, how many points
    added nothing, for they have no geometry, or no gradient.
    """

    def __init__(self, program: Constants, others: Sequence[Tensor] = ()) -> None:
        self._grad = torch.is_grad_enabled()
        self._program, self._given = program, tuple(others)
        self._made = program.constants()
        self.constants = {i: self._leaf(tensor) for i, tensor in self._made.items()}
        self.others = tuple(map(self._leaf, others))
        self._leaves = [leaf for leaf in (*self.constants.values(), *self.others) if leaf.requires_grad]
        self._sums: list[Tensor | None] = [None] * len(self._leaves)
        self.total: float | Tensor = 0.0
        self._counted = self.lost = 0

    def _leaf(self, tensor: Tensor) -> Tensor:
        leaf = tensor.detach()
        return leaf.requires_grad_() if self._grad and tensor.requires_grad else leaf

    def add(self, losses: Callable[[Tensor], Tensor], points: Tensor) -> None:
        """The losses `[n]` of some of the points, given by their indices `[n]`, not finite where there are none.

        Those without a geometry are left out and counted, and then the others are computed once more without them: an
        infinite slope times nothing would be no number.
        """
        try:
            found = losses(points)
        except (MemoryError, OutOfMemoryError):
            if len(points) == 1:
                raise
            for half in points.tensor_split(2):
                self.add(losses, half)
            return
        good = found.detach().isfinite()
        if some(~good):
            self.lost += int((~good).sum())
            if some(good):
                self.add(losses, points[good])
            return
        total = found.sum()
        if total.requires_grad:
            slopes = torch.autograd.grad(total, self._leaves, allow_unused=True)
            if not _finite(slope for slope in slopes if slope is not None):
                if len(points) == 1:
                    self.lost += 1
                for half in points.split(1) if len(points) > 1 else ():
                    self.add(losses, half)
                return
            pairs = zip(self._sums, slopes, strict=True)
            self._sums = [new if old is None else old if new is None else old + new for old, new in pairs]
        self.total, self._counted = self.total + total.detach(), self._counted + len(points)

    def result(self, scale: float = 1.0) -> Tensor:
        """The sum times a number, as a tensor that hands its gradient on."""
        total = torch.as_tensor(self.total, dtype=torch.float64)
        if not self._grad:
            return total * scale
        roots = [made for made in (*self._made.values(), *self._given) if made.requires_grad]
        sources = [t for t in (*self._program.sources, *self._given) if t.requires_grad]
        sources = list({id(tensor): tensor for tensor in sources}.values())
        known = [(root, slope) for root, slope in zip(roots, self._sums, strict=True) if slope is not None]
        gradients: list[Tensor] = [torch.zeros_like(source) for source in sources]
        if known:
            outputs, weights = zip(*known, strict=True)
            found = torch.autograd.grad(outputs, sources, weights, allow_unused=True)
            pairs = zip(gradients, found, strict=True)
            slopes = [zero if slope is None else slope for zero, slope in pairs]
            if _finite(slopes):
                gradients = slopes
            else:  # what the map makes of its weights has no finite slope, whatever the points
                self.lost, total = self.lost + self._counted, torch.zeros_like(total)
        return _Known.apply(total * scale, [slope * scale for slope in gradients], *sources)


def _finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all entries of tensors, which may lie on several devices, are finite."""
    return not any(some(~tensor.isfinite()) for tensor in tensors)
