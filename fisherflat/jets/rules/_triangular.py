"""The second-order rule of systems of equations with a triangular matrix, as in the delta rule of linear attention."""

from __future__ import annotations

from typing import Any

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._series import Algebra, Series, aligned


def solved(
    xp: Algebra, node: Node, a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Series:
    """`x = a⁻¹ b`: `d_i x = a⁻¹ (d_i b - d_i a x)`, `d_ij x = a⁻¹ (d_ij b - d_ij a x - d_i a d_j x - d_j a d_i x)`.

    Of `a` nothing is read but its triangle, without the diagonal where that is known to be one. `left` is always true:
    other systems are recorded as their transpose.
    """
    k, rank = (a if isinstance(a, Series) else b).k, len(node.shape)
    first, second = (aligned(s.data, rank) if isinstance(s, Series) else xp.constant(s)[None, None] for s in (a, b))
    moves = first.shape[0] > 1
    order = 2 if moves else b.order if isinstance(b, Series) else 0
    like = first if isinstance(a, Series) else second
    out = xp.empty(xp.count(order, k), like, node.shape)
    result, given = Series(out, k), second.shape[0]

    def solve(rows: Any) -> None:
        if rows.shape[0]:
            xp.solve_triangular(first[0], rows, upper, unitriangular)

    out[:given].copy_(second)
    out[given:].zero_()
    solve(out[:1])
    if moves:
        slopes = first[1:].triu(int(unitriangular)) if upper else first[1:].tril(-int(unitriangular))
        out[1 : first.shape[0]].sub_(slopes @ out[:1])
    solve(out[1 : 1 + k])
    if moves:
        for i in range(k):
            row = xp.row(node, result, i)
            row.sub_(slopes[i : i + 1] @ out[1 + i : 1 + k])
            row.sub_(slopes[i:k] @ out[1 + i : 2 + i])
    solve(out[1 + k :])
    return result
