"""The verifier's own evaluation of graphs.

It shares nothing with the engine that proves: no rule, no closed-form derivative, no array class. Values are
polynomials of degree two in the coordinates (`_polynomials`); functions of one entry are expanded by FLINT's power
series and entries moved by NumPy (`_functions`, `_moves`). Ops that are not in the tables are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from flint import arb
from torch import Tensor

from fisherflat.errors import EnclosureError, UnsupportedOpError
from fisherflat.jets.graph import Graph, Node
from fisherflat.verifier._decisions import (
    COMPARISONS,
    LOGIC,
    STEPS,
    counted,
    divided,
    heaviside,
    largest_over,
    logic,
    ranked,
    toward_zero,
)
from fisherflat.verifier._functions import FUNCTIONS
from fisherflat.verifier._matrices import MATRICES, of_matrices
from fisherflat.verifier._moves import JOINED, LINEAR
from fisherflat.verifier._polynomials import (
    ZERO,
    Array,
    Part,
    Polynomial,
    bilinear,
    composed,
    dot,
    exact,
    filled,
    logsumexp,
    monomials,
    plus,
    softmax,
    substituted,
    times_constant,
)
from fisherflat.verifier._windows import convolution, pooled, running


def evaluate(graph: Graph, x: Polynomial, middle: Polynomial | None = None, steps: Sequence[arb] = ()) -> Polynomial:
    """The graph on a polynomial.

    **Args:** `x`: at a point, or over a box of points; for a box `middle`, the polynomial at a point of it, and
    `steps`, how far the box reaches from there, narrow what plain ball arithmetic finds.

    **Raises:** `UnsupportedOpError` for an op outside the table, `EnclosureError` where a choice is open.
    """
    if isinstance(graph.output, Tensor):
        return Polynomial([exact(graph.output), *[None] * (len(x.parts) - 1)], x.k)
    values: dict[Node, Any] = {graph.input: x}
    centre: dict[Node, Any] = {graph.input: middle}
    last = graph.last_use()
    for node in graph.nodes:
        if node.target is not None:
            values[node] = _result(node, values, x.k)
            if middle is not None:
                centre[node] = _result(node, centre, x.k)
                values[node] = _narrowed(values[node], centre[node], steps)
        for dead in last.get(node, ()):
            values.pop(dead)
            centre.pop(dead, None)
    return values[graph.output]


def node_values(graph: Graph, x: Polynomial, wanted: Iterable[Node]) -> dict[Node, Any]:
    """The values of some nodes, and of what they read.

    **Raises:** as `evaluate`.
    """
    values: dict[Node, Any] = {graph.input: x}
    needed = _ancestors(wanted)
    for node in graph.nodes[1:]:
        if node in needed:
            values[node] = _result(node, values, x.k)
    return values


def result(graph: Graph, last: Node, moving: dict[Node, Polynomial], fixed: dict[Node, Any], k: int) -> Polynomial:
    """The value of a node where some nodes are polynomials in k coordinates; all others have their fixed values.

    **Raises:** as `evaluate`.
    """
    needed, values = _ancestors([last], set(moving)), dict(moving)
    for node in graph.nodes[1:]:
        if node not in needed or node in values:
            continue
        if any(source in values for source in node.inputs):
            for source in node.inputs:
                if source not in values:
                    values[source] = Polynomial([fixed[source].value, *[None] * (len(monomials(k)) - 1)], k)
            values[node] = _result(node, values, k)
    return values[last]


def _ancestors(nodes: Iterable[Node], stop: Collection[Node] = ()) -> set[Node]:
    pending, found = list(nodes), set(nodes)
    while pending:
        node = pending.pop()
        if node not in stop:
            pending += [source for source in node.inputs if source not in found]
            found.update(node.inputs)
    return found


def _result(node: Node, values: dict[Node, Any], k: int) -> Any:
    """The value of a node.

    **Raises:** `UnsupportedOpError` also where the tables know an op and not all of its options.
    """
    try:
        return _Op(node, values, k).result()
    except (EnclosureError, UnsupportedOpError):
        raise
    except FOREIGN as error:
        raise UnsupportedOpError(f"{node.op} at {node.source} is beyond the verifier's tables: {error}") from error


#: what NumPy and FLINT raise for arguments that an op of the tables was not written for
FOREIGN = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


def _narrowed(over: Any, middle: Any, steps: Sequence[arb]) -> Any:
    """By the mean value theorem: over a box, the value in the middle plus slopes over the box times steps."""
    if isinstance(over, tuple):
        return tuple(_narrowed(*pair, steps) for pair in zip(over, middle, strict=True))
    if not isinstance(over, Polynomial) or not over.moves:
        return over
    places = {monomial: m for m, monomial in enumerate(monomials(over.k))}
    parts, shape = list(over.parts), over.value.shape

    def narrow(place: int, changes: list[tuple[int, arb]]) -> None:
        slopes = [part * step for part, step in ((parts[m], step) for m, step in changes) if part is not None]
        if parts[place] is not None and slopes:
            start = middle.parts[place] if middle.parts[place] is not None else np.full(shape, ZERO, dtype=object)
            parts[place] = _BOTH(parts[place], sum(slopes, start))

    for i in range(over.k):
        narrow(1 + i, [(places[min(i, j), max(i, j)], step * (2 if i == j else 1)) for j, step in enumerate(steps)])
    narrow(0, [(1 + i, step) for i, step in enumerate(steps)])
    return Polynomial(parts, over.k)


_BOTH: Any = np.frompyfunc(lambda x, y: x.intersection(y) if x.is_finite() and y.is_finite() else x, 2, 1)


_SHAKEN: Any = np.frompyfunc(lambda x: x + arb(0, 1) * arb(2) ** -100000 if x.is_finite() else x, 1, 1)


def _nearby(x: Polynomial) -> Array:
    """The values, and where they move a little around them: what is decided has to hold there too."""
    return np.asarray(_SHAKEN(x.value), dtype=object) if x.moves else x.value


#: ops that look at nothing but a shape -> the number that they fill it with; `None` where that is their last argument
_FILLED = {"zeros_like": 0, "ones_like": 1, "new_zeros": 0, "new_ones": 1, "full_like": None, "new_full": None}


def _is_mask(node: Node) -> bool:
    """Whether a node holds truths rather than numbers."""
    name = node.op.removeprefix("aten.")
    if name == "_to_copy":
        return node.kwargs["dtype"] is torch.bool
    if name in COMPARISONS or name in LOGIC or name.startswith("is") or name in ("any", "all"):
        return True
    moved = name in LINEAR or name in ("cat", "stack")
    return moved and bool(node.inputs) and all(map(_is_mask, node.inputs))


def _scaled(x: Polynomial, factor: float) -> Polynomial:
    return x if factor == 1 else x.each(lambda part: part * arb(factor))


class _Op:
    """One node, evaluated."""

    def __init__(self, node: Node, values: dict[Node, Any], k: int) -> None:
        self.node, self.values, self.k = node, values, k
        self.name = node.op.removeprefix("aten.")

    def result(self) -> Any:
        name, args, kwargs = self.name, self.node.args, self.node.kwargs
        if name == "getitem":
            return self.values[args[0]][args[1]]
        if (decided := self._decided(name, args, kwargs)) is not None:
            return self._constant(decided)
        if name in FUNCTIONS and isinstance(args[0], Node) and not any(isinstance(a, Node) for a in args[1:]):
            options = [a.item() if isinstance(a, Tensor) else a for a in args[1:]]
            return composed(self.values[args[0]], lambda s: FUNCTIONS[name](s, *options, **kwargs))
        if name == "pow" and isinstance(args[1], (Node, Tensor)):
            base, exponent = (self._polynomial(a) for a in args)
            product = bilinear(composed(base, lambda s: s.log()), exponent, np.multiply)
            return composed(product, lambda s: s.exp())
        if name in MATRICES:
            others = [self._polynomial(a) if isinstance(a, (Node, Tensor)) else a for a in args]
            return self._known(of_matrices(name, *others, **kwargs))
        if name in ("mul", "add", "sub", "rsub", "div"):
            return self._arithmetic(*args, **kwargs)
        if name in ("mm", "bmm", "addmm"):
            return self._product(*args, **kwargs)
        if name == "linalg_solve_triangular":
            return self._solved(*args, **kwargs)
        if name in ("_softmax", "logsumexp"):
            return (softmax if name == "_softmax" else logsumexp)(self.values[args[0]], *args[1:], **kwargs)
        if name == "_log_softmax":
            total = logsumexp(self.values[args[0]], args[1], True)
            return plus(self.values[args[0]], total.each(lambda part: -part))
        if name in LINEAR:
            options = [self._control(a) for a in args[1:]]
            return self._polynomial(args[0]).each(lambda part: LINEAR[name](part, *options, **kwargs))
        if name in JOINED and kwargs.keys() <= {"dim", "alpha"}:
            return self._joined(*JOINED[name], args, kwargs)
        if name == "convolution":
            x, weight = self._polynomial(args[0]), self._polynomial(args[1])
            out = bilinear(x, weight, lambda a, b: convolution(a, b, *args[3:]))
            if args[2] is None:
                return out
            behind = [1] * (weight.value.ndim - 2)
            return plus(out, self._polynomial(args[2]).each(lambda part: part.reshape(-1, *behind)))
        if "pool" in name:
            x = self._polynomial(args[0])
            pool, index = self._known(pooled(name, _nearby(x), *args[1:], **kwargs))
            return x.each(pool) if index is None else (x.each(pool), self._constant(index))
        if name in ("cummax", "cummin"):
            x = self.values[args[0]]
            index = running(_nearby(x), args[1], name == "cummax")
            places = filled(map(arb, index.ravel().tolist()), index.shape)
            return x.each(lambda part: np.take_along_axis(part, index, args[1])), self._constant(places)
        if name in COMPARISONS:
            a, b = (_nearby(self._polynomial(leaf)) for leaf in args)
            return self._constant(COMPARISONS[name](a, b))
        if name == "_to_copy":
            x = self.values[args[0]]
            if kwargs["dtype"].is_floating_point:
                return x
            to_bool = kwargs["dtype"] is torch.bool
            return self._constant(logic("logical_or", _nearby(x), _nearby(x)) if to_bool else toward_zero(_nearby(x)))
        if name in _FILLED:
            number = _FILLED[name] if _FILLED[name] is not None else args[-1]
            if isinstance(number, (int, float)):
                return self._constant(np.full(self.node.shape, arb(number), dtype=object))
        if name in ("amax", "amin") or (name in ("max", "min") and len(args) == 1 and not kwargs):
            given = dict(zip(("dim", "keepdim"), args[1:], strict=False)) | kwargs
            x = self.values[args[0]]
            over = largest_over(_nearby(x), given.get("dim"), given.get("keepdim", False), name in ("amax", "max"))
            return x.each(over)
        if name in ("topk", "sort", "argmax", "argmin") or (name in ("max", "min") and len(args) > 1):
            return self._chosen(*args, **kwargs)
        raise self._unknown()

    def _decided(self, name: str, args: Any, kwargs: Any) -> Array | None:
        """What is a constant near the point: logic, steps and whole parts; `None` for other ops."""
        if name in LOGIC:
            return logic(name, *(_nearby(self._polynomial(leaf)) for leaf in args))
        if name in STEPS and not args[1:] and not kwargs:
            return np.asarray(STEPS[name](_nearby(self._polynomial(args[0]))), dtype=object)
        if name == "trunc":
            return toward_zero(_nearby(self._polynomial(args[0])))
        if name == "heaviside":
            return heaviside(*(_nearby(self._polynomial(leaf)) for leaf in args))
        if name in ("any", "all", "count_nonzero"):
            given = dict(zip(("dims", "keepdim"), args[1:], strict=False)) | {
                "dims" if key == "dim" else key: value for key, value in kwargs.items()
            }
            return counted(name, _nearby(self._polynomial(args[0])), **given)
        mode = "floor" if name == "floor_divide" else kwargs.get("rounding_mode") if name == "div" else None
        if mode is not None:
            first, second = (_nearby(self._polynomial(leaf)) for leaf in args)
            return divided(first, second, mode)
        return None

    def _constant(self, value: Array) -> Polynomial:
        return Polynomial([value, *[None] * (len(monomials(self.k)) - 1)], self.k)

    def _polynomial(self, leaf: Any) -> Polynomial:
        """An argument as a polynomial."""
        if isinstance(leaf, Node):
            return self.values[leaf]
        return self._constant(exact(leaf) if isinstance(leaf, Tensor) else np.asarray(arb(leaf), dtype=object))

    def _control(self, leaf: Any) -> Any:
        """An option, or an index or mask that is constant or was decided."""
        if isinstance(leaf, (list, tuple)):
            return type(leaf)(self._control(item) for item in leaf)
        if isinstance(leaf, Tensor):
            return leaf.cpu().numpy()
        if not isinstance(leaf, Node):
            return leaf
        value = self.values[leaf].value
        whole = filled((int(x.unique_fmpz()) for x in value.ravel()), value.shape).astype(np.int64)
        return whole.astype(bool) if self.name in ("where", "masked_fill") or _is_mask(leaf) else whole

    def _arithmetic(self, a: Any, b: Any, alpha: float = 1) -> Polynomial:
        x, y = self._polynomial(a), self._polynomial(b)
        if self.name == "mul":
            return bilinear(x, y, np.multiply)
        if self.name == "div":
            if y.moves:
                return bilinear(x, composed(y, lambda s: 1 / s), np.multiply)
            return x.each(lambda part: part / y.value)
        first, second = (y, x) if self.name == "rsub" else (x, y)
        return plus(first, _scaled(second, alpha if self.name == "add" else -alpha))

    def _product(self, *args: Any, beta: float = 1, alpha: float = 1) -> Polynomial:
        bias, (a, b) = (args[0], args[1:]) if self.name == "addmm" else (None, args)
        if self.name != "bmm" and isinstance(b, Tensor):
            product = times_constant(self._polynomial(a), b)
        elif self.name != "bmm" and isinstance(a, Tensor):
            product = times_constant(self.values[b].each(lambda part: part.T), a.T).each(lambda part: part.T)
        else:
            product = bilinear(self._polynomial(a), self._polynomial(b), dot)
        if bias is None:
            return product
        return plus(_scaled(self._polynomial(bias), beta), _scaled(product, alpha))

    def _solved(self, a: Any, b: Any, upper: bool, left: bool = True, unitriangular: bool = False) -> Polynomial:
        if not left or a.shape[:-2] != b.shape[:-2]:
            raise self._unknown()
        return substituted(self._polynomial(a), self._polynomial(b), upper, unitriangular)

    def _joined(self, places: tuple[int, ...], function: Callable[..., Array], args: Any, kwargs: Any) -> Polynomial:
        """An op that puts together entries of several arguments, one part after the other."""

        def entries(argument: Any) -> Any:
            return (
                [self._polynomial(a) for a in argument]
                if isinstance(argument, (list, tuple))
                else self._polynomial(argument)
            )

        def part(argument: Any, m: int) -> Any:
            if isinstance(argument, list):
                return [part(a, m) for a in argument]
            held = argument.parts[m]
            return np.full(argument.value.shape, ZERO, dtype=object) if held is None else held

        read = [entries(a) if i in places else self._control(a) for i, a in enumerate(args)]
        flat = [p for i in places if i < len(args) for p in (read[i] if isinstance(read[i], list) else [read[i]])]
        parts: list[Part] = []
        for m in range(len(flat[0].parts)):
            moved = any(p.parts[m] is not None for p in flat)
            arguments = [part(a, m) if i in places else a for i, a in enumerate(read)] if moved else []
            parts.append(function(*arguments, **kwargs) if moved else None)
        return Polynomial(parts, self.k)

    def _chosen(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The largest or smallest entries along an axis, and where they are."""
        names = {"topk": ("count", "dim", "largest"), "sort": ("dim", "descending")}.get(self.name, ("dim", "keepdim"))
        options = dict(zip(names, args, strict=False)) | kwargs
        values, dim = self.values[x], options.get("dim", -1)
        if self.name.startswith("arg") and options.get("dim") is None:
            values, dim = values.each(lambda part: part.reshape(-1)), 0
        if not isinstance(dim, int):
            raise self._unknown()
        largest = options.get("largest", options.get("descending", self.name in ("max", "argmax", "topk")))
        count = options.get("count", values.value.shape[dim] if self.name == "sort" else 1)
        index = ranked(_nearby(values), count, dim, largest)
        chosen = values.each(lambda part: np.take_along_axis(part, index, dim))
        where = self._constant(filled(map(arb, index.ravel().tolist()), index.shape))
        if self.name in ("topk", "sort"):
            return chosen, where
        if not options.get("keepdim", False):
            chosen, where = (p.each(lambda part: part.squeeze(dim)) for p in (chosen, where))
        return where if self.name.startswith("arg") else (chosen, where)

    def _known(self, found: Any) -> Any:
        """What the tables found, if anything."""
        if found is None:
            raise self._unknown()
        return found

    def _unknown(self) -> UnsupportedOpError:
        return UnsupportedOpError(f"{self.node.op} at {self.node.source} is not in the verifier's tables")
