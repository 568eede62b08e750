"""How rules pass gradients back: where these are recorded, in one step an op rather than one a row.

A rule writes into one array row by row, and so on a tape each write would copy the whole of it. The rules that most of
the time goes to say instead what the gradient of their inputs is; all others are followed as they run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fisherflat._modes import unrounded
from fisherflat.jets.rules._rows import moving_rows
from fisherflat.spaces.jets import pair_index, pairs

#: `adjoint(gradient, arrays)`: the gradients by the arrays
Adjoint = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor | None, ...]]


class Recorded(torch.autograd.Function):
    """`forward` of some arrays, whose gradients are `adjoint`'s; these are made of torch ops, and have derivatives too.

    The arrays follow in `apply`. With `by_output` the adjoint gets the output in their place, which is held in any case
    by what reads it.
    """

    @staticmethod
    def forward(ctx: Any, forward: Callable[..., Tensor], adjoint: Adjoint, by_output: bool, *arrays: Tensor) -> Tensor:
        """What the rule computes, without a tape."""
        ctx.adjoint = adjoint
        out = forward(*arrays)
        ctx.save_for_backward(*((out,) if by_output else arrays))
        return out

    @staticmethod
    @unrounded
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The gradients by the arrays."""
        return None, None, None, *ctx.adjoint(gradient, ctx.saved_tensors)


def mixed(gradient: Tensor, start: int, k: int) -> Tensor:
    """`[i, j]` of the rows of second derivatives from `start` on, twice on the diagonal: `[k, k, ...]`.

    Of `sum_(i <= j) g_ij (a_i b_j + a_j b_i)` it is what stands before `a_i b_j`.
    """
    rows = gradient[start : start + k * (k + 1) // 2]
    found = rows[pair_index(k, rows.device)]
    twice = torch.eye(k, dtype=rows.dtype, device=rows.device) + 1
    return found * twice.reshape(k, k, *(1,) * (rows.dim() - 1))


def crossed(gradient: Tensor, first: Tensor, start: int) -> Tensor:
    """`[i]`, the sum over j of what `mixed` gives times `first[j]`."""
    k = len(first)
    if torch.is_grad_enabled():
        return (mixed(gradient, start, k) * first).sum(1)
    found = torch.zeros_like(first)
    for row, (i, j) in enumerate(pairs(k), start):
        found[i].addcmul_(gradient[row], first[j], value=1.0 if i < j else 2.0)
        if i < j:
            found[j].addcmul_(gradient[row], first[i])
    return found


@dataclass(frozen=True)
class Factor:
    """How the gradient of a bilinear op by one factor is made of its own gradient and of the other factor.

    **Attributes:** `times`, of both, broadcast over coefficients; `more(out, gradient, other, scale)`, which adds it to
    `out`, of one coefficient or of several with one of the other factor; `packed`, whether it would copy each
    coefficient that does not lie in one piece.
    """

    times: Callable[[Tensor, Tensor], Tensor]
    more: Callable[[Tensor, Tensor, Tensor, float], Any]
    packed: bool = False


def leibniz_adjoint(k: int, start: int, mixing: bool, factors: tuple[Factor, Factor]) -> Adjoint:
    """The gradients of a bilinear op of two series by both.

    **Args:** `start`, the first row of its own sources; `mixing`, whether it has such.
    """

    def taped(gradient: Tensor, own: Tensor, other: Tensor, by: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        passed, count = by(gradient[: own.shape[0]], other[:1]), other.shape[0]
        if count > 1:
            value = passed[:1] + by(gradient[1:count], other[1:]).sum(0, keepdim=True)
            passed = torch.cat([value, passed[1:]])
        if mixing:
            first = passed[1 : 1 + k] + by(mixed(gradient, start, k), other[1 : 1 + k]).sum(1)
            passed = torch.cat([passed[:1], first, passed[1 + k :]])
        return passed

    def written(gradient: Tensor, own: Tensor, other: Tensor, factor: Factor) -> Tensor:
        passed = factor.times(gradient[: own.shape[0]], other[:1])
        for row in range(1, other.shape[0]):
            factor.more(passed[0], gradient[row], other[row], 1.0)
        if mixing:
            for row, (i, j) in enumerate(pairs(k), start):
                factor.more(passed[1 + i], gradient[row], other[1 + j], 1.0 if i < j else 2.0)
                if i < j:
                    factor.more(passed[1 + j], gradient[row], other[1 + i], 1.0)
        return passed

    def adjoint(gradient: Tensor, arrays: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = []
        rows = list(arrays)
        if factors[0].packed:
            gradient, *rows = (array.contiguous() for array in (gradient, *arrays))
        for given, own, other, factor in zip(arrays, rows, rows[::-1], factors, strict=True):
            if not given.requires_grad:
                found.append(None)
                continue
            if torch.is_grad_enabled():  # gradients of gradients: nothing is written to
                passed = taped(gradient, own, other, factor.times)
            else:
                passed = written(gradient, own, other, factor)
            found.append(reduced(passed, own))
        return tuple(found)

    return adjoint


#: of entrywise products
ENTRIES = Factor(torch.mul, lambda out, gradient, other, scale: out.addcmul_(gradient, other, value=scale))


def matrix_adjoint(gradient: Tensor, arrays: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of a product of matrices of which one stands still: one product each, over all coefficients."""
    left, right = arrays
    if left.dim() < right.dim():  # the one that stands still is the first
        turned = _of_product(gradient.mT, right.mT, left.mT, right.requires_grad, left.requires_grad)
        by_right, by_left = (None if found is None else found.mT for found in turned)
        return by_left, by_right
    return _of_product(gradient, left, right, left.requires_grad, right.requires_grad)


def _of_product(
    gradient: Tensor, left: Tensor, right: Tensor, by_left: bool, by_right: bool
) -> tuple[Tensor | None, Tensor | None]:
    rows, slopes = (_rows(x, right.dim() - 2) for x in (left, gradient))
    return (
        _by_rows(slopes, gradient, left, right) if by_left else None,
        _by_weight(rows, slopes) if by_right else None,
    )


def _rows(x: Tensor, batch: int) -> Tensor:
    """`[*lead, *batch, n, d]` as `[*batch, lead * n, d]`."""
    lead = x.dim() - 2 - batch
    return x.movedim(tuple(range(lead)), tuple(range(batch, batch + lead))).flatten(batch, -2)


def _by_rows(slopes: Tensor, gradient: Tensor, left: Tensor, right: Tensor) -> Tensor:
    moving = moving_rows(slopes, right.shape[-2]) if right.dim() == 2 else None
    if moving is None:
        return gradient @ right.mT
    found = left.new_zeros(len(slopes), right.shape[0])
    found[moving] = slopes[moving] @ right.mT
    return found.view(left.shape)


def _by_weight(rows: Tensor, slopes: Tensor) -> Tensor:
    for x, other in ((rows, slopes), (slopes, rows)) if rows.dim() == 2 else ():
        moving = moving_rows(x, other.shape[-1])
        if moving is not None:
            return rows[moving].mT @ slopes[moving]
    return rows.mT @ slopes


def sum_adjoint(gradient: Tensor, arrays: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The gradients of a sum of two series, of which one may have fewer coefficients."""
    return tuple(reduced(gradient[: own.shape[0]], own) for own in arrays)


def softmax_adjoint(k: int, start: int, count: int, axis: int) -> Adjoint:
    """The gradient of a softmax by its series of `count` coefficients, from the softmax `[y, y z_i, y (w - <w>)]`.

    `v -> y (v - <v>)`, the mean by weights y, is its own adjoint. So with the centred gradient p of the derivatives,
    the one by `z_i` is `y p_i + r_i` before it is centred, `r_i = sum_j p_ij y z_j`, and the one by y is all that
    stands before y: its own and p times the rows, less what centring `z_i` takes from them. Nothing is divided by y.
    """

    def adjoint(gradient: Tensor, arrays: tuple[Tensor, ...]) -> tuple[Tensor]:
        (out,) = arrays
        y, rows, slopes = out[0], out[1:], out[1 : 1 + k]
        centred = gradient[1:] - (gradient[1:] * y).sum(axis, True)
        bent = crossed(centred, slopes, start - 1)
        total = bent.sum(axis, True)
        value = y * gradient[0] + (centred * rows).sum(0) - (slopes * total).sum(0)
        found = [(value - y * value.sum(axis, True))[None], y * (centred[:k] - total) + bent]
        if count > 1 + k:
            found.append(y * centred[k:])
        return (torch.cat(found),)

    return adjoint


def reduced(gradient: Tensor, like: Tensor) -> Tensor:
    """Summed over the axes along which a tensor was broadcast."""
    return gradient if gradient.shape == like.shape else gradient.sum_to_size(like.shape)


def chained_adjoint(k: int, start: int, function: Callable[..., tuple[Tensor, ...]]) -> Adjoint:
    """The gradients of `f' d_ij x + f'' d_i x d_j x` by the series and by what else `f`, `f'`, `f''` are functions of.

    These are computed once more, so that no tape holds them, and torch differentiates them.
    """

    def adjoint(gradient: Tensor, arrays: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()  # gradients of gradients go on to the arrays
        data, count = arrays[0], len(arrays[0])
        leaves = [given if again and given.requires_grad else _leaf(given) for given in (data[0], *arrays[1:])]
        with torch.enable_grad():
            triple = function(*leaves)
        slopes, found = [gradient[0]], None
        if count > 1:
            rows, passed, (_, slope, bend) = data[1:], gradient[1:count], triple
            turned = crossed(gradient, rows[:k], start)
            found = gradient[:count] * slope
            found[1 : 1 + k].addcmul_(turned, bend)
            slopes += [(passed * rows).sum(0), (turned * rows[:k]).sum(0) / 2]
        known = [(part, slope) for part, slope in zip(triple, slopes, strict=False) if part.requires_grad]
        ends, by_ends = zip(*known, strict=True)
        by_value, *by_others = torch.autograd.grad(ends, leaves, by_ends, create_graph=again, materialize_grads=True)
        if found is None:
            found = by_value[None]
        else:
            found[0] = by_value
        return found, *by_others

    return adjoint


def _leaf(given: Tensor) -> Tensor:
    return given.detach().requires_grad_()
