"""The 2-jet of a single op that has no rule, by `torch.func`.

Derivatives along a direction are the transpose of a transpose: reverse over reverse, twice over for second derivatives.
Forward mode is not used at all: nested, its formulas are wrong for some ops (PyTorch issues 196700, 198017), and even
one forward derivative of a reverse one is wrong for others (`scatter_reduce` with products) or missing.

What comes out is compared with values of the op nearby (`trusted`): torch's formulas return 0 or no number at removable
singularities, and those for symmetric matrices are no derivatives of what the op computes from one triangle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from fisherflat.errors import FallbackWarning, UnsupportedOpError, warn
from fisherflat.jets.engines._batched import batched
from fisherflat.jets.engines._chunks import is_out_of_memory
from fisherflat.jets.engines._trust import trusted
from fisherflat.jets.graph import Node
from fisherflat.jets.rules import Series, Unknown
from fisherflat.spaces.jets import pairs

Tensors = tuple[Tensor, ...]


def differentiated(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int, total: int, start: int) -> Any:
    """The op of `node` on series, as a series of `total` coefficients, or a tuple of them where it has several outputs.

    **Args:** `start`: the row of the first second derivative that the op's own source is added to.

    An output that torch does not differentiate is a series of order 0 where it holds integers, else `Unknown`.

    **Raises:** `UnsupportedOpError` where torch cannot differentiate the op twice, or its derivatives are not those of
    its values.
    """
    _warn_once(node)
    leaves, structure = tree_flatten((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Series))
    real = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Series) and leaf.data.is_floating_point()]
    integral = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Series) and i not in real]
    data = [padded(leaves[i].data, total) for i in real]
    at, still = tuple(d[0] for d in data), tuple(leaves[i].data[0] for i in integral)

    def outputs(x: Tensors, fixed: Tensors) -> Tensors:
        filled = list(leaves)
        for position, tensor in zip(real + integral, x + fixed, strict=True):
            filled[position] = tensor
        full_args, full_kwargs = tree_unflatten(filled, structure)
        out = node.target(*full_args, **full_kwargs)
        return (out,) if isinstance(out, Tensor) else tuple(out)

    def each(*moved: Tensor) -> Tensors:
        return outputs(moved[: len(at)], moved[len(at) :])

    def smooth(x: Tensors, fixed: Tensors) -> Tensors:
        return tuple(out for out, moves in zip(outputs(x, fixed), differentiable, strict=True) if moves)

    def first(x: Tensors, fixed: Tensors, v: Tensors) -> Tensors:
        return _along(lambda *y: smooth(y, fixed), x, v)

    def second(x: Tensors, fixed: Tensors, v: Tensors, w: Tensors) -> Tensors:
        return _along(lambda *y: first(y, fixed, v), x, w)

    def row(c: int) -> Tensors:
        return tuple(d[c] for d in data)

    differentiable: list[bool] = []
    try:
        with torch.enable_grad():
            probe = outputs(tuple(a[0].detach().requires_grad_() for a in at), tuple(f[0] for f in still))
        differentiable = [out.requires_grad for out in probe]
        if not any(differentiable):
            raise NotImplementedError("it has no derivative")
        values = batched(node, each, (True,) * len(at + still), [*at, *still])
        rows = [vmap(smooth)(at, still)] + [vmap(first)(at, still, row(c)) for c in range(1, total)]
        for c, (i, j) in enumerate(pairs(k), start):
            source = vmap(second)(at, still, row(1 + i), row(1 + j))
            rows[c] = tuple(a + b for a, b in zip(rows[c], source, strict=True))
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        other = ', or use engine="autodiff"' if any(differentiable) else ""
        raise UnsupportedOpError(
            f"{node.op} at {node.source} has no second-order rule, and torch cannot differentiate it alone ({error}); "
            f"write that step in simpler ops{other}"
        ) from error
    found = [torch.stack(parts) for parts in zip(*rows, strict=True)]

    def nearby(x: Tensors) -> Tensors:
        outputs = batched(node, each, (True,) * len(x + still), [*x, *still])
        return tuple(out for out, moves in zip(outputs, differentiable, strict=True) if moves)

    if not trusted(nearby, data, found, k):
        raise UnsupportedOpError(
            f"{node.op} at {node.source} has no second-order rule, and torch's derivatives of it do not fit its values "
            "there (a singularity, or a formula that takes a matrix for symmetric); write that step in simpler ops"
        )
    moving = iter([Series(coefficients, k) for coefficients in found])
    said = f"torch does not know the derivatives of an output of {node.op} at {node.source}; do without that output"
    out = tuple(
        next(moving) if moves else Unknown(said) if value.is_floating_point() else Series(value[None], k)
        for value, moves in zip(values, differentiable, strict=True)
    )
    return out if node.shape and isinstance(node.shape[0], tuple) else out[0]


def _along(function: Callable[..., Tensors], x: Tensors, v: Tensors) -> Tensors:
    """The derivative of a function at `x` along `v`."""
    out, pull = vjp(function, *x)  # type: ignore[misc]  # three only with has_aux
    return vjp(pull, tuple(torch.zeros_like(o) for o in out))[1](v)[0]


def padded(data: Tensor, coefficients: int) -> Tensor:
    """`data` with zeros for the coefficients that it lacks."""
    missing = coefficients - data.shape[0]
    return torch.cat([data, data.new_zeros(missing, *data.shape[1:])]) if missing else data


_warned: set[str] = set()


def warn_again() -> None:
    """Forget which ops have been warned of: each is once in a process."""
    _warned.clear()


def _warn_once(node: Node) -> None:
    if node.op not in _warned:
        _warned.add(node.op)
        warn(
            f"{node.op} at {node.source} has no rule of its own; torch differentiates it alone: right, but slower",
            FallbackWarning,
        )
