"""A call of every op that has a rule, as functions of one tensor that are piecewise polynomial of degree two at most."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

Case = tuple[tuple[int, ...], Callable[[Tensor], Tensor]]

EVEN = torch.tensor([True, False, True, False])
MASK = torch.tensor([[True, False, True, False], [False, False, True, True], [True, True, True, True]])
ORDER = torch.tensor([2, 0, 2, 1])
GRID = torch.tensor([[2, 0, 1, 1], [0, 0, 2, 1]])  # rows of an index into three rows


def c(*shape: int, seed: int = 7) -> Tensor:
    """A constant of sixteenths, the same at every call."""
    count = math.prod(shape)
    return ((torch.arange(count) * 37 + 11 * seed) % 64 - 31).double().reshape(shape) / 16


#: op -> (input shape, function) ...
STRUCTURAL: dict[str, list[Case]] = {
    "reshape": [((3, 4), lambda x: x.reshape(2, 6)), ((3, 4), lambda x: x.T.reshape(-1)), ((1,), lambda x: x.reshape(()))],
    "permute": [((2, 3, 4), lambda x: x.permute(2, 0, 1)), ((3, 4), lambda x: x.mT), ((2, 3, 4), lambda x: x.transpose(0, -1))],
    "expand": [((3, 1), lambda x: x.expand(2, 3, 4)), ((3,), lambda x: x.expand(4, 3)), ((1,), lambda x: x.reshape(()).expand(3))],
    "select": [((3, 4), lambda x: x[1]), ((3, 4), lambda x: x[:, -1]), ((3,), lambda x: x[2])],
    "slice": [((5, 4), lambda x: x[1:4:2]), ((3, 4), lambda x: x[..., -2:])],
    "cat": [
        ((3, 4), lambda x: torch.cat([x, x * 2], 1)),
        ((3, 4), lambda x: torch.cat([-x[:, 2:], c(3, 1), x[:, :2]], -1)),
        ((3,), lambda x: torch.cat([c(2), x, x * x])),
        ((3,), lambda x: torch.cat([torch.zeros(0, dtype=torch.float64), x])),
    ],
    "stack": [((3, 4), lambda x: torch.stack([x, c(3, 4), x * x], -1)), ((3,), lambda x: torch.stack([x[0], x[2] * x[1]]))],
    "index": [
        ((3, 4), lambda x: x[GRID]), ((3, 4), lambda x: x[:, ORDER]), ((3, 4), lambda x: x[MASK]), ((3, 4), lambda x: x[:, EVEN]),
        ((3, 4), lambda x: x[ORDER, torch.arange(4)]), ((3, 4, 2), lambda x: x[ORDER, :, 1]), ((3, 4), lambda x: x[None, x.argmax(0)]),
        ((4,), lambda x: c(4, 3)[x.argsort()] * x[:, None]), ((3, 4, 2), lambda x: x[ORDER[:2], :, ORDER[2:] // 2]),
    ],
    "index_select": [((3, 4), lambda x: x.index_select(1, ORDER)), ((3,), lambda x: x.index_select(0, ORDER))],
    "gather": [((3, 4), lambda x: x.gather(0, GRID)), ((3, 4), lambda x: x.gather(1, x.argsort(1)[:, :2]))],
    "flip": [((3, 4), lambda x: x.flip(0)), ((3, 4), lambda x: x.flip(-1, 0))],
    "roll": [((3, 4), lambda x: x.roll(1)), ((3, 4), lambda x: x.roll((1, 2), (0, -1)))],
    "repeat": [((3, 2), lambda x: x.repeat(2, 1, 2)), ((3,), lambda x: x.repeat(2, 2))],
    "tril": [((3, 4), lambda x: x.tril()), ((2, 3, 4), lambda x: x.tril(-1))],
    "triu": [((3, 4), lambda x: x.triu(1)), ((2, 3, 4), lambda x: x.triu())],
    "diagonal": [((3, 4), lambda x: x.diagonal(1)), ((2, 3, 4), lambda x: x.diagonal(0, -2, -1)), ((2, 3, 2), lambda x: x.diagonal(0, 0, 2))],
    "diag_embed": [((2, 3), lambda x: x.diag_embed()), ((2, 3), lambda x: x.diag_embed(1, 0, -1))],
    "constant_pad_nd": [
        ((3, 4), lambda x: torch.nn.functional.pad(x, (1, 2))), ((3, 4), lambda x: torch.nn.functional.pad(x, (1, -1, 0, 2), value=3)),
        ((3, 4), lambda x: torch.nn.functional.pad(x, (0, 1), value=0.5)),
    ],
    "slice_scatter": [
        ((2, 4), lambda x: torch.slice_scatter(c(3, 4), x, 0, 1)), ((3, 4), lambda x: torch.slice_scatter(x, c(3, 2), 1, 0, 4, 2)),
        ((3, 4), lambda x: torch.slice_scatter(x, x[:1] * x[1:2], 0, 2)),
    ],
    "select_scatter": [
        ((4,), lambda x: torch.select_scatter(c(3, 4), x, 0, 1)), ((3, 4), lambda x: torch.select_scatter(x, c(3), 1, 0)),
        ((3, 4), lambda x: torch.select_scatter(x, x[0] * x[1], 0, 0)),
    ],
    "diagonal_scatter": [
        ((3,), lambda x: torch.diagonal_scatter(c(3, 4), x)), ((3, 4), lambda x: torch.diagonal_scatter(x, c(3), 1)),
        ((3, 4), lambda x: torch.diagonal_scatter(x, x[0, :3] * x[1, :3])),
    ],
    "index_put": [
        ((3, 4), lambda x: x.index_put((ORDER[1:],), c(3, 4))), ((3, 4), lambda x: c(3, 4).index_put((ORDER[1:],), x)),
        ((3, 4), lambda x: x.index_put((ORDER, torch.arange(4)), x[0] * x[1])),
        ((3, 4), lambda x: x.index_put((GRID,), c(4), accumulate=True)),
        ((3, 4), lambda x: x.index_put((x.argmin(0),), x[0] * 2, accumulate=True)),
        ((3, 4), lambda x: x.index_put((MASK,), c(1)[0])), ((3, 4), lambda x: x.index_put((x > 0,), c(1)[0])),
        ((3, 4), lambda x: x.index_put((x[:, 0] > 0,), x[1] * x[1])), ((3, 4), lambda x: x.index_put((x < 0,), x[0, 0], accumulate=True)),
        ((3, 4), lambda x: x.index_put((MASK,), c(8))),
    ],
    "index_copy": [((3, 4), lambda x: x.index_copy(0, ORDER[:2], c(2, 4))), ((2, 4), lambda x: c(3, 4).index_copy(0, ORDER[:2], x))],
    "index_fill": [((3, 4), lambda x: x.index_fill(1, ORDER, 3)), ((3, 4), lambda x: x.index_fill(0, ORDER[:2], 0.5))],
    "scatter": [
        ((3, 4), lambda x: x.scatter(0, GRID, 2.5)), ((3, 4), lambda x: x.scatter(1, GRID[:, :2] % 2 + torch.tensor([0, 2]), c(2, 2))),
        ((3, 4), lambda x: torch.zeros(3, 4, dtype=torch.float64).scatter(1, x.argsort(-1)[:, :2], x[:, :2] * x[:, 2:])),
        ((3, 4), lambda x: x.scatter(0, ORDER[None], 3)),
    ],
    "where": [
        ((3, 4), lambda x: torch.where(MASK, x, c(3, 4))), ((3, 4), lambda x: torch.where(MASK, 1, x * x)),
        ((3, 4), lambda x: torch.where(x > 0.3, x, x * x)), ((4,), lambda x: torch.where(MASK, x, 1.5)),
        ((3, 4), lambda x: torch.where(x > 0, 1.0, 2) * x), ((4,), lambda x: torch.where(x[0] > 0, x, c(3, 4))),
        ((3, 4), lambda x: torch.where(MASK, torch.tensor(2), x)),
    ],
    "masked_fill": [
        ((3, 4), lambda x: x.masked_fill(MASK, 2)), ((3, 4), lambda x: x.masked_fill(MASK[:, :1], -0.5)),
        ((3, 4), lambda x: x.masked_fill(x < 0, c(1)[0])), ((4,), lambda x: x.masked_fill(MASK, 1.0)),
        ((3, 4), lambda x: x.masked_fill(MASK, x[0, 0] * x[1, 1])),
    ],
    "unfold": [((5, 4), lambda x: x.unfold(0, 3, 1)), ((4,), lambda x: x.unfold(-1, 2, 2))],
    "rot90": [((3, 4), lambda x: x.rot90()), ((2, 3, 4), lambda x: x.rot90(3, (1, 2)))],
    "reflection_pad1d": [((3, 4), lambda x: torch.nn.functional.pad(x, (2, 1), "reflect"))],
    "reflection_pad2d": [((2, 3, 4), lambda x: torch.nn.functional.pad(x, (2, 1, 1, 0), "reflect"))],
    "replication_pad1d": [((3, 4), lambda x: torch.nn.functional.pad(x, (2, 1), "replicate"))],
    "replication_pad2d": [((2, 3, 4), lambda x: torch.nn.functional.pad(x, (2, 1, 1, 0), "replicate"))],
    "pixel_shuffle": [((4, 2, 3), lambda x: torch.nn.functional.pixel_shuffle(x, 2))],
    "pixel_unshuffle": [((1, 4, 2), lambda x: torch.nn.functional.pixel_unshuffle(x, 2))],
    "channel_shuffle": [((1, 4, 2, 1), lambda x: torch.nn.functional.channel_shuffle(x, 2))],
    "im2col": [((1, 2, 3, 4), lambda x: torch.nn.functional.unfold(x, (2, 3)))],
    "embedding": [
        ((3, 4), lambda x: torch.nn.functional.embedding(GRID, x)), ((3, 4), lambda x: torch.nn.functional.embedding(x.argmax(0), x)),
        ((4,), lambda x: torch.nn.functional.embedding(x.argsort(), c(4, 2)) * x[:, None]),
    ],
}  # fmt: skip

#: decompositions
DECOMPOSED: dict[str, list[Case]] = {
    "masked_select": [((3, 4), lambda x: x.masked_select(MASK)), ((4,), lambda x: x.masked_select(MASK))],
    "take": [((3, 4), lambda x: x.take(GRID * 3)), ((3, 4), lambda x: x.take(x.argmax(1)))],
    "as_strided": [((3, 4), lambda x: x.as_strided((2, 3, 2), (4, 1, 2))), ((4, 3), lambda x: x.T.as_strided((4, 4), (2, 1), 1))],
    "masked_scatter": [((3, 4), lambda x: x.masked_scatter(MASK, c(12))), ((3, 4), lambda x: c(3, 4).masked_scatter(MASK, x * x))],
    "copy": [((3, 4), lambda x: aten.copy(c(3, 4), x)), ((4,), lambda x: aten.copy(c(3, 4), x))],
    "narrow_copy": [((3, 4), lambda x: torch.narrow_copy(x, 1, 1, 2))],
    "unfold_copy": [((5, 4), lambda x: torch.unfold_copy(x, 0, 3, 1))],
    "diagonal_copy": [((3, 4), lambda x: torch.diagonal_copy(x))],
    "select_copy": [((3, 4), lambda x: torch.select_copy(x, 0, 1))],
    "slice_copy": [((3, 4), lambda x: torch.slice_copy(x, 1, 1, 3))],
    "as_strided_copy": [((3, 4), lambda x: torch.as_strided_copy(x, (2, 3), (4, 2)))],
}

LINEAR: dict[str, list[Case]] = {
    "sum": [((3, 4), lambda x: x.sum()), ((2, 3, 4), lambda x: x.sum((0, -1), keepdim=True)), ((1,), lambda x: x.reshape(()).sum())],
    "mean": [((3, 4), lambda x: x.mean()), ((2, 3, 4), lambda x: x.mean(-1)), ((1,), lambda x: x.reshape(()).mean(-1))],
    "cumsum": [((3, 4), lambda x: x.cumsum(-1)), ((3, 4), lambda x: x.cumsum(0))],
    "neg": [((3, 4), lambda x: -x)],
    "trace": [((3, 4), lambda x: x.trace())],
    "scatter_add": [
        ((3, 4), lambda x: x.scatter_add(0, GRID, c(2, 4))), ((3, 4), lambda x: c(3, 4).scatter_add(0, x.argsort(0), x * x)),
    ],
    "index_add": [
        ((3, 4), lambda x: x.index_add(0, ORDER, c(4, 4), alpha=2)), ((4, 4), lambda x: c(3, 4).index_add(0, ORDER, x, alpha=3)),
        ((3, 4), lambda x: x.index_add(1, ORDER, x * x)),
    ],
    "avg_pool2d": [((2, 3, 4), lambda x: torch.nn.functional.avg_pool2d(x, 2, 1, 1, count_include_pad=False))],
    "avg_pool3d": [((1, 2, 3, 4), lambda x: torch.nn.functional.avg_pool3d(x, 2, 1))],
    "_adaptive_avg_pool2d": [((2, 3, 4), lambda x: torch.nn.functional.adaptive_avg_pool2d(x, (2, 2)))],
    "_adaptive_avg_pool3d": [((1, 2, 3, 4), lambda x: torch.nn.functional.adaptive_avg_pool3d(x, (1, 2, 2)))],
    "upsample_bilinear2d": [((1, 1, 3, 4), lambda x: torch.nn.functional.interpolate(x, (5, 8), mode="bilinear"))],
    "upsample_linear1d": [((1, 2, 4), lambda x: torch.nn.functional.interpolate(x, 8, mode="linear", align_corners=True))],
    "col2im": [((1, 8, 2), lambda x: torch.nn.functional.fold(x, (3, 4), (2, 4), (1, 1), 0, (1, 1))[..., :3])],
}  # fmt: skip
