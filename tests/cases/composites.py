"""Calls of ops that are read as several simpler ones, as in `cases.rules`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

from cases.rules import GRID, MASK, Case, c

aten = torch.ops.aten

EXP, SQRT = np.frompyfunc(mpmath.exp, 1, 1), np.frompyfunc(mpmath.sqrt, 1, 1)

LENGTHS = torch.tensor([[0, 2, 1, 1], [3, 0, 0, 1]])
SEGMENTS = aten.segment_reduce.default


#: op -> (input shape, function) ..., piecewise polynomial of degree two at most
POLYNOMIAL: dict[str, list[Case]] = {
    "kthvalue": [((3, 4), lambda x: x.kthvalue(2, 0)[0]), ((1,), lambda x: x[0].kthvalue(1)[0] * x)],
    "median.dim": [((3, 4), lambda x: x.median(1, keepdim=True)[0] * x), ((1,), lambda x: x[0].median(0)[0] * x)],
    "nanmedian.dim": [
        ((3, 4), lambda x: x.masked_fill(MASK, math.nan).nanmedian(0)[0].nan_to_num(5.0)),
        ((3, 4), lambda x: x.nanmedian(1, keepdim=True)[0] * x),
        ((1,), lambda x: x[0].nanmedian(0)[0] * x),
    ],
    "nanmedian.default": [((3, 4), lambda x: x.masked_fill(MASK, math.nan).nanmedian() * x)],
    "as_strided_scatter": [
        ((3, 4), lambda x: x.as_strided_scatter(c(2, 2), (2, 2), (4, 2), 1)),
        ((4, 3), lambda x: c(3, 4).as_strided_scatter(x[:2] * x[:2], (2, 3), (1, 4))),
    ],
    "index_fill.int_Tensor": [
        ((3, 4), lambda x: x.index_fill(1, GRID[0, :2], x[0, 0] * x[1, 1])),
        ((1,), lambda x: c(3, 4).index_fill(0, GRID[1], x[0])),
    ],
    "put": [
        ((3, 4), lambda x: x.put(GRID[:1] * 5, c(1, 4))),
        ((2, 4), lambda x: c(3, 4).put(GRID * 3, x * x, accumulate=True)),
    ],
    "_unsafe_masked_index": [
        ((3, 4), lambda x: aten._unsafe_masked_index(x, MASK[:2, :, None], [GRID * 7 - 3], 0.5)),
        ((3, 4), lambda x: aten._unsafe_masked_index(x * x, GRID[0] < 3, [None, GRID[0] + 2], 2.0)),
    ],
    "_unsafe_masked_index_put_accumulate": [
        ((2, 4), lambda x: aten._unsafe_masked_index_put_accumulate(c(3, 4), MASK[:2], [GRID, GRID + 1], x * x)),
    ],
    "block_diag": [((3, 4), lambda x: torch.block_diag(x, c(2, 2), x[0] * x[1], x[0, 0]))],
    "_chunk_cat": [
        ((3, 4), lambda x: aten._chunk_cat([x, c(5, 2), x[:2] * x[:2]], 0, 2)),
        ((2, 3, 4), lambda x: aten._chunk_cat([x, c(2, 1, 3)], 1, 2)),
    ],
    "unfold_backward": [((3, 4, 2), lambda x: aten.unfold_backward(x, [6, 4], 0, 2, 2))],
    "deg2rad": [((3, 4), lambda x: x.deg2rad() * 57)],
    "rad2deg": [((3, 4), lambda x: x.rad2deg() / 57)],
    "angle": [((3, 4), lambda x: x.angle() * x)],
    "native_dropout_backward": [((3, 4), lambda x: aten.native_dropout_backward(x * x, MASK, 1.5))],
    "prod": [((1,), lambda x: x[0].prod(0, keepdim=True) * x), ((3, 4), lambda x: x[:, :0].prod(1) * x[:, 1])],
    "a summand that is not read": [
        ((3, 4), lambda x: torch.addmm(c(3) * math.nan, x, x.T, beta=0, alpha=2)[:, :3]),
        ((3, 4), lambda x: torch.addmv(c(3) * math.inf, x, x[0], beta=0)),
        ((3, 4), lambda x: torch.addr(c(3, 4) * math.nan, x[:, 0], x[1], beta=0)),
        ((2, 3, 4), lambda x: torch.addbmm(c(3, 3) * math.nan, x, x.mT, beta=0, alpha=0.5)),
    ],
    "amax": [((1,), lambda x: x[0].amax(0) * x), ((1,), lambda x: torch.aminmax(x[0], dim=0)[0] * x)],
    "max.dim": [((1,), lambda x: x[0].max(0)[0] * x), ((1,), lambda x: x[0].min(-1, keepdim=True)[0] * x)],
    "segment_reduce": [
        ((4, 3), lambda x: SEGMENTS(x, "sum", lengths=LENGTHS[0], initial=0.5)),
        ((2, 4, 3), lambda x: SEGMENTS(x, "mean", lengths=LENGTHS, axis=1, initial=1.0)),
        ((4, 3), lambda x: SEGMENTS(x, "max", offsets=torch.tensor([0, 3, 3, 4]), initial=0.0)),
        ((2, 4), lambda x: SEGMENTS(x, "min", lengths=LENGTHS, axis=1, initial=0.25)),
        ((4,), lambda x: SEGMENTS(x, "prod", lengths=torch.tensor([2, 2]))),
    ],
    "linalg_vector_norm": [((3, 4), lambda x: torch.linalg.vector_norm(x.relu(), 0, 1)[:, None] * x)],
}


def _standardised(x: np.ndarray) -> np.ndarray:
    x = x - x.mean((0, 2), keepdims=True)
    return x / SQRT((x * x).mean((0, 2), keepdims=True) + mpmath.mpf("0.5"))


def _shortened(x: np.ndarray, most: Any) -> np.ndarray:
    length = SQRT((x * x).sum(1, keepdims=True))
    return np.where(length > most, x * (mpmath.mpf(most) / (length + mpmath.mpf(1e-7))), x)


def _statistics(x: np.ndarray) -> np.ndarray:
    """What running statistics of c(4) and ones become with a momentum of a quarter."""
    mean = x.mean((0, 2))
    variance = ((x - x.mean((0, 2), keepdims=True)) ** 2).sum((0, 2)) / (x.size // x.shape[1] - 1)
    return np.concatenate([(3 * c(4).numpy().astype(object) + mean) / 4, (3 + variance) / 4])


W4, ONES = c(4), torch.ones(4, dtype=torch.float64)


def _written(x: Tensor) -> Tensor:
    mean, variance = W4.clone(), ONES.clone()
    out = aten._native_batch_norm_legit(x, None, None, mean, variance, True, 0.25, 0.5)[0]
    return torch.cat([mean, variance]) + 0 * out.sum()


#: op -> (input shape, function, the same in numpy arrays of mpmath numbers) ...
TRANSCENDENTAL: dict[str, list[tuple[tuple[int, ...], Callable[[Tensor], Tensor], Callable[[np.ndarray], Any]]]] = {
    "_native_batch_norm_legit.no_stats": [
        (
            (2, 4, 3),
            lambda x: aten._native_batch_norm_legit.no_stats(x, None, None, True, 0.1, 0.5)[0],
            lambda x: _standardised(x),
        )
    ],
    "_native_batch_norm_legit_functional": [
        (
            (2, 4, 3),
            lambda x: aten._native_batch_norm_legit_functional(x, W4, W4, W4, ONES, True, 0.25, 0.5)[0],
            lambda x: (_standardised(x) + 1) * W4.numpy().astype(object)[:, None],
        ),
        (
            (2, 4, 3),
            lambda x: torch.cat(aten._native_batch_norm_legit_functional(x, W4, W4, W4, ONES, True, 0.25, 0.5)[3:]),
            _statistics,
        ),
        (
            (2, 4),
            lambda x: torch.cat(
                aten._native_batch_norm_legit_functional(x, W4, None, W4, ONES, False, 0.25, 1.0)[:3:2]
            ),
            lambda x: (x - W4.numpy()) * W4.numpy() / SQRT(mpmath.mpf(2)),
        ),
    ],
    "_batch_norm_with_update_functional": [
        (
            (2, 4, 3),
            lambda x: torch.cat(aten._batch_norm_with_update_functional(x, None, None, W4, ONES, 0.25, 0.5)[4:]),
            _statistics,
        ),
    ],
    "statistics that a batch norm writes into": [((2, 4, 3), _written, _statistics)],
    "_batch_norm_no_update": [
        (
            (2, 4),
            lambda x: aten._batch_norm_no_update(x, None, W4, W4, ONES, 0.25, 1.0)[0],
            lambda x: (x - W4.numpy()) / SQRT(mpmath.mpf(2)) + W4.numpy(),
        ),
    ],
    "dist": [((3, 4), lambda x: torch.dist(x, c(4)), lambda x: SQRT(((x - W4.numpy()) ** 2).sum()))],
    "_pdist_forward": [
        (
            (3, 4),
            lambda x: torch.nn.functional.pdist(x),
            lambda x: SQRT(((x[[0, 0, 1]] - x[[1, 2, 2]]) ** 2).sum(1)),
        )
    ],
    "renorm": [((3, 4), lambda x: x.renorm(2, 0, 1.0), lambda x: _shortened(x, 1))],
    "embedding_renorm": [
        (
            (3, 4),
            lambda x: torch.nn.functional.embedding(GRID[0, :2], x * x + 1, max_norm=2.0),
            lambda x: _shortened(x * x + 1, 2)[[2, 0]],
        )
    ],
    "_softmax_backward_data": [
        (
            (3, 4),
            lambda x: aten._softmax_backward_data(x, x * x, -1, torch.float64),
            lambda x: x * x * (x - (x * x * x).sum(1, keepdims=True)),
        )
    ],
    "_log_softmax_backward_data": [
        (
            (3, 4),
            lambda x: aten._log_softmax_backward_data(x, x, 0, torch.float64),
            lambda x: x - EXP(x) * x.sum(0, keepdims=True),
        )
    ],
}
