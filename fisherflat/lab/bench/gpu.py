"""What only a GPU can tell: whether it finds the numbers that the CPU finds, how fast, and what a CUDA graph saves.

Each check computes the same thing twice, on the CPU in float64 and on the GPU, and compares. One that fails says how,
and the others go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from fisherflat._typing import Tensor
from fisherflat.geometry import StatisticalManifold
from fisherflat.jets import size
from fisherflat.jets.engines import memory_budget
from fisherflat.lab.bench._measure import Spread, interleaved
from fisherflat.lab.bench.floor import fastest, floors
from fisherflat.lab.bench.jets import COLUMNS, LARGER
from fisherflat.lab.bench.maps import Subject, subject
from fisherflat.lab.bench.memory import peak
from fisherflat.layers import Gate, SelfAttention
from fisherflat.parts import freeze
from fisherflat.spaces import charts, families

#: by precision, the largest difference that passes, relative to the scale of what is compared
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-4}
#: points at which a map is compared
POINTS = 8
#: maps that are compared: name and k
MAPS = (
    ("attention-64", 2),
    ("attention-64", 8),
    ("block-64", 4),
    ("attention-256", 4),
    ("block-256", 2),
    ("norm-64", 3),
)
#: quantities of a geometry that are compared
QUANTITIES = (
    "metric",
    "christoffel",
    "second_fundamental_form",
    "riemann",
    "ricci",
    "scalar_curvature",
    "sectional_extremes",
    "mean_curvature",
    "volume_density",
)

#: tensors by name, of one device and precision
Found = Mapping[str, Tensor]
#: device and precision -> what is found there
Compute = Callable[[torch.device, torch.dtype], Found]


@dataclass(frozen=True)
class Check:
    """Something that is computed on both, in one precision; `bound` where it is another than that of `BOUNDS`."""

    name: str
    compute: Compute
    dtype: torch.dtype = torch.float64
    bound: float | None = None


def _map(name: str, k: int, device: torch.device, dtype: torch.dtype) -> Found:
    made = subject(name, k, dtype=dtype, device=device)
    manifold = StatisticalManifold(made.module, made.chart, dtype=dtype)
    u = made.points(POINTS)
    jet = manifold.jet(u)
    found = manifold.measure(u, ["scalar_curvature", "cancellation_scale"])
    orders = {"value": jet.value, "jacobian": jet.jacobian, "second": jet.second}
    return {**orders, "scalar_curvature": found["scalar_curvature"] / found["cancellation_scale"]}


def _small(
    device: torch.device, dtype: torch.dtype, k: int = 3, outputs: int | None = None
) -> tuple[nn.Module, charts.Chart, Tensor]:
    """A gated attention layer, or that and a linear map to so many outputs, a chart, points: the same everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layer = SelfAttention(16, 2, gate=Gate())
        module = layer if outputs is None else nn.Sequential(layer, nn.Flatten(0), nn.Linear(5 * 16, outputs))
        point, basis = torch.randn(5, 16, dtype=torch.float64), torch.randn(k, 5, 16, dtype=torch.float64)
        u = 0.3 * torch.randn(4, k, dtype=torch.float64)
    module = module.to(device, dtype).eval()
    return module, charts.affine(point.to(device), basis.to(device)), u.to(device, dtype)


def _manifold(device: torch.device, dtype: torch.dtype, **options: Any) -> tuple[StatisticalManifold, Tensor]:
    module, chart, u = _small(device, dtype)
    return StatisticalManifold(module, chart, dtype=dtype, **options), u


def _quantities(device: torch.device, dtype: torch.dtype, engine: str = "taylor") -> Found:
    manifold, u = _manifold(device, dtype, engine=engine)
    return manifold.measure(u, QUANTITIES)


def _errors(device: torch.device, dtype: torch.dtype) -> Found:
    manifold, u = _manifold(device, dtype)
    found = manifold.measure(u, ["scalar_curvature"], error=True)
    return {"digits": (found["scalar_curvature_error"] / found["scalar_curvature"].abs()).log10()}


def _family(family: Any, outputs: int, device: torch.device, dtype: torch.dtype) -> Found:
    module, chart, u = _small(device, dtype, 2, outputs)
    manifold = StatisticalManifold(module, chart, family, dtype=dtype)
    return manifold.measure(u, ["metric", "scalar_curvature"])


def _frozen(device: torch.device, dtype: torch.dtype) -> Found:
    module, chart, u = _small(device, dtype)
    frozen = freeze(module, chart.point.to(dtype))
    return {"scalar_curvature": StatisticalManifold(frozen, chart, dtype=dtype).scalar_curvature(u)}


def _gradient(device: torch.device, dtype: torch.dtype) -> Found:
    module, chart, u = _small(device, dtype)
    StatisticalManifold(module, chart, dtype=dtype, differentiable=True).scalar_curvature(u).sum().backward()
    return _slopes(module)


def _slopes(module: nn.Module) -> Found:
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


def _sampled(device: torch.device, dtype: torch.dtype) -> Found:
    manifold, u = _manifold(device, dtype)
    found = manifold.sampled_scalar_curvature(u[0], error=0.2, seed=5)
    return {name: torch.tensor(getattr(found, name), dtype=torch.float64) for name in ("value", "standard_error")}


def _paths(device: torch.device, dtype: torch.dtype) -> Found:
    manifold, u = _manifold(device, dtype)
    start, end = u[0], u[0] + 0.05
    return {
        "log": manifold.log(start, end),
        "distance": manifold.distance(start, end),
        "exp": manifold.exp(start, end - start),
        "transport": manifold.parallel_transport(start, end, torch.ones_like(start)),
    }


def _budget(device: torch.device, dtype: torch.dtype) -> Found:
    from fisherflat.studies.depth import curvature_budget

    made = subject("block-64x2", 2, dtype=dtype, device=device)
    found = curvature_budget(list(made.module), made.chart, made.points(2), by="layer-role")  # type: ignore[call-overload]
    return {"matrix": found.matrix}


def _penalty(device: torch.device, dtype: torch.dtype) -> Found:
    from fisherflat.training import CurvaturePenalty

    module, chart, _ = _small(device, dtype)
    loss = CurvaturePenalty(module, chart, seed=7)()
    loss.backward()
    return {"loss": loss.detach(), **_slopes(module)}


def _field(device: torch.device, dtype: torch.dtype) -> Found:
    from fisherflat.geometry import curvature_field

    made = subject("attention-64", 2, dtype=dtype, device=device)
    found = curvature_field(StatisticalManifold(made.module, made.chart, dtype=dtype), (-1, 1, -1, 1), resolution=5)
    return {"scalar_curvature": torch.as_tensor(found.scalar_curvature)}


def checks() -> Iterator[Check]:
    """What is compared."""
    for name, k in MAPS:
        for dtype in BOUNDS:
            yield Check(f"{name}, k = {k}", partial(_map, name, k), dtype)
    yield Check("quantities", _quantities)
    yield Check("quantities", _quantities, torch.float32)
    yield Check("quantities, autodiff engine", partial(_quantities, engine="autodiff"))
    yield Check("estimated errors", _errors, bound=1 / 15)  # of noise: one of some 15 digits more or less
    for family, outputs in (
        (families.Gaussian(0.7), 6),
        (families.Categorical(), 6),
        (families.Bernoulli(), 6),
        (families.Poisson(), 6),
        (families.DiagonalGaussian(), 6),
        (families.IsotropicGaussian(), 6),
        (families.FullGaussian(3), 9),
        (families.VonMisesFisher(), 6),
    ):
        yield Check(f"family {type(family).__name__}", partial(_family, family, outputs))
    yield Check("frozen pattern", _frozen)
    yield Check("gradient by the weights", _gradient)
    yield Check("sampled planes", _sampled)
    yield Check("geodesics", _paths, bound=1e-9)  # Newton's method ends at another place within its tolerance
    yield Check("budget by layers and roles", _budget)
    yield Check("penalty in training", _penalty)
    yield Check("field", _field)


def difference(found: Found, exact: Found) -> float:
    """The largest difference, each relative to the largest entry of its kind."""

    def relative(a: Tensor, b: Tensor) -> float:
        return float(((a - b).abs().amax() / b.abs().amax()).nan_to_num(float("inf")))

    return max(relative(found[name].double().cpu(), value.double().cpu()) for name, value in exact.items())


def run_check(check: Check, device: torch.device) -> dict[str, Any]:
    """One check: the difference, the bound and whether it holds, or the end of the traceback where it failed."""
    row: dict[str, Any] = {"check": check.name, "dtype": str(check.dtype).removeprefix("torch.")}
    start = time.perf_counter()
    try:
        exact = check.compute(torch.device("cpu"), torch.float64)
        found = check.compute(device, check.dtype)
        row["difference"] = difference(found, exact)
        row["bound"] = BOUNDS[check.dtype] if check.bound is None else check.bound
        row["holds"] = row["difference"] <= row["bound"]
    except Exception:  # a GPU is at hand for minutes: what fails is written down, and all else is still learned
        row["holds"], row["failed"] = False, traceback.format_exc(limit=-4)
    row["seconds"] = time.perf_counter() - start
    return row


def timed(made: Subject, points: int, repeats: int) -> dict[str, Any]:
    """Seconds of jets with and without a CUDA graph, with scalar curvature and of the floor; bytes of the jets."""
    budget, u, row = memory_budget(made.device), made.points(points), dict[str, Any]()

    def by(engine: str) -> tuple[StatisticalManifold, Callable[[], Tensor]]:
        manifold = StatisticalManifold(made.module, made.chart, engine=engine, dtype=made.dtype, memory=budget)
        return manifold, lambda: manifold.jet(u).coefficients

    manifold, jets = by("taylor")

    calls: dict[Any, Callable[[], object]] = dict(floors(made, points))
    calls |= {"jets": jets, "scalar_curvature": lambda: manifold.scalar_curvature(u)}
    exact = jets()
    try:
        _, replay = by("cudagraphs")
        row["graph_difference"] = float((replay() - exact).abs().max() / exact.abs().max())
        calls["graph"] = replay
    except Exception:
        row["graph_failed"] = traceback.format_exc(limit=-4)
    samples = interleaved(calls, repeats, made.device)
    samples["floor"] = samples[fastest(samples)]
    kinds = ("jets", "graph", "scalar_curvature")
    return row | {
        "seconds": {name: Spread.of(samples[name]) for name in ("floor", *kinds) if name in samples},
        "over_floor": {name: Spread.ratio(samples[name], samples["floor"]) for name in kinds if name in samples},
        "bytes": peak(jets, made.device),
        "gflops": made.work * size(made.chart.k) * points / Spread.of(samples["floor"]).median / 1e9,
    }


def compared(device: str, repeats: int, tell: Callable[[str], None], *, quick: bool = False) -> dict[str, Any]:
    """All checks, and timings of the maps that `jets` lists."""
    where = torch.device(device)
    rows = []
    for check in checks():
        tell(f"gpu: {check.name}, {check.dtype}")
        rows.append(run_check(check, where))
    timings = []
    for dtype in BOUNDS:
        for (name, k), points in list(COLUMNS.items())[: 1 if quick else None]:
            tell(f"gpu: time of {name}, k = {k}, {dtype}")
            points *= LARGER[where.type]
            row = {"map": name, "k": k, "points": points, "dtype": str(dtype).removeprefix("torch.")}
            try:
                row |= timed(subject(name, k, dtype=dtype, device=where), points, repeats)
            except Exception:
                row["failed"] = traceback.format_exc(limit=-4)
            timings.append(row)
    return {
        "checks": rows,
        "timings": timings,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "matmul_precision": torch.get_float32_matmul_precision(),
    }
