"""Ops that are not polynomial: the same function in numpy arrays of mpmath numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

from cases import composites
from cases import rules as rule_cases

aten = torch.ops.aten
F = torch.nn.functional

Case = tuple[tuple[int, ...], Callable[[Tensor], Tensor], Callable[[np.ndarray], Any]]

EXP, LOG, SQRT, TANH = (np.frompyfunc(f, 1, 1) for f in (mpmath.exp, mpmath.log, mpmath.sqrt, mpmath.tanh))
POW, ATAN2 = np.frompyfunc(lambda a, b: mpmath.mpf(a) ** b, 2, 1), np.frompyfunc(mpmath.atan2, 2, 1)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = EXP(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def logsumexp(x: np.ndarray, axis: Any = -1, keepdims: bool = False) -> np.ndarray:
    return np.asarray(LOG(EXP(x).sum(axis=axis, keepdims=keepdims)))


def norm(x: np.ndarray, p: float = 2, axis: Any = None) -> np.ndarray:
    return np.asarray(POW((POW(abs(x), mpmath.mpf(p))).sum(axis=axis), 1 / mpmath.mpf(p)))


def standardised(x: np.ndarray, axis: Any, eps: float) -> np.ndarray:
    n = x.size // np.asarray(x.sum(axis=axis)).size
    x = x - x.sum(axis=axis, keepdims=True) / n
    return x / SQRT((x * x).sum(axis=axis, keepdims=True) / n + mpmath.mpf(eps))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + EXP(-x))


def constant(*shape: int) -> tuple[Tensor, np.ndarray]:
    tensor = rule_cases.c(*shape)
    return tensor, tensor.numpy().astype(object)


def solution(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a⁻¹ b` by mpmath's LU decomposition."""
    inverse = mpmath.inverse(mpmath.matrix(a.tolist()))
    return np.array((inverse * mpmath.matrix(b.tolist())).tolist(), dtype=object)


def unit_lower(x: np.ndarray) -> np.ndarray:
    return np.tril(x, -1) + np.eye(len(x), dtype=object)


SOLVE = torch.linalg.solve_triangular
W4, W4_ = constant(4)
W34, W34_ = constant(3, 4)
SHIFT = 3 * torch.eye(3, dtype=torch.float64)
SHIFT_ = SHIFT.numpy().astype(object)
M = rule_cases.MASK

TRANSCENDENTAL: dict[str, list[Case]] = {
    "_softmax": [
        ((3, 4), lambda x: x.softmax(-1), softmax),
        ((3, 4), lambda x: x.softmax(0), lambda x: softmax(x, 0)),
        ((3, 4), lambda x: (x * 100).softmax(-1), lambda x: softmax(x * 100)),
        ((3, 4), lambda x: (x * 1e-8).softmax(-1), lambda x: softmax(x * mpmath.mpf(1e-8))),
        ((4,), lambda x: (x[0] * x).softmax(0), lambda x: softmax(x[0] * x)),
        ((3, 4), lambda x: (x * 0 + x[:1, :1]).softmax(-1), lambda x: softmax(x * 0 + x[:1, :1])),
        ((1,), lambda x: torch.softmax(x[0], 0) + x, lambda x: x + 1),
    ],
    "_log_softmax": [
        ((3, 4), lambda x: x.log_softmax(-1), lambda x: x - logsumexp(x, -1, True)),
        ((3, 4), lambda x: (x * x).log_softmax(0), lambda x: x * x - logsumexp(x * x, 0, True)),
        ((3, 4), lambda x: (x * 50).log_softmax(-1), lambda x: x * 50 - logsumexp(x * 50, -1, True)),
    ],
    "logsumexp": [
        ((3, 4), lambda x: x.logsumexp(-1), logsumexp),
        ((2, 3, 4), lambda x: x.logsumexp((0, 2), keepdim=True), lambda x: logsumexp(x, (0, 2), True)),
        ((3, 4), lambda x: (x * x * 90).logsumexp(0), lambda x: logsumexp(x * x * 90, 0)),
    ],
    "pow": [
        ((3, 4), lambda x: x**3, lambda x: x**3),
        ((3, 4), lambda x: (x + 3) ** 0.5, lambda x: SQRT(x + 3)),
        ((3, 4), lambda x: (x + 3) ** -1.5, lambda x: POW(x + 3, mpmath.mpf(-1.5))),
        ((3, 4), lambda x: 3**x, lambda x: POW(3, x)),
        ((3, 4), lambda x: torch.tensor(0.5, dtype=torch.float64) ** (x * x), lambda x: POW(mpmath.mpf(0.5), x * x)),
    ],
    "div": [
        ((3, 4), lambda x: 1 / (x + 3), lambda x: 1 / (x + 3)),
        ((3, 4), lambda x: x / (x[0] + 3), lambda x: x / (x[0] + 3)),
        ((3, 4), lambda x: W34 / (x[0, 0] + 3), lambda x: W34_ / (x[0, 0] + 3)),
        ((3, 4), lambda x: x[0] * x[1] / (x * x + 1), lambda x: x[0] * x[1] / (x * x + 1)),
        ((3, 4), lambda x: x.argmax(-1) / (x * x + 1).sum(1), lambda x: x.argmax(-1) / (x * x + 1).sum(1)),
    ],
    "linalg_solve_triangular": [
        ((3, 3), lambda x: SOLVE(x + SHIFT, x[:, :2], upper=False), lambda x: solution(np.tril(x + SHIFT_), x[:, :2])),
        ((3, 3), lambda x: SOLVE(x + SHIFT, W34, upper=True), lambda x: solution(np.triu(x + SHIFT_), W34_)),
        ((3, 3), lambda x: SOLVE(SHIFT, x * x, upper=True), lambda x: solution(SHIFT_, x * x)),
        ((3, 3), lambda x: SOLVE(x @ x, x, upper=False, unitriangular=True), lambda x: solution(unit_lower(x @ x), x)),
        (
            (3, 3),
            lambda x: SOLVE(x + SHIFT, x[:2], upper=True, left=False),
            lambda x: solution(np.triu(x + SHIFT_).T, x[:2].T).T,
        ),
        (
            (2, 3, 3),
            lambda x: SOLVE(x, x[0] * x[1], upper=True, unitriangular=True),
            lambda x: np.stack([solution(unit_lower(a.T).T, x[0] * x[1]) for a in x]),
        ),
    ],
    # -- decompositions --
    "native_layer_norm": [
        ((3, 4), lambda x: F.layer_norm(x, (4,), W4, W4), lambda x: standardised(x, -1, 1e-5) * W4_ + W4_),
        ((3, 4), lambda x: F.layer_norm(x, (3, 4), eps=0.0), lambda x: standardised(x, None, 0)),
    ],
    "_fused_rms_norm": [
        (
            (3, 4),
            lambda x: F.rms_norm(x, (4,), W4, 1e-6),
            lambda x: x * W4_ / SQRT((x * x).sum(-1, keepdims=True) / 4 + mpmath.mpf(1e-6)),
        ),
        ((3, 4), lambda x: F.rms_norm(x, (3, 4)), lambda x: x / SQRT((x * x).sum() / 12 + mpmath.mpf(2.0**-52))),
    ],
    "native_group_norm": [
        (
            (2, 4, 3),
            lambda x: F.group_norm(x, 2, W4, W4),
            lambda x: standardised(x.reshape(2, 2, 6), -1, 1e-5).reshape(2, 4, 3) * W4_[:, None] + W4_[:, None],
        ),
    ],
    "native_batch_norm": [
        (
            (3, 4),
            lambda x: F.batch_norm(x, W4, W4 * W4 + 1, W4, -W4, eps=1e-3),
            lambda x: (x - W4_) / SQRT(W4_ * W4_ + 1 + mpmath.mpf(1e-3)) * W4_ - W4_,
        ),
        ((2, 3, 4), lambda x: F.instance_norm(x), lambda x: standardised(x, -1, 1e-5)),
    ],
    "_native_batch_norm_legit_no_training": [
        (
            (3, 4),
            lambda x: aten._native_batch_norm_legit_no_training(x, W4, None, -W4, W4 * W4, 0.1, 0.5)[0],
            lambda x: (x + W4_) / SQRT(W4_ * W4_ + 0.5) * W4_,
        ),
    ],
    "std": [((3, 4), lambda x: x.std(-1), lambda x: SQRT(((x - x.sum(-1, keepdims=True) / 4) ** 2).sum(-1) / 3))],
    "std_mean": [
        (
            (3, 4),
            lambda x: torch.mul(*torch.std_mean(x, 1)),
            lambda x: SQRT(((x - x.sum(-1, keepdims=True) / 4) ** 2).sum(-1) / 3) * x.sum(-1) / 4,
        ),
    ],
    "linalg_vector_norm": [
        ((3, 4), lambda x: x.norm(), norm),
        ((3, 4), lambda x: torch.linalg.vector_norm(x, 3, 0), lambda x: norm(x, 3, 0)),
        ((3, 4), lambda x: torch.linalg.vector_norm(x, 1, 1), lambda x: norm(x, 1, 1)),
        ((3, 4), lambda x: torch.linalg.vector_norm(x, math.inf, 1), lambda x: abs(x).max(1)),
        ((3, 4), lambda x: torch.linalg.vector_norm(x, -math.inf, 1), lambda x: abs(x).min(1)),
        ((3, 4), lambda x: F.normalize(x, dim=-1), lambda x: x / SQRT((x * x).sum(-1, keepdims=True))),
        (
            (3, 4),
            lambda x: F.cosine_similarity(x, W34, -1),
            lambda x: (x * W34_).sum(-1) / SQRT((x * x).sum(-1)) / SQRT((W34_ * W34_).sum(-1)),
        ),
        ((3, 4), lambda x: torch.linalg.matrix_norm(x), norm),
    ],
    "norm": [
        ((3, 4), lambda x: aten.norm.Scalar(x, 2), norm),
        ((3, 4), lambda x: x.norm(1.5, 0), lambda x: norm(x, 1.5, 0)),
    ],
    "glu": [
        ((3, 4), F.glu, lambda x: x[:, :2] * sigmoid(x[:, 2:])),
        ((4, 3), lambda x: F.glu(x, 0), lambda x: x[:2] * sigmoid(x[2:])),
    ],
    "_safe_softmax": [
        ((3, 4), lambda x: aten._safe_softmax(x.masked_fill(~M, -math.inf), -1), lambda x: masked_softmax(x, M)),
        ((3, 4), lambda x: aten._safe_softmax(x.masked_fill(M, -math.inf), -1), lambda x: masked_softmax(x, ~M)),
    ],
    "mish": [((3, 4), lambda x: F.mish(x * 9), lambda x: 9 * x * TANH(LOG(1 + EXP(9 * x))))],
    "exp2": [((3, 4), lambda x: (x * 9).exp2(), lambda x: POW(2, x * 9))],
    "log2": [((3, 4), lambda x: (x + 3).log2(), lambda x: LOG(x + 3) / mpmath.log(2))],
    "log10": [((3, 4), lambda x: (x + 3).log10(), lambda x: LOG(x + 3) / mpmath.log(10))],
    "hypot": [((3, 4), lambda x: torch.hypot(x, x[0] + 3), lambda x: SQRT(x * x + (x[0] + 3) ** 2))],
    "atan2": [
        ((3, 4), lambda x: torch.atan2(x, W34), lambda x: ATAN2(x, W34_)),
        ((3, 4), lambda x: torch.atan2(x[0], x[1:]), lambda x: ATAN2(x[0], x[1:])),
        # 0.0 is added because torch, unlike mathematics, has a negative zero
        ((4,), lambda x: torch.atan2(x * 0 + 0.0, W4 * x.sign() + x * 0), lambda x: ATAN2(x * 0, W4_ * np.sign(x))),
    ],
    "logcumsumexp": [((2, 5), lambda x: (x * 30).logcumsumexp(-1), lambda x: LOG(np.cumsum(EXP(x * 30), -1)))],
    "logaddexp": [
        ((3, 4), lambda x: torch.logaddexp(x, x[0] * 2), lambda x: LOG(EXP(x) + EXP(x[0] * 2))),
        ((3, 4), lambda x: torch.logaddexp(x, x), lambda x: x + mpmath.log(2)),
    ],
    "xlogy": [
        ((3, 4), lambda x: torch.xlogy(x, x * x + 1), lambda x: x * LOG(x * x + 1)),
        ((3, 4), lambda x: torch.xlogy(2.0, x * x + 1), lambda x: 2 * LOG(x * x + 1)),
        ((3, 4), lambda x: torch.xlogy(x * x, 3), lambda x: x * x * mpmath.log(3)),
        ((3, 4), lambda x: torch.xlogy(torch.zeros(4), x * x) + x, lambda x: x),
    ],
    "logit": [((3, 4), lambda x: torch.logit(x / 9 + 0.5), lambda x: LOG((x / 9 + 0.5) / (0.5 - x / 9)))],
    **composites.TRANSCENDENTAL,
}


def masked_softmax(x: np.ndarray, mask: Tensor) -> np.ndarray:
    e = EXP(x) * mask.numpy().astype(int)
    total = e.sum(-1, keepdims=True)
    return e / (total + (total == 0))
