"""All coefficients of 2-jets, next to what else computes them: JAX, compiled by XLA, and nested transforms of torch.

JAX fixes the number of its threads and its precision for the whole process and for good. So each number of threads has
a process of its own, in which torch and JAX run side by side on so many cores: run as a module, this file is that
process. It reads what to measure from the command line, as JSON, and answers with a line of JSON for each map.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.func import jacfwd, vmap

from fisherflat._typing import Tensor
from fisherflat.geometry import StatisticalManifold
from fisherflat.jets import size
from fisherflat.lab.bench._measure import Spread, by_clock
from fisherflat.lab.bench._peers import embedding
from fisherflat.lab.bench.floor import fastest, floors
from fisherflat.lab.bench.maps import Subject, subject

#: the table: map and k, with the number of points
COLUMNS = {
    ("attention-64", 2): 64,
    ("attention-64", 8): 16,
    ("attention-256", 2): 8,
    ("attention-256", 8): 4,
    ("attention-768", 4): 2,
    ("block-256", 2): 8,
}
#: points of other maps
OTHERWISE = 4
#: of a quick run, and times as many points on a GPU, which the above do not fill
QUICK = {("attention-64", 2): 4}
LARGER = {"cpu": 1, "cuda": 16}
#: agreement of each order of coefficients, relative to its largest
TOLERANCE = {"float64": 1e-10, "float32": 1e-3}
OURS, COMPILED, REPLAYED = "ours", 'ours, engine="xla"', 'ours, engine="cudagraphs"'
INSTALL = "pip install 'fisherflat[bench]'"


@dataclass(frozen=True)
class Contender:
    """What gives coefficients.

    **Attributes:** `build`: from a subject and points to a call that computes them there and waits for the result;
    `jax`: whether that is in JAX; `gpu`: whether it is for a GPU alone; `traces`: whether it gives only the sums of
    pure second derivatives; `applies`.
    """

    name: str
    build: Callable[[Subject, Tensor], Callable[[], Any]]
    jax: bool = False
    gpu: bool = False
    traces: bool = False
    applies: Callable[[Subject], bool] = lambda subject: True


def _ours(engine: str) -> Callable[[Subject, Tensor], Callable[[], Any]]:
    def build(subject: Subject, u: Tensor) -> Callable[[], Any]:
        if engine == "xla":
            importlib.import_module("jax")
        manifold = StatisticalManifold(subject.module, subject.chart, engine=engine, dtype=subject.dtype)
        return _waiting(subject, lambda: manifold.jet(u).coefficients)

    return build


def _waiting(subject: Subject, call: Callable[[], Any]) -> Callable[[], Any]:
    def waited() -> Any:
        found = call()
        if subject.device.type == "cuda":
            torch.cuda.synchronize(subject.device)
        return found

    return waited


def _torch(form: str) -> Callable[[Subject, Tensor], Callable[[], Any]]:
    def build(subject: Subject, u: Tensor) -> Callable[[], Any]:
        f = embedding(subject, getattr(subject, form))

        def first(u: Tensor) -> Any:
            jacobian, value = jacfwd(lambda v: (f(v),) * 2, has_aux=True)(u)
            return jacobian, (value, jacobian)

        def second(u: Tensor) -> Any:
            hessian, (value, jacobian) = jacfwd(first, has_aux=True)(u)
            return value, jacobian, hessian

        run = vmap(second)
        return _waiting(subject, lambda: run(u))

    return build


def _jax(how: str) -> Callable[[Subject, Tensor], Callable[[], Any]]:
    def build(subject: Subject, u: Tensor) -> Callable[[], Any]:
        module = importlib.import_module("fisherflat.lab.bench._jax")
        return module.compiled(subject, getattr(module, how), u)

    return build


CONTENDERS = [
    Contender(OURS, _ours("taylor")),
    Contender(COMPILED, _ours("xla"), jax=True),
    Contender(REPLAYED, _ours("cudagraphs"), gpu=True),
    Contender("JAX jit, nested forward", _jax("nested"), jax=True),
    Contender("jax.experimental.jet, jit", _jax("polarised"), jax=True),
    Contender("folx, jit: traces alone", _jax("laplacian"), jax=True, traces=True),
    Contender("torch nested jacfwd", _torch("plain")),
    Contender("the same, norms written out", _torch("written_out"), applies=lambda subject: subject.has_norms),
]


def coefficients(found: Any, k: int) -> Tensor:
    """What a contender gave, as one tensor in float64 on the CPU: `[P, S, D]`, or `[P, 1 + k + 1, D]` of traces."""
    if isinstance(found, Tensor):
        return found.double().cpu()
    value, slopes, bends = (
        (part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))).double().cpu() for part in found
    )
    if bends.dim() == 4:  # Hessians [P, D, k, k], with Jacobians [P, D, k]
        left, right = torch.triu_indices(k, k)
        slopes, bends = slopes.transpose(1, 2), bends[..., left, right].transpose(1, 2)
    return torch.cat([value[:, None], slopes, bends if bends.dim() == 3 else bends[:, None]], 1)


def error(found: Tensor, exact: Tensor, k: int) -> float:
    """The largest difference of a value, a first and a second derivative, each over the largest of its kind."""
    if found.shape[1] != exact.shape[1]:
        left, right = torch.triu_indices(k, k)
        exact = torch.cat([exact[:, : 1 + k], exact[:, 1 + k :][:, left == right].sum(1, keepdim=True)], 1)
    pairs = zip(*(part.split([1, k, part.shape[1] - 1 - k], 1) for part in (found, exact)), strict=True)
    return max(float(((a - b).abs().max() / b.abs().max()).nan_to_num(float("inf"))) for a, b in pairs)


def compared(subject: Subject, points: int, repeats: int) -> dict[str, Any]:
    """Time of each contender that agrees with our engine in float64, over ours, by each clock; ours over the floor.

    Contenders that are not installed, that fail or that are wrong have a note instead.
    """
    u, k = subject.points(points), subject.chart.k
    exact = StatisticalManifold(subject.module, subject.chart).jet(u.double()).coefficients.cpu()
    rows: list[dict[str, Any]] = []
    calls: dict[Any, Callable[[], object]] = {}
    for contender in CONTENDERS:
        if contender.gpu and subject.device.type != "cuda":
            continue
        row: dict[str, Any] = {"name": contender.name, "traces": contender.traces}
        rows.append(row)
        if not contender.applies(subject):
            row["note"] = "the same"
            continue
        start = time.perf_counter()
        try:
            call = contender.build(subject, u)
            found = call()
        except ImportError as missing:
            row["note"] = f"not installed: no {missing.name}; {INSTALL}"
            continue
        except Exception as failed:  # whatever a competitor runs into is said, and the others go on
            row["note"] = f"{type(failed).__name__}: {str(failed).splitlines()[0][:160]}"
            continue
        row["first_seconds"] = time.perf_counter() - start
        row["error"] = error(coefficients(found, k), exact, k)
        row["agrees"] = row["error"] <= TOLERANCE[str(subject.dtype).removeprefix("torch.")]
        if row["agrees"]:
            calls[contender.name] = call
        else:
            row["note"] = "wrong"
    samples = by_clock({**calls, **floors(subject, points)}, repeats, subject.device)
    batch = fastest(samples["wall"])
    for row in rows:
        name = row["name"]
        if name in calls:
            row["seconds"] = {clock: Spread.of(taken[name]) for clock, taken in samples.items()}
            row["over_ours"] = {clock: Spread.ratio(taken[name], taken[OURS]) for clock, taken in samples.items()}
    return {
        "coefficients": size(k),
        "contenders": rows,
        "floor_batch": batch,
        "ours_over_floor": {clock: Spread.ratio(taken[OURS], taken[batch]) for clock, taken in samples.items()},
    }


def measured(
    columns: Sequence[tuple[str, int, int]], dtypes: Sequence[str], threads: int, repeats: int, device: str
) -> Iterator[dict[str, Any]]:
    """Rows of `compared` for maps with k and points, in a process of its own with so many threads.

    **Raises:** `RuntimeError` where that process fails.
    """
    job = {"columns": columns, "dtypes": dtypes, "threads": threads, "repeats": repeats, "device": device}
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), str(threads)),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **({"JAX_PLATFORMS": "cpu"} if device == "cpu" else {}),
    }
    command = [sys.executable, "-m", "fisherflat.lab.bench.jets", json.dumps(job)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stdout or ():
            row = json.loads(line)
            if "failed" in row:
                raise RuntimeError(f"the process that compares jets failed: {row['failed']}")
            yield restored(row)
    if process.returncode:
        raise RuntimeError(f"the process that compares jets ended with exit code {process.returncode}")


def restored(value: Any) -> Any:
    """What was written as JSON, as it was before: with `Spread` where there were repeats."""
    if isinstance(value, list):
        return [restored(part) for part in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"median", "low", "high"}:
        return Spread(**value)
    return {key: restored(part) for key, part in value.items()}


def _serve(job: dict[str, Any]) -> None:
    cores = None
    if job["device"] == "cpu":
        torch.set_num_threads(job["threads"])
        if hasattr(os, "sched_setaffinity"):  # XLA has no setting of its own that all its versions heed
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
            cores = len(os.sched_getaffinity(0))
    for dtype in job["dtypes"]:
        for name, k, points in job["columns"]:
            made = subject(name, k, dtype=getattr(torch, dtype), device=job["device"])
            about = {"map": name, "k": k, "points": points, "dtype": dtype, "threads": job["threads"], "cores": cores}
            print(json.dumps(about | compared(made, points, job["repeats"]), default=asdict), flush=True)


if __name__ == "__main__":
    try:
        _serve(json.loads(sys.argv[1]))
    except Exception:
        print(json.dumps({"failed": traceback.format_exc(limit=-3)}), flush=True)
        sys.exit(1)
