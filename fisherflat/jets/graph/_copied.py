"""A graph as plain data, so that it can be copied and pickled.

Ops of torch cannot be pickled, names go by the identity of tensors, which a copy has not, and nodes that hold nodes
that hold nodes are too deep to be walked.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import torch


class Reference(NamedTuple):
    """A node, by its number."""

    number: int


class Op(NamedTuple):
    """An ATen overload, by its names: `aten`, `mul`, `Tensor`."""

    space: str
    name: str
    overload: str


def plain(target: Any) -> Any:
    """What a node calls, as it can be pickled: other functions are pickled by their names."""
    if not isinstance(target, torch._ops.OpOverload):
        return target
    space, name = target._schema.name.split("::")
    return Op(space, name, target._overloadname)


def called(target: Any) -> Any:
    """The reverse."""
    return reduce(getattr, target, torch.ops) if isinstance(target, Op) else target
