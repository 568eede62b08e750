"""The statistical manifold of a map on a chart: asks an engine for jets and hands them to geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch

from fisherflat._arrays import as_float64, choice, flag, integer, some, strings
from fisherflat._modes import lasting, unrounded
from fisherflat._renamed import former
from fisherflat._typing import Float, Tensor
from fisherflat.errors import DegenerateImmersionWarning, InputError, PrecisionWarning, without
from fisherflat.geometry._dual import DualMeasures
from fisherflat.geometry._engines import ENGINES, Engine, mapped
from fisherflat.geometry._more_bits import in_more_bits
from fisherflat.geometry._paths import Paths
from fisherflat.geometry._quantities import POLICIES, Geometry
from fisherflat.geometry._quantities import quantities as known_quantities
from fisherflat.geometry._recharted import refined
from fisherflat.geometry._sampling import Sampling
from fisherflat.geometry._taped import degenerate_tape, elsewhere, reached, recomputed
from fisherflat.geometry._traced import measured
from fisherflat.geometry._words import (
    ERRORS,
    JUDGED,
    decided,
    exceptional,
    filled,
    sample,
    turn,
    warn_of,
    warn_of_stuck,
    words,
)
from fisherflat.jets import Jet
from fisherflat.jets.engines import in_chunks
from fisherflat.jets.graph import Graph
from fisherflat.parts.structure import affine
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Family, Gaussian, ParametricFamily, check

#: in how many bits: those of the working precision, or more where they do not suffice
PRECISIONS = ("working", "auto")


class StatisticalManifold(Paths, DualMeasures, Sampling):
    """The distributions with parameters `mean(chart(u))` and the Fisher-Rao metric, u in `R^k`.

    By default Gaussians `N(mean(chart(u)), Sigma)` with one covariance; `fisherflat.families` has others.

    **Args:**

    - `mean`: an `nn.Module` or a callable, one input tensor to one output tensor, no batch axis; outputs of any shape
      are flattened to `[D]`; for the families of `fisherflat.families` whose parameters are several, it may return
      several tensors, which are joined along their last axis. A module is evaluated in eval mode, its weights in the
      working precision and as they are now: once they have changed, the manifold says so and is to be made anew.
    - `chart`: what moves, see `fisherflat.charts`; its device is where everything runs.
    - `family`: `Gaussian(covariance)`, in squared output units, another of `fisherflat.families`, whose parameters the
      outputs then are, or a `Family` of your own.
    - `engine`: `"taylor"` (2-jets through the traced graph), `"xla"` or `"cudagraphs"` (the same, compiled for many
      points, which needs jax, or captured, on a GPU) or `"autodiff"` (`torch.func`, for any callable).
    - `dtype`: the working precision, float64 (default) or float32.
    - `degenerate`: `"raise"`, or `"nan"` for NaN where the metric is singular or the map not finite, with one
      `DegenerateImmersionWarning` that counts such points.
    - `memory`: a budget in bytes for the jets; default a share of what is free.
    - `differentiable`: quantities have gradients, see docs/training.md, and follow the weights: by these, by `u`, by
      what the chart was made of and by the covariance, wherever torch records them.

    All quantities take `u` `[*batch, k]` and return `*batch` and then the axes of docs/conventions.md.

    **Raises:** `MapError` where the map fails on the chart's point or returns no single tensor, `InputError` where
    k > D or an argument is unknown, `CovarianceError` where the covariance does not fit.

    For the reading *frozen pattern* pass `fisherflat.freeze(module, at)` as `mean`; for *weights* use
    `charts.attention_weights`. The conventions are those of docs/conventions.md (Amari, *Information Geometry and Its
    Applications*, 2016, chapter 2; Lee, *Introduction to Riemannian Manifolds*, 2018, chapter 8).

    >>> import torch, fisherflat as ff
    >>> M = ff.StatisticalManifold(lambda u: torch.cat([u, u.square().sum()[None]]), ff.charts.identity(2))
    >>> M.scalar_curvature([0.0, 0.0]).item()  # 8 a² for z = a (x² + y²)
    8.0
    """

    @unrounded
    def __init__(
        self,
        mean: Callable[[Tensor], Tensor],
        chart: Chart,
        family: Family | ParametricFamily | None = None,
        engine: str = "taylor",
        *,
        dtype: torch.dtype = torch.float64,
        degenerate: str = "raise",
        memory: int | None = None,
        differentiable: bool = False,
    ) -> None:
        if not isinstance(chart, Chart):
            raise InputError(f"chart must come from fisherflat.charts, got {type(chart).__name__}")
        choice(engine, "engine", ENGINES)
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype must be torch.float64 or torch.float32, got {dtype}; derivatives need the digits")
        choice(degenerate, "degenerate", POLICIES)
        if family is not None and (isinstance(family, type) or not isinstance(family, Family | ParametricFamily)):
            raise InputError(
                "family must be a fisherflat.Gaussian, e.g. Gaussian(0.5), or another fisherflat.families.Family; got "
                + (f"the class {family.__name__}" if isinstance(family, type) else type(family).__name__)
            )
        self.mean, self.differentiable = mean, bool(differentiable)
        self.chart = chart.taped if differentiable else chart
        self.family: Family | ParametricFamily = family if family is not None else Gaussian()
        if memory is not None:
            memory = integer(memory, "memory, a budget in bytes,", 1)
        self.dtype, self._engine_name, self.degenerate, self._memory = dtype, engine, degenerate, memory
        joined = self.family.together if isinstance(self.family, ParametricFamily) else None
        with lasting():
            self._mapping, value = mapped(mean, chart, dtype, joined, self.differentiable)
        self.output_shape, self.ambient_dim = tuple(value.shape), value.numel()
        dim = check(self.family, self.output_shape)
        if chart.k > dim:
            few = f"the map only D = {dim} outputs"
            if dim != self.ambient_dim:
                few = f"{self.family!r} only {dim} dimensions for outputs of shape {list(self.output_shape)}"
            raise InputError(
                f"the chart has k = {chart.k} coordinates but {few}, so the metric is singular everywhere; use at most "
                f"{dim} directions"
            )

    @property
    def k(self) -> int:
        """The dimension of the manifold: how many coordinates its chart has."""
        return self.chart.k

    dim = former("k")

    @cached_property
    @unrounded
    def engine(self) -> Engine:
        """The engine, built when first needed (tracing happens here)."""
        with lasting(), torch.no_grad():
            engine = ENGINES[self._engine_name](self._mapping, self.chart, self.ambient_dim, self._memory)
        if self.differentiable:
            reached(self._mapping, engine.program)
        return engine

    @property
    def _taping(self) -> bool:
        """Whether gradients are recorded here and now."""
        return self.differentiable and torch.is_grad_enabled()

    def _points(self, u: Any, name: str = "u") -> Tensor:
        points = as_float64(u, name, tape=self.differentiable).to(device=self.chart.point.device, dtype=self.dtype)
        if points.dim() == 0 or points.shape[-1] != self.k:
            raise InputError(f"{name} must end in an axis of length k = {self.k}; it has shape {list(points.shape)}")
        if points.numel() == 0:
            raise InputError(f"{name} is empty, of shape {list(points.shape)}; pass at least one point")
        return points

    @lasting()
    @unrounded
    def _mapped(self, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        """`function(jet coefficients, points, *vectors)` over flat chunks of `tensors`, the points first.

        The results are joined in the common batch shape.
        """
        try:
            points, *others = torch.broadcast_tensors(*tensors) if len(tensors) > 1 else tensors
        except RuntimeError as error:
            shapes = " and ".join(str(list(tensor.shape)) for tensor in tensors)
            raise InputError(
                f"the leading axes of {shapes} do not fit together; one vector, or one for each point"
            ) from error
        self._mapping.unchanged()
        flat = points.reshape(-1, self.k)
        if others:
            flat = torch.cat([flat, *(tensor.reshape(-1, self.k) for tensor in others)], -1)

        def piece(chunk: Tensor) -> tuple[Tensor, ...]:
            parts = chunk.split(self.k, -1) if others else (chunk,)
            with torch.set_grad_enabled(self._taping):
                return function(self.engine.jet(parts[0].contiguous()), *parts)

        if self._taping:
            pieces = recomputed(piece, flat, self.engine.tape_per_point, self._memory)
        else:
            pieces = list(in_chunks(piece, flat, self.engine.bytes_per_point, self.engine.chunk_memory))
        joined = (parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*pieces, strict=True))
        return tuple(part.reshape((*points.shape[:-1], *part.shape[1:])) for part in joined)

    def jet(self, u: Any) -> Jet:
        """The 2-jet of the mean itself, in output units (not whitened), `[*batch, S, D]`."""
        return self._jet(self._points(u))

    @unrounded
    def at(self, u: Any) -> Geometry:
        """All quantities at `u` from one evaluation of the jet, as a `Geometry`."""
        points = self._points(u)
        jet = self._jet(points).coefficients
        flat = points.reshape(-1, self.k)
        with torch.set_grad_enabled(self._taping):
            geometry = self._geometry(jet.reshape(-1, *jet.shape[-2:]), flat).reshaped(points.shape[:-1])
        if self._taping and some(geometry.degenerate):
            raise degenerate_tape(geometry.degenerate)
        warn_of(geometry.degenerate, geometry.nearly_degenerate)
        return geometry

    def _jet(self, points: Tensor) -> Jet:
        return Jet(self._mapped(lambda jet, points: (jet,), points)[0], self.k)

    @lasting()
    def _geometry(self, jet: Tensor, points: Tensor) -> Geometry:
        return refined(self.engine, self.chart, points, jet, self.family, self.degenerate, shape=self.output_shape)

    def _measured(self, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        """`function(geometry, *vectors)` at the points, which come first, in bounded memory and with one warning."""

        def reduce(jet: Tensor, points: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
            geometry = self._geometry(jet, points)
            bad = geometry.degenerate
            if not (self._taping and some(bad)):
                return (bad, geometry.nearly_degenerate, *function(geometry, *vectors))

            def regular(points: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
                return function(self._geometry(self.engine.jet(points), points), *vectors)

            with torch.no_grad():
                blank = function(geometry, *vectors)
            return (bad, geometry.nearly_degenerate, *elsewhere(bad, blank, regular, points, *vectors))

        degenerate, near, *results = self._mapped(reduce, *tensors)
        warn_of(degenerate, near)
        return tuple(results)

    def measure(
        self, u: Any, quantities: Sequence[str], *, error: bool = False, precision: str = "working"
    ) -> dict[str, Tensor]:
        """Several quantities (names of `Geometry`'s) at once, in one pass of jets and in bounded memory.

        **Args:**

        - `u`: `[*batch, k]`.
        - `quantities`: names, e.g. `["scalar_curvature", "metric"]`.
        - `error`: add for each name, as `"<name>_error"`, an absolute error that covers rounding, see
          `Geometry.error`; it takes about five times as long.
        - `precision`: `"auto"` computes points of whose scalar curvature fewer than six digits are right in more bits,
          by the same rules in ball arithmetic (a tenth of a second a point for a small layer, seconds for a large
          one), and rounds the result. Where an op has no ball rule, or with `engine="autodiff"`, the estimate stands,
          and a `PrecisionWarning` says so.

        **Returns:** by name, tensors `[*batch, ...]`.

        **Raises:** `InputError` for a name that is none of them; the message lists those that are.

        >>> import torch, fisherflat as ff
        >>> M = ff.StatisticalManifold(lambda u: torch.cat([u, u.square().sum()[None]]), ff.charts.identity(2))
        >>> found = M.measure([0.0, 0.0], ["scalar_curvature"], error=True)
        >>> bool((found["scalar_curvature"] - 8).abs() <= found["scalar_curvature_error"])
        True
        """
        known = known_quantities()
        quantities = strings(quantities, "quantities")
        for name in quantities:
            if name not in known:
                raise InputError(f"{name!r} is not a quantity of Geometry; the known ones are {', '.join(known)}")
        choice(precision, "precision", PRECISIONS)
        flag(error, "error")
        points, stuck = self._points(u), list[str]()
        columns = [*quantities, *(f"{name}_error" for name in quantities if error)]

        def read(geometry: Geometry, at: Tensor) -> tuple[Tensor, ...]:
            if precision == "auto":
                graph = getattr(self.engine, "graph", None)
                graphs = None if graph is None else [graph]
                geometry, reasons = in_more_bits(geometry, graphs, self.chart, at, self.family)
                stuck.extend(reasons)
            errors = (geometry.error(name) for name in quantities) if error else ()
            return (*(getattr(geometry, name) for name in quantities), *errors)

        values = measured(self, quantities, points) if not error and precision == "working" else None
        found = dict(zip(columns, values or self._measured(read, points, points), strict=True))
        warn_of_stuck(stuck, points[..., 0].numel())
        return found

    def verdict(self, u: Any) -> Any:
        """What is known of the scalar curvature at each point, in one of four words, decided by its estimated error.

        They are those of `fisherflat.geometry.Verdict`: `"flat (proved)"` (a curve, an open piece of the whole space,
        or a map that is affine by its structure), `"flat to its error"`, `"undecided"` (the error exceeds the value)
        and `"curved"` (the sign of the value is right).

        **Args:** `u` `[*batch, k]`.

        **Returns:** a string, or nested lists of them, as `batch` has it; `None` where there is no geometry.

        >>> import torch, fisherflat as ff
        >>> M = ff.StatisticalManifold(lambda u: torch.cat([u, u.square().sum()[None]]), ff.charts.identity(2))
        >>> M.verdict([0.0, 0.0])
        'curved'
        """
        proved = self._proved
        return words(self._measured(lambda geometry: (geometry.verdicts(proved=proved),), self._points(u))[0])

    @property
    def _proved(self) -> bool:
        """Whether the map draws a flat piece of a flat space by its structure alone."""
        if isinstance(self.family, ParametricFamily):  # whose space is curved
            return self.k == 1
        graph = self.mean if isinstance(self.mean, Graph) else getattr(self.engine, "graph", None)
        return self.k in (1, self.ambient_dim) or (graph is not None and affine(graph))

    def judged(self, u: Any, quantities: Sequence[str], errors: str = "sample") -> dict[str, Tensor]:
        """Quantities with the error of the scalar curvature and what is known of it, at a price that studies can pay.

        **Args:** `u`, `quantities`: as in `measure`; `errors`: estimate them at a `"sample"` of the points and carry
        them over to the others, or at `"all"`.

        **Returns:** as `measure`, and `scalar_curvature_error` and `verdicts` `[*batch]`, positions among
        `fisherflat.geometry.Verdict`, -1 where there is no geometry.
        """
        points, needed = self._points(u), (*JUDGED, "size")
        found = self._measured(lambda g: tuple(getattr(g, name) for name in (*quantities, *needed)), points)
        flat = {name: value.reshape(-1) for name, value in zip(needed, found[len(quantities) :], strict=True)}
        chosen = sample(flat["skewness"], ERRORS[errors])
        names = ("scalar_curvature", "second_fundamental_form_norm")

        def estimated(which: Tensor) -> list[Tensor]:
            with without(DegenerateImmersionWarning, PrecisionWarning):  # said above
                known = self.measure(points.reshape(-1, self.k)[which], names, error=True)
            return [known[f"{name}_error"] for name in names]

        def named() -> Tensor:
            bend = turn(flat[names[1]], errors_of[1], flat["size"])
            if isinstance(self.family, ParametricFamily):
                bend = bend + float("inf")
            return decided(flat[names[0]], errors_of[0], flat["cancellation_scale"], bend, proved=self._proved)

        scales = (flat["cancellation_scale"], flat[names[1]])
        errors_of = [filled(e, chosen, scale) for e, scale in zip(estimated(chosen), scales, strict=True)]
        codes = named()
        if len(odd := exceptional(codes, chosen)):
            for error, own in zip(errors_of, estimated(odd), strict=True):
                error[odd] = own
            codes = named()
        return dict(zip(quantities, found, strict=False)) | {
            "scalar_curvature_error": errors_of[0].reshape(points.shape[:-1]),
            "verdicts": codes.reshape(points.shape[:-1]),
        }

    def metric(self, u: Any) -> Float[Tensor, "*batch k k"]:
        """The Fisher information `g_ij = d_i f . d_j f`, f the whitened mean."""
        return self.measure(u, ["metric"])["metric"]

    def christoffel(self, u: Any) -> Float[Tensor, "*batch k k k"]:
        """`[..., m, i, j] = Gamma^m_ij` of the Levi-Civita connection."""
        return self.measure(u, ["christoffel"])["christoffel"]

    def second_fundamental_form(self, u: Any) -> Float[Tensor, "*batch k k D"]:
        """`[..., i, j, :]`, normal vectors in whitened output units."""
        return self.measure(u, ["second_fundamental_form"])["second_fundamental_form"]

    def riemann(self, u: Any) -> Float[Tensor, "*batch k k k k"]:
        """`R_ijlm` with `R_0110 > 0` on a sphere."""
        return self.measure(u, ["riemann"])["riemann"]

    def ricci(self, u: Any) -> Float[Tensor, "*batch k k"]:
        """`Ric_jl = g^im R_ijlm`."""
        return self.measure(u, ["ricci"])["ricci"]

    def scalar_curvature(self, u: Any) -> Float[Tensor, "*batch"]:
        """`scal`, in units of 1 / covariance; `k (k - 1) / r^2` on a sphere of radius r."""
        return self.measure(u, ["scalar_curvature"])["scalar_curvature"]

    def mean_curvature(self, u: Any) -> Float[Tensor, "*batch D"]:
        """The mean curvature vector `H = (1/k) g^ij II_ij`, in whitened output units."""
        return self.measure(u, ["mean_curvature"])["mean_curvature"]

    def volume_density(self, u: Any) -> Float[Tensor, "*batch"]:
        """`sqrt(det g)`, the volume on the manifold per unit volume of coordinates."""
        return self.measure(u, ["volume_density"])["volume_density"]

    def sectional_curvature(self, u: Any, x: Any, y: Any) -> Float[Tensor, "*batch"]:
        """`K(x, y)` for tangent vectors `x`, `y` `[*batch, k]` (or `[k]`) in coordinates.

        **Raises:** `InputError` where they are parallel or do not end in an axis of length k.
        """
        tensors = self._points(u), self._points(x, "x"), self._points(y, "y")
        return self._measured(lambda geometry, x, y: (geometry.sectional_curvature(x, y),), *tensors)[0]

    def __repr__(self) -> str:
        return (
            f"StatisticalManifold({type(self.mean).__name__}, {self.chart!r}, {self.family!r}, "
            f"D={self.ambient_dim}, engine={self._engine_name!r})"
        )
