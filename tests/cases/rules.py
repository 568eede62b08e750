"""Calls of every op that has a rule, as functions of one tensor, piecewise polynomial of degree two at most."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

aten = torch.ops.aten

Case = tuple[tuple[int, ...], Callable[[Tensor], Tensor]]

EVEN = torch.tensor([True, False, True, False])
MASK = torch.tensor([[True, False, True, False], [False, False, True, True], [True, True, True, True]])
ORDER = torch.tensor([2, 0, 2, 1])
GRID = torch.tensor([[2, 0, 1, 1], [0, 0, 2, 1]])  # rows of an index into three rows

SAMPLES = torch.tensor([[[0.3, 0.7, 0.45], [0.1, 0.9, 0.6]]], dtype=torch.float64)


def c(*shape: int, seed: int = 7) -> Tensor:
    """A constant of sixteenths, the same at every call."""
    count = math.prod(shape)
    return ((torch.arange(count) * 37 + 11 * seed) % 64 - 31).double().reshape(shape) / 16


#: op -> (input shape, function) ...
STRUCTURAL: dict[str, list[Case]] = {
    "reshape": [
        ((3, 4), lambda x: x.reshape(2, 6)),
        ((3, 4), lambda x: x.T.reshape(-1)),
        ((1,), lambda x: x.reshape(())),
    ],
    "permute": [
        ((2, 3, 4), lambda x: x.permute(2, 0, 1)),
        ((3, 4), lambda x: x.mT),
        ((2, 3, 4), lambda x: x.transpose(0, -1)),
    ],
    "expand": [
        ((3, 1), lambda x: x.expand(2, 3, 4)),
        ((3,), lambda x: x.expand(4, 3)),
        ((1,), lambda x: x.reshape(()).expand(3)),
    ],
    "select": [((3, 4), lambda x: x[1]), ((3, 4), lambda x: x[:, -1]), ((3,), lambda x: x[2])],
    "slice": [((5, 4), lambda x: x[1:4:2]), ((3, 4), lambda x: x[..., -2:])],
    "cat": [
        ((3, 4), lambda x: torch.cat([x, x * 2], 1)),
        ((3, 4), lambda x: torch.cat([-x[:, 2:], c(3, 1), x[:, :2]], -1)),
        ((3,), lambda x: torch.cat([c(2), x, x * x])),
        ((3,), lambda x: torch.cat([torch.zeros(0, dtype=torch.float64), x])),
    ],
    "stack": [
        ((3, 4), lambda x: torch.stack([x, c(3, 4), x * x], -1)),
        ((3,), lambda x: torch.stack([x[0], x[2] * x[1]])),
    ],
    "index": [
        ((3, 4), lambda x: x[GRID]),
        ((3, 4), lambda x: x[:, ORDER]),
        ((3, 4), lambda x: x[MASK]),
        ((3, 4), lambda x: x[:, EVEN]),
        ((3, 4), lambda x: x[ORDER, torch.arange(4)]),
        ((3, 4, 2), lambda x: x[ORDER, :, 1]),
        ((3, 4), lambda x: x[None, x.argmax(0)]),
        ((4,), lambda x: c(4, 3)[x.argsort()] * x[:, None]),
        ((3, 4, 2), lambda x: x[ORDER[:2], :, ORDER[2:] // 2]),
    ],
    "index_select": [((3, 4), lambda x: x.index_select(1, ORDER)), ((3,), lambda x: x.index_select(0, ORDER))],
    "gather": [((3, 4), lambda x: x.gather(0, GRID)), ((3, 4), lambda x: x.gather(1, x.argsort(1)[:, :2]))],
    "flip": [((3, 4), lambda x: x.flip(0)), ((3, 4), lambda x: x.flip(-1, 0))],
    "roll": [((3, 4), lambda x: x.roll(1)), ((3, 4), lambda x: x.roll((1, 2), (0, -1)))],
    "repeat": [((3, 2), lambda x: x.repeat(2, 1, 2)), ((3,), lambda x: x.repeat(2, 2))],
    "tril": [((3, 4), lambda x: x.tril()), ((2, 3, 4), lambda x: x.tril(-1))],
    "triu": [((3, 4), lambda x: x.triu(1)), ((2, 3, 4), lambda x: x.triu())],
    "diagonal": [
        ((3, 4), lambda x: x.diagonal(1)),
        ((2, 3, 4), lambda x: x.diagonal(0, -2, -1)),
        ((2, 3, 2), lambda x: x.diagonal(0, 0, 2)),
    ],
    "diag_embed": [((2, 3), lambda x: x.diag_embed()), ((2, 3), lambda x: x.diag_embed(1, 0, -1))],
    "constant_pad_nd": [
        ((3, 4), lambda x: torch.nn.functional.pad(x, (1, 2))),
        ((3, 4), lambda x: torch.nn.functional.pad(x, (1, -1, 0, 2), value=3)),
        ((3, 4), lambda x: torch.nn.functional.pad(x, (0, 1), value=0.5)),
    ],
    "slice_scatter": [
        ((2, 4), lambda x: torch.slice_scatter(c(3, 4), x, 0, 1)),
        ((3, 4), lambda x: torch.slice_scatter(x, c(3, 2), 1, 0, 4, 2)),
        ((3, 4), lambda x: torch.slice_scatter(x, x[:1] * x[1:2], 0, 2)),
    ],
    "select_scatter": [
        ((4,), lambda x: torch.select_scatter(c(3, 4), x, 0, 1)),
        ((3, 4), lambda x: torch.select_scatter(x, c(3), 1, 0)),
        ((3, 4), lambda x: torch.select_scatter(x, x[0] * x[1], 0, 0)),
    ],
    "diagonal_scatter": [
        ((3,), lambda x: torch.diagonal_scatter(c(3, 4), x)),
        ((3, 4), lambda x: torch.diagonal_scatter(x, c(3), 1)),
        ((3, 4), lambda x: torch.diagonal_scatter(x, x[0, :3] * x[1, :3])),
    ],
    "index_put": [
        ((3, 4), lambda x: x.index_put((ORDER[1:],), c(3, 4))),
        ((3, 4), lambda x: c(3, 4).index_put((ORDER[1:],), x)),
        ((3, 4), lambda x: x.index_put((ORDER, torch.arange(4)), x[0] * x[1])),
        ((3, 4), lambda x: x.index_put((GRID,), c(4), accumulate=True)),
        ((3, 4), lambda x: x.index_put((x.argmin(0),), x[0] * 2, accumulate=True)),
        ((3, 4), lambda x: x.index_put((MASK,), c(8))),
    ],
    "index_copy": [
        ((3, 4), lambda x: x.index_copy(0, ORDER[:2], c(2, 4))),
        ((2, 4), lambda x: c(3, 4).index_copy(0, ORDER[:2], x)),
    ],
    "index_fill": [((3, 4), lambda x: x.index_fill(1, ORDER, 3)), ((3, 4), lambda x: x.index_fill(0, ORDER[:2], 0.5))],
    "scatter": [
        ((3, 4), lambda x: x.scatter(0, GRID, 2.5)),
        ((3, 4), lambda x: x.scatter(1, GRID[:, :2] % 2 + torch.tensor([0, 2]), c(2, 2))),
        (
            (3, 4),
            lambda x: torch.zeros(3, 4, dtype=torch.float64).scatter(1, x.argsort(-1)[:, :2], x[:, :2] * x[:, 2:]),
        ),
        ((3, 4), lambda x: x.scatter(0, ORDER[None], 3)),
    ],
    "where": [
        ((3, 4), lambda x: torch.where(MASK, x, c(3, 4))),
        ((3, 4), lambda x: torch.where(MASK, 1, x * x)),
        ((3, 4), lambda x: torch.where(x > 0.3, x, x * x)),
        ((4,), lambda x: torch.where(MASK, x, 1.5)),
        ((3, 4), lambda x: torch.where(x > 0, 1.0, 2) * x),
        ((4,), lambda x: torch.where(x[0] > 0, x, c(3, 4))),
        ((3, 4), lambda x: torch.where(MASK, torch.tensor(2), x)),
    ],
    "masked_fill": [
        ((3, 4), lambda x: x.masked_fill(MASK, 2)),
        ((3, 4), lambda x: x.masked_fill(MASK[:, :1], -0.5)),
        ((4,), lambda x: x.masked_fill(MASK, 1.0)),
    ],
    "unfold": [((5, 4), lambda x: x.unfold(0, 3, 1)), ((4,), lambda x: x.unfold(-1, 2, 2))],
    "rot90": [((3, 4), lambda x: x.rot90()), ((2, 3, 4), lambda x: x.rot90(3, (1, 2)))],
    "reflection_pad3d": [((1, 2, 2, 3), lambda x: torch.nn.functional.pad(x, (2, 1, 1, 0, 1, 1), "reflect"))],
    "replication_pad3d": [((1, 2, 2, 3), lambda x: torch.nn.functional.pad(x, (2, 1, 1, 0, 1, 1), "replicate"))],
    "reflection_pad1d": [((3, 4), lambda x: torch.nn.functional.pad(x, (2, 1), "reflect"))],
    "reflection_pad2d": [((2, 3, 4), lambda x: torch.nn.functional.pad(x, (2, 1, 1, 0), "reflect"))],
    "replication_pad1d": [((3, 4), lambda x: torch.nn.functional.pad(x, (2, 1), "replicate"))],
    "replication_pad2d": [((2, 3, 4), lambda x: torch.nn.functional.pad(x, (2, 1, 1, 0), "replicate"))],
    "pixel_shuffle": [((4, 2, 3), lambda x: torch.nn.functional.pixel_shuffle(x, 2))],
    "pixel_unshuffle": [((1, 4, 2), lambda x: torch.nn.functional.pixel_unshuffle(x, 2))],
    "channel_shuffle": [((1, 4, 2, 1), lambda x: torch.nn.functional.channel_shuffle(x, 2))],
    "im2col": [((1, 2, 3, 4), lambda x: torch.nn.functional.unfold(x, (2, 3)))],
    "embedding": [
        ((3, 4), lambda x: torch.nn.functional.embedding(GRID, x)),
        ((3, 4), lambda x: torch.nn.functional.embedding(x.argmax(0), x)),
        ((4,), lambda x: torch.nn.functional.embedding(x.argsort(), c(4, 2)) * x[:, None]),
    ],
}

LINEAR: dict[str, list[Case]] = {
    "sum": [
        ((3, 4), lambda x: x.sum()),
        ((2, 3, 4), lambda x: x.sum((0, -1), keepdim=True)),
        ((1,), lambda x: x.reshape(()).sum()),
    ],
    "mean": [((3, 4), lambda x: x.mean()), ((2, 3, 4), lambda x: x.mean(-1)), ((1,), lambda x: x.reshape(()).mean(-1))],
    "cumsum": [((3, 4), lambda x: x.cumsum(-1)), ((3, 4), lambda x: x.cumsum(0))],
    "neg": [((3, 4), lambda x: -x)],
    "trace": [((3, 4), lambda x: x.trace())],
    "scatter_add": [
        ((3, 4), lambda x: x.scatter_add(0, GRID, c(2, 4))),
        ((3, 4), lambda x: c(3, 4).scatter_add(0, x.argsort(0), x * x)),
    ],
    "index_add": [
        ((3, 4), lambda x: x.index_add(0, ORDER, c(4, 4), alpha=2)),
        ((4, 4), lambda x: c(3, 4).index_add(0, ORDER, x, alpha=3)),
        ((3, 4), lambda x: x.index_add(1, ORDER, x * x)),
    ],
    "avg_pool2d": [((2, 3, 4), lambda x: torch.nn.functional.avg_pool2d(x, 2, 1, 1, count_include_pad=False))],
    "avg_pool3d": [((1, 2, 3, 4), lambda x: torch.nn.functional.avg_pool3d(x, 2, 1))],
    "_adaptive_avg_pool2d": [((2, 3, 4), lambda x: torch.nn.functional.adaptive_avg_pool2d(x, (2, 2)))],
    "_adaptive_avg_pool3d": [((1, 2, 3, 4), lambda x: torch.nn.functional.adaptive_avg_pool3d(x, (1, 2, 2)))],
    "upsample_bilinear2d": [((1, 1, 3, 4), lambda x: torch.nn.functional.interpolate(x, (5, 8), mode="bilinear"))],
    "upsample_linear1d": [
        ((1, 2, 4), lambda x: torch.nn.functional.interpolate(x, 8, mode="linear", align_corners=True))
    ],
    "upsample_trilinear3d": [
        ((1, 1, 2, 2, 3), lambda x: torch.nn.functional.interpolate(x, (3, 3, 5), mode="trilinear"))
    ],
    "upsample_bicubic2d": [((1, 1, 3, 4), lambda x: torch.nn.functional.interpolate(x, (5, 8), mode="bicubic"))],
    "_upsample_bilinear2d_aa": [
        ((1, 1, 3, 4), lambda x: torch.nn.functional.interpolate(x, (2, 3), mode="bilinear", antialias=True))
    ],
    "_upsample_bicubic2d_aa": [
        ((1, 1, 3, 4), lambda x: torch.nn.functional.interpolate(x, (2, 3), mode="bicubic", antialias=True))
    ],
    "col2im": [((1, 8, 2), lambda x: torch.nn.functional.fold(x, (3, 4), (2, 4), (1, 1), 0, (1, 1))[..., :3])],
}

PRODUCTS: dict[str, list[Case]] = {
    "add": [
        ((3, 4), lambda x: x + c(4)),
        ((4,), lambda x: c(3, 4) + x),
        ((3, 4), lambda x: x[:1] + x * x),
        ((3, 4), lambda x: x * x + x[0, 0]),
        ((3, 4), lambda x: torch.add(x, x[0] * x[1], alpha=3)),
        ((3, 4), lambda x: torch.add(c(2, 3, 4), x, alpha=-2)),
        ((1,), lambda x: x[0] + 2),
        ((3, 4), lambda x: (x > 0) + x),
        ((3, 4), lambda x: x[0, 0] + c(3)),
        ((3, 4), lambda x: x.add(2, alpha=3)),
    ],
    "sub": [
        ((3, 4), lambda x: x - x[0] * x[1]),
        ((3, 4), lambda x: c(2, 1, 1) - x),
        ((3, 4), lambda x: torch.sub(x, c(4), alpha=2)),
        ((3, 4), lambda x: x[0] - x),
        ((4,), lambda x: x.sum() - x),
    ],
    "rsub": [
        ((3, 4), lambda x: 1 - x),
        ((3, 4), lambda x: aten.rsub.Tensor(x, c(4), alpha=2)),
        ((3, 4), lambda x: aten.rsub.Scalar(x, 1, 2)),
    ],
    "mul": [
        ((3, 4), lambda x: x * c(4)),
        ((4,), lambda x: c(3, 4) * x),
        ((3, 4), lambda x: x * x),
        ((3, 4), lambda x: x * x[0]),
        ((3, 4), lambda x: x[:, 1] * x.T),
        ((3, 4), lambda x: x[0, 0] * x),
        ((3, 4), lambda x: x[0, 0] * x[1, 1]),
        ((3, 4), lambda x: 3 * x),
        ((3, 4), lambda x: (x > 0) * x),
        ((3, 4), lambda x: x * (x > 0).to(torch.float32)),
        ((3, 4), lambda x: x[0] * c(2, 1, 1)),
        ((3, 4), lambda x: x.argmax(1) * x.sum(1)),
        ((1,), lambda x: x.reshape(()) * c(2, 2)),
    ],
    "div": [
        ((3, 4), lambda x: x / 8),
        ((3, 4), lambda x: x / torch.tensor([1.0, 2, 4, -8])),
        ((3, 4), lambda x: x * x / torch.tensor([2, 4, 8, 1])),
        ((3, 4), lambda x: x / (x > 5).sum().add(4)),
        ((3, 4), lambda x: x * torch.div(x, 2.1, rounding_mode="floor")),
        ((3, 4), lambda x: x * torch.div(x * 2, c(4) + 4, rounding_mode="trunc")),
    ],
    "mm": [
        ((3, 4), lambda x: x @ c(4, 2)),
        ((3, 4), lambda x: c(2, 3) @ x),
        ((3, 4), lambda x: x @ x.T),
        ((3, 4), lambda x: x.T @ x),
    ],
    "bmm": [
        ((2, 3, 4), lambda x: x @ c(2, 4, 2)),
        ((2, 3, 4), lambda x: c(2, 2, 3) @ x),
        ((2, 3, 4), lambda x: x @ x.mT),
        ((2, 3, 4), lambda x: x[:1].expand(2, 3, 4) @ c(2, 4, 2)),
        ((2, 3, 2), lambda x: torch.einsum("hij,hkj->hik", x, x)),
        ((3, 4), lambda x: torch.einsum("ij,kj,kl->il", x, x, c(3, 2))),
        ((2, 3, 4), lambda x: torch.einsum("bij,jk->bki", x, c(4, 2))),
        ((3, 4), lambda x: x[None] @ c(2, 4, 2)),
    ],
    "addmm": [
        ((3, 4), lambda x: torch.nn.functional.linear(x, c(2, 4), c(2))),
        ((3, 4), lambda x: torch.addmm(c(2), x, c(4, 2), beta=2, alpha=3)),
        ((3, 4), lambda x: torch.addmm(x, c(3, 2), c(2, 4), beta=2)),
        ((3, 4), lambda x: torch.addmm(x, x, c(4, 4), alpha=2)),
        ((3, 3), lambda x: torch.addmm(x, x, x, beta=-1)),
        ((3, 4), lambda x: torch.addmm(x[0, :2], x, c(4, 2))),
        ((3, 4), lambda x: torch.addmm(c(3, 3), x, x.T)),
        ((3, 4), lambda x: torch.addmm(x[0], c(3, 2), c(2, 4), alpha=0.5)),
    ],
    "convolution": [
        ((3, 4), lambda x: torch.nn.functional.conv1d(x, c(2, 3, 2), c(2))),
        ((2, 4), lambda x: torch.nn.functional.conv1d(x, c(4, 1, 3), groups=2, padding=1)),
        ((2, 3, 4), lambda x: torch.nn.functional.conv2d(x, c(1, 2, 2, 2), stride=2)),
        ((1, 2, 5), lambda x: torch.nn.functional.conv1d(x, c(1, 2, 2), dilation=2)),
        ((2, 3), lambda x: torch.nn.functional.conv_transpose1d(x, c(2, 1, 3), c(1), stride=2)),
        # moving kernels
        ((2, 4), lambda x: torch.nn.functional.conv1d(x, x[None, :, :2] * 2, x[0, :1])),
        ((2, 4), lambda x: torch.nn.functional.conv1d(c(2, 4), x[:, :2].reshape(2, 2, 1), x[0, 2:])),
        ((2, 4), lambda x: torch.nn.functional.conv1d(c(2, 4), c(2, 2, 1), x[0, :2])),
        ((2, 4), lambda x: torch.nn.functional.conv1d(x, x[:, None, 1:] * x[0, 0], padding=1, groups=2, dilation=2)),
        ((2, 3, 3), lambda x: torch.nn.functional.conv2d(x, x[None, :, :2, 1:], stride=2, padding=1)),
        ((2, 3), lambda x: torch.nn.functional.conv_transpose1d(x, x[:, None] * 2, x[0, :1], stride=2)),
    ],
    "pow": [
        ((3, 4), lambda x: x**2),
        ((3, 4), lambda x: x**1),
        ((3, 4), lambda x: x**0 + x),
        ((3, 4), lambda x: x ** torch.tensor(2.0)),
    ],
}

CHOICES: dict[str, list[Case]] = {
    "topk": [
        ((3, 4), lambda x: x.topk(2)[0]),
        ((3, 4), lambda x: x.topk(2, 0, largest=False)[0] * 2),
        ((3, 4), lambda x: torch.zeros_like(x).scatter(-1, (t := x.topk(2, -1))[1], t[0] * t[0])),
    ],
    "sort": [
        ((3, 4), lambda x: x.sort()[0]),
        ((3, 4), lambda x: x.sort(dim=0, descending=True, stable=True)[0]),
        ((3, 4), lambda x: x.msort()),
    ],
    "cummax": [((3, 4), lambda x: x.cummax(1)[0])],
    "cummin": [((3, 4), lambda x: x.cummin(0)[0] * 2)],
    "max": [
        ((3, 4), lambda x: x.max()),
        ((3, 4), lambda x: x.max(0)[0]),
        ((3, 4), lambda x: x.max(-1, keepdim=True)[0] * x),
    ],
    "min": [((3, 4), lambda x: x.min()), ((3, 4), lambda x: x.min(-1)[0]), ((3, 4), lambda x: x * x.min(0)[1])],
    "amax": [
        ((3, 4), lambda x: x.amax()),
        ((2, 3, 4), lambda x: x.amax((0, 2))),
        ((3, 4), lambda x: x - x.amax(-1, keepdim=True)),
    ],
    "amin": [((3, 4), lambda x: x.amin()), ((3, 4), lambda x: x.amin(0))],
    "max_pool2d_with_indices": [
        ((1, 3, 4), lambda x: torch.nn.functional.max_pool2d(x, 2, 1)),
        ((2, 5), lambda x: torch.nn.functional.max_pool1d(x, 2)),
        ((1, 2, 5), lambda x: torch.nn.functional.max_pool1d(x, 3, 1, 1)),
    ],
    "max_pool3d_with_indices": [((1, 2, 3, 4), lambda x: torch.nn.functional.max_pool3d(x, 2, 1))],
    "fractional_max_pool2d": [
        ((1, 2, 4, 5), lambda x: torch.nn.functional.fractional_max_pool2d(x, 2, 2, _random_samples=SAMPLES[..., :2]))
    ],
    "fractional_max_pool3d": [
        ((1, 2, 4, 4, 5), lambda x: torch.nn.functional.fractional_max_pool3d(x, 2, 2, _random_samples=SAMPLES))
    ],
    "adaptive_max_pool2d": [
        ((2, 3, 4), lambda x: torch.nn.functional.adaptive_max_pool2d(x, 2)),
        ((2, 5), lambda x: torch.nn.functional.adaptive_max_pool1d(x, 2)),
    ],
    "adaptive_max_pool3d": [((1, 2, 3, 4), lambda x: torch.nn.functional.adaptive_max_pool3d(x, (1, 2, 2)))],
}

#: the value of each op stands still, so it enters as a factor of something that moves
CONSTANT: dict[str, list[Case]] = {
    name: [((3, 4), lambda x, op=op: x * op(x).to(x.dtype))]
    for name, op in {
        "eq": lambda x: x == x[0],
        "ne": lambda x: x != x[0],
        "lt": lambda x: x < 0.3,
        "le": lambda x: x <= x[0],
        "gt": lambda x: x > x[1],
        "ge": lambda x: x >= 0,
        "isnan": lambda x: x.isnan(),
        "isinf": lambda x: ~x.isinf(),
        "isposinf": lambda x: ~x.isposinf(),
        "isneginf": lambda x: ~x.isneginf(),
        "logical_and": lambda x: (x > 0).logical_and(x < 1),
        "logical_or": lambda x: (x > 1).logical_or(x < 0),
        "logical_xor": lambda x: (x > 0).logical_xor(x < 1),
        "logical_not": lambda x: x.logical_not(),
        "bitwise_and": lambda x: (x * 9).long() & 6,
        "bitwise_or": lambda x: (x * 9).long() | 6,
        "bitwise_xor": lambda x: (x * 9).long() ^ 6,
        "bitwise_not": lambda x: ~(x * 9).long(),
        "bits of booleans, in parts": lambda x: ~((x > 0) & (x < 1) | (x > 2) ^ (x < 0.5)),
        "argmax": lambda x: x.argmax(0),
        "argmin": lambda x: x.argmin(1, keepdim=True),
        "sign": lambda x: x.sign(),
        "sgn": lambda x: x.sgn(),
        "signbit": lambda x: x.signbit(),
        "floor": lambda x: x.floor(),
        "ceil": lambda x: x.ceil(),
        "round": lambda x: (x + 0.2).round(),
        "trunc": lambda x: x.trunc(),
        "floor_divide": lambda x: x.floor_divide(2.1),
        "heaviside": lambda x: x.heaviside(c(4)),
        "any": lambda x: (x > 0).any(0),
        "all": lambda x: (x > 0).all(),
        "count_nonzero": lambda x: x.count_nonzero(0),
        "searchsorted": lambda x: torch.searchsorted(torch.tensor([-1.0, 0, 1]), x),
        "bucketize": lambda x: torch.bucketize(x, torch.tensor([-1.0, 0, 1])),
        "zeros_like": lambda x: torch.zeros_like(x) + 2,
        "ones_like": lambda x: torch.ones_like(x),
        "full_like": lambda x: torch.full_like(x, 3),
        "empty_like": lambda x: torch.empty_like(x).fill_(2),
        "new_zeros": lambda x: x.new_zeros(4) + 2,
        "new_ones": lambda x: x.new_ones(3, 4),
        "new_full": lambda x: x.new_full((3, 1), 0.5),
        "new_empty": lambda x: x.new_empty(3, 4).zero_() + 3,
        "new_empty_strided": lambda x: x.new_empty_strided((3, 4), (4, 1)).fill_(2),
        "_to_copy": lambda x: (x * 3).long(),
    }.items()
}

#: what they return depends on the kind of their argument alone, so that a trace holds it as a constant
OF_KIND = {name for name in CONSTANT if name.startswith("new_") or name.endswith("_like")}
