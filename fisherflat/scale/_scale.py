"""A curvature with all that gives it a size, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fisherflat._arrays import integer, number
from fisherflat._display import Card, displayed
from fisherflat.errors import InputError
from fisherflat.parts.readings import canonical
from fisherflat.scale._reference import counted, less_curved
from fisherflat.scale._sphere import radius, triangle_side
from fisherflat.spaces.families import Gaussian

CALIBRATED = "calibrated"


@displayed
@dataclass(frozen=True)
class Scale:
    """What a scalar curvature means; see `of`.

    **Attributes:**

    - `scalar_curvature` [1/σ²], its absolute `error`, and the dimension `k` of the surface.
    - `radius` [σ], of a sphere (or, negative, of a saddle) as curved; `side` [σ], of the equilateral triangle whose
      angles sum to one degree more or fewer than 180.
    - `cloud` [σ]: how far outputs typically lie from their mean, the root of the width; `None` where that is unknown.
    - `chart_side`: `side` in units of the chart; `None` where its stretch is unknown.
    - `less_curved`: the share of the reference layers that are less curved; `None` where there are none to compare.
    - `part`, `reading`, of the layer, if given; `unit`, what σ is, in words.
    """

    scalar_curvature: float
    error: float
    k: int
    radius: float
    side: float
    cloud: float | None
    chart_side: float | None
    less_curved: float | None
    part: str | None
    reading: str | None
    unit: str

    @property
    def known(self) -> bool:
        """Whether the curvature is known to differ from zero; its error may be too large to say so."""
        return abs(self.scalar_curvature) > self.error

    def sentences(self) -> list[str]:
        """What it means for people who know no geometry: how it bends, on which lengths that shows, who bends less."""
        if math.isnan(self.scalar_curvature):
            return ["The curvature is not known, so that there is nothing to compare it with."]
        if self.known:
            said = [self._bend(), self._triangle()]
        elif self.error == 0:
            said = ["This is flat: however large a triangle is, its angles sum to 180°."]
        else:
            said = [self._bound()]
        said += [self._rank()] if self.less_curved is not None and self.known else []
        return [*said, f"Here σ is {self.unit}."]

    def __str__(self) -> str:
        return " ".join(self.sentences())

    def _bend(self) -> str:
        value, shape = _signed(self.scalar_curvature), "ball" if self.scalar_curvature > 0 else "saddle"
        bends = f"A scalar curvature of {value} bends like a {shape} of radius {_plain(self.radius)} σ"
        if self.cloud is None:
            return f"{bends}."
        far = f"{_plain(self.radius / self.cloud)} times as far as outputs typically lie from their mean"
        return f"{bends}, {far} ({_plain(self.cloud)} σ)."

    def _triangle(self) -> str:
        total = 181 if self.scalar_curvature > 0 else 179
        chart = "" if self.chart_side is None else f", about {_plain(self.chart_side)} units of the chart,"
        sides = f"sides of {_plain(self.side)} σ{chart}"
        return f"A triangle on it needs {sides} before its angles sum to {total}° and not to 180°."

    def _bound(self) -> str:
        return (
            f"The curvature cannot be told from zero. Its size is at most {_plain(self.error)}: no more than that of a "
            f"ball or a saddle of radius {_plain(self.radius)} σ, on which the angles of a triangle with sides of "
            f"{_plain(self.side)} σ sum to 180°, give or take one."
        )

    def _rank(self) -> str:
        count, layers = counted(str(self.part), str(self.reading))
        those = f"{count} measurements of {layers} reference layers ({self.part}, {self.reading})"
        share = self.less_curved or 0.0
        if share == 0:
            return f"None of the {those} is less curved."
        return f"It is more curved than {'all' if share == 1 else f'{100 * share:.0f} % of the'} {those}."

    def _card(self) -> Card:
        first, *rest = self.sentences()
        return Card(first, {}, ("",), [(sentence,) for sentence in rest])


def of(
    scalar_curvature: Any,
    k: Any = 2,
    *,
    error: Any = 0.0,
    covariance: Any = CALIBRATED,
    width: Any = None,
    volume_density: Any = None,
    part: Any = None,
    reading: str = "live",
) -> Scale:
    """Whether a scalar curvature is large: as a radius, as a triangle, and among the reference layers.

    A surface need not be a sphere to be compared with one: the sphere (of negative curvature: the hyperbolic space) of
    the same dimension with the same scalar curvature is meant.

    **Args:**

    - `scalar_curvature` [1/σ²], NaN where it is not known; `k`, the dimension of the surface, from 2.
    - `error`: how far off it may be, NaN where nobody knows. A value that does not exceed its error counts as not known
      to differ from zero, and `radius` and `side` are then those of the error; with an infinite one nothing is known.
    - `covariance`: what it was measured in, which decides what σ is: `"calibrated"`, or the family.
    - `width`: how many channels the part puts out, so that lengths can be compared with the spread of whole outputs,
      and curvatures with those of models of another width. Of use with a calibrated covariance alone.
    - `volume_density`: √det g at the point, to say lengths in units of the chart, too: `volume_density^(1/k)` is how
      many σ a unit of the chart is, averaged over directions (geometrically).
    - `part`, `reading`: of a layer, as in a table of `fisherflat.analyze`, to compare it with the reference layers;
      these have k = 2 and calibrated covariances, and nothing else is compared with them.

    **Returns:** a `Scale`.

    **Raises:** `InputError` for numbers that are out of range, infinite ones among them, and for what is no reading.

    >>> import fisherflat as ff
    >>> found = ff.scale.of(-0.005)
    >>> found.radius, round(found.side, 2)
    (20.0, 4.03)
    >>> print(found.sentences()[0])
    A scalar curvature of −0.005 bends like a saddle of radius 20 σ.
    """
    k, value, off = (
        integer(k, "k", 2),
        number(scalar_curvature, "scalar_curvature"),
        number(error, "error", most=math.inf),
    )
    if off < 0:
        raise InputError(f"error is a size, from 0, got {off:g}")
    off = 0.0 if math.isnan(off) else off
    value = value if math.isfinite(off) else math.nan  # an error without bound leaves nothing of the value
    reading, unit = canonical(reading), _unit(covariance)
    calibrated = isinstance(covariance, str)
    channels = None if width is None or not calibrated else integer(width, "width", 1)
    density = None if volume_density is None else number(volume_density, "volume_density")
    if density is not None and density < 0:
        raise InputError(f"volume_density is √det g, from 0, got {density:g}")
    decided = math.copysign(off, value) if abs(value) <= off else value
    round_as = radius(decided, k)
    side = round_as * triangle_side(math.copysign(1.0, decided))  # in this order, or the smallest numbers vanish
    return Scale(
        scalar_curvature=value,
        error=off,
        k=k,
        radius=round_as,
        side=side,
        cloud=None if channels is None else math.sqrt(channels),
        chart_side=side / density ** (1 / k) if density and math.isfinite(side) else None,
        less_curved=less_curved(value, part, reading, width=channels) if part and k == 2 and calibrated else None,
        part=part,
        reading=reading if part else None,
        unit=unit,
    )


def _unit(covariance: Any) -> str:
    """What σ is, in words."""
    if isinstance(covariance, str):
        if covariance != CALIBRATED:
            raise InputError(f"covariance is {CALIBRATED!r} or a family, got {covariance!r}")
        return "the standard deviation of the outputs, channel by channel"
    if not isinstance(covariance, Gaussian):
        return f"one unit of Fisher-Rao length of {type(covariance).__name__}"
    if covariance.covariance.dim() == 0:
        return f"{_plain(math.sqrt(covariance.covariance.item()))}, in the units of the outputs"
    return "one standard deviation of the given covariance, along each direction"


def _plain(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.3g}"


def _signed(value: float) -> str:
    return f"{value:.3g}".replace("-", "−", 1) if value < 0 else f"{value:.3g}"
