"""Where in a ball of coordinates a curvature is largest, smallest, or what was wanted, by its gradient."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch

from fisherflat._arrays import integer
from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import DegenerateImmersionWarning, InputError, PrecisionWarning, without
from fisherflat.geometry import StatisticalManifold

#: by how much a step grows where it was uphill, and shrinks where it was not
_GROW, _SHRINK = 1.5, 0.3


@displayed
@dataclass(frozen=True, eq=False)
class Found:
    """The best point of a search.

    **Attributes:** `u` `[k]`, `value`, the quantity there; `input`, the chart's point with these coordinates; `values`
    `[starts]`, what each start led to: where they differ, there are several summits, and a higher one may be unseen.

    >>> import torch, fisherflat as ff
    >>> bowl = lambda u: torch.cat([u, u.square().sum()[None]])
    >>> M = ff.StatisticalManifold(bowl, ff.charts.identity(2), differentiable=True)
    >>> found = ff.training.find_curvature(M, "largest", starts=2)
    >>> round(found.value, 6), found.input.abs().max().item() < 1e-6  # at the bottom
    (8.0, True)
    """

    manifold: StatisticalManifold
    u: Float[Tensor, " k"]
    value: float
    values: Float[Tensor, " starts"]

    @property
    def input(self) -> Tensor:
        """The input of the map."""
        return self.manifold.chart(self.u.to(torch.float64)).detach()

    def certify(self, **options: Any) -> Any:
        """A `Certificate` of the scalar curvature at this point, as of `fisherflat.certify`: the map as it is now."""
        from fisherflat.provers import certify

        family: Any = self.manifold.family  # certify says which it can prove
        return certify(self.manifold.mean, self.manifold.chart, family, at=self.u.to(torch.float64), **options)


def find_curvature(
    M: StatisticalManifold,
    goal: str | float = "largest",
    *,
    radius: float = 1.0,
    centre: Any = None,
    quantity: str = "scalar_curvature",
    starts: SupportsIndex = 8,
    steps: SupportsIndex = 60,
    seed: int = 0,
) -> Found:
    """The point within a ball of coordinates where a quantity is largest, smallest, or nearest to a number.

    By its gradient, from several starts at a time, each of which keeps the best step; what comes out is attained, so
    the true maximum is at least that.

    **Args:**

    - `M`: a manifold with `differentiable=True`.
    - `goal`: `"largest"`, `"smallest"`, or a number to come near to.
    - `radius`: of the ball, in coordinates; `centre` `[k]`, by default 0.
    - `quantity`: one with one number a point, as in `M.measure`.
    - `starts`, the centre among them; `steps`, at most; `seed`.

    **Returns:** a `Found`: `.u`, `.value`, `.input`, and `.certify()`, which proves what was found.

    **Raises:** `InputError` where `M` is not differentiable, the goal is unknown, the ball is empty, the quantity has
    several numbers, or no start has a geometry.

    >>> import torch, fisherflat as ff
    >>> ripple = lambda u: torch.cat([u, 0.3 * torch.sin(u[:1]) * torch.cos(u[1:])])
    >>> M = ff.StatisticalManifold(ripple, ff.charts.identity(2), differentiable=True)
    >>> found = ff.training.find_curvature(M, "largest", radius=2.0)
    >>> round(found.value, 6), [round(abs(x), 3) for x in found.u.tolist()]  # on top of a ripple
    (0.18, [1.571, 0.0])
    """
    if not M.differentiable:
        raise InputError("a search needs gradients; make the manifold with differentiable=True")
    wanted = float(goal) if not isinstance(goal, str) else None
    if (wanted is None and goal not in ("largest", "smallest")) or (wanted is not None and not math.isfinite(wanted)):
        raise InputError(f'goal must be "largest", "smallest" or a finite number, got {goal!r}')
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(f"radius must be positive, got {radius!r}")
    tolerant = copy(M)
    tolerant.degenerate = "nan"
    middle = M.chart.coordinates(torch.zeros(M.k) if centre is None else centre)
    if middle.shape != (M.k,):
        raise InputError(f"centre must have shape [{M.k}], it has {list(middle.shape)}")
    count = integer(starts, "starts", 1)

    def height(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is to grow, its slope, and the quantity itself."""
        with torch.enable_grad():
            leaf = u.detach().requires_grad_()
            value = tolerant.measure(leaf, [quantity])[quantity]
            if value.shape != u.shape[:1]:
                raise InputError(f"{quantity} has several numbers a point; choose a quantity with one")
            up = -(value - wanted).square() if wanted is not None else value if goal == "largest" else -value
            # where no point has a geometry there is nothing to follow
            slope = torch.autograd.grad(up.nansum(), leaf)[0] if up.requires_grad else torch.zeros_like(leaf)
        return up.detach(), slope, value.detach()

    generator = torch.Generator().manual_seed(integer(seed, "seed"))
    drawn = torch.randn(count, M.k + 2, generator=generator, dtype=torch.float64)
    offsets = radius * (drawn / drawn.norm(dim=1, keepdim=True))[:, : M.k].to(middle)  # uniform in the ball
    offsets[0] = 0
    step = torch.full((count, 1), radius / 4, dtype=torch.float64, device=middle.device)
    with without(DegenerateImmersionWarning, PrecisionWarning):
        best, slope, value = height(middle + offsets)
        for _ in range(integer(steps, "steps", 0)):
            length = slope.double().norm(dim=1, keepdim=True)
            there = offsets + step * slope.double() / torch.where(length > 0, length, 1.0)
            there = there * (radius / there.norm(dim=1, keepdim=True).clamp_min(radius))
            up, new_slope, new_value = height(middle + there)
            better = (up > best) | (best.isnan() & ~up.isnan())
            best, value = torch.where(better, up, best), torch.where(better, new_value, value)
            offsets = torch.where(better[:, None], there, offsets)
            slope = torch.where(better[:, None], new_slope, slope)
            step = step * torch.where(better[:, None], _GROW, _SHRINK)
            if bool((step < 1e-9 * radius).all()):
                break
    if best.isnan().all():
        raise InputError("no start has a geometry; choose another centre or a smaller radius")
    top = int(best.nan_to_num(nan=-math.inf).argmax())
    return Found(M, (middle + offsets)[top].detach(), value[top].item(), value)
