"""Numbers that decompositions add: not floats, which a proof would take for exact, but nodes that compute them."""

from __future__ import annotations

import torch
from torch import Tensor


def one(like: Tensor) -> Tensor:
    """One, as a node that depends on the shape of `like` alone, so that what is made of it stays in the graph."""
    return like.new_ones(())


def pi(like: Tensor) -> Tensor:
    """Half a turn: four times the arc tangent of one, which balls enclose and floats round."""
    return 4 * torch.atan(one(like))


def root(number: int, like: Tensor) -> Tensor:
    """The square root of an integer."""
    return torch.sqrt(number * one(like))
