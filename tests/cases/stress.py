"""Maps under numerical stress, their curvature from balls, and how many digits of it are right.

`python tests/cases/stress.py 500` prints the table of docs/precision.md.
"""

from __future__ import annotations

import argparse
import math
import statistics
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import flint
import numpy as np
import torch
from flint import arb
from torch import Tensor
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.errors import DegenerateImmersionError, EnclosureError
from fisherflat.jets import pair_index, size
from fisherflat.jets.balls import balls, chart_in_balls, matrix, through

#: the precisions in bits that are tried for a truth, until a ball is small
BITS = (300, 1200, 4000)
DIMENSIONS = (2, 3, 4, 8)


@dataclass(frozen=True)
class Stressed:
    """A manifold whose numbers are hard to get right at u = 0, and why."""

    kind: str
    manifold: ff.StatisticalManifold


class Draws:
    """Random numbers of a seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self._generator)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=self._generator).item()

    def choice(self, things: tuple) -> object:
        return things[int(torch.randint(len(things), (), generator=self._generator))]


def rms(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-5)


def _attention(draw: Draws, d: int, gated: bool, causal: bool = False) -> Callable[[Tensor], Tensor]:
    q, k, v, g = (draw.normal(d, d) / math.sqrt(d) for _ in range(4))
    mask = torch.full((4, 4), -torch.inf, dtype=torch.float64).triu(1) if causal else torch.zeros(4, 4)

    def attention(h: Tensor) -> Tensor:
        out = ((h @ q) @ (h @ k).T / math.sqrt(d) + mask.to(h)).softmax(-1) @ (h @ v)
        return out * torch.sigmoid(h @ g) if gated else out

    return attention


def _mlp(draw: Draws, d: int, gated: bool) -> Callable[[Tensor], Tensor]:
    a, b, c = draw.normal(d, 2 * d) / math.sqrt(d), draw.normal(d, 2 * d) / math.sqrt(d), draw.normal(2 * d, d)
    act = draw.choice((F.gelu, F.silu, torch.tanh))
    return lambda h: (act(h @ a) * (h @ b) if gated else act(h @ a)) @ c  # type: ignore[operator]


def network(draw: Draws, d: int) -> Callable[[Tensor], Tensor]:
    """One of the maps that blocks are made of, on 4 tokens of width d."""
    parts = [
        _attention(draw, d, False), _attention(draw, d, True), _attention(draw, d, False, True),
        _mlp(draw, d, False), _mlp(draw, d, True), lambda h: rms(h) * torch.linspace(0.5, 1.5, d, dtype=h.dtype),
    ]  # fmt: skip
    one, two = draw.choice(tuple(parts)), draw.choice(tuple(parts[:5]))
    kind = draw.choice(("part", "block", "stack"))
    if kind == "part":
        return one  # type: ignore[return-value]
    if kind == "block":
        return lambda h: h + two(rms(h))  # type: ignore[operator]
    return lambda h: (lambda y: y + one(rms(y)))(h + two(rms(h)))  # type: ignore[operator]


def _chart(draw: Draws, d: int, k: int) -> tuple[Tensor, Tensor]:
    return draw.normal(4, d), draw.normal(k, 4, d)


def parallel_chart(draw: Draws, d: int, k: int) -> ff.StatisticalManifold:
    point, basis = _chart(draw, d, k)
    basis[1:] = basis[0] + 2.0 ** -draw.uniform(4, 44) * basis[1:]
    return ff.StatisticalManifold(network(draw, d), ff.charts.affine(point, basis))


def near_degenerate(draw: Draws, d: int, k: int) -> ff.StatisticalManifold:
    f, (point, basis) = network(draw, d), _chart(draw, d, k)
    shrink = 10.0 ** -draw.uniform(1, 13)
    left, right = (torch.linalg.qr(draw.normal(d, d))[0] for _ in range(2))
    squeezed = left @ torch.diag(torch.logspace(0, math.log10(shrink), d, dtype=torch.float64)) @ right
    basis[:, 1:] = 0.0
    return ff.StatisticalManifold(lambda h: f(h @ squeezed), ff.charts.affine(point, basis))


def saturated_softmax(draw: Draws, d: int, k: int) -> ff.StatisticalManifold:
    q, v, w = draw.normal(k + 3, d), draw.normal(k + 3, d + 4), draw.normal(d, d)
    sink = torch.zeros(k + 3, dtype=torch.float64)
    sink[0] = draw.uniform(5, 100)
    point, basis = draw.normal(d), draw.normal(k, d)
    return ff.StatisticalManifold(lambda x: (q @ (w @ x) / 4 + sink).softmax(-1) @ v, ff.charts.affine(point, basis))


def norm_along_itself(draw: Draws, d: int, k: int) -> ff.StatisticalManifold:
    f, (point, basis) = network(draw, d), _chart(draw, d, k)
    point[:, 2] = 10.0 ** draw.uniform(0, 4)
    basis[0] = point / 8
    return ff.StatisticalManifold(lambda h: rms(h) + 0.125 * f(rms(h)), ff.charts.affine(point, basis))


def full_covariance(draw: Draws, d: int, k: int) -> ff.StatisticalManifold:
    f, (point, basis) = network(draw, d), _chart(draw, d, k)
    axes = torch.linalg.qr(draw.normal(4 * d, 4 * d))[0]
    sigma = axes * torch.logspace(0, -draw.uniform(2, 14), 4 * d, dtype=torch.float64) @ axes.T
    return ff.StatisticalManifold(f, ff.charts.affine(point, basis), ff.Gaussian((sigma + sigma.T) / 2))


def inner_cancellation(draw: Draws, d: int, k: int) -> ff.StatisticalManifold:
    f, (point, basis) = network(draw, d), _chart(draw, d, k)
    large, weight = 10.0 ** draw.uniform(1, 8), draw.normal(d, d)

    def cancelling(h: Tensor) -> Tensor:
        shift = large * (h @ weight).tanh()
        return f(h) + shift - large * (h @ weight).sigmoid() - shift

    return ff.StatisticalManifold(cancelling, ff.charts.affine(point, basis))


def outliers(draw: Draws, d: int, k: int) -> ff.StatisticalManifold:
    f, (point, basis) = network(draw, d), _chart(draw, d, k)
    point[:, 0] = 10.0 ** draw.uniform(0, 4)
    return ff.StatisticalManifold(lambda h: f(rms(h)), ff.charts.affine(point, basis))


def benign(draw: Draws, d: int, k: int) -> ff.StatisticalManifold:
    return ff.StatisticalManifold(network(draw, d), ff.charts.affine(*_chart(draw, d, k)))


KINDS: tuple[Callable[[Draws, int, int], ff.StatisticalManifold], ...] = (
    parallel_chart, near_degenerate, saturated_softmax, norm_along_itself, full_covariance, inner_cancellation,
    outliers, benign,
)  # fmt: skip


def stressed(seed: int) -> Stressed:
    """A map of a kind that the seed chooses; every kind and every k comes equally often."""
    make, k = KINDS[seed % len(KINDS)], DIMENSIONS[seed // len(KINDS) % len(DIMENSIONS)]
    draw = Draws(seed)
    return Stressed(make.__name__.replace("_", " "), make(draw, k + 2, k))


# -- truth -------------------------------------------------------------------------------------------------------------


def scalar_curvature(M: ff.StatisticalManifold, u: list[float] | None = None) -> arb:
    """The scalar curvature in balls, from as many bits as it takes to know 20 digits."""
    for bits in BITS:
        before, flint.ctx.prec = flint.ctx.prec, bits
        try:
            box = [arb(x) for x in (u or [0.0] * M.k)]
            found = _scalar(_jet(M, box), M)
            if found.rel_accuracy_bits() > 70 or abs(found) < arb(2) ** -200:
                return found
        except (EnclosureError, ZeroDivisionError):
            pass
        finally:
            flint.ctx.prec = before
    raise EnclosureError("the curvature is not known to 20 digits")


def jet(M: ff.StatisticalManifold, u: list[float]) -> Tensor:
    """The 2-jet `[S, D]` as balls of many bits give it, rounded once."""
    with flint.ctx.workprec(BITS[1]):
        return torch.from_numpy(np.vectorize(float)(_jet(M, [arb(x) for x in u])))


def _jet(M: ff.StatisticalManifold, point: list[arb]) -> np.ndarray:
    """The 2-jet at a point, `[S, D]` balls."""
    graph = M.engine.graph  # type: ignore[attr-defined]
    known = through(graph, chart_in_balls(M.chart, point)).data.balls
    jet = np.full((size(M.k), known[0].size), arb(0), dtype=object)
    jet[: len(known)] = known.reshape(len(known), -1)
    return jet


def _gram(vectors: flint.arb_mat, family: ff.Gaussian) -> flint.arb_mat:
    """`v Sigma^-1 w` for all pairs of rows."""
    sigma = balls(family.covariance)
    if sigma.ndim == 2:
        return vectors * matrix(sigma).solve(vectors.transpose())
    return vectors * matrix(np.array(vectors.tolist(), dtype=object) / sigma).transpose()


def _block(whole: flint.arb_mat, rows: range, columns: range) -> flint.arb_mat:
    return flint.arb_mat([[whole[i, j] for j in columns] for i in rows])


def _scalar(jet: np.ndarray, M: ff.StatisticalManifold) -> arb:
    """`g^im g^jl (II_im . II_jl - II_il . II_jm)`, II by its products, which need no root and no frame."""
    k, pair = M.k, pair_index(M.k).tolist()
    gram = _gram(matrix(jet[1:]), M.family)  # type: ignore[arg-type]
    first, second = range(k), range(k, gram.nrows())
    metric, mixed = _block(gram, first, first), _block(gram, first, second)
    normal = _block(gram, second, second) - mixed.transpose() * metric.solve(mixed)
    inverse = metric.inv()
    total = arb(0)
    for i, j, n, m in product(range(k), repeat=4):
        if pair[i][m] != pair[i][n] or pair[j][n] != pair[j][m]:
            term = normal[pair[i][m], pair[j][n]] - normal[pair[i][n], pair[j][m]]
            total += inverse[i, m] * inverse[j, n] * term
    return total


# -- what is measured --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """A scalar curvature with its estimated and its true error; `refused` where the map was called degenerate."""

    kind: str
    seed: int
    value: float
    estimate: float
    error: float
    truth: float
    refused: bool = False

    @property
    def digits(self) -> float:
        """How many digits are right; below zero where the error exceeds the value."""
        return -math.log10(max(self.error / abs(self.truth), 1e-16)) if self.truth else 16.0

    @property
    def covered(self) -> bool:
        return self.error <= self.estimate

    @property
    def pessimism(self) -> float:
        """The estimate over the error, or over half a last place where that is larger."""
        return self.estimate / max(self.error, abs(self.truth) * 2.0**-53)


def reading(seed: int) -> Reading:
    case = stressed(seed)
    truth = scalar_curvature(case.manifold)
    middle = float(truth)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            u = torch.zeros(case.manifold.k, dtype=torch.float64)
            found = case.manifold.measure(u, ["scalar_curvature"], error=True)
    except DegenerateImmersionError:
        return Reading(case.kind, seed, math.nan, math.inf, math.inf, middle, True)
    value, estimate = found["scalar_curvature"].item(), found["scalar_curvature_error"].item()
    return Reading(case.kind, seed, value, estimate, float(abs(arb(value) - truth)), middle)


def around(seed: int, count: int = 4) -> list[Reading]:
    """Readings at points about u = 0, of which one has an error of its own, and the others what is carried over."""
    case = stressed(seed)
    u = Draws(seed).normal(count, case.manifold.k) / 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = case.manifold.judged(u, ["scalar_curvature"])
    readings = []
    for at_, value, estimate in zip(*(x.tolist() for x in (u, *list(found.values())[:2])), strict=True):
        truth = scalar_curvature(case.manifold, at_)
        readings.append(Reading(case.kind, seed, value, estimate, float(abs(arb(value) - truth)), float(truth)))
    return readings


def table(readings: list[Reading]) -> Iterator[str]:
    """By kind: digits, coverage, pessimism, and how many were refused or have a wrong sign that the estimate misses."""
    yield "| stress | maps | digits, least / median | covered | estimate / error, median | refused | undecided |"
    yield "|---|---|---|---|---|---|---|"
    kinds: dict[str, list[Reading]] = defaultdict(list)
    for r in readings:
        kinds[r.kind].append(r)
    for kind, all_ in [*kinds.items(), ("all", readings)]:
        rows = [r for r in all_ if not r.refused]
        digits = [r.digits for r in rows] or [math.nan]
        pessimism = [r.pessimism for r in rows] or [math.nan]
        undecided = sum(r.estimate >= abs(r.value) for r in rows)
        yield (
            f"| {kind} | {len(all_)} | {min(digits):.1f} / {statistics.median(digits):.1f} | "
            f"{sum(r.covered for r in rows)} of {len(rows)} | {statistics.median(pessimism):.0f} | "
            f"{len(all_) - len(rows)} | {undecided} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", type=int, nargs="?", default=64)
    parser.add_argument("--missed", action="store_true", help="print each reading that its estimate does not cover")
    parser.add_argument("--carried", action="store_true", help="four points about u = 0, k up to 4, errors at one")
    options = parser.parse_args()
    found = [reading(seed) for seed in range(options.maps)] if not options.carried else [
        r for seed in range(options.maps) if stressed(seed).manifold.k <= 4 for r in around(seed)
    ]  # fmt: skip
    print("\n".join(table(found)))
    if options.missed:
        print(*(r for r in found if not r.covered or r.digits < 8), sep="\n")
