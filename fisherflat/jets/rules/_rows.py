"""Rows of matrices that hold nothing but zeros, and so add nothing to a product.

Those are derivatives of tokens that do not move, until attention mixes them, and gradients by values behind the last
curved op, on which no geometry depends.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fisherflat._arrays import on_host

#: so many multiplications take far longer than a look at the rows
_WORTH = 2**23


def moving_rows(rows: Tensor, columns: int) -> Tensor | slice | None:
    """Which rows `[m, n]` of a factor hold anything, where that spares much of a product with so many columns.

    `None` where it does not, and where nothing may be left out: where gradients are recorded, a row of zeros has a
    derivative; and a device would have to be waited for.
    """
    if rows.numel() * columns < _WORTH or torch.is_grad_enabled() or not on_host(rows):
        return None
    if rows[:, :4].any(-1).all():  # nearly always, and soon seen
        return None
    places = rows.any(-1).nonzero().flatten()
    if not len(places):
        return slice(0, 0)
    first, last = int(places[0]), int(places[-1]) + 1
    if last - first == len(places):  # nothing to be copied
        return slice(first, last) if len(places) < len(rows) else None
    return places if 2 * len(places) < len(rows) else None
