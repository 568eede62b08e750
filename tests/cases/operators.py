"""What the engines make of torch's operator database, judged by differences of values.

`python tests/cases/operators.py --out docs/operators.md` runs all of it and writes the table that is in the docs. What
has been measured is kept in `--results`, one line an operator, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fisherflat as ff
from cases.operator_maps import OperatorMap, maps, operators
from cases.romberg import Truth, truth
from fisherflat.errors import FallbackWarning, FisherflatError
from fisherflat.jets.engines import _fallback

#: from what must not be to what need not concern anyone
VERDICTS = (
    "wrong", "memory", "foreign", "refused", "unresolved", "kink", "fallback", "rules", "undefined", "constant",
    "random", "nothing real",
)  # fmt: skip
ENGINES = ("taylor", "autodiff")
#: beside the sample itself, where kinks and removable singularities are, a point without anything special about it
POINTS = torch.tensor([[0.0137, -0.0071], [0.0, 0.0]], dtype=torch.float64)
#: outputs that the autodiff engine is asked for: it differentiates them one by one
OUTPUTS = 16


@dataclass
class Found:
    """The verdict of an engine on a map, and what it rests on."""

    verdict: str
    detail: str = ""
    finite: bool = True


@dataclass
class Row:
    """An operator: how many maps have which verdict, and some of what is not right."""

    name: str
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {engine: Counter() for engine in ENGINES})
    notes: list[tuple[str, str, str, str]] = field(default_factory=list)  # engine, verdict, map, detail
    seconds: float = 0.0

    def add(self, map_: str, engine: str, found: Found) -> None:
        self.counts[engine][found.verdict] += 1
        alike = sum(note[:2] == (engine, found.verdict) for note in self.notes)
        if found.verdict not in ("rules", "fallback", "undefined", "constant") and alike < 8:
            self.notes.append((engine, found.verdict, map_, found.detail[:400]))


def measured(name: str, chosen: Callable[[int], list[int]]) -> Iterator[tuple[str, str, Found]]:
    """`(map, engine, verdict)` for the maps of an operator."""
    for map_ in maps(name, chosen):
        for engine, found in verdicts(map_).items():
            yield map_.name, engine, found


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
        truths = [_truth(map_, chart, u, len(values[0])) for u in POINTS]
        found = {engine: _judged(map_, chart, truths, engine) for engine in ENGINES}
        if found["taylor"].verdict in ("rules", "fallback"):
            with poisoned():
                dirty = _judged(map_, chart, truths, "taylor")
            if dirty.verdict != found["taylor"].verdict:
                found["taylor"] = Found("memory", f"{dirty.verdict} where fresh memory is not zero: {dirty.detail}")
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
    _fallback._warned.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            jets = ff.StatisticalManifold(f, chart, engine=engine).jet(points).coefficients
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
    """Which of the six coefficients `[6, D]` differences know."""
    size = _size(expected)
    return torch.stack([e.error <= 1e-3 * size + 1e-12 for e in expected.jet])


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


# -- the whole database ------------------------------------------------------------------------------------------------


def spread(most: int | None) -> Callable[[int], list[int]]:
    """At most so many samples of an operator, evenly spread."""

    def chosen(count: int) -> list[int]:
        some = count if most is None else min(count, most)
        return [i * count // some for i in range(some)]

    return chosen


def _child(name: str, most: int | None, pipe: Any) -> None:
    torch.set_num_threads(1)
    for found in measured(name, spread(most)):
        pipe.send(found)
    pipe.send(None)


def row(name: str, most: int | None, limit: float) -> Row:
    """An operator in a process of its own: some crash, or never end."""
    started, made = time.monotonic(), Row(name)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(name, most, theirs))
    child.start()
    theirs.close()
    try:
        while ours.poll(max(0.0, started + limit - time.monotonic())):
            found = ours.recv()
            if found is None:
                break
            made.add(*found)
        else:
            made.add(name, "taylor", Found("foreign", f"not done after {limit:.0f} s"))
    except EOFError:
        child.join()
        made.add(name, "taylor", Found("foreign", f"the process ended with {child.exitcode}"))
    child.kill()
    child.join()
    made.seconds = time.monotonic() - started
    return made


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the page to write")
    parser.add_argument("--results", type=Path, default=Path("operators.jsonl"), help="what has been measured")
    parser.add_argument("--only", action="append", default=[], help="an operator, or the beginning of some names")
    parser.add_argument("--samples", type=int, help="so many samples of an operator at most (default: all)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1800, help="seconds for an operator")
    options = parser.parse_args()
    names = [n for n in operators() if not options.only or any(n.startswith(only) for only in options.only)]
    done = rows(options.results)
    todo = [name for name in names if name not in done]
    with ThreadPool(options.jobs) as pool, options.results.open("a") as file:
        for made in pool.imap_unordered(lambda name: row(name, options.samples, options.limit), todo):
            file.write(json.dumps(vars(made)) + "\n")
            file.flush()
            done[made.name] = made
            print(made.name, f"{made.seconds:.0f} s", {e: dict(c) for e, c in made.counts.items()}, flush=True)


def rows(path: Path) -> dict[str, Row]:
    """What has been measured, by operator."""
    lines = path.read_text().splitlines() if path.exists() else []
    made = [Row(**json.loads(line)) for line in lines]
    for one in made:
        one.counts = {engine: Counter(counts) for engine, counts in one.counts.items()}
    return {one.name: one for one in made}


if __name__ == "__main__":
    main()
