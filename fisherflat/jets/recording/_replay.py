"""Whether a tape says what the map says: it is played at several points beside the map itself."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fisherflat._arrays import some
from fisherflat.errors import FisherflatError, TraceError
from fisherflat.jets.graph import Graph
from fisherflat.jets.recording._lowering import lowered
from fisherflat.jets.recording._mapping import Mapping
from fisherflat.jets.recording._recorder import record
from fisherflat.jets.recording._tape import Tape
from fisherflat.spaces.charts import Chart

#: how many units in the last place, of the largest output, a tape may be away from the map: the ops are the same, but
#: memory may lie in another order, in which sums round otherwise
LAST_PLACES = 16
#: points besides the base point at which a tape is played
OTHERS = 3
#: how far from the base point they lie, in coordinates of the chart or in the size of the input, and how many each
_DISTANCES = (1.0, 0.5, 2.0, 0.25, 4.0, 8.0)
_EACH = 3
#: by what share of the largest output a graph may differ from its tape, in units in the last place: parts of an op are
#: rounded one by one
_PARTS = 2**20


def recorded(mapping: Mapping, at: Tensor | Chart) -> tuple[Tape, list[Tensor]]:
    """The tape of a map, checked, and the points where it was: first the one where it was recorded.

    On the meta device, where there are no values, nothing can be checked.

    **Args:** `at`: an input in the working precision, or the chart that inputs come from.

    **Raises:** `TraceError` for what no tape can hold, and where the tape does not give the map's own values.
    """
    base, value = _base(mapping, at)
    tape = record(mapping, base)
    if base.is_meta:
        return tape, [base]
    _compare(tape, base, value, mapping)
    points = [base]
    for point in _sites(at, mapping.dtype):
        if len(points) > OTHERS:
            break
        own = _tried(mapping, point)
        if own is not None and own.isfinite().any() and not torch.equal(point, base):
            _compare(tape, point, own, mapping)
            points.append(point)
    return tape, points


def graphed(tape: Tape, points: list[Tensor]) -> Graph:
    """The graph of a checked tape.

    **Raises:** `TraceError` where it is not the tape without its casts.
    """
    graph, point = lowered(tape, points[0]), points[-1]  # elsewhere than where the ops were written in parts
    if point.is_meta:
        return graph
    with torch.no_grad():
        if not _agree(graph(point), tape.raised(point.dtype)(point), _PARTS * torch.finfo(point.dtype).eps):
            raise TraceError("the ops of this map in simpler ops do not give its value; write it in simpler ops")
    return graph


def _base(mapping: Mapping, at: Tensor | Chart) -> tuple[Tensor, Tensor]:
    """Where to record, and the map's value there: the point itself, or the first one where the map is finite."""
    point = at.point.to(mapping.dtype) if isinstance(at, Chart) else at
    first = mapping.first(point)
    if not some(~first.isfinite()):
        return point, first
    found = (point, first) if first.isfinite().any() else None
    for site in _sites(at, mapping.dtype):
        value = _tried(mapping, site)
        if value is not None and value.isfinite().all():
            return site, value
        if found is None and value is not None and value.isfinite().any():
            found = site, value
    if found is None:
        raise TraceError(
            "the map is finite neither at the point nor at others around it, so no trace of it can be checked; put the "
            "chart's point where the map is defined"
        )
    return found


def _sites(at: Tensor | Chart, dtype: torch.dtype) -> Iterator[Tensor]:
    """Seeded points of the chart, or around an input."""
    generator = torch.Generator().manual_seed(8)
    for distance in _DISTANCES:
        for _ in range(_EACH):
            if isinstance(at, Chart):
                u = distance * torch.randn(at.k, generator=generator, dtype=torch.float64)
                yield at(u.to(at.point.device)).to(dtype)
            else:
                step = torch.randn(at.shape, generator=generator, dtype=torch.float64).to(at)
                size = at.square().mean().sqrt() if at.numel() and at.any() else 1.0
                yield at + distance * size * step / 4


def _tried(mapping: Mapping, point: Tensor) -> Tensor | None:
    try:
        return mapping.value(point)
    except FisherflatError:
        raise
    except Exception:  # the map need not be defined there
        return None


def _compare(tape: Tape, point: Tensor, value: Tensor, mapping: Mapping) -> None:
    with torch.no_grad():
        mine = tape(point)
    eps = max(tape.precision, torch.finfo(value.dtype).eps)
    if not _agree(mine, value, LAST_PLACES * eps):
        raise TraceError(
            "the traced graph does not give the map's own value: the map's control flow depends on values, it keeps a "
            "state from call to call, or it computes outside torch; make it a function of its input alone, in torch"
        )


def _agree(mine: Tensor, value: Tensor, share: float) -> bool:
    """Whether two outputs are equal up to a share of the largest entry, and alike where they are not finite."""
    if mine.shape != value.shape:
        return False
    if mine.dtype == value.dtype and torch.equal(mine, value):  # as it nearly always is
        return True
    mine, value = mine.to(torch.float64), value.to(torch.float64)
    finite = value.isfinite()
    if not torch.equal(finite, mine.isfinite()):
        return False
    odd = ~finite
    if not torch.allclose(mine[odd], value[odd], rtol=0, atol=0, equal_nan=True):
        return False
    scale = value[finite].abs().max() if finite.any() else 0.0
    return bool(((mine - value)[finite].abs() <= share * scale).all())
