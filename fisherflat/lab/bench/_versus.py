"""The engines against their competitors: first whether the values agree, then how long they take."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.geometry import StatisticalManifold
from fisherflat.jets import size
from fisherflat.lab.bench._measure import Spread, interleaved, seconds
from fisherflat.lab.bench._peers import Curvature, Peer, bearable, peers
from fisherflat.lab.bench.floor import POINTS, fastest, filling, floors
from fisherflat.lab.bench.geomstats import Worker
from fisherflat.lab.bench.maps import Subject, subject

#: agreement, relative to the cancellation scale of the scalar curvature
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3}
#: our engines that run everywhere
OURS = ("taylor", "autodiff")
#: points at which values are compared
COMPARED = 2
#: seconds of one sample of a competitor
PATIENCE = 1.0


def engine(name: str) -> Peer:
    """One of our engines as a contender."""

    def build(subject: Subject) -> Curvature:
        return StatisticalManifold(subject.module, subject.chart, engine=name, dtype=subject.dtype).scalar_curvature

    return Peer(name, build, by_output=name == "autodiff")


def versus(subject: Subject, repeats: int, share: float = 1.0) -> dict[str, Any]:
    """Seconds a point of every contender that agrees with the Taylor engine in float64, in turns, and of the floor.

    A slow contender is given as many points as a second allows; up to there its best number of points at a time is
    found first. `share` of the points and of the second for a quick run.
    """
    patience = PATIENCE * share
    rows: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], object]] = {}
    points = {"taylor": filling(subject, share)}
    workers = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, about slow paths of vmap
        for peer in [engine(name) for name in OURS] + peers():
            if not peer.applies(subject):
                continue
            row: dict[str, Any] = {"name": peer.name, "expert": peer.expert}
            rows.append(row)
            if peer.by_output and not bearable(subject):
                row["note"] = "not run: a reverse pass for each output takes too long"
                continue
            try:
                curvature = peer.build(subject)
                if isinstance(curvature, Worker):
                    workers.append(curvature)
                row["error"], once = _error(curvature, subject)
            except Exception as error:  # whatever a competitor runs into is said, and the others go on
                if peer.name == "taylor":  # with which all are compared
                    raise
                row["note"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
                continue
            row["agrees"] = row["error"] <= TOLERANCE[subject.dtype]
            if not row["agrees"]:
                row["note"] = "wrong values"
                continue
            if peer.name not in points:
                points[peer.name] = 1 if once > patience else _best_points(curvature, subject, patience)
            calls[peer.name] = _bound(curvature, subject.points(points[peer.name]))
        passes = floors(subject, points["taylor"])
        samples = interleaved({**calls, **passes}, repeats, subject.device)
    for worker in workers:
        worker.close()
    samples["floor"], points["floor"] = samples[fastest(samples)], points["taylor"]
    rows.append({"name": "floor", "expert": False, "agrees": True})
    for row in rows:
        name = row["name"]
        if name in samples:
            row["points"] = points[name]
            row["seconds_per_point"] = Spread.of([taken / points[name] for taken in samples[name]])
            row["over_taylor"] = Spread.ratio(samples[name], samples["taylor"], points["taylor"] / points[name])
    return {"coefficients": size(subject.chart.k), "contenders": rows}


def _error(curvature: Curvature, subject: Subject) -> tuple[float, float]:
    """The largest error relative to the cancellation scale, and the seconds that one point took."""
    u = subject.points(COMPARED)
    exact = StatisticalManifold(subject.module, subject.chart).measure(
        u.double(), ["scalar_curvature", "cancellation_scale"]
    )
    start = time.perf_counter()
    found = curvature(u)
    once = (time.perf_counter() - start) / COMPARED
    error = (found.double() - exact["scalar_curvature"]) / exact["cancellation_scale"]
    return float(error.abs().nan_to_num(float("inf")).max()), once


def _bound(curvature: Curvature, u: Float[Tensor, "P k"]) -> Callable[[], object]:
    return lambda: curvature(u)


def _best_points(curvature: Curvature, subject: Subject, patience: float) -> int:
    """The number of points at a time, among powers of 2, with the least time for each."""
    best, count, least = 1, 1, float("inf")
    while count <= POINTS[subject.device.type]:
        call = _bound(curvature, subject.points(count))
        try:
            taken = min(seconds(call, subject.device) for _ in range(2))
        except (RuntimeError, MemoryError):  # too many to fit
            break
        if taken / count < least:
            best, least = count, taken / count
        if 2 * taken > patience:
            break
        count *= 2
    return best


def on_a_sphere() -> dict[str, float]:
    """What each contender returns for LayerNorm of width 4 on a plane: a piece of a sphere, scal = 1/2.

    Competitors that fail return nothing.
    """
    sphere, found = subject("norm-4", 2, tokens=1), dict[str, float]()
    for peer in [engine(name) for name in OURS] + [peer for peer in peers() if peer.applies(sphere)]:
        try:
            found[peer.name] = float(peer.build(sphere)(sphere.points(1)))
        except Exception:
            if peer.name in OURS:
                raise
    return found
