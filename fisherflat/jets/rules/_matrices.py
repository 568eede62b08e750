"""The rules of inverses, determinants and factors of matrices, from the equations that define them.

Differentiated twice, such an equation is linear in what is sought, with the same linear map at each order: so each rule
says how derivatives of the matrix pass on, and what the product of two first derivatives adds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._series import Algebra, Series, Unknown, aligned

Arrays = tuple[Any, ...]


def implicit(
    xp: Algebra,
    node: Node,
    x: Series,
    values: Arrays,
    passed: Callable[[Any], Arrays],
    source: Callable[[int, slice, Arrays], Arrays],
) -> tuple[Series, ...]:
    """Outputs with `d_i y = passed(d_i x)` and `d_ij y = passed(d_ij x) + source`.

    **Args:** `values` of the outputs; `passed`, of any number of coefficients; `source(i, j, first)`, of the first
    derivatives of the outputs, the sources of i with the directions j.
    """
    k, data = x.k, x.data
    if x.order == 0:
        return tuple(Series(value[None], k) for value in values)
    outputs = []
    for value, rows in zip(values, passed(data[1:]), strict=True):
        out = xp.empty(xp.count(2, k), data, tuple(value.shape[1:]))
        out[0].copy_(value)
        out[1 : data.shape[0]].copy_(rows)
        out[data.shape[0] :].zero_()
        outputs.append(Series(out, k))
    first = tuple(xp.kept(output.data[1 : 1 + k]) for output in outputs)
    for i, j in xp.crossings(k):
        for output, own in zip(outputs, source(i, j, first), strict=True):
            xp.row(node, output, i).add_(own)
    return tuple(outputs)


def unread(node: Node, count: int) -> tuple[Unknown, ...]:
    """Outputs beside the one that is meant: factors, pivots and flags of success."""
    said = f"{node.op} at {node.source} has derivatives of its first outputs alone; do without the others"
    return (Unknown(said),) * count


# -- inverses and determinants -----------------------------------------------------------------------------------------


def inverse(xp: Algebra, node: Node, a: Series, check_errors: bool = False) -> tuple[Any, ...]:
    """`a x = 1`: `d_ij x = -x (d_ij a x + d_i a d_j x + d_j a d_i x)`."""
    (x,) = xp.matrix(node, "inverse", a.data[0])
    slopes = a.data[1 : 1 + a.k]

    def source(i: int, j: slice, first: Arrays) -> Arrays:
        (dx,) = first
        return (-(x @ (slopes[i] @ dx[j] + slopes[j] @ dx[i])),)

    return *implicit(xp, node, a, (x,), lambda da: (-(x @ da @ x),), source), *unread(node, 1)


def determinant(xp: Algebra, node: Node, a: Series) -> tuple[Any, ...]:
    """A sum of products, so it is smooth at singular matrices too."""
    value, first, second = xp.matrix(node, "determinant", a.data[0])
    slopes = a.data[1 : 1 + a.k]

    def source(i: int, j: slice, _: Arrays) -> Arrays:
        return (second(slopes[i], slopes[j]),)

    return *implicit(xp, node, a, (value,), lambda da: (first(da),), source), *unread(node, 2)


def log_determinant(xp: Algebra, node: Node, a: Series) -> tuple[Any, ...]:
    """`d_ij log|a| = tr(x d_ij a) - tr(x d_i a x d_j a)`, x the inverse; the sign stands still."""
    (x,) = xp.matrix(node, "inverse", a.data[0])
    sign, value = xp.matrix(node, "log determinant", a.data[0])
    slopes = a.data[1 : 1 + a.k]

    def traced(y: Any, da: Any) -> Any:
        return (y.mT * da).sum((-2, -1))

    (logarithm,) = implicit(
        xp,
        node,
        a,
        (value,),
        lambda da: (traced(x, da),),
        lambda i, j, _: (-traced(x @ slopes[i] @ x, slopes[j]),),
    )
    return Series(sign[None], a.k), logarithm, *unread(node, 2)


def exponential(xp: Algebra, node: Node, a: Series) -> Series:
    """The exponential of block matrices: `exp [[a, e], [0, a]]` has the derivative along e in its corner."""
    n, slopes = a.shape[-1], a.data[1 : 1 + a.k]

    def blocks(count: int, like: Any, *placed: tuple[int, int, Any]) -> Any:
        out = xp.empty(like.shape[0], like, (*like.shape[2:-2], count * n, count * n))
        out.zero_()
        for row, column, block in placed:
            out[..., row * n : (row + 1) * n, column * n : (column + 1) * n].copy_(block)
        return out

    def corner(array: Any) -> Any:
        return xp.matrix(node, "exponential", array)[0][..., :n, -n:]

    def passed(da: Any) -> Arrays:
        return (corner(blocks(2, da, (0, 0, a.data[0]), (1, 1, a.data[0]), (0, 1, da))),)

    def source(i: int, j: slice, first: Arrays) -> Arrays:
        diagonal, others = [(d, d, a.data[0]) for d in range(4)], slopes[j]
        either = [(0, 1, slopes[i]), (2, 3, slopes[i]), (0, 2, others), (1, 3, others)]
        return (corner(blocks(4, others, *diagonal, *either)),)

    (value,) = xp.matrix(node, "exponential", a.data[0])
    return implicit(xp, node, a, (value,), passed, source)[0]


# -- systems -----------------------------------------------------------------------------------------------------------


def triangular_system(
    xp: Algebra, node: Node, a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Series:
    """Of `a` nothing is read but its triangle, without the diagonal where that is known to be one.

    `left` is always true: other systems are recorded as their transpose.
    """

    def solve(matrix: Any, rows: Any) -> None:
        xp.solve_triangular(matrix, rows, upper, unitriangular)

    def read(slopes: Any) -> Any:
        return slopes.triu(int(unitriangular)) if upper else slopes.tril(-int(unitriangular))

    return _solution(xp, node, a, b, solve, read)


def system(
    xp: Algebra, node: Node, a: Any, b: Any, *, left: bool = True, check_errors: bool = False
) -> tuple[Any, ...]:
    """`left` is always true, and `b` a matrix: other systems are recorded as such."""

    def solve(matrix: Any, rows: Any) -> None:
        rows.copy_(xp.matrix(node, "solution", matrix, rows)[0])

    return _solution(xp, node, a, b, solve, lambda slopes: slopes, node.shape[0]), *unread(node, 3)


def _solution(
    xp: Algebra,
    node: Node,
    a: Any,
    b: Any,
    solve: Callable[[Any, Any], None],
    read: Callable[[Any], Any],
    shape: tuple[int, ...] | None = None,
) -> Series:
    """`x = a⁻¹ b`: `d_i x = a⁻¹ (d_i b - d_i a x)`, `d_ij x = a⁻¹ (d_ij b - d_ij a x - d_i a d_j x - d_j a d_i x)`."""
    shape = node.shape if shape is None else shape
    k, rank = (a if isinstance(a, Series) else b).k, len(shape)
    first, second = (aligned(s.data, rank) if isinstance(s, Series) else xp.constant(s)[None, None] for s in (a, b))
    moves = first.shape[0] > 1
    order = 2 if moves else b.order if isinstance(b, Series) else 0
    like = first if isinstance(a, Series) else second
    out = xp.empty(xp.count(order, k), like, shape)
    result, given = Series(out, k), second.shape[0]
    matrix = first[0]

    def solved(rows: Any) -> None:
        if rows.shape[0]:
            solve(matrix, rows)

    out[:given].copy_(second)
    out[given:].zero_()
    solved(out[:1])
    if moves:
        slopes = read(first[1:])
        out[1 : first.shape[0]].sub_(slopes @ xp.kept(out[:1]))
    solved(out[1 : 1 + k])
    if moves:
        rows = xp.kept(out[1 : 1 + k])
        for i, j in xp.crossings(k):
            row = xp.row(node, result, i)
            row.sub_(slopes[i : i + 1] @ rows[j])
            row.sub_(slopes[j] @ rows[i : i + 1])
    solved(out[1 + k :])
    return result
