"""The ring task: is a point of the plane inside a ring? The smallest task with a curved, closed decision boundary."""

from __future__ import annotations

import math

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError

#: points are uniform in the square [-HALF_WIDTH, HALF_WIDTH]²
HALF_WIDTH = 2.0
#: the square as an extent of a map
SQUARE = (-HALF_WIDTH, HALF_WIDTH, -HALF_WIDTH, HALF_WIDTH)
#: radii of the ring; it covers half of the square, so that both classes are equally likely
INNER_RADIUS = 0.7
OUTER_RADIUS = math.sqrt(INNER_RADIUS**2 + (2 * HALF_WIDTH) ** 2 / (2 * math.pi))


def ring_data(count: int, seed: int) -> tuple[Float[Tensor, "count 2"], Float[Tensor, " count"]]:
    """`count` points `[count, 2]` and their labels `[count]`, 1.0 inside the ring and 0.0 elsewhere, without noise.

    **Raises:** `InputError` where `count` is not positive.
    """
    if count < 1:
        raise InputError(f"a data set needs at least one point, got count={count}")
    generator = torch.Generator().manual_seed(seed)
    points = HALF_WIDTH * (2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1)
    radius = points.norm(dim=-1)
    return points, ((radius > INNER_RADIUS) & (radius < OUTER_RADIUS)).double()
