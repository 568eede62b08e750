"""Does curvature grow with depth, and how: power law, exponential, or not at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fisherflat._arrays import as_float64, integer
from fisherflat._display import Card, displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError


@displayed
@dataclass(frozen=True)
class Growth:
    """A fit of |curvature| against depth.

    **Attributes:**

    - `model`: `"power"` (`c depth^rate`), `"exponential"` (`c exp(rate depth)`) or `"none"`.
    - `rate`, with `low` and `high`, its 95 % interval from resampling whole trajectories; `factor`, c.
    - `aic`, Akaike's criterion of each model (smaller is better).
    - `trajectories`, how many points or seeds the interval is over.
    """

    model: str
    rate: float
    low: float
    high: float
    factor: float
    aic: dict[str, float]
    trajectories: int

    def __str__(self) -> str:
        """One plain sentence."""
        points = f"{self.trajectories} point{'' if self.trajectories == 1 else 's'}"
        interval = f"95 % interval {self.low:.3g} to {self.high:.3g}, over {points}"
        if self.model == "power":
            verb, law = ("grows" if self.rate > 0 else "decays"), f"depth^{self.rate:.3g}"
        elif self.model == "exponential":
            verb, law = ("grows" if self.rate > 0 else "decays"), f"exp({self.rate:.3g} depth)"
        else:
            return f"no systematic growth over depth (exponent of a power law {self.rate:.2g}, {interval})"
        return f"{verb} like {law} ({interval})"

    def _card(self) -> Card:
        return Card(str(self))


def growth(
    curvature: Float[Tensor, "depths *points"], *, depth: Any = None, seed: int = 0, resamples: int = 2000
) -> Growth:
    """Fit power and exponential laws to |curvature| against depth, and say which holds, if any.

    Least squares on the logarithm of the absolute value, with a level of its own for each point, so that points that
    are more curved than others at every depth do not widen the interval. The interval comes from resampling points
    (a bootstrap over clusters: the depths of one point are not independent). A law is reported only where its interval
    excludes zero; where both do, the one with the smaller criterion of Akaike (*A new look at the statistical model
    identification*, 1974).

    **Args:**

    - `curvature` `[depths, *points]`, for instance `profile.scalar_curvature[1:]`, of any sign and in any unit.
    - `depth` `[depths]`, one positive number a row, by default 1, 2, 3, ...
    - `seed` and `resamples` of the bootstrap.

    **Returns:** a `Growth`, which prints as a sentence. Points where any depth is exactly flat are left out, because a
    logarithm cannot hold them; where none is left the answer is `"none"` with rate NaN.

    **Raises:** `InputError` for fewer than three depths.

    >>> import torch, fisherflat as ff
    >>> depth = torch.arange(1.0, 9.0, dtype=torch.float64)
    >>> print(ff.growth(torch.stack([depth**2, 5 * depth**2], 1)))
    grows like depth^2 (95 % interval 2 to 2, over 2 points)
    """
    values = as_float64(curvature, "curvature").abs()
    if not values.dim():
        raise InputError("curvature must hold one row a depth, [depths, *points]; got a single number")
    values = values.reshape(values.shape[0], -1) if values.dim() > 1 else values[:, None]
    seed, resamples = integer(seed, "seed", 0), integer(resamples, "resamples", 1)
    if values.shape[0] < 3:
        raise InputError(f"a law needs at least three depths, got {values.shape[0]}")
    x = torch.arange(1.0, values.shape[0] + 1, dtype=torch.float64) if depth is None else as_float64(depth, "depth")
    if x.shape != values.shape[:1] or not (x > 0).all():
        raise InputError(f"depth must hold {values.shape[0]} positive numbers, one for each row of the curvature")
    values = values[:, (values > 0).all(0)].cpu()
    if values.shape[1] == 0:
        return Growth("none", math.nan, math.nan, math.nan, 0.0, {}, 0)
    logs = values.log()
    laws = {"power": x.log().cpu(), "exponential": x.cpu()}
    fits = {name: _fit(abscissa, logs) for name, abscissa in laws.items()}
    intervals = {name: _interval(abscissa, logs, seed, resamples) for name, abscissa in laws.items()}
    holding = [name for name, (low, high) in intervals.items() if low > 0 or high < 0]
    model = min(holding, key=lambda name: fits[name][2], default="none")
    shown = "power" if model == "none" else model
    rate, level, _ = fits[shown]
    aic = {name: fit[2] for name, fit in fits.items()}
    return Growth(model, rate, *intervals[shown], math.exp(level), aic, values.shape[1])


def _slopes(x: Tensor, logs: Tensor) -> Tensor:
    """The least-squares slope of each column."""
    centred = x - x.mean()
    return centred @ (logs - logs.mean(0)) / (centred @ centred)


def _fit(x: Tensor, logs: Tensor) -> tuple[float, float, float]:
    """Common slope, mean level and Akaike's criterion, with a level for each column."""
    slope = float(_slopes(x, logs).mean())
    level = logs.mean(0) - slope * x.mean()
    residual = logs - level - slope * x[:, None]
    count, parameters = logs.numel(), logs.shape[1] + 2  # levels, slope, variance
    variance = max(float(residual.square().mean()), 1e-300)
    return slope, float(level.mean()), count * math.log(variance) + 2 * parameters


def _interval(x: Tensor, logs: Tensor, seed: int, resamples: int) -> tuple[float, float]:
    """The 95 % interval of the common slope, which is the mean of the columns' slopes.

    By resampling columns; where there is a single one, by the t-distribution of its regression.
    """
    from scipy import stats

    slopes = _slopes(x, logs).numpy()
    if len(slopes) == 1:
        result = stats.linregress(x.numpy(), logs[:, 0].numpy())
        half = float(result.stderr * stats.t.ppf(0.975, max(len(x) - 2, 1)))
        return float(slopes[0]) - half, float(slopes[0]) + half
    if slopes.std() == 0:
        return float(slopes[0]), float(slopes[0])
    found = stats.bootstrap((slopes,), np.mean, n_resamples=resamples, rng=seed, method="percentile")
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
