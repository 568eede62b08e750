"""The geometry of a map on a chart, as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from fisherflat._typing import Float, Int, Tensor
from fisherflat.errors import DegenerateImmersionWarning, without
from fisherflat.geometry import (
    ERRORS,
    Geometry,
    Jets,
    StatisticalManifold,
    Verdict,
    carried,
    decided,
    exceptional,
    in_more_bits,
    poor,
    refined,
    sample,
    turn,
    warn_of_stuck,
    words,
)
from fisherflat.jets.engines import in_chunks
from fisherflat.jets.graph import Graph
from fisherflat.parts import rerouted
from fisherflat.parts.structure import affine
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian, ParametricFamily
from fisherflat.studies._journal import Row
from fisherflat.studies._lens import Lens


def _total_bend(geometry: Geometry) -> Tensor:
    """By how many degrees the angles of a figure as large as the image of the chart's unit disc are off.

    The theorem of Gauss and Bonnet, to first order: the mean sectional curvature times the area, that of the mean disc
    where k > 2.
    """
    k = geometry.k
    area = math.pi * geometry.volume_density ** (2 / k)
    return math.degrees(1) * area * geometry.scalar_curvature / (k * (k - 1))


#: column -> how it is read off a geometry
QUANTITIES: dict[str, Callable[[Geometry], Tensor]] = {
    "scalar_curvature": lambda g: g.scalar_curvature,
    "mean_sectional_curvature": lambda g: g.scalar_curvature / (g.k * (g.k - 1)),
    "smallest_sectional_curvature": lambda g: g.sectional_extremes[..., 0],
    "largest_sectional_curvature": lambda g: g.sectional_extremes[..., 1],
    "second_fundamental_form_norm": lambda g: g.second_fundamental_form_norm,
    "mean_curvature_norm": lambda g: g.mean_curvature_norm,
    "volume_density": lambda g: g.volume_density,
    "smallest_stretch": lambda g: g.singular_values[..., -1],
    "largest_stretch": lambda g: g.singular_values[..., 0],
    "total_bend": _total_bend,
    "effective_rank": lambda g: g.effective_rank,
    "condition_number": lambda g: g.condition_number,
}
#: below how many standard deviations of the outputs the image of a unit of the chart is too short to matter
NEGLIGIBLE = 1e-3
#: of families with finitely many outcomes, where curvature grows towards the corners
CORNERS: dict[str, Callable[[Geometry], Tensor]] = {
    "uncertainty": lambda g: g.uncertainty,
    "relative_curvature": lambda g: g.relative_curvature,
}
#: beside them: what decides where errors are estimated, how they are carried over, and on a verdict
_BESIDE: dict[str, Callable[[Geometry], Tensor]] = {
    "scale": lambda g: g.cancellation_scale,
    "form": lambda g: g.second_fundamental_form_norm,
    "size": lambda g: g.size,
    "skewness": lambda g: g.skewness,
}
#: of what errors are estimated
_ERRED = ("scalar_curvature", "second_fundamental_form_norm")
#: how many times as much memory errors take as jets
_COPIES = 4
CURVED = list(Verdict).index(Verdict.CURVED)

#: picks some of the outputs of a map, `[..., D]` -> `[..., m]`
Pick = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Surface:
    """What of a map is measured. **Attributes:** `pick`, from its jets; `family`; `shape`, of what is picked."""

    pick: Pick
    family: Gaussian | ParametricFamily
    shape: tuple[int, ...] | None = None

    @classmethod
    def seen(cls, lens: Lens, k: int) -> Surface:
        """What a lens makes of states."""
        return cls(partial(lens.jets, k=k), lens.family, lens.shape)


#: by name
Surfaces = Mapping[str, Surface]


class Measured:
    """The numbers of some surfaces that one map draws on a chart: all its outputs, or those of one head.

    **Args:** `surfaces`: by name, which outputs, and their family. Jets are computed once for all of them.

    **Raises:** what `StatisticalManifold` and its engines raise; points where the metric is degenerate are no error.
    """

    def __init__(
        self,
        graph: Graph,
        chart: Chart,
        points: Float[Tensor, "P k"],
        surfaces: Surfaces,
        *,
        engine: str = "taylor",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.graph, self.chart, self.points, self.surfaces = graph, chart, points, surfaces
        manifold = StatisticalManifold(graph, chart, engine=engine, dtype=dtype, degenerate="nan")
        self._engine, self._u = manifold.engine, points.to(chart.point.device, dtype)
        names = QUANTITIES | CORNERS | _BESIDE
        with without(DegenerateImmersionWarning):  # such points have an error in their row
            found = self._read(self._engine, self._u, lambda geometry: [read(geometry) for read in names.values()], 1)
        #: by surface, where numbers were computed in more bits, and the errors there
        self.renewed: dict[int, tuple[Tensor, Tensor]] = {}
        #: for each surface, by name of a quantity, `[P]`
        self.numbers = [dict(zip(names, columns, strict=True)) for columns in found]

    @property
    def read(self) -> bool:
        """Whether its outputs are the parameters of a family with a curvature of its own."""
        return any(isinstance(one.family, ParametricFamily) for one in self.surfaces.values())

    def turn(self, own: Mapping[str, Tensor], error: Tensor) -> Tensor:
        """How far one surface may turn, by the error of its `|II|`: what does not bend is as curved as its space."""
        bend = turn(own["form"], error, own["size"])
        return bend + float("inf") if self.read else bend

    @property
    def memory(self) -> int:
        """About how many bytes its jets take: as many points are taken at a time as fit into a chunk, but one."""
        one = _COPIES * self._engine.bytes_per_point
        return max(one, min(one * len(self.points), self._engine.chunk_memory or one))

    def errors(self, chosen: Int[Tensor, " n"]) -> Float[Tensor, "surfaces 2 n"]:
        """The errors of the scalar curvature and of `|II|` at some of the points."""
        source = _Shared(self._engine)
        return self._read(source, self._u[chosen], lambda geometry: [geometry.error(name) for name in _ERRED], _COPIES)

    @torch.no_grad()
    def in_more_bits(self, surface: int, at: Int[Tensor, " n"]) -> list[str]:
        """Numbers of a surface at some points from more bits, as `StatisticalManifold.measure` has them.

        They take the place of those that are there, and `errors` of the scalar curvature and of `|II|` with them.

        **Returns:** why points could not be computed so.
        """
        one, u = list(self.surfaces.values())[surface], self._u[at]
        graph = getattr(self._engine, "graph", None)
        graphs = None if graph is None else [graph]
        before = refined(self._engine, self.chart, u, self._engine.jet(u), one.family, "nan", one.pick, one.shape)
        all_ = torch.ones(len(at), dtype=torch.bool, device=u.device)
        found, stuck = in_more_bits(before, graphs, self.chart, u, one.family, all_, one.pick)
        for name, read in (QUANTITIES | CORNERS | _BESIDE).items():
            self.numbers[surface][name][at] = read(found)
        self.renewed[surface] = (at, torch.stack([found.error(name) for name in _ERRED]))
        return stuck

    @torch.no_grad()
    def _read(
        self, source: Jets, u: Tensor, read: Callable[[Geometry], list[Tensor]], copies: int
    ) -> Float[Tensor, "surfaces q P"]:
        def piece(chunk: Tensor) -> Tensor:
            jet, found = source.jet(chunk), []
            for one in self.surfaces.values():
                geometry = refined(source, self.chart, chunk, jet, one.family, "nan", one.pick, one.shape)
                found.append(torch.stack(read(geometry)))
            return torch.stack(found)

        one, chunk = copies * self._engine.bytes_per_point, self._engine.chunk_memory
        # how much is taken at a time, and no budget of anybody's: a point that takes more is taken alone
        return torch.cat(list(in_chunks(piece, u, one, chunk and max(chunk, one))), -1)


class _Shared:
    """Jets of an engine, those along the chart's own directions computed once for all surfaces and their errors."""

    def __init__(self, engine: Jets) -> None:
        self._engine, self._kept = engine, list[tuple[Tensor, Tensor]]()

    def jet(self, u: Tensor, basis: Tensor | None = None) -> Tensor:
        if basis is not None:
            return self._engine.jet(u, basis)
        for before, jet in self._kept:
            if before.shape == u.shape and torch.equal(before, u):
                return jet
        self._kept = [*self._kept[-1:], (u, self._engine.jet(u))]
        return self._kept[-1][1]


def rows(
    measured: Sequence[Measured], errors: str = "sample", precision: str = "working"
) -> list[dict[str, list[Row]]]:
    """One row a point for each surface of some charts of one map, with an error and a verdict.

    **Args:** `errors`, a key of `ERRORS`: where they are estimated; `precision`, one of `PRECISIONS`.

    **Returns:** for each chart, by surface, rows with `point`, `u`, `rerouted`, the numbers of `QUANTITIES`,
    `scalar_curvature_error`, `verdict` and `error`.
    """
    found: list[dict[str, list[Row]]] = []
    all_judged = _judged(measured, _chosen(measured, ERRORS[errors]), precision == "auto")
    for one, judged in zip(measured, all_judged, strict=True):
        places = list(
            zip(
                range(len(one.points)),
                one.points.tolist(),
                rerouted(one.graph, one.chart, one.points).tolist(),
                strict=True,
            )
        )
        found.append({})
        curved = any((codes == CURVED).any() for _, codes in judged)
        proved = one.chart.k == 1 or (not (curved or one.read) and affine(one.graph))
        for name, own, (error, codes) in zip(one.surfaces, one.numbers, judged, strict=True):
            kept = QUANTITIES | CORNERS if one.read else QUANTITIES
            columns = [own[quantity].tolist() for quantity in kept]
            verdicts = words(codes.clamp_max(0) if proved else codes)
            numbers = zip(*columns, strict=True)
            found[-1][name] = [
                _row(*place, wrong, verdict, dict(zip(kept, values, strict=True)))
                for place, wrong, verdict, values in zip(places, error.tolist(), verdicts, numbers, strict=True)
            ]
    return found


def _judged(
    measured: Sequence[Measured], chosen: Sequence[Int[Tensor, " _"]], more_bits: bool
) -> list[list[tuple[Tensor, Tensor]]]:
    """For each chart and each of its surfaces the errors of the scalar curvature, and positions among `Verdict`."""
    estimated = {i: one.errors(chosen[i]) for i, one in enumerate(measured) if len(chosen[i])}
    errors: list[list[list[Tensor]]] = []  # for each chart and surface those of the scalar curvature and of |II|
    for number, one in enumerate(measured):
        errors.append([])
        for surface, own in enumerate(one.numbers):
            known = [(measured[i].numbers[surface], chosen[i], of[surface]) for i, of in estimated.items()]
            both = [_everywhere(name, own, known, which) for which, name in enumerate(("scale", "form"))]
            if number in estimated:
                _put(both, chosen[number], estimated[number][surface])
            errors[-1].append(both)

    def named() -> list[list[Tensor]]:
        return [
            [
                decided(own["scalar_curvature"], scal, own["scale"], one.turn(own, form))
                for own, (scal, form) in zip(one.numbers, errors[number], strict=True)
            ]
            for number, one in enumerate(measured)
        ]

    codes = named()
    sizes = [len(one.points) for one in measured]
    before = torch.cat([at + sum(sizes[:number]) for number, at in enumerate(chosen)])
    together = [torch.cat([codes_.cpu() for codes_ in of_surface]) for of_surface in zip(*codes, strict=True)]
    odd = torch.zeros(sum(sizes), dtype=torch.bool)
    for of_surface in together:
        odd[exceptional(of_surface, before)] = True
    for number, (one, here) in enumerate(zip(measured, odd.split(sizes), strict=True)):
        if here.any():
            at = here.nonzero()[:, 0]
            for both, new in zip(errors[number], one.errors(at), strict=True):
                _put(both, at, new)
    if more_bits:
        _refine(measured, errors)
    if more_bits or odd.any():
        codes = named()
    return [
        [(scal, of) for (scal, _), of in zip(errors[number], codes[number], strict=True)]
        for number in range(len(measured))
    ]


def _refine(measured: Sequence[Measured], errors: Sequence[Sequence[Sequence[Tensor]]]) -> None:
    """Numbers and errors in more bits, where they are poor."""
    stuck, count = list[str](), 0
    for one, of_chart in zip(measured, errors, strict=True):
        for surface, (own, both) in enumerate(zip(one.numbers, of_chart, strict=True)):
            at = poor(own["scalar_curvature"], both[0], own["scale"]).nonzero()[:, 0]
            if len(at):
                stuck, count = stuck + one.in_more_bits(surface, at), count + len(at)
                _put(both, *one.renewed[surface])
    warn_of_stuck(stuck, count)


def _put(errors: Sequence[Tensor], at: Int[Tensor, " n"], own: Float[Tensor, "2 n"]) -> None:
    """Errors of their own in the place of those that were carried over."""
    for old, new in zip(errors, own, strict=True):
        old[at] = torch.where(new.isnan(), old[at], new.to(old))


def _chosen(measured: Sequence[Measured], one_in: int) -> list[Int[Tensor, " _"]]:
    """The points of each chart at which errors are estimated: of all charts those of the most skew tangents."""
    worst = [
        torch.stack([own["skewness"].cpu() for own in one.numbers]).nan_to_num(nan=0.0).amax(0) for one in measured
    ]
    together = torch.cat(worst)
    mask = torch.zeros_like(together, dtype=torch.bool)
    mask[sample(together, one_in)] = True
    return [part.nonzero()[:, 0] for part in mask.split([len(part) for part in worst])]


def _everywhere(
    name: str, own: Mapping[str, Tensor], known: Sequence[tuple[Mapping[str, Tensor], Tensor, Tensor]], which: int
) -> Float[Tensor, " P"]:
    """Errors at the points of one surface, carried over from those of it where they were estimated."""
    scales = torch.cat([numbers[name][at].to(own[name]) for numbers, at, _ in known])
    errors = torch.cat([of[which].to(own[name]) for _, _, of in known])
    return carried(errors, scales, own[name])


def _row(
    point: int, u: list[float], rerouted: bool, error: float, verdict: str | None, numbers: dict[str, float]
) -> Row:
    small = numbers["largest_stretch"] < NEGLIGIBLE
    row: Row = {"point": point, "u": u, "rerouted": rerouted, "negligible_image": small, **numbers}
    lost = "the metric is degenerate here: some direction of the chart changes nothing"
    return row | {"scalar_curvature_error": error, "verdict": verdict, "error": None if verdict else lost}
