"""The geometry of a chart's image after every block, from one pass of 2-jets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from fisherflat._arrays import choice
from fisherflat._display import Card, displayed
from fisherflat._renamed import former
from fisherflat._typing import Float, Int, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import ERRORS, PRECISIONS, Verdict, words
from fisherflat.models.covariances import Covariance, mean_variance
from fisherflat.parts.readings import LIVE
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian, ParametricFamily
from fisherflat.studies.depth._depths import NEEDED, Depths, judged, measure_depths
from fisherflat.studies.depth._stack import Stack
from fisherflat.studies.depth._subject import read_stack

if TYPE_CHECKING:
    import pandas


#: the quantities that a profile holds for each depth, one number a point
QUANTITIES = (
    "scalar_curvature",
    "smallest_sectional_curvature",
    "largest_sectional_curvature",
    "second_fundamental_form_norm",
    "mean_curvature_norm",
    "volume_density",
    "condition_number",
)

#: of families with finitely many outcomes, beside them
CORNERS = ("uncertainty", "relative_curvature")

#: of profiles in all directions
SAMPLED = ("scalar_curvature_low", "scalar_curvature_high", "planes")

_UNDECIDED = list(Verdict).index(Verdict.UNDECIDED)


@displayed
@dataclass(frozen=True, eq=False)
class DepthProfile:
    """The geometry of a chart's image after 0, 1, ... L maps: blocks, or halves of them. Depth 0 is the chart itself.

    **Attributes:**

    - `scalar_curvature` `[L+1, *batch]`, `smallest_sectional_curvature` and `largest_sectional_curvature` over all
      planes (see `Geometry.sectional_extremes`), in units of 1 / covariance.
    - `second_fundamental_form_norm` and `mean_curvature_norm` `[L+1, *batch]`, in units of its square root.
    - `volume_density` and `condition_number` of the metric, `[L+1, *batch]`.
    - `scalar_curvature_error` `[L+1, *batch]`: how far off rounding may have put it, see docs/precision.md; `verdicts`,
      what is known of it, as positions among `fisherflat.geometry.Verdict`, -1 where there is no number. Both are
      `None` for a profile of an older release.
    - `scalar_curvature_low`, `scalar_curvature_high` and `planes` `[L+1, *batch]`, of a profile in all directions: the
      95 % interval and how many random planes it is from; `said`, a sentence for each depth. All else is NaN there.
    - `covariance` `[L+1]`, that of each depth where it is a number, else NaN; `variance` `[L+1]`, the mean variance of
      an output under it; `measured_in`, the covariance as it was asked for; `output`, whether the outputs of `all`
      tokens are the surface, or of those that `moved`.
    - `passed` `[L+1]`, how many blocks have been passed; `labels`, of the L maps.
    - `k`, how many coordinates move; `reading`, what was held.
    - `family`, as what the states are read, `None` for the mean of a Gaussian; of families with finitely many outcomes
      `uncertainty` and `relative_curvature` `[L+1, *batch]`, see `Geometry`.
    """

    scalar_curvature: Float[Tensor, "depths *batch"]
    smallest_sectional_curvature: Float[Tensor, "depths *batch"]
    largest_sectional_curvature: Float[Tensor, "depths *batch"]
    second_fundamental_form_norm: Float[Tensor, "depths *batch"]
    mean_curvature_norm: Float[Tensor, "depths *batch"]
    volume_density: Float[Tensor, "depths *batch"]
    condition_number: Float[Tensor, "depths *batch"]
    covariance: Float[Tensor, " depths"]
    passed: Float[Tensor, " depths"]
    labels: tuple[str, ...]
    k: int
    reading: str = LIVE
    scalar_curvature_error: Float[Tensor, "depths *batch"] | None = None
    verdicts: Int[Tensor, "depths *batch"] | None = None
    family: str | None = None
    uncertainty: Float[Tensor, "depths *batch"] | None = None
    relative_curvature: Float[Tensor, "depths *batch"] | None = None
    scalar_curvature_low: Float[Tensor, "depths *batch"] | None = None
    scalar_curvature_high: Float[Tensor, "depths *batch"] | None = None
    planes: Float[Tensor, "depths *batch"] | None = None
    said: tuple[str, ...] = ()
    variance: Float[Tensor, " depths"] | None = None
    measured_in: str = ""
    output: str = "all"

    dim = former("k")

    @property
    def depth(self) -> int:
        """L, the number of maps."""
        return self.scalar_curvature.shape[0] - 1

    @property
    def decided(self) -> Float[Tensor, "depths *batch"]:
        """The scalar curvature, NaN where it is undecided, so that it enters no mean."""
        if self.verdicts is None:
            return self.scalar_curvature
        return self.scalar_curvature.masked_fill(self.verdicts == _UNDECIDED, float("nan"))

    @property
    def mean_sectional_curvature(self) -> Float[Tensor, "depths *batch"]:
        """The mean over all planes, `scal / (k (k - 1))`; NaN for k = 1."""
        planes = self.k * (self.k - 1)
        return self.scalar_curvature / planes if planes else torch.full_like(self.scalar_curvature, float("nan"))

    @property
    def blocks(self) -> DepthProfile:
        """The profile after whole blocks alone."""
        whole = (self.passed == self.passed.round()).nonzero()[:, 0]
        names = (
            *QUANTITIES,
            *CORNERS,
            *SAMPLED,
            "covariance",
            "variance",
            "passed",
            "scalar_curvature_error",
            "verdicts",
        )
        columns = {name: value[whole] for name in names if (value := getattr(self, name)) is not None}
        said = tuple(self.said[i] for i in whole.tolist()) if self.said else ()
        return replace(self, **columns, said=said, labels=tuple(f"layer {i}" for i in range(len(whole) - 1)))

    def with_covariance(self, covariance: float) -> DepthProfile:
        """The same geometry measured with one number as the covariance of every depth; it only sets the unit.

        **Raises:** `InputError` where the covariance of some depth is no number, or `covariance` is not positive.
        """
        if not covariance > 0 or self.covariance.isnan().any():
            raise InputError(
                "only a profile of Gaussians whose covariances are numbers can be converted, and only to a positive one"
            )
        ratio = (covariance / self.covariance).to(self.scalar_curvature)
        ratio = ratio.reshape(-1, *(1,) * (self.scalar_curvature.dim() - 1))
        powers = {"condition_number": 0.0, "volume_density": -self.k / 2}
        powers |= dict.fromkeys(("second_fundamental_form_norm", "mean_curvature_norm"), 0.5)
        columns = {name: getattr(self, name) * ratio ** powers.get(name, 1.0) for name in QUANTITIES}
        for name in ("scalar_curvature_error", *SAMPLED[:2]):
            if (value := getattr(self, name)) is not None:
                columns[name] = value * ratio
        same = torch.full_like(self.covariance, covariance)
        return replace(self, **columns, covariance=same, variance=same, measured_in=str(covariance))

    @property
    def table(self) -> pandas.DataFrame:
        """A row for each depth and point; `depth` is how many blocks have been passed, `after` the last map."""
        import pandas

        columns = {name: getattr(self, name).reshape(self.depth + 1, -1) for name in QUANTITIES}
        points = columns["scalar_curvature"].shape[1]
        nothing = torch.full_like(self.scalar_curvature, float("nan"))
        error = nothing if self.scalar_curvature_error is None else self.scalar_curvature_error
        columns["scalar_curvature_error"] = error.reshape(self.depth + 1, -1)
        corners = {name: value for name in (*CORNERS, *SAMPLED) if (value := getattr(self, name)) is not None}
        columns |= {name: value.reshape(self.depth + 1, -1) for name, value in corners.items()}
        about: dict[str, Any] = {}
        if self.family is None:
            variance = self.covariance if self.variance is None else self.variance
            about = {"covariance": self.measured_in, "variance": variance.repeat_interleave(points).numpy()}
            about["output"] = self.output
        verdicts = torch.full_like(nothing, -1, dtype=torch.int64) if self.verdicts is None else self.verdicts
        return pandas.DataFrame(
            {
                "depth": self.passed.repeat_interleave(points).numpy(),
                "after": [label for label in ("chart", *self.labels) for _ in range(points)],
                "point": torch.arange(points).repeat(self.depth + 1).numpy(),
                **{name: values.reshape(-1).cpu().numpy() for name, values in columns.items()},
                **about,
                "verdict": words(verdicts.reshape(-1)),
            }
        )

    def _card(self) -> Card:
        mean = self.decided.reshape(len(self.passed), -1).nanmean(1)
        rows = list(zip(self.passed.tolist(), ("chart", *self.labels), mean.tolist(), strict=True))
        points = self.scalar_curvature[0].numel()
        columns = ("blocks passed", "after", "mean scalar curvature")
        return Card("DepthProfile", {"reading": self.reading, "k": self.k, "points": points}, columns, rows)


def depth_profile(
    blocks: Any,
    chart: Chart | None = None,
    u: Any = None,
    *,
    family: Gaussian | ParametricFamily | str | None = None,
    prompt: Any = None,
    halves: bool = False,
    reading: str = LIVE,
    degenerate: str = "raise",
    errors: str = "sample",
    covariance: Covariance | None = None,
    output: str = "all",
    memory: int | None = None,
    precision: str = "working",
) -> DepthProfile:
    """The geometry of the chart's image after every block, from one pass of 2-jets.

    **Args:**

    - `blocks`: maps of one tensor, in order, as a sequence, a `ModuleList` or a `Sequential`; a single map; or, with a
      `prompt`, a model: loaded, a module, or what `fisherflat.load` takes.
    - `chart`; of a model by default two principal directions of the last word, a unit one standard deviation.
    - `u` `[*batch, k]`, coordinates in the chart, by default its point.
    - `family`: a Gaussian for all depths (default `Gaussian()`), or `"calibrated"`: at each depth isotropic, with the
      variance of that depth's own output over its first axis (tokens) at the chart's point, which has no unit. Of a
      model `"next-token"`, `"class"` or `"direction"`: what its own final norm and head make of the states at each
      depth (`Model.readout`). Or one of `fisherflat.families`, whose parameters the outputs are, of a model behind its
      final norm.
    - `covariance`, in the place of a `family`: as in `fisherflat.analyze`, fitted at each depth to its own outputs on
      the prompt (`"words"`, `"all"`, `"diagonal"`, `"full"`), a number or a `Gaussian`. `output`: the outputs `[n, d]`
      of `"all"` tokens are the surface, or those of the tokens that `"moved"`.
    - `prompt`, of a model: a text, token ids `[n]`, or hidden states `[n, d]`.
    - `halves`: measure within each block too, behind its attention, where it comes apart there.
    - `reading`: what is held where the chart's point arrives, such as `"frozen pattern"` (see `fisherflat.readings`).
    - `degenerate` as in `StatisticalManifold`; `memory`, a budget in bytes.
    - `errors`: estimate that of the scalar curvature at a `"sample"` of the points and carry it over to the others, or
      at `"all"`.
    - `precision`: `"auto"` computes points of whose scalar curvature fewer than six digits are right in more bits, as
      `StatisticalManifold.measure` does.

    **Returns:** a `DepthProfile` of L maps: `.scalar_curvature` `[L+1, *batch]` in units of 1 / covariance, and more;
    depth 0 is the chart itself.

    **Raises:** `InputError`, `MapError`, `TraceError`, `DegenerateImmersionError`, `CovarianceError`, and for a model
    `CheckpointError`.

    >>> import torch, fisherflat as ff
    >>> bowl = lambda x: x + torch.stack([0 * x[0], 0 * x[1], x[0] ** 2 + x[1] ** 2])
    >>> chart = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    >>> ff.depth_profile([bowl, bowl], chart, torch.zeros(2)).scalar_curvature.tolist()  # 8 L²
    [0.0, 8.0, 32.0]
    """
    stack = read_stack(blocks, chart, prompt, family, halves, reading, covariance, output)
    where = torch.zeros(stack.chart.k) if u is None else u
    return profile(stack, where, degenerate=degenerate, errors=errors, memory=memory, precision=precision)


def profile(
    stack: Stack,
    u: Any,
    *,
    degenerate: str = "raise",
    errors: str = "sample",
    memory: int | None = None,
    precision: str = "working",
) -> DepthProfile:
    """The profile of a stack that has been traced; see `depth_profile`."""
    choice(errors, "errors", ERRORS)
    choice(precision, "precision", PRECISIONS)
    corners = () if stack.lenses is None else CORNERS
    plain = (name for name in QUANTITIES if "sectional" not in name)
    names = dict.fromkeys((*plain, "sectional_extremes", *NEEDED, *corners))
    depths = Depths(stack, memory)
    found = measure_depths(depths, u, list(names), degenerate=degenerate)
    error, verdicts = judged(depths, u, found, errors, precision)
    kept = (*QUANTITIES, *corners, "sectional_extremes")
    columns: dict[str, Any] = {name: value for name, value in found.items() if name in kept}
    smallest, largest = columns.pop("sectional_extremes").unbind(-1)
    columns |= {"smallest_sectional_curvature": smallest, "largest_sectional_curvature": largest}
    return DepthProfile(
        **columns, **measured_with(stack), passed=stack.passed, labels=stack.labels, k=stack.chart.k,
        reading=stack.reading, scalar_curvature_error=error, verdicts=verdicts, family=stack.family,
    )  # fmt: skip


def measured_with(stack: Stack) -> dict[str, Any]:
    """What a profile says of the covariances of a stack."""
    nothing = float("nan")
    plain = stack.lenses is None
    numbers = [g.covariance.item() if plain and g.covariance.dim() == 0 else nothing for g in stack.families]
    means = [mean_variance(g) if plain else nothing for g in stack.families]
    return {
        "covariance": torch.tensor(numbers, dtype=torch.float64),
        "variance": torch.tensor(means, dtype=torch.float64),
        "measured_in": stack.covariance,
        "output": stack.output,
    }
