"""Ops that are written out in others, as functions of one tensor; by name as the rules are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cases.rules import GRID, MASK, ORDER, Case, c

aten = torch.ops.aten

#: op -> (input shape, function) ...
DECOMPOSED: dict[str, list[Case]] = {
    "fill": [((3, 4), lambda x: aten.fill(x, x[0, 0] * x[1, 1])), ((3, 4), lambda x: aten.fill(x, 2.5) * x)],
    "zero": [((3, 4), lambda x: aten.zero(x) + x)],
    "masked_fill.Tensor": [
        ((3, 4), lambda x: x.masked_fill(x < 0, c(1)[0])),
        ((3, 4), lambda x: x.masked_fill(MASK, x[0, 0] * x[1, 1])),
    ],
    "a mask in index_put": [
        ((3, 4), lambda x: x.index_put((MASK,), c(1)[0])),
        ((3, 4), lambda x: x.index_put((x > 0,), c(1)[0])),
        ((3, 4), lambda x: x.index_put((x[:, 0] > 0,), x[1] * x[1])),
        ((3, 4), lambda x: x.index_put((x < 0,), x[0, 0], accumulate=True)),
    ],
    "_unsafe_index": [((3, 4), lambda x: aten._unsafe_index(x, [torch.tensor([2, 0, 2])]))],
    **{
        f"{op}{rank}d": [
            ((1, 2, *size), lambda x, mode=mode: torch.nn.functional.interpolate(x, scale_factor=1.5, mode=mode)),
            ((1, 1, *size), lambda x, mode=mode: torch.nn.functional.interpolate(x, 5, mode=mode)),
        ]
        for rank, size in ((1, (4,)), (2, (3, 4)), (3, (2, 3, 2)))
        for op, mode in (("upsample_nearest", "nearest"), ("_upsample_nearest_exact", "nearest-exact"))
    },
    "masked_select": [((3, 4), lambda x: x.masked_select(MASK)), ((4,), lambda x: x.masked_select(MASK))],
    "take": [((3, 4), lambda x: x.take(GRID * 3)), ((3, 4), lambda x: x.take(x.argmax(1)))],
    "as_strided": [
        ((3, 4), lambda x: x.as_strided((2, 3, 2), (4, 1, 2))),
        ((4, 3), lambda x: x.T.as_strided((4, 4), (2, 1), 1)),
    ],
    "masked_scatter": [
        ((3, 4), lambda x: x.masked_scatter(MASK, c(12))),
        ((3, 4), lambda x: c(3, 4).masked_scatter(MASK, x * x)),
    ],
    "copy": [((3, 4), lambda x: aten.copy(c(3, 4), x)), ((4,), lambda x: aten.copy(c(3, 4), x))],
    "narrow_copy": [((3, 4), lambda x: torch.narrow_copy(x, 1, 1, 2))],
    "unfold_copy": [((5, 4), lambda x: torch.unfold_copy(x, 0, 3, 1))],
    "diagonal_copy": [((3, 4), lambda x: torch.diagonal_copy(x))],
    "select_copy": [((3, 4), lambda x: torch.select_copy(x, 0, 1))],
    "slice_copy": [((3, 4), lambda x: torch.slice_copy(x, 1, 1, 3))],
    "as_strided_copy": [((3, 4), lambda x: torch.as_strided_copy(x, (2, 3), (4, 2)))],
}

DECOMPOSED |= {
    "addcmul": [((3, 4), lambda x: torch.addcmul(x, x, c(4), value=2))],
    "addcdiv": [((3, 4), lambda x: torch.addcdiv(x, x, c(4) + 4, value=2))],
    "lerp": [((3, 4), lambda x: torch.lerp(x, c(4), 0.25)), ((3, 4), lambda x: torch.lerp(c(4), x[0], x))],
    "baddbmm": [
        ((2, 3, 4), lambda x: torch.baddbmm(c(2, 3, 3), x, x.mT, beta=2, alpha=0.5)),
        ((2, 3, 4), lambda x: torch.baddbmm(x, x, c(2, 4, 4))),
    ],
    "addbmm": [((2, 3, 4), lambda x: torch.addbmm(c(3, 3), x, x.mT, beta=2, alpha=0.5))],
    "addmv": [((3, 4), lambda x: torch.addmv(c(3), x, x[0], beta=2, alpha=0.5))],
    "addr": [((4,), lambda x: torch.addr(c(4, 4), x, x, beta=2, alpha=0.5))],
    "einsum": [
        ((3, 4), lambda x: torch.tensordot(x, x, 2)),
        ((3, 4), lambda x: torch.einsum("ij,ij->i", x, x)),
        ((3, 4), lambda x: torch.einsum("ij,kl->ikjl", x, x[:2])),
    ],
    "_linalg_check_errors": [
        ((2, 2), lambda x: (aten._linalg_check_errors((x.argmax() * 0).int(), "f", is_matrix=True), x)[1])
    ],
    "mv": [((3, 4), lambda x: x @ c(4)), ((3, 4), lambda x: x @ x[0])],
    "dot": [((4,), lambda x: x @ x)],
    "vdot": [((4,), lambda x: torch.vdot(x, c(4)))],
    "ger": [((4,), lambda x: torch.outer(x, x[:2]))],
    "linalg_cross": [
        ((2, 3), lambda x: torch.linalg.cross(x, x.flip(0))),
        ((3, 4), lambda x: torch.linalg.cross(x, c(3, 1), dim=0)),
    ],
    "_trilinear": [((3, 4), lambda x: torch.nn.functional.bilinear(x, x[:, :2], c(5, 4, 2)))],
    "prod": [
        ((4,), lambda x: x[:2].prod()),
        ((2, 3), lambda x: x.prod(0)),
        ((2, 3), lambda x: x.prod(0, keepdim=True)),
    ],
    "cumprod": [((2, 3), lambda x: x.cumprod(0))],
    "var": [
        ((3, 4), lambda x: x.var(-1)),
        ((3, 4), lambda x: x.var(0, correction=0, keepdim=True)),
        ((3, 4), lambda x: x.var()),
        ((3, 4), lambda x: x.var(unbiased=False)),
    ],
    "var_mean": [((3, 4), lambda x: torch.cat(torch.var_mean(x, 0, unbiased=False)))],
    "square": [((3, 4), lambda x: x.square())],
    "split": [((5, 4), lambda x: x.split(2)[1] * x.split(2)[0]), ((3, 4), lambda x: x.chunk(2, -1)[1])],
    "split_with_sizes": [((5, 4), lambda x: x.split((2, 3))[1])],
    "unbind": [((3, 4), lambda x: x.unbind(1)[2])],
    "maximum": [
        ((3, 4), lambda x: torch.maximum(x, x * x)),
        ((3, 4), lambda x: torch.max(x, c(4))),
        ((3, 4), lambda x: torch.fmax(c(3, 4), x)),
    ],
    "minimum": [
        ((3, 4), lambda x: torch.minimum(x, x * x)),
        ((3, 4), lambda x: torch.min(x, c(4))),
        ((3, 4), lambda x: torch.fmin(c(3, 4), x)),
    ],
    "clamp.Tensor": [
        ((3, 4), lambda x: x.clamp(c(4) - 1, x[0])),
        ((3, 4), lambda x: x.clamp(min=c(4))),
        ((3, 4), lambda x: x.clamp(max=c(4))),
    ],
    "kthvalue": [((3, 4), lambda x: x.kthvalue(2)[0]), ((3, 4), lambda x: x.kthvalue(2, 0, True)[0] * x)],
    "median": [
        ((3, 4), lambda x: x.median()),
        ((3, 4), lambda x: x.median(1)[0]),
        ((3, 4), lambda x: x.median(0, keepdim=True)[0]),
    ],
    "aminmax": [((3, 4), lambda x: torch.stack(x.aminmax())), ((3, 4), lambda x: x.aminmax(dim=1)[0])],
    "nan_to_num": [
        ((3, 4), lambda x: torch.cat([x, x * math.inf, -(x * x) * math.inf, x * math.nan]).nan_to_num(1, 2, 3))
    ],
    "remainder": [
        ((3, 4), lambda x: x % 0.75),
        ((3, 4), lambda x: x.remainder(c(4))),
        ((3, 4), lambda x: torch.remainder(3, x * 0 + 2) + x),
    ],
    "fmod": [((3, 4), lambda x: x.fmod(0.75)), ((3, 4), lambda x: (x * 4).fmod(x * 0 + c(4)))],
    "frac": [((3, 4), lambda x: x.frac())],
    "_cdist_forward": [
        ((3, 4), lambda x: torch.cdist(x, c(2, 4), p=1)),
        ((3, 4), lambda x: torch.cdist(x[:1], x[1:], p=math.inf)),
    ],
    "_prelu_kernel": [
        ((3, 4), lambda x: torch.nn.functional.prelu(x, c(1))),
        ((3, 4), lambda x: torch.nn.functional.prelu(x, c(4))),
    ],
    "threshold": [((3, 4), lambda x: torch.nn.functional.threshold(x, 0.3, 7))],
    "hardshrink": [((3, 4), lambda x: torch.nn.functional.hardshrink(x))],
    "softshrink": [((3, 4), lambda x: torch.nn.functional.softshrink(x))],
    "hardtanh": [((3, 4), lambda x: torch.nn.functional.hardtanh(x, -0.5, 0.25))],
    "relu6": [((3, 4), lambda x: torch.nn.functional.relu6(x * 4))],
    "hardswish": [((3, 4), lambda x: torch.nn.functional.hardswish(x * 3))],
    "hardsigmoid": [((3, 4), lambda x: torch.nn.functional.hardsigmoid(x * 3))],
}

F = torch.nn.functional
TARGETS = torch.tensor([1, 0, 3])
PLACES = torch.tensor([[2, 0, 2, 1], [0, 0, 2, 1]])


def grid(x: Tensor) -> Tensor:
    """Places in a grid of three by four, some outside, none where two pieces meet."""
    return x[:2].reshape(1, 2, 2, 2) * 0.15 + torch.linspace(-1.1, 1.15, 8, dtype=x.dtype).reshape(1, 2, 2, 2)


def sampled(x: Tensor, mode: str, padding: str, align: bool) -> Tensor:
    return F.grid_sample(x[None, None], grid(x), mode, padding, align)


DECOMPOSED |= {
    "roll": [((1,), lambda x: torch.roll(x[0] * x[0], 1))],
    "copysign": [
        ((3, 4), lambda x: torch.copysign(x, c(4))),
        ((3, 4), lambda x: torch.copysign(x * x, x[0])),
        ((3, 4), lambda x: torch.copysign(x, -2.0)),
        ((3, 4), lambda x: torch.copysign(c(3, 4), x) * x),
    ],
    "nansum": [
        ((3, 4), lambda x: torch.where(MASK, x * x, torch.nan).nansum(0)),
        ((3, 4), lambda x: x.nansum()),
        ((3, 4), lambda x: torch.where(MASK, x, torch.nan).nanmean(1, keepdim=True)),
    ],
    "scatter_reduce": [
        (
            (3, 4),
            lambda x, options=(reduce, own): x.scatter_reduce(
                0, PLACES, x[:2] * x[1:], options[0], include_self=options[1]
            ),
        )
        for reduce in ("sum", "mean", "amax", "amin")
        for own in (True, False)
    ]
    + [
        ((3, 4), lambda x: x.scatter_reduce(1, GRID[:, :2], c(2, 2), "prod")),
        ((3, 4), lambda x: c(3, 4).scatter_reduce(1, GRID[:, :2], x, "prod", include_self=False)),
        ((3, 4), lambda x: x.scatter_reduce(0, x.argsort(0), x * 2, "amax")),
        ((1,), lambda x: x[0].scatter_reduce(0, torch.tensor(0), x[0] * 2, "prod")),
    ],
    "scatter.reduce": [
        ((3, 4), lambda x: x.scatter(0, PLACES, x[:2], reduce="add")),
        ((3, 4), lambda x: c(3, 4).scatter(1, GRID[:, :3], x, reduce="multiply")),
        ((3, 4), lambda x: x.scatter(0, ORDER[None], 3, reduce="multiply")),
    ],
    "index_reduce": [
        ((3, 4), lambda x: x.index_reduce(1, ORDER, c(3, 4), "prod")),
        ((3, 4), lambda x: x.index_reduce(0, ORDER[1:], x * x, "mean")),
        ((3, 4), lambda x: x.index_reduce(0, ORDER[1:], x * x, "amax", include_self=False)),
    ],
    "mse_loss": [
        ((3, 4), lambda x: F.mse_loss(x, x * 2 + c(4))),
        ((3, 4), lambda x: F.mse_loss(x, c(3, 4), reduction="sum")),
    ],
    "smooth_l1_loss": [
        ((3, 4), lambda x: F.smooth_l1_loss(x, c(3, 4) / 2, reduction="none", beta=0.75)),
        ((3, 4), lambda x: F.smooth_l1_loss(x, x[0] * 2 + 0.03, beta=0.0)),
    ],
    "huber_loss": [((3, 4), lambda x: F.huber_loss(x, c(3, 4) / 2, reduction="none", delta=0.75))],
    "multi_margin_loss": [
        ((1,), lambda x: F.multi_margin_loss(x[0], torch.tensor(0)) + x),
        ((4,), lambda x: F.multi_margin_loss(x, torch.tensor(2), reduction="none")),
        ((3, 4), lambda x: F.multi_margin_loss(x, TARGETS, weight=c(4) + 3)),
        ((3, 4), lambda x: F.multi_margin_loss(x, TARGETS, p=2, margin=0.8, reduction="none")),
    ],
    "multilabel_margin_loss_forward": [
        ((1,), lambda x: F.multilabel_margin_loss(x[0], torch.tensor(0)) + x),
        ((3, 4), lambda x: F.multilabel_margin_loss(x, torch.tensor([[3, 0, -1, 1], [-1, 0, 0, 0], [1, 2, 3, 0]]))),
        ((4,), lambda x: F.multilabel_margin_loss(x, torch.tensor([3, -1, 0, 1]), reduction="sum")),
    ],
    "_embedding_bag_forward_only": [
        ((3, 4), lambda x, mode=mode: F.embedding_bag(ORDER, x, torch.tensor([0, 3]), mode=mode))
        for mode in ("sum", "mean", "max")
    ]
    + [
        ((3, 4), lambda x: F.embedding_bag(ORDER, x, torch.tensor([0, 0, 3]), mode="sum", per_sample_weights=x[0])),
        ((3, 4), lambda x: F.embedding_bag(ORDER, x, torch.tensor([0, 3]), mode="mean", padding_idx=2)),
        ((3, 4), lambda x: F.embedding_bag(ORDER, x, torch.tensor([0, 1, 4]), mode="max", include_last_offset=True)),
    ],
    "max_unpool2d": [
        ((1, 4, 4), lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
        ((1, 2, 4), lambda x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2) * 2),
    ],
    "max_unpool3d": [((1, 2, 2, 4), lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2))],
    "grid_sampler_2d": [
        ((3, 4), lambda x, options=(mode, padding, align): sampled(x, *options))
        for mode in ("bilinear", "nearest")
        for padding, align in (("zeros", False), ("border", True), ("reflection", False), ("reflection", True))
    ],
    "grid_sampler_3d": [
        ((2, 3, 3), lambda x: F.grid_sample(x[None, None], x[None, None] * 0.7, align_corners=False)),
        (
            (2, 3, 3),
            lambda x: F.grid_sample(x[None, None], x[None, None] * 0.7, "nearest", "border", align_corners=True),
        ),
    ],
    "complex numbers": [
        ((3, 4), lambda x: torch.view_as_real(torch.complex(x, x.flip(0)) * torch.complex(c(4), x[0]))),
        ((3, 4), lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(6, 2)).conj() * (2 - 3j))),
        ((3, 4), lambda x: torch.view_as_real(torch.complex(x, -x) @ torch.complex(x.T, c(4, 3)))),
        ((3, 4), lambda x: torch.complex(x, x * 2)[1:].T.reshape(2, 4).sum(0).imag),
        ((3, 4), lambda x: torch.view_as_real(torch.cat([torch.complex(x, c(3, 4)), x.to(torch.complex128)]).square())),
        ((3, 4), lambda x: torch.view_as_real(torch.addmm(z := torch.complex(x[:, :3], x[:, 1:]), z, z, beta=2j))),
        ((3, 4), lambda x: torch.vdot(torch.complex(x[0], x[1]), torch.complex(c(4), x[2])).real),
        ((3, 4), lambda x: torch.complex(x, x.flip(1)).var(1)),
    ],
    "fft": [
        ((3, 5), lambda x: torch.view_as_real(torch.fft.fft(x))),
        ((3, 4), lambda x: torch.view_as_real(torch.fft.ifft2(torch.complex(x, x * x)))),
        ((3, 6), lambda x: torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))),
        ((3, 4), lambda x: torch.fft.irfft(torch.complex(x, x.flip(0)), n=7)),
        ((3, 4), lambda x: torch.fft.irfftn(torch.fft.rfftn(x) * (1 + 2j), x.shape)),
        ((3, 4), lambda x: torch.fft.hfft(torch.complex(x, x.flip(0)), norm="forward")),
        ((2, 8), lambda x: torch.view_as_real(torch.stft(x, 4, 2, window=c(4), center=False, return_complex=True))),
    ],
}
