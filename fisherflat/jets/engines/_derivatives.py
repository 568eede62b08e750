"""Whether torch knows the derivatives of the ops of a tape: each is compared with differences of its values.

An op without a formula, or with one that says something else than its values do, is found where it stands. Inputs are
moved as the chart moves them, so that a formula that only holds for, say, symmetric matrices is right for those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.utils._pytree import tree_leaves, tree_map

from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.graph import Node, getitem, leaves, mapped_leaves
from fisherflat.jets.recording import Tape, plainly
from fisherflat.spaces.charts import Chart

#: steps of the differences, as shares of the fourth root of the precision, in coordinates of the chart
_STEPS = (1.0, 0.1, 0.01)

Tensors = list[Tensor]


@dataclass(eq=False)
class _Call:
    """A node at several points: its arguments and its outputs, of which some are used (`None` for all).

    Complex numbers are pairs of real ones here.
    """

    node: Node
    used: set[int] | None
    args: list[Any]
    out: list[Tensors]

    def function(self, at: int) -> tuple[Callable[..., Tensors], Tensors]:
        """The op as a function of its real inputs that move, and these."""
        args, kwargs = self.args[at]
        flat = list(leaves(self.node.args)) + list(leaves(self.node.kwargs))
        given = list(leaves(args)) + list(leaves(kwargs))
        real = [i for i, leaf in enumerate(flat) if isinstance(leaf, Node) and _is_number(given[i])]

        def call(*moved: Tensor) -> Tensors:
            filled = list(given)
            for position, tensor in zip(real, moved, strict=True):
                filled[position] = torch.view_as_complex(tensor) if given[position].is_complex() else tensor
            source = iter(filled)
            full_args, full_kwargs = mapped_leaves(lambda _: next(source), (self.node.args, self.node.kwargs))
            return _reals(plainly(self.node, full_args, full_kwargs), self.used)

        return call, [_pair(given[i]) for i in real]

    def kind(self) -> Any:
        """What decides whether the op can be batched: itself, its options, and how its tensors lie in memory."""
        moving = [isinstance(leaf, Node) for leaf in leaves((self.node.args, self.node.kwargs))]
        lying = [(t.shape, t.stride(), t.dtype) if isinstance(t, Tensor) else t for t in leaves(self.args[0])]
        return self.node.target, str(self.used), str(moving), str(lying)


def check(tape: Tape, points: Sequence[Tensor], chart: Chart) -> bool:
    """Whether all ops of a tape can be batched over points; its derivatives are compared around two of `points`.

    **Raises:** `UnsupportedOpError` for an op whose first or second derivative torch does not know, or has wrong.
    """
    generator = torch.Generator().manual_seed(5)
    kinds = {call.kind(): call for call in _calls(tape, points)}  # a model repeats few of them many times
    batches = all(map(_batches, kinds.values())) if len(points) > 1 else False
    suspects: dict[Node, str] | None = None
    for base in [*points[1:], *points[:1]][:2]:
        v = torch.randn(chart.k, generator=generator, dtype=torch.float64).to(chart.point.device)
        direction = torch.tensordot(v, chart.basis, 1).to(base.dtype)
        for share in _STEPS:
            h = share * torch.finfo(base.dtype).eps ** 0.25
            calls = _calls(tape, [base + sign * h * direction for sign in (-1, 0, 1)])
            faults = {call.node: _fault(call) for call in calls if suspects is None or call.node in suspects}
            suspects = {node: fault for node, fault in faults.items() if fault}
            if not suspects:
                return batches
    node, fault = next(iter((suspects or {}).items()))
    raise UnsupportedOpError(
        f"torch has no second derivative of {node.op} at {node.source} ({fault}); write that step in simpler ops, or "
        'use engine="taylor"'
    )


def _calls(tape: Tape, points: Sequence[Tensor]) -> list[_Call]:
    """The nodes that have real inputs and outputs, at the points."""
    calls: dict[Node, _Call] = {}
    used: dict[Node, set[int]] = {}
    for node in tape.nodes:
        if node.target is getitem:
            used.setdefault(node.args[0], set()).add(node.args[1])

    def step(node: Node, args: Any, kwargs: Any) -> Any:
        out = plainly(node, args, kwargs)
        if node.target is getitem:
            return out
        call = calls.setdefault(node, _Call(node, used.get(node), [], []))
        call.args.append((args, kwargs))
        call.out.append(_reals(out, call.used))
        return out

    run = tape.raised(points[0].dtype, step)
    with torch.no_grad():
        for point in points:
            run(point)
    return [call for call in calls.values() if call.out[0] and len(call.out) == len(points)]


def _fault(call: _Call) -> str:
    """What is wrong with the derivatives of a node, if anything.

    Each output is looked at by itself: one without a derivative would be lost among larger ones.
    """
    found = (_fault_of(call, output) for output in range(len(call.out[0])))
    return next((fault for fault in found if fault), "")


def _fault_of(call: _Call, output: int) -> str:
    finite = torch.stack([out[output] for out in call.out]).isfinite().all(0)  # of others nothing can be said

    def alone(function: Callable[..., Tensors], inputs: Tensors) -> tuple[Callable[..., Tensors], Tensors]:
        return lambda *x: [function(*x)[output][finite]], inputs

    before, at, after = (alone(*call.function(i)) for i in range(3))
    outs = [out[output][finite] for out in call.out]
    moved = [_finite(a - b) for a, b in zip(after[1], before[1], strict=True)]
    changes = [outs[2] - outs[0]]
    if not finite.any() or not any(m.any() for m in moved):
        return ""
    weights = [_seeded(outs[1])]
    directions = [_seeded(m) for m in moved]
    try:
        slopes = [_gradient(function, inputs, weights) for function, inputs in (before, at, after)]
        bend = _gradient_of(slopes[1], at[1], directions) if slopes[1] is not None else None
    except (RuntimeError, NotImplementedError) as error:
        return str(error).split("\n")[0]
    eps = torch.finfo(outs[1].dtype).eps
    zeros = [torch.zeros_like(m) for m in moved]
    first = slopes[1] if slopes[1] is not None else zeros
    noise = eps * float((weights[0] * outs[1]).detach().abs().sum())
    if not _equal(weights, changes, first, moved, noise):
        return "its derivative is not that of its values"
    if slopes[0] is None or slopes[2] is None:
        return ""
    turned = [_finite(a.detach() - b.detach()) for a, b in zip(slopes[2], slopes[0], strict=True)]
    bends = bend if bend is not None else zeros
    size = _size(directions, first)
    if _equal(directions, turned, bends, moved, eps * size):
        return ""
    # slopes are linear in the weights, but for what rounding leaves of terms within the op that cancel
    thirds = _gradient(at[0], list(at[1]), [w / 3 for w in weights]) or zeros
    noise = _size(directions, [3 * third - slope for third, slope in zip(thirds, first, strict=True)])
    if noise < eps**0.5 * size and _equal(directions, turned, bends, moved, noise):
        return ""
    return "its second derivative is not that of its values"


def _size(weights: Tensors, slopes: Tensors) -> float:
    return sum(float((w * s.detach()).abs().sum()) for w, s in zip(weights, slopes, strict=True))


def _equal(weights: Tensors, changes: Tensors, slopes: Tensors, moved: Tensors, noise: float) -> bool:
    """Whether `weights . changes` is `slopes . moved`."""
    # one wrong entry among thousands shows; differences of smooth ops are off by the square of their step
    share = torch.finfo(changes[0].dtype).eps ** 0.25
    with torch.no_grad():
        left = [w * c for w, c in zip(weights, changes, strict=True)]
        right = [s * m for s, m in zip(slopes, moved, strict=True)]
        size = max(sum(float(t.abs().sum()) for t in terms) for terms in (left, right))
        gap = abs(sum(float(t.sum()) for t in left) - sum(float(t.sum()) for t in right))
    return not gap > share * size + 100 * noise


def _gradient(function: Callable[..., Tensors], inputs: Tensors, weights: Tensors) -> Tensors | None:
    with torch.enable_grad():
        x = [i.detach().requires_grad_() for i in inputs]
        total = [(w * o).sum() for w, o in zip(weights, function(*x), strict=True) if o.requires_grad]
        if not total:
            return None
        found = torch.autograd.grad(sum(total), x, create_graph=True, allow_unused=True)  # type: ignore[arg-type]
        inputs[:] = x
        return [torch.zeros_like(i) if g is None else g for i, g in zip(x, found, strict=True)]


def _gradient_of(slopes: Tensors, inputs: Tensors, directions: Tensors) -> Tensors | None:
    with torch.enable_grad():
        total = [(d * s).sum() for d, s in zip(directions, slopes, strict=True) if s.requires_grad]
        if not total:
            return None
        found = torch.autograd.grad(sum(total), inputs, allow_unused=True)  # type: ignore[arg-type]
        return [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, found, strict=True)]


def _finite(t: Tensor) -> Tensor:
    return t.nan_to_num(0.0, 0.0, 0.0)


def _batches(call: _Call) -> bool:
    """Whether the op and its derivatives at several points at once are those at each.

    They are asked for as the engine asks: points, outputs and rows of second derivatives, each in a batch.
    """
    if _moving_integers(call):
        return True
    parts = [call.function(i) for i in range(2)]
    function = parts[0][0]
    points = [[x.detach() for x in inputs] for _, inputs in parts]
    weights = tuple(_two(out) for out in call.out[0])
    directions = tuple(_two(x) for x in points[0])

    def jet(several: Callable[..., Any], *x: Tensor) -> Any:
        def row(weight: tuple[Tensor, ...]) -> Any:
            def slopes(*y: Tensor) -> Any:
                return vjp(lambda *z: tuple(function(*z)), *y)[1](weight)

            first, turned = vjp(slopes, *x)[:2]
            return first, several(turned)(directions)

        return tuple(function(*x)), several(row)(weights)

    try:
        together = vmap(partial(jet, vmap))(*map(torch.stack, zip(*points, strict=True)))
        singly = [jet(_in_turn, *x) for x in points]
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    return all(map(_close, tree_leaves(together), tree_leaves(_stacked(singly))))


def _in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `vmap` computes of a function of a tuple, one after the other."""

    def over(batch: tuple[Tensor, ...]) -> Any:
        return _stacked([function(tuple(some)) for some in zip(*batch, strict=True)])

    return over


def _stacked(found: list[Any]) -> Any:
    return tree_map(lambda *parts: torch.stack(parts), *found)


def _close(together: Tensor, singly: Tensor) -> bool:
    scale = float(_finite(singly).abs().max()) if singly.numel() else 0.0
    return torch.allclose(together, singly, rtol=1e-6, atol=1e-6 * scale, equal_nan=True)


def _two(like: Tensor) -> Tensor:
    return torch.stack([_seeded(like), _seeded(like).flip(tuple(range(like.dim()))) + 0.5])


def _moving_integers(call: _Call) -> bool:
    """Whether integers or booleans that depend on the input are among the arguments."""
    args, kwargs = call.args[0]
    given = zip(leaves((call.node.args, call.node.kwargs)), leaves((args, kwargs)), strict=True)
    return any(isinstance(name, Node) and isinstance(leaf, Tensor) and not _is_number(leaf) for name, leaf in given)


def _seeded(like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(like.numel())
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def _reals(out: Any, used: set[int] | None) -> Tensors:
    return [_pair(leaf) for i, leaf in enumerate(leaves(out)) if _is_number(leaf) and (used is None or i in used)]


def _pair(number: Tensor) -> Tensor:
    """Real numbers as they are, complex ones as pairs along a last axis."""
    return torch.view_as_real(number.resolve_conj()) if number.is_complex() else number


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
