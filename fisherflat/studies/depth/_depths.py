"""Quantities after every map of a stack, and how far off rounding may have put them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import accumulate, islice

import torch

from fisherflat._typing import Float, Int, Tensor
from fisherflat.errors import DegenerateImmersionError, MapError
from fisherflat.geometry import (
    ERRORS,
    JUDGED,
    decided,
    exceptional,
    filled,
    in_more_bits,
    poor,
    refined,
    sample,
    turn,
    warn_of_stuck,
)
from fisherflat.jets import size
from fisherflat.jets.engines import in_chunks, noisy
from fisherflat.studies.depth._stack import Stack

#: what `judged` reads
NEEDED = (*JUDGED, "size")


#: in bytes, up to which size jets are kept that may be asked for once more
_FEW = 256 * 2**20


class Depths:
    """The jets after every map, as an engine for each: those along the chart's own directions from one pass.

    **Args:** `memory`, a budget in bytes.
    """

    def __init__(self, stack: Stack, memory: int | None = None) -> None:
        self.stack, self.memory = stack, memory
        self._kept: list[tuple[Tensor, list[Tensor]]] = []  # of the points, and of them with noise
        self._measured: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def keep(self, depth: int, u: Float[Tensor, "P k"], jets: Float[Tensor, "P S D"]) -> None:
        """Keep jets that were measured, for whoever estimates their errors."""
        self._measured.setdefault(depth, []).append((u, jets))

    def after(self, depth: int, u: Tensor, basis: Tensor | None) -> Tensor:
        """The jets after so many maps; along other directions than the chart's the points pass them anew."""
        if basis is not None:
            passed = islice(self.stack.depths(u, lambda _, jets, __: jets, self.memory, basis), depth + 1)
            return torch.cat(list(passed)[-1])
        if depth in self._measured and not noisy():
            points, known = map(torch.cat, zip(*self._measured[depth], strict=True))
            same = (points[:, None] == u).all(-1)
            if same.any(0).all():
                return known[same.int().argmax(0)]
        for before, jets in self._kept:
            if before.shape == u.shape and torch.equal(before, u):
                return jets[depth]
        jets = [torch.cat(pieces) for pieces in self.stack.depths(u, lambda _, jets, __: jets, self.memory)]
        self._kept = [*self._kept[-1:], (u, jets)]
        return jets[depth]


class _After:
    """What gives the jets after so many maps."""

    def __init__(self, depths: Depths, depth: int) -> None:
        self._depths, self._depth = depths, depth

    def jet(self, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"] | None = None) -> Float[Tensor, "P S D"]:
        return self._depths.after(self._depth, u, basis)


def measure_depths(
    depths: Depths, u: Tensor, quantities: Sequence[str], *, degenerate: str = "raise"
) -> dict[str, Tensor]:
    """Quantities of `Geometry`, by name, `[L+1, *batch, ...]` after 0, 1, ... L maps of a stack.

    **Raises:** `CovarianceError` where the family does not fit the width of some depth.
    """
    stack, memory = depths.stack, depths.memory
    sizes = [stack.chart.point.numel(), *(stage.shape.numel() for stage in stack.stages)]
    if stack.lenses is None:
        for gaussian, pick, size_of in zip(stack.families, stack.picks, sizes, strict=True):
            gaussian.check(pick.count(size_of))
    points, k = stack.chart.coordinates(u), stack.chart.k
    few = sum(sizes) * size(k) * points[..., 0].numel() * points.element_size() <= _FEW

    def measure(depth: int, jets: Tensor, chunk: Tensor) -> list[Tensor]:
        if few:
            depths.keep(depth, chunk, jets)
        try:
            family, pick, shape = stack.surface(depth)
            geometry = refined(_After(depths, depth), stack.chart, chunk, jets, family, degenerate, pick, shape)
        except (MapError, DegenerateImmersionError) as error:
            place = stack.labels[depth - 1] if depth else "the chart"
            raise type(error)(f"after {place}: {error}") from error
        return [getattr(geometry, name) for name in quantities]

    def through(chunk: Tensor) -> list[Tensor]:
        """The quantities `[L+1, P, ...]` at some of the points."""
        rows = [
            [torch.cat(parts) for parts in zip(*pieces, strict=True)] for pieces in stack.depths(chunk, measure, memory)
        ]
        return [torch.stack(column) for column in zip(*rows, strict=True)]

    pieces = in_chunks(through, points.reshape(-1, k), 2 * max(sizes) * size(k) * points.element_size(), memory)
    joined = [torch.cat(parts, 1) for parts in zip(*pieces, strict=True)]
    shaped = [values.reshape(values.shape[0], *points.shape[:-1], *values.shape[2:]) for values in joined]
    return dict(zip(quantities, shaped, strict=True))


def judged(
    depths: Depths,
    u: Tensor,
    found: dict[str, Tensor],
    errors: str = "sample",
    precision: str = "working",
) -> tuple[Float[Tensor, "depths *batch"], Int[Tensor, "depths *batch"]]:
    """The error of the scalar curvature after each map and the word for it, as a position among `Verdict`.

    **Args:** `found`, what `measure_depths` gives, with `NEEDED` among the quantities; `errors`, a key of `ERRORS`;
    `precision`, one of `PRECISIONS`: with `"auto"` poor points of `found` are replaced by what more bits give.
    """
    stack, memory = depths.stack, depths.memory
    k, shape = stack.chart.k, found[JUDGED[0]].shape
    points = stack.chart.coordinates(u).reshape(-1, k)
    columns = {name: values.view(len(stack.families), len(points), *values.shape[len(shape) :])
               for name, values in found.items()}  # fmt: skip
    chosen = sample(columns["skewness"].nan_to_num(nan=0.0).amax(0), ERRORS[errors])

    @torch.no_grad()
    def estimate(chunk: Tensor) -> Tensor:
        known = []
        for depth in range(len(stack.families)):
            engine, (family, pick, shape) = _After(depths, depth), stack.surface(depth)
            geometry = refined(engine, stack.chart, chunk, engine.jet(chunk), family, "nan", pick, shape)
            known.append(torch.stack([geometry.error(name) for name in (JUDGED[0], JUDGED[2])]))
        return torch.stack(known)

    largest = max(stage.shape.numel() for stage in stack.stages)
    bytes_per_point = 4 * len(stack.families) * largest * size(k) * points.element_size()

    def estimated(which: Tensor) -> Tensor:
        return torch.cat(list(in_chunks(estimate, points[which], bytes_per_point, memory)), -1)

    straight = torch.tensor(
        list(accumulate((not stage.bending for stage in stack.stages), operator.and_, initial=stack.lenses is None))
    )

    def named() -> Tensor:
        bend = turn(columns[JUDGED[2]], errors_of[:, 1], columns["size"])
        if stack.lenses is not None:  # what does not bend is as curved as the space
            bend = bend + float("inf")
        codes = decided(columns[JUDGED[0]], errors_of[:, 0], columns[JUDGED[1]], bend)
        codes[straight] = codes[straight].clamp_max(0)
        return codes

    errors_of = torch.stack(
        [
            torch.stack(
                [filled(error, chosen, columns[name][depth]) for name, error in zip(JUDGED[1:3], known, strict=True)]
            )
            for depth, known in enumerate(estimated(chosen))
        ]
    )
    words = named()
    odd = torch.cat([exceptional(codes, chosen) for codes in words]).unique()
    if len(odd):
        errors_of[..., odd] = estimated(odd)
    if precision == "auto":
        _renew(depths, points, columns, errors_of)
    if len(odd) or precision == "auto":
        words = named()
    return errors_of[:, 0].reshape(shape), words.reshape(shape)


@torch.no_grad()
def _renew(
    depths: Depths, points: Float[Tensor, "P k"], columns: dict[str, Tensor], errors: Float[Tensor, "depths 2 P"]
) -> None:
    """Put numbers and errors from more bits in the place of those that are poor.

    **Args:** `columns`, quantities `[depths, P, ...]` by name; `errors`, of the scalar curvature and of `|II|`.
    """
    stuck, count, stack, chart = list[str](), 0, depths.stack, depths.stack.chart
    for depth in range(len(stack.families)):
        at = poor(columns[JUDGED[0]][depth], errors[depth, 0], columns[JUDGED[1]][depth]).nonzero()[:, 0]
        if not len(at):
            continue
        engine, u, (family, pick, shape) = _After(depths, depth), points[at], stack.surface(depth)
        before = refined(engine, chart, u, engine.jet(u), family, "nan", pick, shape)
        all_ = torch.ones(len(at), dtype=torch.bool, device=u.device)
        after, reasons = in_more_bits(before, stack.first(depth), chart, u, family, all_, pick)
        for name, values in columns.items():
            values[depth, at] = getattr(after, name)
        for row, name in enumerate((JUDGED[0], JUDGED[2])):
            new, old = after.error(name), errors[depth, row, at]
            errors[depth, row, at] = torch.where(new.isnan(), old, new)
        stuck, count = stuck + reasons, count + len(at)
    warn_of_stuck(stuck, count)
