"""One second-order rule an op, written against the algebra of `fisherflat.jets.rules`.

Second derivatives of a composition have two kinds of terms: what a node passes on linearly, and what it adds of its own
from first derivatives (its *source*). A linear op has no source and acts on all coefficients in one call; a product
has `d_i a d_j b + d_j a d_i b`; an elementwise function `f''(x) d_i x d_j x`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Graph, Node, getitem, mapped_leaves, run
from fisherflat.jets.rules._elementary import FUNCTIONS, Logarithm, Triple, power
from fisherflat.jets.rules._series import Algebra, Series, aligned
from fisherflat.jets.rules._triangular import solved

aten = torch.ops.aten
Rule = Callable[..., Any]

#: ATen op (without overload) -> rule(algebra, node, *args, **kwargs), args as in the op with series for nodes
RULES: dict[Any, Rule] = {}


def evaluate(graph: Graph, xp: Algebra, x: Series) -> Series | Tensor:
    """The graph on a series; intermediate values are dropped after their last use."""
    if isinstance(graph.output, Tensor):
        return graph.output
    values: dict[Node, Any] = {graph.input: x}
    last = graph.last_use()
    for node in graph.nodes:
        if node.target is not None:
            xp.block = xp.labels.get(node, 0)
            values[node] = apply(xp, node, values.__getitem__, x.k)
        for dead in last.get(node, ()):
            del values[dead]
    return values[graph.output]


def apply(xp: Algebra, node: Node, value: Callable[[Node], Any], k: int) -> Any:
    """The rule of `node` on the series of its inputs."""
    # not by a function that calls itself: such a closure is a cycle, and would keep all values and weights alive
    args, kwargs = mapped_leaves(lambda leaf: value(leaf) if isinstance(leaf, Node) else leaf, (node.args, node.kwargs))
    if node.target is getitem:
        return args[0][args[1]]
    moving = [leaf for leaf in node.inputs if value(leaf).order > 0]
    if node.packet in PIECEWISE_CONSTANT or not moving:
        return xp.values(node, args, kwargs, k)
    rule = RULES.get(node.packet)
    if rule is None:
        return xp.fallback(node, args, kwargs, k)
    return rule(xp, node, *args, **kwargs)


def _names(*names: str) -> list[Any]:
    """ATen ops by name; names that the installed torch does not know are left out."""
    return [getattr(aten, name) for name in names if hasattr(aten, name)]


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(_names(*names), function))
        return function

    return register


#: ops whose derivative vanishes wherever it exists
PIECEWISE_CONSTANT = frozenset(_names(
    "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isposinf", "isneginf", "logical_and", "logical_or",
    "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "argmax", "argmin", "sign",
    "sgn", "signbit", "floor", "ceil", "round", "trunc", "floor_divide", "heaviside", "any", "all", "count_nonzero",
    "searchsorted", "bucketize", "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones",
    "new_full", "new_empty", "new_empty_strided",
))  # fmt: skip

#: ops that move or copy entries: each entry of the output is an entry of an input, or a constant
STRUCTURAL = frozenset(_names(
    "reshape", "permute", "expand", "select", "slice", "cat", "stack", "index", "index_select", "gather", "flip",
    "roll", "repeat", "tril", "triu", "diagonal", "diag_embed", "constant_pad_nd", "slice_scatter", "select_scatter",
    "diagonal_scatter", "index_put", "index_copy", "index_fill", "scatter", "where", "masked_fill", "unfold", "rot90",
    "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "im2col", "embedding",
))  # fmt: skip

#: ops that are affine in all their floating arguments together
LINEAR = STRUCTURAL | frozenset(_names(
    "sum", "mean", "cumsum", "neg", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "scatter_add", "index_add", "trace", "upsample_linear1d", "upsample_bilinear2d",
    "col2im",
))  # fmt: skip


def is_affine(node: Node) -> bool:
    """Whether the op is affine in its moving inputs together, so that it adds no second-order term of its own."""
    if node.target is None or node.target is getitem or node.packet in LINEAR or node.packet in PIECEWISE_CONSTANT:
        return True
    if node.packet in (aten.add, aten.sub, aten.rsub):
        return True
    if node.packet is aten.div:
        return not isinstance(node.args[1], Node)
    if node.packet is aten.convolution:
        return not isinstance(node.args[1], Node)
    if node.packet is aten.linalg_solve_triangular:
        return not isinstance(node.args[0], Node)
    products = (aten.mul, aten.mm, aten.bmm, aten.matmul, aten.addmm)
    return node.packet in products and not (isinstance(node.args[-1], Node) and isinstance(node.args[-2], Node))


def _linear(xp: Algebra, node: Node, *args: Any, **kwargs: Any) -> Series:
    order, k = _order(args, kwargs)
    return xp.linear(node, args, kwargs, order, k)


RULES.update(dict.fromkeys(LINEAR, _linear))


@_rule("_to_copy")
def _cast(xp: Algebra, node: Node, x: Series, **kwargs: Any) -> Series:
    return _linear(xp, node, x, **kwargs) if kwargs["dtype"].is_floating_point else xp.values(node, (x,), kwargs, x.k)


@_rule("scatter")
def _scatter(xp: Algebra, node: Node, *args: Any, **kwargs: Any) -> Series:
    if "reduce" in kwargs:  # it may multiply
        return xp.fallback(node, args, kwargs, _order(args)[1])
    return _linear(xp, node, *args, **kwargs)


def _order(*things: Any) -> tuple[int, int]:
    """The largest order among the series in nested arguments, and k."""
    found = [leaf for leaf in _leaves(things) if isinstance(leaf, Series)]
    return max(series.order for series in found), found[0].k


def _leaves(thing: Any) -> list[Any]:
    if isinstance(thing, (tuple, list)):
        return [leaf for item in thing for leaf in _leaves(item)]
    if isinstance(thing, dict):
        return _leaves(list(thing.values()))
    return [thing]


# -- sums ------------------------------------------------------------------------------------------------------------


@_rule("add")
def _add(xp: Algebra, node: Node, a: Any, b: Any, alpha: float = 1) -> Series:
    if not isinstance(a, Series):
        a, b = (b, a) if alpha == 1 else (Series(b.data * alpha, b.k), a)
        alpha = 1
    rank = len(node.shape)
    left = aligned(a.data, rank)
    if not isinstance(b, Series):
        out = xp.empty(left.shape[0], left, node.shape)
        out.copy_(left)
        if alpha != 1 and not isinstance(b, Tensor):  # a product of numbers would be rounded
            b = torch.tensor(b, dtype=torch.float64)
        out[0].add_(_constant(xp, b) * alpha if alpha != 1 else _constant(xp, b))
        return Series(out, a.k)
    right = aligned(b.data, rank)
    if alpha != 1:
        right = right * alpha
    long, short = (left, right) if left.shape[0] >= right.shape[0] else (right, left)
    out = xp.empty(long.shape[0], long, node.shape)
    shared = short.shape[0]
    xp.add(long[:shared], short, out[:shared])
    out[shared:].copy_(long[shared:])
    return Series(out, a.k)


@_rule("sub")
def _sub(xp: Algebra, node: Node, a: Any, b: Any, alpha: float = 1) -> Series:
    return _add(xp, node, a, b, -alpha)


@_rule("rsub")
def _rsub(xp: Algebra, node: Node, a: Any, b: Any, alpha: float = 1) -> Series:
    return _add(xp, node, b, a, -alpha)


def _constant(xp: Algebra, value: Any) -> Any:
    return xp.constant(value) if isinstance(value, Tensor) else value


# -- products ----------------------------------------------------------------------------------------------------------


def leibniz(
    xp: Algebra, a: Series, b: Series, shape: tuple[int, ...], into: Callable[..., None], add: Callable[..., None]
) -> Series:
    """A bilinear op of two series: `into(a, b, out)` writes, `add(out, a, b, scale)` accumulates."""
    k, first, second = a.k, a.data, b.data
    order = 2 if a.order and b.order else max(a.order, b.order)
    out = xp.empty(xp.count(order, k), first, shape)
    ca, cb = first.shape[0], second.shape[0]
    shared = min(ca, cb)
    into(first, second[0], out[:ca])
    if cb > ca:
        into(first[0], second[ca:], out[ca:cb])
    if shared > 1:
        add(out[1:shared], first[0], second[1:shared])
    result = Series(out, k)
    if a.order and b.order:
        blank = xp.blank(result, max(ca, cb))
        for i in range(k):
            row, ahead = xp.row(result, i), slice(1 + i, 1 + k)
            (into(first[1 + i], second[ahead], row) if blank else add(row, first[1 + i], second[ahead]))
            add(row, first[ahead], second[1 + i])
    return result


def _scaled(xp: Algebra, node: Node, a: Series, factor: Any) -> Series:
    out = xp.empty(a.data.shape[0], a.data, node.shape)
    xp.mul(aligned(a.data, len(node.shape)), _constant(xp, factor), out)
    return Series(out, a.k)


@_rule("mul")
def _mul(xp: Algebra, node: Node, a: Any, b: Any) -> Series:
    if not isinstance(a, Series):
        a, b = b, a
    if not isinstance(b, Series):
        return _scaled(xp, node, a, b)
    if b.order > a.order:  # the result takes the dtype of the first, and a mask does not move
        a, b = b, a
    rank = len(node.shape)
    left = a if len(a.shape) == rank else Series(aligned(a.data, rank), a.k)
    right = left if a is b else b if len(b.shape) == rank else Series(aligned(b.data, rank), b.k)
    return leibniz(xp, left, right, node.shape, xp.mul, xp.fma)


@_rule("div")
def _div(xp: Algebra, node: Node, a: Any, b: Any, rounding_mode: str | None = None) -> Series:
    if rounding_mode is not None:
        return xp.values(node, (a, b), {"rounding_mode": rounding_mode}, _order((a, b))[1])
    if not isinstance(b, Series) or b.order == 0:
        out = xp.empty(a.data.shape[0], a.data, node.shape)
        divisor = aligned(b.data, len(node.shape)) if isinstance(b, Series) else _constant(xp, b)
        xp.div(aligned(a.data, len(node.shape)), divisor, out)
        return Series(out, a.k)
    inverse = unary(xp, b, FUNCTIONS["reciprocal"])
    return _mul(xp, node, a, inverse)


@_rule("mm", "bmm")
def _matmul(xp: Algebra, node: Node, a: Any, b: Any) -> Series:
    if isinstance(a, Series) and isinstance(b, Series):
        return xp.contract(a, b, node.shape)
    series = a if isinstance(a, Series) else b
    out = xp.empty(series.data.shape[0], series.data, node.shape)
    left = a.data if isinstance(a, Series) else xp.constant(a)
    right = b.data if isinstance(b, Series) else xp.constant(b)
    xp.matmul(left, right, out)
    return Series(out, series.k)


@_rule("addmm")
def _addmm(xp: Algebra, node: Node, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Series:
    if alpha != 1 or beta != 1 or isinstance(bias, Series) or not (isinstance(a, Series) or isinstance(b, Series)):
        moves = isinstance(a, Series) or isinstance(b, Series)
        product = _matmul(xp, node, a, b) if moves else xp.constant(a) @ xp.constant(b)
        if alpha != 1:
            product = _scaled(xp, node, product, alpha) if isinstance(product, Series) else product * alpha
        return _add(xp, node, product, bias, beta)
    product = _matmul(xp, node, a, b)
    product.data[0].add_(xp.constant(bias))
    return product


@_rule("convolution")
def _convolution(xp: Algebra, node: Node, x: Any, weight: Any, bias: Any, *options: Any) -> Series:
    if isinstance(weight, Series) or isinstance(bias, Series):
        return xp.fallback(node, (x, weight, bias, *options), {}, _order((x, weight, bias))[1])
    return xp.linear(node, (x, weight, bias, *options), {}, x.order, x.k)


RULES[aten.linalg_solve_triangular] = solved


@_rule("pow")
def _pow(xp: Algebra, node: Node, base: Any, exponent: Any) -> Series:
    base, exponent = (a.item() if isinstance(a, Tensor) and a.dim() == 0 else a for a in (base, exponent))
    if isinstance(exponent, (int, float)):
        return _mul(xp, node, base, base) if exponent == 2 else unary(xp, base, lambda x: power(x, exponent))
    if isinstance(base, (int, float)) and base > 0:
        return unary(xp, _scaled(xp, node, exponent, Logarithm(base)), FUNCTIONS["exp"])
    return xp.fallback(node, (base, exponent), {}, _order((base, exponent))[1])


# -- functions of one entry --------------------------------------------------------------------------------------------


def unary(xp: Algebra, x: Series, function: Callable[[Any], Triple]) -> Series:
    """An elementwise function: `f' d_ij x + f'' d_i x d_j x`."""
    k, data = x.k, x.data
    value, slope, bend = function(data[0])
    out = xp.empty(xp.count(2 if x.order else 0, k), data, x.shape)
    out[0].copy_(value)
    if x.order == 0:
        return Series(out, k)
    xp.mul(data[1:], slope, out[1 : data.shape[0]])
    result = Series(out, k)
    blank = xp.blank(result, data.shape[0])
    for i in range(k):
        bent = data[1 + i] * bend
        if blank:
            xp.mul(bent, data[1 + i : 1 + k], xp.row(result, i))
        else:
            xp.fma(xp.row(result, i), bent, data[1 + i : 1 + k])
    return result


def _elementwise(function: Callable[..., Triple]) -> Rule:
    def rule(xp: Algebra, node: Node, x: Any, *args: Any, **kwargs: Any) -> Series:
        if not isinstance(x, Series) or any(isinstance(a, (Series, Tensor)) for a in (*args, *kwargs.values())):
            return xp.fallback(node, (x, *args), kwargs, _order((x, *args))[1])
        return unary(xp, x, lambda data: function(data, *args, **kwargs))

    return rule


for _name, _function in FUNCTIONS.items():
    RULES[getattr(aten, _name)] = _elementwise(_function)


# -- normalised exponentials -----------------------------------------------------------------------------------------


def _axis(x: Series, dim: int) -> int:
    return dim % max(len(x.shape), 1) - len(x.shape)


@_rule("_softmax")
def _softmax(xp: Algebra, node: Node, x: Series, dim: int, half_to_float: bool) -> Series:
    """`d_i y = y z_i`, `d_ij y = y (w - <w>)`: `z_i = d_i x - <d_i x>`, `w = z_i z_j + d_ij x`, `<.>` by weights y."""
    k, data, axis = x.k, x.data, _axis(x, dim)
    y = data[0].softmax(axis)
    out = xp.empty(xp.count(2, k), data, x.shape)
    out[0].copy_(y)
    z = out[1 : 1 + k]
    z.copy_(data[1 : 1 + k])
    z.sub_((z * y).sum(axis, True))
    result = Series(out, k)
    w = out[1 + k :]
    if x.order == 2:
        w.copy_(data[1 + k :])
    blank = xp.blank(result, data.shape[0])
    for i in range(k):
        if blank:
            xp.mul(z[i], z[i:], xp.row(result, i))
        else:
            xp.fma(xp.row(result, i), z[i], z[i:])
    w.sub_((w * y).sum(axis, True))
    out[1:].mul_(y)
    return result


def _log_total(xp: Algebra, x: Series, dims: list[int]) -> tuple[Any, Any, Any]:
    """`log sum exp x` along `dims` in three parts: the largest x, the sum of `exp(x - largest)`, and derivatives.

    These are `<d_i x>` and `<z_i z_j + d_ij x>`, `<.>` the mean under the softmax and `z_i = d_i x - <d_i x>`.
    """
    k, data = x.k, x.data
    largest = data[0].amax(dims, True)
    largest = largest.masked_fill(largest.isinf(), 0.0)
    weights = (data[0] - largest).exp()
    total = weights.sum(dims, True)
    y = weights / total
    z = data[1 : 1 + k] - (data[1 : 1 + k] * y).sum(dims, True)
    inner = xp.empty(xp.count(2, k), data, x.shape)  # what the mean under y is taken of
    if x.order == 2:
        inner[1 + k :].copy_(data[1 + k :])
    else:
        inner[1 + k :].zero_()
    source = Series(inner, k)
    for i in range(k):
        xp.fma(xp.row(source, i), z[i], z[i:])
    inner[1 : 1 + k].copy_(data[1 : 1 + k])
    return largest, total, (inner[1:] * y).sum(dims, True)


@_rule("logsumexp")
def _logsumexp(xp: Algebra, node: Node, x: Series, dim: Any, keepdim: bool = False) -> Series:
    dims = dim if isinstance(dim, (tuple, list)) else [dim]
    largest, total, derivatives = _log_total(xp, x, [_axis(x, d) for d in dims])
    out = xp.empty(xp.count(2, x.k), x.data, node.shape)
    out[0].copy_((total.log() + largest).reshape(out.shape[1:]))
    out[1:].copy_(derivatives.reshape(out[1:].shape))
    return Series(out, x.k)


@_rule("_log_softmax")
def _log_softmax(xp: Algebra, node: Node, x: Series, dim: int, half_to_float: bool) -> Series:
    largest, total, derivatives = _log_total(xp, x, [_axis(x, dim)])
    out = xp.empty(xp.count(2, x.k), x.data, x.shape)
    out[0].copy_(x.data[0] - largest - total.log())
    out[1:].copy_(-derivatives)
    out[1 : x.data.shape[0]].add_(x.data[1:])
    return Series(out, x.k)


# -- choices by the value ----------------------------------------------------------------------------------------------


def _chosen(xp: Algebra, x: Series, index: Series, dim: int, shape: tuple[int, ...], node: Node) -> Series:
    gather = Node(node.index, aten.gather.default, (), {}, shape, module_path=node.module_path, source=node.source)
    return xp.linear(gather, (x, dim, index), {}, x.order, x.k)


@_rule("topk", "sort", "cummax", "cummin")
def _sorted(xp: Algebra, node: Node, x: Series, *args: Any, **kwargs: Any) -> tuple[Series, Series]:
    _, index = xp.values(node, (x, *args), kwargs, x.k)
    names = [argument.name for argument in node.target._schema.arguments]
    options = dict(zip(names[1:], args, strict=False)) | kwargs
    return _chosen(xp, x, index, options.get("dim", -1), index.shape, node), index


@_rule("max", "min")
def _extreme(xp: Algebra, node: Node, x: Series, *args: Any, **kwargs: Any) -> Any:
    if not args and not kwargs:
        flat = Series(x.data.reshape(*x.data.shape[:2], -1), x.k)
        return _extreme_along(xp, node, flat, 0, False, node.packet)[0]
    keepdim = args[1] if len(args) > 1 else kwargs.get("keepdim", False)
    return _extreme_along(xp, node, x, args[0], keepdim, node.packet)


def _extreme_along(xp: Algebra, node: Node, x: Series, dim: int, keepdim: bool, packet: Any) -> tuple[Series, Series]:
    shape = list(x.shape)
    shape[dim] = 1
    arg = Node(
        node.index, (aten.argmax if packet in (aten.max, aten.amax) else aten.argmin).default, (), {}, tuple(shape)
    )
    index = xp.values(arg, (x, dim, True), {}, x.k)
    value = _chosen(xp, x, index, dim, tuple(shape), node)
    if keepdim:
        return value, index
    squeezed = tuple(s for position, s in enumerate(shape) if position != dim % len(shape))
    return tuple(Series(s.data.reshape(*s.data.shape[:2], *squeezed), x.k) for s in (value, index))  # type: ignore[return-value]


@_rule("amax", "amin")
def _extreme_over(xp: Algebra, node: Node, x: Series, dim: Any = (), keepdim: bool = False) -> Series:
    dims = list(dim) if isinstance(dim, (tuple, list)) else [dim]
    for d in dims or range(len(x.shape)):
        x = _extreme_along(xp, node, x, d, True, node.packet)[0]
    return Series(x.data.reshape(*x.data.shape[:2], *node.shape), x.k)


@_rule("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _max_pool(xp: Algebra, node: Node, x: Series, *args: Any, **kwargs: Any) -> tuple[Series, Series]:
    _, index = xp.values(node, (x, *args), kwargs, x.k)  # counts along the pooled axes taken together
    pooled = 3 if "3d" in node.packet.__name__ else 2
    flat, where = (Series(s.data.reshape(*s.data.shape[:-pooled], -1), x.k) for s in (x, index))
    value = _chosen(xp, flat, where, -1, where.shape, node)
    return Series(value.data.reshape(*value.data.shape[:2], *index.shape), x.k), index


def constant_value(node: Node) -> Any:
    """The value of a node that reads no other node."""
    return run(node, lambda source: source)
