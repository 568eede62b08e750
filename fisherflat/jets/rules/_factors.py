"""The rules of factors of matrices: Cholesky, QR, LU, eigenvectors and singular vectors.

Each factor is written as what it is at the point times a factor near one, whose derivatives the equation gives. Signs
that are a matter of choice are as torch has them, and stand still. Eigenvalues and singular values are taken to be
simple: where two meet, vectors have no derivative, and what comes out is not finite.
"""

from __future__ import annotations

from typing import Any

import torch

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._matrices import Arrays, implicit, unread
from fisherflat.jets.rules._series import Algebra, Series


def _symmetric(a: Any, upper: bool) -> Any:
    """The symmetric matrix whose one triangle is read."""
    return a.triu() + a.triu(1).mT if upper else a.tril() + a.tril(-1).mT


def _halved(a: Any) -> Any:
    """The lower triangle with half the diagonal: `l` of `l + lᵀ`."""
    return a.tril() - a.tril().triu() * 0.5


def cholesky(xp: Algebra, node: Node, a: Series, *, upper: bool = False, check_errors: bool = False) -> tuple[Any, ...]:
    """`a = c cᵀ`: with `y -> c halved(c⁻¹ y c⁻ᵀ)`, of `d_ij a - d_i c d_j cᵀ - d_j c d_i cᵀ`."""
    (factor,) = xp.matrix(node, "cholesky", _symmetric(a.data[0], upper))

    def lower(y: Any) -> Any:
        return factor @ _halved(_before(xp, factor, _before(xp, factor, y).mT).mT)

    def oriented(y: Any) -> Arrays:
        return (y.mT if upper else y,)

    def source(i: int, j: slice, first: Arrays) -> Arrays:
        (slopes,) = oriented(first[0])
        return oriented(-lower(slopes[i] @ slopes[j].mT + slopes[j] @ slopes[i].mT))

    return *implicit(xp, node, a, oriented(factor), lambda da: oriented(lower(_symmetric(da, upper))), source), *unread(
        node, 1
    )


def _before(xp: Algebra, lower: Any, y: Any, unit: bool = False) -> Any:
    """`lower⁻¹ y`."""
    rows = y * 1.0
    xp.solve_triangular(lower, rows, False, unit)
    return rows


def _behind(xp: Algebra, y: Any, upper: Any) -> Any:
    """`y upper⁻¹`."""
    return _before(xp, upper.mT, y.mT).mT


def qr(xp: Algebra, node: Node, a: Series, mode: str = "reduced") -> Any:
    """`a r₀⁻¹ = q b` and `(a r₀⁻¹)ᵀ (a r₀⁻¹) = bᵀ b`, b upper triangular and near one.

    Of more columns than rows the first make q, and the others are its product with them: `r = qᵀ a`.
    """
    rows, columns = a.shape[-2:]
    if mode == "complete" and rows > columns:
        return xp.fallback(node, (a, mode), {}, a.k)
    q, r = xp.matrix(node, "qr", a.data[0])
    square, others, slopes = r[..., :rows], a.data[0][..., rows:], a.data[1 : 1 + a.k]

    def upper(g: Any) -> Any:
        return _halved(g).mT

    def beside(left: Any, right: Any) -> Any:
        if not right.shape[-1]:
            return left
        out = xp.empty(left.shape[0], left, (*left.shape[2:-1], columns))
        out[..., :rows].copy_(left)
        out[..., rows:].copy_(right)
        return out

    def passed(da: Any) -> Arrays:
        c = _behind(xp, da[..., :rows], square)
        b = upper(q.mT @ c + c.mT @ q)
        dq = c - q @ b
        return dq, beside(b @ square, q.mT @ da[..., rows:] + dq.mT @ others)

    def source(i: int, j: slice, first: Arrays) -> Arrays:
        dq, dr = first
        c, b = _behind(xp, slopes[..., :rows], square), _behind(xp, dr[..., :rows], square)
        bent = upper(c[i].mT @ c[j] + c[j].mT @ c[i] - b[i].mT @ b[j] - b[j].mT @ b[i])
        ddq = -(dq[i] @ b[j] + dq[j] @ b[i] + q @ bent)
        more = ddq.mT @ others + dq[i].mT @ slopes[j, ..., rows:] + dq[j].mT @ slopes[i][..., rows:]
        return ddq, beside(bent @ square, more)

    return implicit(xp, node, a, (q, r), passed, source)


def lu(xp: Algebra, node: Node, a: Series, *, pivot: bool = True) -> tuple[Series, ...]:
    """`pᵀ a = l u`: of the square block in front, `l₀⁻¹ pᵀ a u₀⁻¹` is a product of triangular matrices near one.

    Rows below it make the rest of l, as `l u₁ = pᵀ a` says, and columns behind it the rest of u.
    """
    places, low, up = xp.matrix(node, "lu" if pivot else "lu without pivots", a.data[0])
    r = low.shape[-1]
    first, below, front, behind = low[..., :r, :], low[..., r:, :], up[..., :r], up[..., r:]

    def stacked(top: Any, bottom: Any, shape: tuple[int, ...], axis: int) -> Any:
        if not bottom.shape[axis]:
            return top
        out = xp.empty(top.shape[0], top, shape)
        block = out.mT if axis == -1 else out
        block[..., :r, :].copy_(top.mT if axis == -1 else top)
        block[..., r:, :].copy_(bottom.mT if axis == -1 else bottom)
        return out

    def solved(core: Any, left: Any, right: Any) -> Arrays:
        """Both factors, from the block in front and what the other rows and columns of the product come to."""
        core = _behind(xp, _before(xp, first, core, True), front)
        dl, du = first @ core.tril(-1), core.triu() @ front
        dl = stacked(dl, _behind(xp, left - below @ du, front), low.shape[1:], -2)
        du = stacked(du, _before(xp, first, right - dl[..., :r, :] @ behind, True), up.shape[1:], -1)
        return dl, du

    def passed(da: Any) -> Arrays:
        b = places.mT @ da
        return solved(b[..., :r, :r], b[..., r:, :r], b[..., :r, r:])

    def source(i: int, j: slice, factors: Arrays) -> Arrays:
        dl, du = factors
        b = -(dl[i] @ du[j] + dl[j] @ du[i])
        return solved(b[..., :r, :r], b[..., r:, :r], b[..., :r, r:])

    return Series(places[None], a.k), *implicit(xp, node, a, (low, up), passed, source)


def lu_packed(xp: Algebra, node: Node, a: Series, *, pivot: bool = True, check_errors: bool = False) -> tuple[Any, ...]:
    """Both factors in one matrix, without the ones."""
    _, pivots, _ = xp.values(node, (a,), {"pivot": pivot}, a.k)
    _, lower, upper = lu(xp, node, a, pivot=pivot)
    packed = xp.empty(lower.data.shape[0], lower.data, a.shape)
    packed.zero_()
    packed[..., : lower.shape[-1]].copy_(lower.data.tril(-1))
    packed[..., : upper.shape[-2], :].add_(upper.data)
    return Series(packed, a.k), pivots, *unread(node, 1)


def _apart(values: Any) -> Any:
    """`1 / (values_q - values_p)` at `[p, q]`, zero on the diagonal."""
    # zeros of the diagonal, which would have infinite slopes, are set apart first
    gaps = values[..., None, :] - values[..., :, None]
    return _off_diagonal((gaps + torch.eye(gaps.shape[-1], dtype=torch.bool, device=gaps.device)).reciprocal())


def _off_diagonal(a: Any) -> Any:
    return a.tril(-1) + a.triu(1)


def _diagonal(a: Any) -> Any:
    return a.diagonal(0, -2, -1)


def eigen(xp: Algebra, node: Node, a: Series, UPLO: str = "L", compute_v: bool = True) -> tuple[Series, ...]:
    """`a v = v λ` of a symmetric matrix with simple eigenvalues, v orthogonal.

    In the eigenvectors at the point: with `t` for `vᵀ a v` and `d_i v = v x_i`, the matrix
    `t_ij + t_i x_j + t_j x_i - x_i λ_j - x_j λ_i` has `λ_ij` on its diagonal, and `(λ_q - λ_p) x_ij` off it.
    """
    upper = UPLO.upper() == "U"
    values, v = xp.matrix(node, "eigen of the upper triangle" if upper else "eigen", a.data[0])
    apart, slopes = _apart(values), _symmetric(a.data[1 : 1 + a.k], upper)

    def passed(da: Any) -> Arrays:
        t = v.mT @ _symmetric(da, upper) @ v
        return _diagonal(t), v @ (t * apart)

    def source(i: int, j: slice, first: Arrays) -> Arrays:
        t, x, dl = v.mT @ slopes @ v, v.mT @ first[1], first[0][..., None, :]
        e = t[i] @ x[j] + t[j] @ x[i] - x[i] * dl[j] - x[j] * dl[i]
        length = -(x[i] * x[j]).sum(-2)
        return _diagonal(e), v @ (e * apart) + v * length[..., None, :]

    return implicit(xp, node, a, (values, v), passed, source)


def singular(
    xp: Algebra, node: Node, a: Series, full_matrices: bool = False, compute_uv: bool = True, *, driver: Any = None
) -> Any:
    """`a v = u s`, `aᵀ u = v s` with simple singular values, u and v orthogonal.

    With `p` for `uᵀ a v`, `d u = u x + n`, `d v = v y` and `q = (1 - u uᵀ) a v`: off the diagonal
    `x s - s y = e` and `y s - s x = h`, where e and h are p and its transpose, and at second order what first ones add.
    """
    rows, columns = a.shape[-2:]
    if full_matrices and rows != columns and compute_uv:
        return xp.fallback(node, (a, full_matrices, compute_uv), {}, a.k)
    u, s, v = xp.matrix(node, "singular", a.data[0])
    if rows < columns:
        right, values, left = _singular(xp, node, Series(a.data.mT, a.k), v, s, u)
    else:
        left, values, right = _singular(xp, node, a, u, s, v)
    return left, values, Series(right.data.mT, a.k)


def _singular(xp: Algebra, node: Node, a: Series, u: Any, s: Any, v: Any) -> tuple[Series, ...]:
    """Of no more columns than rows: u, the values and v."""
    rows, columns = a.shape[-2:]
    squares, slopes = _apart(s * s), a.data[1 : 1 + a.k]
    right, left = s[..., None, :], s[..., :, None]

    def parts(da: Any) -> Arrays:
        p = u.mT @ da @ v
        return p, da @ v - u @ p if rows > columns else 0 * (da @ v)

    def turned(e: Any, h: Any) -> Arrays:
        return (e * right + left * h) * squares, (left * e + h * right) * squares

    def outside(q: Any) -> Any:
        return q / right if rows > columns else q

    def passed(da: Any) -> Arrays:
        p, q = parts(da)
        x, y = turned(p, p.mT)
        return u @ x + outside(q), _diagonal(p), v @ y

    def source(i: int, j: slice, first: Arrays) -> Arrays:
        du, ds, dv = first[0], first[1][..., None, :], first[2]
        (p, q), x, y = parts(slopes), u.mT @ du, v.mT @ dv
        n = du - u @ x if rows > columns else 0 * du

        def both(b: Any, c: Any) -> Any:
            return b[i] @ c[j] + b[j] @ c[i]

        e = both(p, y) - x[i] * ds[j] - x[j] * ds[i]
        h = both(p.mT, x) + both(q.mT, n) - y[i] * ds[j] - y[j] * ds[i]
        bent_x, bent_y = turned(e, h)
        length_x = -((x[i] * x[j]).sum(-2) + (n[i] * n[j]).sum(-2))
        length_y = -(y[i] * y[j]).sum(-2)
        bent_n = outside(both(q, y) - n[i] * ds[j] - n[j] * ds[i])
        return (
            u @ bent_x + u * length_x[..., None, :] + bent_n,
            _diagonal(e) + s * (length_y - length_x),
            v @ bent_y + v * length_y[..., None, :],
        )

    return implicit(xp, node, a, (u, s, v), passed, source)
