"""The verdict of an engine on a map of the operator database, by differences of the map's values."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fisherflat as ff
from cases.operator_maps import OperatorMap
from cases.romberg import Truth, truth
from fisherflat.errors import FallbackWarning, FisherflatError
from fisherflat.jets.engines import warn_again

#: from what must not be to what need not concern anyone
VERDICTS = (
    "wrong", "memory", "foreign", "refused", "unresolved", "kink", "fallback", "rules", "undefined", "constant",
    "random", "nothing real",
)  # fmt: skip
ENGINES = ("taylor", "autodiff")
#: beside the sample itself, where kinks and removable singularities are, a point without anything special about it
POINTS = torch.tensor([[0.0137, -0.0071], [0.0, 0.0]], dtype=torch.float64)
#: entries of the output that are looked at, where there are more
ENTRIES = 2000
#: combinations of them that the autodiff engine is asked for: it differentiates outputs one by one
OUTPUTS = 4
#: bytes that an engine may take: several operators are measured at a time
MEMORY = 2**30


@dataclass
class Found:
    """The verdict of an engine on a map, and what it rests on."""

    verdict: str
    detail: str = ""
    finite: bool = True


def verdicts(map_: OperatorMap) -> dict[str, Found]:
    """What each engine makes of a map."""
    chart = map_.chart()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if _draws(map_):
            return dict.fromkeys(ENGINES, Found("random"))
        try:
            values = [_evaluated(map_, chart(u)) for u in POINTS]
        except Exception as error:  # the operator does not run beside its sample
            return dict.fromkeys(ENGINES, Found("undefined", f"{type(error).__name__}: {error}"))
        if not values[0].numel():
            return dict.fromkeys(ENGINES, Found("nothing real"))
        with poisoned():
            others = [_evaluated(map_, chart(u)) for u in POINTS]
        if any((a.isnan() != b.isnan()).any() for a, b in zip(values, others, strict=True)):
            return dict.fromkeys(ENGINES, Found("random", "the operator itself reads fresh memory"))
        if len(values[0]) > ENTRIES:
            map_ = _some(map_, len(values[0]))
        truths = [_truth(map_, chart, u, min(len(values[0]), ENTRIES)) for u in POINTS]
        found = {engine: _judged(map_, chart, truths, engine) for engine in ENGINES}
        with poisoned():
            dirty = _judged(map_, chart, truths, "taylor")
        if dirty.verdict != found["taylor"].verdict:
            said = f"{found['taylor'].verdict}, but {dirty.verdict} where fresh memory is not zero: {dirty.detail}"
            found["taylor"] = Found("memory", said)
    return found


def _evaluated(map_: OperatorMap, x: Tensor) -> Tensor:
    with torch.no_grad():
        return map_.call(x)


class _Draws(TorchDispatchMode):
    """Whether random numbers are drawn."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def _draws(map_: OperatorMap) -> bool:
    watch = _Draws()
    with suppress(Exception), watch:
        _evaluated(map_, map_.point.clone())
    return watch.seen


def _some(map_: OperatorMap, size: int) -> OperatorMap:
    """The same map with some of its outputs."""
    chosen = torch.randperm(size, generator=torch.Generator().manual_seed(size))[:ENTRIES]
    return replace(map_, call=lambda x: map_.call(x)[chosen])


def _truth(map_: OperatorMap, chart: Any, u: Tensor, size: int) -> Truth:
    def f(v: Tensor) -> Tensor:
        try:
            y = _evaluated(map_, chart(v))
        except Exception:  # outside of the operator's domain
            return torch.full((size,), torch.nan, dtype=torch.float64)
        return y if len(y) == size else torch.full((size,), torch.nan, dtype=torch.float64)

    return truth(f, u)


@contextmanager
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN, so that what reads it before writing shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _judged(map_: OperatorMap, chart: Any, truths: list[Truth], engine: str) -> Found:
    """The verdict of an engine on both points: the worst, and where it is no fault that of the first."""
    f, expected = map_.call, truths
    if engine == "autodiff" and len(truths[0].value) > OUTPUTS:
        f, expected = _mixed(map_.call, truths)
    found = _asked(f, chart, POINTS, expected, engine)
    if found[0].verdict in ("refused", "foreign"):
        found = [_asked(f, chart, u[None], [t], engine)[0] for u, t in zip(POINTS, expected, strict=True)]
    if engine == "autodiff":  # entries that have no derivative spoil the gradients of all: 0 * nan
        found = [
            one if one.finite or t.smooth.all() else Found("unresolved") for one, t in zip(found, truths, strict=True)
        ]
    faults = [one for one in found if one.verdict in ("wrong", "memory", "foreign")]
    return min(faults or found[:1], key=lambda one: VERDICTS.index(one.verdict))


def _asked(f: Any, chart: Any, points: Tensor, truths: list[Truth], engine: str) -> list[Found]:
    warn_again()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            jets = ff.StatisticalManifold(f, chart, engine=engine, memory=MEMORY).jet(points).coefficients
        except FisherflatError as error:
            still = "does not depend on its input" in str(error) and all(map(_still, truths))
            return [Found("constant" if still else "refused", f"{type(error).__name__}: {error}")] * len(truths)
        except Exception as error:
            return [Found("foreign", f"{type(error).__name__}: {error}")] * len(truths)
    by = "fallback" if any(issubclass(w.category, FallbackWarning) for w in caught) else "rules"
    return [judge(jet, expected, by) for jet, expected in zip(jets, truths, strict=True)]


def _mixed(f: Any, truths: list[Truth]) -> tuple[Any, list[Truth]]:
    """A few combinations of the outputs that are smooth and known."""
    known = [(_known(expected).all(0) & expected.smooth).nonzero()[:, 0] for expected in truths]
    chosen = next((some for some in known if len(some)), torch.arange(OUTPUTS))
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(min(OUTPUTS, len(chosen) + 1), len(chosen), dtype=torch.float64, generator=generator)
    weights /= len(chosen) ** 0.5
    return lambda x: weights @ f(x)[chosen], [expected.combined(weights, chosen) for expected in truths]


def _size(expected: Truth) -> Tensor:
    return torch.stack([e.value.nan_to_num(0.0, 0.0, 0.0).abs() for e in expected.jet]).amax(0)


def _known(expected: Truth) -> Tensor:
    """Which of the six coefficients `[6, D]` differences know: to a thousandth of those up to the same order."""
    sizes = [e.value.nan_to_num(0.0, 0.0, 0.0).abs() for e in expected.jet]
    up_to = [torch.stack(sizes[:end]).amax(0) for end in (1, 3, 3, 6, 6, 6)]
    return torch.stack([e.error <= 1e-3 * size + 1e-12 for e, size in zip(expected.jet, up_to, strict=True)])


def _still(expected: Truth) -> bool:
    """Whether nothing moves."""
    return all((e.value.abs() <= e.error).all() for e in expected.jet[1:])


def judge(jet: Tensor, expected: Truth, by: str) -> Found:
    """The verdict on a jet `[6, D]`."""
    finite, known, size = expected.value.isfinite(), _known(expected), _size(expected)
    if not finite.any():
        return Found("undefined")
    scale = 1e-6 * size + 1e-9 * size[finite].amax()
    off = torch.stack([~((got - e.value).abs() <= e.error + scale) for got, e in zip(jet, expected.jet, strict=True)])
    sure = known & expected.smooth & finite
    sure[0] = finite
    if (off & sure).any() and not (off & sure)[0].any() and jet[off & sure].isnan().all():
        return Found("refused", "NaN for a derivative, which every reading refuses (MapError)", False)
    if (off & sure).any():
        row, entry = (off & sure).nonzero()[0].tolist()
        e = expected.jet[row]
        return Found(
            "wrong",
            f"coefficient {row} of output {entry} is {float(jet[row, entry]):.9g}, right {float(e.value[entry]):.9g} "
            f"+- {float(e.error[entry]):.1e} ({int((off & sure).sum())} of {off.numel()} numbers)",
            bool(jet.isfinite().all()),
        )
    settled = (sure & ~off).all(0)
    if 2 * settled.sum() >= finite.sum():
        return Found(by)
    return Found("kink" if expected.kink[finite & ~settled].any() else "unresolved")
