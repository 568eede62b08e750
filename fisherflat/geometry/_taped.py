"""What a manifold does where its quantities have gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from fisherflat._arrays import some
from fisherflat._typing import Bool, Tensor
from fisherflat.errors import DegenerateImmersionError, MapError, NotDifferentiableError
from fisherflat.jets.graph import Constants, Graph
from fisherflat.jets.recording import Mapping

Tensors = tuple[Tensor, ...]


#: a tape of more bytes is not kept: points are taken in pieces, each of about so many, and computed once more for the
#: gradient; that takes as long in small pieces as in large ones
_TAPE, _PIECE = 256 * 2**20, 64 * 2**20


def recomputed(
    function: Callable[[Tensor], Tensors], u: Tensor, bytes_per_point: int, memory: int | None = None
) -> list[Tensors]:
    """`function` on pieces of `u` `[P, k]`, whose tape is there one piece at a time where it would be long."""
    whole, piece = (_TAPE, _PIECE) if memory is None else (memory, memory)
    if len(u) * bytes_per_point <= whole:
        return [function(u)]
    pieces = u.split(max(1, piece // bytes_per_point))
    return [checkpoint(function, piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]


def reached(mapping: Mapping, program: Constants | None) -> None:
    """**Raises:** `MapError` where a map has weights that require gradients, and its output depends on none of them."""
    if program is not None and any(tensor.requires_grad for tensor in program.sources):
        return
    if isinstance(mapping.mean, Graph):
        if program is None:
            raise MapError(
                "this graph holds weights as they were, and no gradient can reach them; pass the module itself, or make"
                " the graph with trace(module, at, differentiable=True) or freeze(module, at, differentiable=True)"
            )
        return
    trainable = mapping.trainable()
    if trainable:
        raise MapError(
            f"no gradient can reach {trainable[0][0]!r} (and {len(trainable) - 1} more) of this map: what it computes "
            "does not depend on them as far as a trace can see; it computes outside torch, or with copies of numbers"
        )


def elsewhere(bad: Bool[Tensor, " P"], blank: Tensors, function: Callable[..., Tensors], *tensors: Tensor) -> Tensors:
    """`blank`, with `function` of what belongs to the points that are not bad in their places.

    So that a point without geometry has no gradient at all, where one of zero times infinity would be no number.
    """
    good = ~bad
    if not good.any():
        return blank
    found = function(*(tensor[good] for tensor in tensors))
    return tuple(out.index_put((good,), part.to(out.dtype)) for out, part in zip(blank, found, strict=True))


def smooth(value: Tensor, kinked: Callable[[], Bool[Tensor, "*batch"]], why: str) -> Tensor:
    """`value`; `kinked` says, where gradients are recorded, at which points it has none.

    **Raises:** `NotDifferentiableError`.
    """
    if not (torch.is_grad_enabled() and value.requires_grad):
        return value
    with torch.no_grad():
        bad = kinked()
    if some(bad):
        where = bad.reshape(-1).nonzero()[0, 0].item()
        raise NotDifferentiableError(
            f"{why} at {int(bad.sum())} of {bad.numel()} points, the first of them point {where}, so it has no "
            "gradient there; take its square or another quantity, or move the point"
        )
    return value


class Once(torch.autograd.Function):
    """What it is given, whose gradient has none: a tape that is right to the first order alone."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        """As it is."""
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """**Raises:** `NotDifferentiableError` where the gradient itself is recorded."""
        if torch.is_grad_enabled():
            raise NotDifferentiableError(
                "gradients of geodesics have no gradients themselves: leave out create_graph=True, or take differences"
            )
        return gradients[0]


def degenerate_tape(bad: Bool[Tensor, "*batch"]) -> DegenerateImmersionError:
    """What to raise where all of a geometry is asked for at points of which some have none."""
    return DegenerateImmersionError(
        f"{int(bad.sum())} of {bad.numel()} points are degenerate, so their geometry has no gradient; take them out, "
        "or ask measure(u, quantities), which leaves them NaN without one"
    )
