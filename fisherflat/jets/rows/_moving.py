"""Which entries of which values move, where only some entries of the input do.

Each op is tried on stand-ins: NaN for what moves, zero for what is zero whatever moves, two odd numbers for scores that
a mask puts out, and one for the rest. NaN goes wherever anything depends on it, so that what comes out as a number
stands still. Of numbers only this is used: zeros, also those of weights, and that a softmax makes zeros of what a mask
has put out. What is not understood moves.

A score that moves, and to which a mask adds the lowest number there is, stands still for a softmax alone, and only if
another score of its row is not put out. Where anything else sees such a score, they all count as moving.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Graph, Node, leaves, mapped_leaves
from fisherflat.jets.ops import MATRIX_PRODUCTS, OPS, exponent

aten = torch.ops.aten

#: a mask adds or fills in numbers of this size, the lowest of some precision, if not infinite ones
_OUT = -1e30
#: stand-ins for scores that are put out, and move or stand still: numbers that are in no model
_MOVED, _FILLED = 2.0**-901, 2.0**-903
#: what passes on what is put out, and does not see it; `add` does so with some constants
_PASSING = {aten.reshape, aten.permute, aten.expand, aten._softmax}

#: for each axis of a value the indices at which entries may move
Moving = tuple[frozenset[int], ...]


class _Seen(Exception):
    """What is put out, and moves, is seen by more than a softmax."""


def moving(graph: Graph, given: Tensor) -> dict[Node, Moving]:
    """What moves of each node, where those entries of the input do that are `given`, a mask of its shape."""
    try:
        return _found(graph, given.cpu(), True)
    except _Seen:
        return _found(graph, given.cpu(), False)


def _found(graph: Graph, given: Tensor, masked: bool) -> dict[Node, Moving]:
    """**Args:** `masked`, whether scores that are put out by a number that is added stand still."""
    found, indices = {graph.input: _stand_in(given)}, dict[Node, Moving]()
    last = graph.last_use()
    for node in graph.nodes:
        if node not in found:
            found[node] = _tried(node, found, masked)
        moves = found[node].isnan()
        indices[node] = tuple(_along(moves, axis) for axis in range(moves.dim()))
        for dead in last.get(node, ()):
            del found[dead]
    if isinstance(graph.output, Node) and (found[graph.output] == _MOVED).any():
        raise _Seen
    return indices


def _along(moves: Tensor, axis: int) -> frozenset[int]:
    """At which indices of an axis any entry moves."""
    any_ = moves.movedim(axis, 0).flatten(1).any(1) if moves.dim() > 1 else moves
    return frozenset(any_.nonzero().flatten().tolist())


def _stand_in(moves: Tensor) -> Tensor:
    return torch.ones(moves.shape, dtype=torch.float64).masked_fill(moves, torch.nan)


def _tried(node: Node, found: dict[Node, Tensor], masked: bool) -> Tensor:
    given = {source: found[source] for source in node.inputs}
    some = any(bool((value.isnan() | (value == _MOVED)).any()) for value in given.values())
    several = bool(node.shape) and isinstance(node.shape[0], tuple)
    everything = torch.full(() if several else node.shape, torch.nan if some else 1.0, dtype=torch.float64)
    op = OPS.get(node.packet)
    passing = _passes(node)
    if not passing:
        if any(bool((value == _MOVED).any()) for value in given.values()):
            raise _Seen
        if op is None or op.kind != "structural":
            given = {source: value.masked_fill(value == _FILLED, 1.0) for source, value in given.items()}
    if several or op is None or not _understood(node):
        return everything

    def filled(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.cpu().double() if leaf.is_floating_point() else leaf.cpu()
        return given[leaf] if isinstance(leaf, Node) else leaf

    if node.packet in MATRIX_PRODUCTS:
        return _product(node, given)
    if op.kind == "function" or node.packet is aten._to_copy:
        return _stand_in(given[node.inputs[0]].isnan()).expand(node.shape) if len(given) == 1 else everything
    args, kwargs = mapped_leaves(filled, node.args), mapped_leaves(filled, node.kwargs)
    if node.packet is aten._softmax:
        return _softmax(*args[:2])
    if passing and node.packet is aten.add:
        (constant,) = (leaf for leaf in node.args[:2] if not isinstance(leaf, Node))
        return _sum(given[node.inputs[0]], constant, masked)
    value = node.target(*args, **kwargs)
    if op.kind == "structural":
        value = value.masked_fill(value <= _OUT, _FILLED)
        return value.where(value.isnan() | _out(value) | (value == 0), 1.0)
    made = _stand_in(value.isnan())
    if node.packet is aten.mul:
        for factor in args[:2]:
            made = made.masked_fill(torch.as_tensor(factor == 0), 0.0)
    return made


def _passes(node: Node) -> bool:
    """Whether an op passes on what is put out: a sum only with a constant that cannot bring it back."""
    if node.packet is not aten.add:
        return node.packet in _PASSING
    constants = [torch.as_tensor(leaf) for leaf in node.args[:2] if not isinstance(leaf, Node)]
    return len(constants) == 1 and node.kwargs.get("alpha", 1) == 1 and bool(constants[0].max() < -_OUT)


def _out(value: Tensor) -> Tensor:
    return (value == _MOVED) | (value == _FILLED)


def _sum(scores: Tensor, constant: Any, masked: bool) -> Tensor:
    """Of scores and a constant, which may be a mask."""
    out = _out(scores) | (torch.as_tensor(constant).cpu() <= _OUT)
    moves, out = torch.broadcast_tensors(scores.isnan() | (scores == _MOVED), out)
    found = _stand_in(moves).masked_fill(out & ~moves, _FILLED)
    return found.masked_fill(out & moves, _MOVED) if masked else found


def _softmax(scores: Tensor, axis: int) -> Tensor:
    out = _out(scores)
    alone = out.all(axis, True)
    if (alone & (scores == _MOVED)).any():
        raise _Seen
    moves = scores.isnan().any(axis, True)
    return _stand_in(moves.expand(scores.shape)).masked_fill(out & ~alone, 0.0)


def _product(node: Node, given: dict[Node, Tensor]) -> Tensor:
    """Of two matrices: entries move by what moves of one of them, times what is not zero of the other."""
    *summand, a, b = (given[leaf] if isinstance(leaf, Node) else leaf for leaf in node.args)
    if isinstance(node.args[-1], Tensor):
        moves = a.isnan().any(-1, True)
    elif isinstance(node.args[-2], Tensor):
        moves = b.isnan().any(-2, True)
    else:
        moves = _meet(a.isnan(), b != 0) | _meet(a != 0, b.isnan())
    for one in summand:
        moves = moves | (one.isnan() if isinstance(node.args[0], Node) else False)
    return _stand_in(moves.expand(node.shape))


def _meet(a: Tensor, b: Tensor) -> Tensor:
    return a.float() @ b.float() > 0


def _understood(node: Node) -> bool:
    """Whether NaN comes out wherever what comes out depends on it."""
    op = OPS[node.packet]
    if op.places is not None and any(isinstance(leaf, Node) for leaf in leaves(node.args[op.places : op.places + 1])):
        return False  # places that numbers decide
    if node.packet is aten.pow:
        return exponent(node) not in (None, 0.0)
    if node.packet is aten._to_copy:
        return node.kwargs.get("dtype") is None or node.kwargs["dtype"].is_floating_point
    if node.packet in {aten._softmax, aten._log_softmax, aten.logsumexp}:
        return True
    return op.kind in ("structural", "linear", "sum", "product", "quotient", "function") and (
        node.packet is not aten.convolution
    )
