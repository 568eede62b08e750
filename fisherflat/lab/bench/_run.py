"""The run: section by section, on one machine, in one process."""

from __future__ import annotations

import importlib.util
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch

from fisherflat._versions import versions
from fisherflat.lab.bench import (
    certificates,
    checkpoint,
    depth,
    families,
    floor,
    geodesics,
    gpu,
    gradient,
    jets,
    memory,
    minilm,
    sampled,
    traces,
    wide,
)
from fisherflat.lab.bench._growth import SERIES, growth
from fisherflat.lab.bench._plan import DTYPES, Plan
from fisherflat.lab.bench._versus import on_a_sphere, versus

#: hears of each measurement as it is begun
Tell = Callable[[str], None]
Row = dict[str, Any]
#: whose versions are noted
PACKAGES = ("numpy", "transformers", "omnibias-geometry", "geomstats", "jax", "folx")


def run(plan: Plan, tell: Tell = lambda line: None, into: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run `plan` and give what was found, by section: rows of numbers, with `Spread` where there were repeats.

    **Args:** `into`, to which each row is added as it is found, so that an interrupt leaves those that are done.
    """
    results = {} if into is None else into
    results |= {"schema": 1, "environment": environment(plan)}
    started = time.perf_counter()
    try:
        with _threads(plan.threads):
            for name in plan.sections:
                found = _SECTIONS[name](plan, tell)
                if isinstance(found, Iterator):
                    rows = results[name] = []
                    for row in found:
                        rows.append(row)
                else:
                    results[name] = found
    finally:
        results["environment"]["seconds"] = time.perf_counter() - started
    return results


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _floor(plan: Plan, tell: Tell) -> Iterator[Row]:
    for case in plan.floor():
        tell(f"floor: {case}")
        subject = case.build(plan.device)
        points = plan.points or floor.filling(subject, plan.share)
        yield asdict(case) | floor.over_floor(subject, points, plan.repeats)


def _jets(plan: Plan, tell: Tell) -> Iterator[Row]:
    columns, dtypes = list(plan.jets()), plan.chosen_dtypes
    for threads in plan.numbers_of_threads if columns else ():
        tell(f"jets: {', '.join(f'{name}, k = {k}' for name, k, _ in columns)}; threads: {threads}")
        yield from jets.measured(columns, dtypes, threads, plan.repeats, plan.device)


def _peers(plan: Plan, tell: Tell) -> Iterator[Row]:
    for case in plan.peers():
        tell(f"peers: {case}")
        yield asdict(case) | versus(case.build(plan.device), plan.repeats, plan.share)


def _norms(plan: Plan, tell: Tell) -> dict[str, float]:
    tell("norms")
    return on_a_sphere()


def _memory(plan: Plan, tell: Tell) -> Iterator[Row]:
    for case in plan.memory():
        tell(f"memory: {case}")
        subject = case.build(plan.device)
        points = plan.points or floor.filling(subject, plan.memory_share)
        yield asdict(case) | memory.over_floor(subject, points)


def _growth(plan: Plan, tell: Tell) -> dict[str, Any]:
    found = {}
    for what in SERIES:
        tell(f"growth: {what}")
        dtype = DTYPES[plan.dtypes[0]] if plan.dtypes else torch.float64
        found[what] = growth(what, plan.repeats, plan.share, dtype=dtype, device=plan.device)
    return found


def _gradient(plan: Plan, tell: Tell) -> Iterator[Row]:
    for case in plan.gradients():
        tell(f"gradient: {case}")
        beside = case.map == "attention-64" and not plan.gpu  # others take minutes or do not fit
        yield asdict(case) | gradient.over_value(case.build(plan.device), plan.repeats, beside=beside)


def _tape(plan: Plan, tell: Tell) -> Iterator[Row]:
    if plan.gpu:
        return
    for case in plan.tapes():
        tell(f"tape: {case}")
        yield asdict(case) | gradient.tape(case.build(plan.device))


def _tracing(plan: Plan, tell: Tell) -> dict[str, Any] | None:
    if minilm.folder() is None:
        return None
    tell("tracing")
    return minilm.tracing(plan.repeats)


def _depth(plan: Plan, tell: Tell) -> dict[str, Any]:
    found = {}
    if minilm.folder() is not None and not plan.gpu:
        tell("depth: minilm")
        found["minilm"] = depth.over_floor(plan.repeats, points=2 if plan.quick else 64)
    tell("depth: random blocks")
    found["random"] = depth.growth(**(depth.QUICK if plan.quick else depth.RANDOM))
    return found


def _wide(plan: Plan, tell: Tell) -> Iterator[Row]:
    for k in wide.QUICK if plan.quick else wide.DIMS:
        tell(f"wide: k = {k}")
        yield wide.over_jets(k, plan.repeats, device=plan.device)


def _sampled(plan: Plan, tell: Tell) -> Iterator[Row]:
    device = torch.device(plan.device)
    widths = plan.dims or (sampled.QUICK if plan.quick else ())
    for width in widths:
        tell(f"sampled: width {width}")
        yield sampled.of_width(width, device)
    if not widths and minilm.folder() is not None:
        for moving in sampled.MOVING:
            tell(f"sampled: minilm, moving: {moving}")
            yield sampled.of_minilm(moving, device)


def _certificates(plan: Plan, tell: Tell) -> Iterator[Row]:
    if plan.gpu or importlib.util.find_spec("flint") is None:
        return
    for width in certificates.QUICK if plan.quick else certificates.WIDTHS:
        tell(f"certificates: width {width}")
        yield certificates.over_arb(width, plan.repeats)


def _families(plan: Plan, tell: Tell) -> Iterator[Row]:
    for name in families.FAMILIES:
        tell(f"families: {name}")
        yield families.over_gaussian(name, plan.repeats, plan.share)


def _traces(plan: Plan, tell: Tell) -> Iterator[Row]:
    maps, dims = traces.QUICK if plan.quick else (plan.maps or traces.MAPS, plan.dims or traces.DIMS)
    for name, k in product(maps, dims):
        tell(f"traces: {name}, k = {k}")
        yield traces.over_whole(name, k, plan.repeats, plan.device)


def _geodesics(plan: Plan, tell: Tell) -> Iterator[Row]:
    if plan.gpu or importlib.util.find_spec("geomstats") is None:
        return
    name, pairs = geodesics.QUICK if plan.quick else geodesics.FULL
    tell(f"geodesics: {name}, {pairs} pairs")
    yield geodesics.over_ours(name, pairs, plan.repeats)


def _checkpoint(plan: Plan, tell: Tell) -> dict[str, Any]:
    tell("checkpoint")
    return checkpoint.over_block(plan.quick, plan.threads)


def _gpu(plan: Plan, tell: Tell) -> dict[str, Any]:
    return gpu.compared(plan.device, plan.repeats, tell, quick=plan.quick)


_SECTIONS: dict[str, Callable[[Plan, Tell], Any]] = {
    "floor": _floor,
    "jets": _jets,
    "peers": _peers,
    "norms": _norms,
    "memory": _memory,
    "growth": _growth,
    "gradient": _gradient,
    "tape": _tape,
    "tracing": _tracing,
    "depth": _depth,
    "wide": _wide,
    "sampled": _sampled,
    "certificates": _certificates,
    "families": _families,
    "traces": _traces,
    "geodesics": _geodesics,
    "checkpoint": _checkpoint,
    "gpu": _gpu,
}


def environment(plan: Plan) -> dict[str, Any]:
    """Machine, versions and settings, without which no figure means anything."""
    return {
        **dict.fromkeys(PACKAGES),
        **versions("torch", *PACKAGES),
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if plan.gpu else None,
        "device": plan.device,
        "threads": plan.threads,
        "repeats": plan.repeats,
        "quick": plan.quick,
        "load_at_start": os.getloadavg()[0],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
