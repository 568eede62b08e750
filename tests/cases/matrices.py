"""Calls of ops of matrices, and the same in mpmath by other ways: elimination, orthogonalisation, power series."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

from cases import rules as rule_cases
from cases.transcendental import Case

aten = torch.ops.aten
L = torch.linalg


def near_three(x: Tensor) -> Tensor:
    """A well-conditioned matrix."""
    return x + 3 * torch.eye(*x.shape[-2:], dtype=x.dtype)


def positive(x: Tensor) -> Tensor:
    """A positive definite one."""
    return x @ x.mT + 2 * torch.eye(x.shape[-2], dtype=x.dtype)


def near_three_(x: np.ndarray) -> np.ndarray:
    return x + 3 * np.eye(*x.shape[-2:], dtype=int)


def positive_(x: np.ndarray) -> np.ndarray:
    return x @ np.swapaxes(x, -1, -2) + 2 * np.eye(x.shape[-2], dtype=int)


def m(x: np.ndarray) -> mpmath.matrix:
    return mpmath.matrix(x.tolist())


def a(matrix: Any) -> np.ndarray:
    return np.array(matrix.tolist(), dtype=object)


def inverse(x: np.ndarray) -> np.ndarray:
    return a(mpmath.inverse(m(x)))


def each(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Of each matrix of a batch."""
    return lambda x: np.stack([function(part) for part in x])


def joined(*parts: Any) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in parts])


def cat(*parts: Tensor) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def orthogonalised(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """q and r by Gram and Schmidt, r with a positive diagonal; of no more columns than rows."""
    columns: list[np.ndarray] = []
    r = np.zeros((x.shape[1], x.shape[1]), dtype=object)
    for j in range(x.shape[1]):
        rest = x[:, j]
        for i, column in enumerate(columns):
            r[i, j] = column @ x[:, j]
            rest = rest - r[i, j] * column
        r[j, j] = mpmath.sqrt(rest @ rest)
        columns.append(rest / r[j, j])
    return np.stack(columns, 1), r


def qr_(x: np.ndarray) -> np.ndarray:
    q, r = orthogonalised(x[:, : x.shape[0]])
    return joined(q, q.T @ x if x.shape[1] > x.shape[0] else r)


def qr(x: Tensor, **options: Any) -> Tensor:
    q, r = L.qr(x, **options)
    signs = r.diagonal(0, -2, -1).sign()
    return cat(q * signs[..., None, :], r * signs[..., :, None])


def lu(factors: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return cat(factors[1], factors[2])


def eliminated(x: np.ndarray) -> np.ndarray:
    """l and u without exchanges, which rows as dominant as these do not need."""
    r = min(x.shape)
    u, low = x * 1, np.eye(len(x), r, dtype=int).astype(object)
    for j in range(r):
        for i in range(j + 1, len(x)):
            low[i, j] = u[i, j] / u[j, j]
            u[i] = u[i] - low[i, j] * u[j]
    return joined(low, u[:r])


def shaped(vectors: Tensor) -> Tensor:
    """With a positive first entry each: which sign they have is a matter of choice."""
    return vectors * vectors[..., :1, :].sign()


def shaped_(vectors: np.ndarray) -> np.ndarray:
    return vectors * np.sign(vectors[:1].astype(float)).astype(int)


def eigen_(x: np.ndarray) -> np.ndarray:
    values, vectors = mpmath.eigsy(m(x))
    return joined(a(values), shaped_(a(vectors)))


def singular(x: Tensor) -> Tensor:
    u, s, vh = L.svd(x, full_matrices=False)
    signs = u[..., :1, :].sign()
    return cat(u * signs, s, vh.mT * signs)


def singular_(x: np.ndarray) -> np.ndarray:
    u, s, v = (a(part) for part in mpmath.svd_r(m(x)))
    signs = np.sign(u[:1].astype(float)).astype(int)
    return joined(u * signs, s, v.T * signs)


def spread(x: Tensor) -> Tensor:
    """A symmetric matrix with eigenvalues apart."""
    return x + x.mT + torch.diag(torch.arange(x.shape[-1], dtype=x.dtype) * 6)


def spread_(x: np.ndarray) -> np.ndarray:
    return x + x.T + np.diag(np.arange(len(x)) * 6)


def tall(x: Tensor) -> Tensor:
    """With singular values apart."""
    return x + torch.eye(*x.shape[-2:], dtype=x.dtype) * (torch.arange(x.shape[-1], dtype=x.dtype) * 4 + 3)


def tall_(x: np.ndarray) -> np.ndarray:
    return x + np.eye(*x.shape[-2:], dtype=int) * (np.arange(x.shape[-1]) * 4 + 3)


def least_squares_(x: np.ndarray, b: np.ndarray) -> np.ndarray:
    return inverse(x.T @ x) @ x.T @ b


def cholesky_(x: np.ndarray) -> np.ndarray:
    return a(mpmath.cholesky(m(x)))


def reflections_(x: np.ndarray, tau: np.ndarray) -> np.ndarray:
    q = np.eye(len(x), dtype=object)
    for i in range(len(tau)):
        v = np.array([0 * x[0, 0]] * i + [x[0, 0] * 0 + 1, *x[i + 1 :, i]], dtype=object)
        q = q @ (np.eye(len(x), dtype=object) - tau[i] * np.outer(v, v))
    return q


B = rule_cases.c(3, 2)
B_ = B.numpy().astype(object)
C4 = rule_cases.c(4, 2)
C4_ = C4.numpy().astype(object)
SIGNS = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
ROWS = torch.tensor([1, 2, 0])  # a permutation, so that a factorisation has something to exchange

MATRICES: dict[str, list[Case]] = {
    "linalg_inv_ex": [
        ((3, 3), lambda x: L.inv(near_three(x)), lambda x: inverse(near_three_(x))),
        ((2, 2, 2), lambda x: L.inv(near_three(x)), each(lambda x: inverse(near_three_(x)))),
    ],
    "_linalg_solve_ex": [
        ((3, 3), lambda x: L.solve(near_three(x), B), lambda x: inverse(near_three_(x)) @ B_),
        ((3, 3), lambda x: L.solve(near_three(x), x * x.T), lambda x: inverse(near_three_(x)) @ (x * x.T)),
        ((3, 3), lambda x: L.solve(near_three(x), x[0]), lambda x: inverse(near_three_(x)) @ x[0]),
        ((3, 3), lambda x: L.solve(near_three(x), x[:2], left=False), lambda x: x[:2] @ inverse(near_three_(x))),
        ((3, 3), lambda x: L.solve(near_three(B @ B.T), x * x), lambda x: inverse(near_three_(B_ @ B_.T)) @ (x * x)),
        ((2, 3, 3), lambda x: L.solve(near_three(x), B), each(lambda x: inverse(near_three_(x)) @ B_)),
    ],
    "_linalg_det": [
        ((3, 3), lambda x: L.det(x), lambda x: mpmath.det(m(x))),
        ((1, 1), lambda x: L.det(x), lambda x: x[0, 0]),
        ((4, 4), lambda x: L.det(x), lambda x: mpmath.det(m(x))),
        ((2, 3, 3), lambda x: L.det(x), each(lambda x: np.array(mpmath.det(m(x)), dtype=object))),
        # singular ones: of rank two and one
        ((2, 3), lambda x: L.det(x.T @ x), lambda x: 0 * x[0, 0]),
        ((3,), lambda x: L.det(torch.outer(x, x) + torch.diag(x * 0)), lambda x: 0 * x[0]),
    ],
    "_linalg_slogdet": [
        ((3, 3), lambda x: L.slogdet(near_three(x))[1], lambda x: mpmath.log(abs(mpmath.det(m(near_three_(x)))))),
        ((3, 3), lambda x: L.slogdet(near_three(x)[ROWS] * SIGNS)[0] * x, lambda x: -x),
        ((3, 3), lambda x: torch.logdet(positive(x)), lambda x: mpmath.log(mpmath.det(m(positive_(x))))),
    ],
    "linalg_matrix_exp": [
        ((3, 3), lambda x: L.matrix_exp(x / 4), lambda x: a(mpmath.expm(m(x / 4), method="taylor"))),
        ((2, 2, 2), lambda x: L.matrix_exp(x / 4), each(lambda x: a(mpmath.expm(m(x / 4), method="taylor")))),
    ],
    "linalg_cholesky_ex": [
        ((3, 3), lambda x: L.cholesky(positive(x)), lambda x: cholesky_(positive_(x))),
        ((3, 3), lambda x: L.cholesky(positive(x), upper=True), lambda x: cholesky_(positive_(x)).T),
        # one triangle alone is read
        ((3, 3), lambda x: L.cholesky(positive(x).tril() + x.triu(1)), lambda x: cholesky_(positive_(x))),
        ((2, 2, 2), lambda x: L.cholesky(positive(x)), each(lambda x: cholesky_(positive_(x)))),
    ],
    "linalg_qr": [
        ((3, 3), lambda x: qr(near_three(x)), lambda x: qr_(near_three_(x))),
        ((4, 2), lambda x: qr(near_three(x)), lambda x: qr_(near_three_(x))),
        ((2, 4), lambda x: qr(near_three(x)), lambda x: qr_(near_three_(x))),
        ((2, 3), lambda x: qr(near_three(x), mode="complete"), lambda x: qr_(near_three_(x))),
    ],
    "linalg_lu": [
        ((3, 3), lambda x: lu(L.lu(near_three(x)[ROWS])), lambda x: eliminated(near_three_(x))),
        ((3, 2), lambda x: lu(L.lu(near_three(x))), lambda x: eliminated(near_three_(x))),
        ((2, 4), lambda x: lu(L.lu(near_three(x))), lambda x: eliminated(near_three_(x))),
    ],
    "linalg_lu_factor_ex": [
        (
            (3, 3),
            lambda x: lu(torch.lu_unpack(*L.lu_factor(near_three(x)[ROWS]))),
            lambda x: eliminated(near_three_(x)),
        ),
        ((3, 2), lambda x: lu(torch.lu_unpack(*L.lu_factor(near_three(x)))), lambda x: eliminated(near_three_(x))),
        ((2, 4), lambda x: lu(torch.lu_unpack(*L.lu_factor(near_three(x)))), lambda x: eliminated(near_three_(x))),
    ],
    "_linalg_eigh": [
        ((3, 3), lambda x: cat(L.eigh(spread(x))[0], shaped(L.eigh(spread(x))[1])), lambda x: eigen_(spread_(x))),
        ((3, 3), lambda x: L.eigvalsh(spread(x).triu() + x.tril(-1), "U"), lambda x: eigen_(spread_(x))[:3]),
    ],
    "_linalg_svd": [
        ((3, 3), lambda x: singular(tall(x)), lambda x: singular_(tall_(x))),
        ((4, 2), lambda x: singular(tall(x)), lambda x: singular_(tall_(x))),
        ((2, 3), lambda x: singular(tall(x.T).T), lambda x: singular_(tall_(x.T).T)),
        ((4, 2), lambda x: L.svdvals(tall(x)), lambda x: singular_(tall_(x))[8:10]),
        ((3, 3), lambda x: L.matrix_norm(tall(x), "nuc"), lambda x: singular_(tall_(x))[9:12].sum()),
    ],
    # -- decompositions --
    "triangular_solve": [
        (
            (3, 3),
            lambda x: torch.triangular_solve(B, near_three(x), upper=False, transpose=True)[0],
            lambda x: inverse(np.tril(near_three_(x)).T) @ B_,
        ),
        (
            (3, 3),
            lambda x: torch.triangular_solve(B, near_three(x))[0],
            lambda x: inverse(np.triu(near_three_(x))) @ B_,
        ),
    ],
    "cholesky": [((3, 3), lambda x: torch.cholesky(positive(x)), lambda x: cholesky_(positive_(x)))],
    "cholesky_solve": [
        (
            (3, 3),
            lambda x: torch.cholesky_solve(B, L.cholesky(positive(x))),
            lambda x: inverse(positive_(x)) @ B_,
        ),
        (
            (3, 3),
            lambda x: torch.cholesky_solve(x, L.cholesky(positive(x), upper=True), upper=True),
            lambda x: inverse(positive_(x)) @ x,
        ),
    ],
    "cholesky_inverse": [
        ((3, 3), lambda x: torch.cholesky_inverse(L.cholesky(positive(x))), lambda x: inverse(positive_(x))),
    ],
    "lu_unpack": [
        ((3, 3), lambda x: lu(torch.lu_unpack(*L.lu_factor(near_three(x)))), lambda x: eliminated(near_three_(x))),
        (
            (3, 3),
            lambda x: torch.lu_unpack(*L.lu_factor(near_three(x)[ROWS]))[0] @ x,
            lambda x: x[[1, 2, 0]],
        ),
    ],
    "linalg_lu_solve": [
        (
            (3, 3),
            lambda x: L.lu_solve(*L.lu_factor(near_three(x)[ROWS]), B),
            lambda x: inverse(near_three_(x)[[1, 2, 0]]) @ B_,
        ),
        (
            (3, 3),
            lambda x: L.lu_solve(*L.lu_factor(near_three(x)[ROWS]), B, adjoint=True),
            lambda x: inverse(near_three_(x)[[1, 2, 0]]).T @ B_,
        ),
        (
            (3, 3),
            lambda x: L.lu_solve(*L.lu_factor(near_three(x)[ROWS]), B.T, left=False),
            lambda x: B_.T @ inverse(near_three_(x)[[1, 2, 0]]),
        ),
    ],
    "linalg_pinv": [
        ((4, 2), lambda x: L.pinv(near_three(x)), lambda x: least_squares_(near_three_(x), np.eye(4, dtype=int))),
        ((2, 3), lambda x: L.pinv(near_three(x)), lambda x: least_squares_(near_three_(x).T, np.eye(3, dtype=int)).T),
        ((3, 3), lambda x: L.pinv(positive(x).tril(), hermitian=True), lambda x: inverse(positive_(x))),
    ],
    "linalg_lstsq": [
        ((4, 2), lambda x: L.lstsq(near_three(x), C4)[0], lambda x: least_squares_(near_three_(x), C4_)),
        ((4, 2), lambda x: L.lstsq(near_three(x), x)[0] + x[:2], lambda x: least_squares_(near_three_(x), x) + x[:2]),
        (
            (2, 4),
            lambda x: L.lstsq(near_three(x), B[:2])[0],
            lambda x: near_three_(x).T @ inverse(near_three_(x) @ near_three_(x).T) @ B_[:2],
        ),
        (
            (4, 2),
            lambda x: L.lstsq(near_three(x), C4, driver="gels")[1],
            lambda x: ((near_three_(x) @ least_squares_(near_three_(x), C4_) - C4_) ** 2).sum(0),
        ),
    ],
    "linalg_householder_product": [
        ((4, 2), lambda x: L.householder_product(x, x[0]), lambda x: reflections_(x, x[0])[:, :2]),
    ],
    "ormqr": [
        ((4, 2), lambda x: torch.ormqr(x, x[0], C4), lambda x: reflections_(x, x[0]) @ C4_),
        (
            (4, 2),
            lambda x: torch.ormqr(x, x[0], C4.T, left=False, transpose=True),
            lambda x: C4_.T @ reflections_(x, x[0]).T,
        ),
    ],
    "linalg_matrix_power": [
        ((3, 3), lambda x: L.matrix_power(near_three(x), -2), lambda x: inverse(near_three_(x) @ near_three_(x)))
    ],
    "linalg_tensorsolve": [
        (
            (4, 4),
            lambda x: L.tensorsolve(near_three(x).reshape(2, 2, 4), C4[:2]),
            lambda x: inverse(near_three_(x)) @ C4_[:2].reshape(4),
        ),
    ],
}

#: those that are recorded as others
COMPOSITE = {
    "triangular_solve", "cholesky", "cholesky_solve", "cholesky_inverse", "lu_unpack", "linalg_lu_solve", "linalg_pinv",
    "linalg_lstsq", "linalg_householder_product", "ormqr", "linalg_matrix_power", "linalg_tensorsolve",
}  # fmt: skip
