"""The control of the ring task: which side of a straight line is a point of the plane on?"""

from __future__ import annotations

from fisherflat._typing import Float, Tensor
from fisherflat.lab.experiments.ring import ring_data

#: the line's normal; it passes through the origin, so that both classes are equally likely
NORMAL = (0.8, 0.6)


def half_plane_data(count: int, seed: int) -> tuple[Float[Tensor, "count 2"], Float[Tensor, " count"]]:
    """The points of `ring_data(count, seed)` with other labels `[count]`: 1.0 where `NORMAL · x > 0`, else 0.0.

    **Raises:** `InputError` where `count` is not positive.
    """
    points, _ = ring_data(count, seed)
    return points, (points @ points.new_tensor(NORMAL) > 0).double()
