"""Losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.recording.decompositions._table import decomposes

F = torch.nn.functional


def _reduced(loss: Tensor, reduction: int) -> Tensor:
    """Each, their mean or their sum."""
    return loss.mean() if reduction == 1 else loss.sum() if reduction == 2 else loss


@decomposes("nll_loss_forward", "nll_loss2d_forward")
def _nll(x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Of log-probabilities, classes on the second axis (on the only one of a vector)."""
    axis = 1 if x.dim() > 1 else 0
    ignored = target == ignore_index
    index = torch.where(ignored, 0, target)
    chosen = x.gather(axis, index.unsqueeze(axis)).squeeze(axis)
    weights = torch.ones_like(index, dtype=x.dtype) if weight is None else weight[index]
    weights = torch.where(ignored, 0.0, weights)
    loss = torch.where(ignored, 0.0, -weights * chosen)
    if reduction == 0:
        return loss, torch.zeros((), dtype=x.dtype, device=x.device)
    total = weights.sum()
    return loss.sum() / total if reduction == 1 else loss.sum(), total


@decomposes("mse_loss")
def _mse(x: Tensor, y: Tensor, reduction: int = 1) -> Tensor:
    return _reduced((x - y).square(), reduction)


@decomposes("smooth_l1_loss")
def _smooth_l1(x: Tensor, y: Tensor, reduction: int = 1, beta: float = 1.0) -> Tensor:
    d = x - y
    if beta == 0:
        return _reduced(d.abs(), reduction)
    return _reduced(torch.where(d.abs() < beta, d.square() * 0.5 / beta, d.abs() - 0.5 * beta), reduction)


@decomposes("huber_loss")
def _huber(x: Tensor, y: Tensor, reduction: int = 1, delta: float = 1.0) -> Tensor:
    d = x - y
    return _reduced(torch.where(d.abs() <= delta, d.square() * 0.5, (d.abs() - 0.5 * delta) * delta), reduction)


@decomposes("binary_cross_entropy")
def _binary_cross_entropy(x: Tensor, y: Tensor, weight: Tensor | None = None, reduction: int = 1) -> Tensor:
    """Logarithms are at least -100, as torch has it."""
    loss = (y - 1) * (-x).log1p().clamp_min(-100) - y * x.log().clamp_min(-100)
    return _reduced(loss if weight is None else loss * weight, reduction)


@decomposes("binary_cross_entropy_with_logits")
def _binary_cross_entropy_with_logits(
    x: Tensor, y: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None, reduction: int = 1
) -> Tensor:
    positive = 1 if pos_weight is None else (pos_weight - 1) * y + 1
    loss = (1 - y) * x - positive * F.logsigmoid(x)
    return _reduced(loss if weight is None else loss * weight, reduction)


@decomposes("soft_margin_loss")
def _soft_margin(x: Tensor, y: Tensor, reduction: int = 1) -> Tensor:
    return _reduced(-F.logsigmoid(x * y), reduction)


@decomposes("multi_margin_loss")
def _multi_margin(
    x: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, reduction: int = 1
) -> Tensor:
    rows, classes = x.reshape(-1, x.shape[-1] if x.dim() else 1), target.reshape(-1, 1)
    loss = (margin - rows.gather(1, classes) + rows).clamp_min(0)
    loss = loss if p == 1 else loss * loss
    loss = loss if weight is None else loss * weight[classes]
    other = torch.arange(rows.shape[1], device=x.device) != classes
    loss = torch.where(other, loss, 0.0).sum(1) / rows.shape[1]
    return _reduced(loss.reshape(target.shape), reduction)


@decomposes("multilabel_margin_loss_forward")
def _multilabel_margin(x: Tensor, target: Tensor, reduction: int) -> tuple[Tensor, Tensor]:
    """The labels of a row are those before its first negative number."""
    width = x.shape[-1] if x.dim() else 1
    rows, labels = x.reshape(-1, width), target.reshape(-1, width)
    given = (labels < 0).cumsum(1) == 0
    index = torch.where(given, labels, 0)
    places = torch.arange(rows.shape[1], device=x.device)
    marked = ((index.unsqueeze(2) == places) & given.unsqueeze(2)).any(1)
    gaps = (1 - rows.gather(1, index).unsqueeze(2) + rows.unsqueeze(1)).clamp_min(0)
    loss = torch.where(given.unsqueeze(2) & ~marked.unsqueeze(1), gaps, 0.0).sum((1, 2)) / rows.shape[1]
    return _reduced(loss if x.dim() > 1 else loss[0], reduction), marked.to(x.dtype).reshape(x.shape)


@decomposes("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    """Sums, means or maxima of rows: each bag is a mask over the rows that are looked up."""
    count = len(offsets) - include_last_offset
    starts = offsets[:count]
    places = torch.arange(len(indices), device=indices.device)
    ends = torch.cat([offsets[1 : count + 1], offsets.new_full((1,), len(indices))])[:count]
    inside = (places >= starts[:, None]) & (places < ends[:, None])  # [bags, rows]
    if padding_idx >= 0:
        inside = inside & (indices != padding_idx)
    rows = weight[indices]
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    number = inside.sum(1)
    if mode == 2:
        largest = torch.where(inside[..., None], rows, -torch.inf).amax(1) if len(indices) else weight[:0].sum(0)
        out = torch.where(number[:, None] > 0, largest, 0.0)
    else:
        out = inside.to(rows.dtype) @ rows
        out = out / number.clamp_min(1)[:, None] if mode == 1 else out
    return out, offsets.new_zeros(0), number, offsets.new_zeros(0)
