"""Sampling between the points of a grid, and pooling backwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.recording.decompositions._table import decomposes

BILINEAR, NEAREST, BICUBIC = range(3)
ZEROS, BORDER, REFLECTION = range(3)


def _padded(place: Tensor, size: int, padding: int, align_corners: bool) -> Tensor:
    """A whole place outside brought inside: to the border, or back and forth between the outer entries or their edges.

    Places are moved rather than coordinates, so that nothing bends where a coordinate leaves the grid.
    """
    if padding == REFLECTION and size > 1:
        period = 2 * size - 2 if align_corners else 2 * size
        place = place - period * torch.floor(place / period)
        place = torch.where(place >= size, (period if align_corners else period - 1) - place, place)
    elif padding != ZEROS:
        place = torch.where(place < 0, 0.0, torch.where(place > size - 1, size - 1.0, place))
    return place


def _looked_up(image: Tensor, places: Sequence[Tensor], padding: int, align_corners: bool) -> Tensor:
    """Entries `[N, C, *out]` of an image `[N, C, *sizes]` at whole places `[N, *out]`, zero outside."""
    sizes, flat = image.shape[2:], torch.zeros_like(places[0], dtype=torch.long)
    valid = torch.ones_like(flat, dtype=torch.bool)
    for place, size in zip(places, sizes, strict=True):
        place = _padded(place, size, padding, align_corners)
        inside = (place >= 0) & (place <= size - 1)
        valid = valid & inside
        flat = flat * size + torch.where(inside, place, 0.0).long()
    index = flat.reshape(flat.shape[0], 1, -1).expand(-1, image.shape[1], -1)
    found = image.reshape(*image.shape[:2], -1).gather(2, index).reshape(*image.shape[:2], *flat.shape[1:])
    return torch.where(valid.unsqueeze(1), found, 0.0)


def _cubic(t: Tensor, a: float = -0.75) -> list[Tensor]:
    """The weights of four neighbours of a place t behind the second one (Keys' kernel)."""

    def near(x: Tensor) -> Tensor:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Tensor) -> Tensor:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


@decomposes("grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler")
def _grid_sampler(
    image: Tensor, grid: Tensor, mode: int = BILINEAR, padding: int = ZEROS, align_corners: bool = True
) -> Tensor:
    """The coordinates of a grid come last axis first, from -1 to 1."""
    sizes = image.shape[2:]
    places = []
    for axis, size in enumerate(sizes):
        x = grid[..., len(sizes) - 1 - axis]
        places.append((x + 1) / 2 * (size - 1) if align_corners else ((x + 1) * size - 1) / 2)
    if mode == NEAREST:
        return _looked_up(image, [torch.round(x) for x in places], padding, align_corners)
    whole = [torch.floor(x) for x in places]
    parts = [x - floor for x, floor in zip(places, whole, strict=True)]
    weights = [_cubic(part) for part in parts] if mode == BICUBIC else [[1 - part, part] for part in parts]
    first = -1 if mode == BICUBIC else 0  # of the neighbours of a place
    total: Any = 0
    for corner in product(range(len(weights[0])), repeat=len(sizes)):
        weight: Any = 1
        for step, along in zip(corner, weights, strict=True):
            weight = weight * along[step]
        near = [floor + (step + first) for floor, step in zip(whole, corner, strict=True)]
        total = total + _looked_up(image, near, padding, align_corners) * weight.unsqueeze(1)
    return total


@decomposes("max_unpool2d")
def _max_unpool2d(x: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    return _unpooled(x, indices, size)


@decomposes("max_unpool3d")
def _max_unpool3d(x: Tensor, indices: Tensor, size: Sequence[int], *more: Any) -> Tensor:
    return _unpooled(x, indices, size)


def _unpooled(x: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    lead = x.shape[: x.dim() - len(size)]
    flat, places = x.reshape(*lead, -1), indices.reshape(*lead, -1)
    blank = torch.zeros(*lead, torch.Size(size).numel(), dtype=x.dtype, device=x.device)
    return blank.scatter(-1, places, flat).reshape(*lead, *size)
