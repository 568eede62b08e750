"""Directions: von Mises-Fisher distributions on the unit sphere.

With mean direction n and concentration c their Fisher metric is `A'(c) dc^2 + c A(c) |dn|^2`, A the mean resultant
length, a quotient of Bessel functions (Mardia & Jupp, *Directional Statistics*, 2000, section 9.3): a sphere for a
fixed concentration, a warped product for a moving one.
"""

from __future__ import annotations

import math

import torch

from fisherflat._arrays import number, some
from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.spaces.families._parametric import (
    Ambient,
    Framed,
    ParametricFamily,
    Sheet,
    gram,
    last,
    leading,
    places,
    rows,
    spheres,
)
from fisherflat.spaces.jets import Jet

#: of the concentration; the continued fraction of `A` takes a number of steps that grows with it
_LARGEST = 1e4
#: what of a start is left, with two derivatives, where none of it shows
_UNSEEN = 2.0**-80


class VonMisesFisher(ParametricFamily):
    """Directions around a mean direction, the outputs `[..., n]` divided by their length.

    **Args:** `concentration`, of all of them, or `None` for the length of each output. With a fixed one the family is
    the sphere of radius `sqrt(c A(c))`; unit-norm embeddings are measured so.

    **Raises:** `InputError` for a concentration that is not positive or above 10,000, and for fewer than two outputs;
    `MapError` where a moving one is above that, which is NaN under `degenerate="nan"`.

    >>> import torch, fisherflat as ff
    >>> chart = ff.charts.affine([0.0, 0.0, 1.0], torch.eye(3)[:2])
    >>> M = ff.StatisticalManifold(lambda y: y, chart, ff.families.VonMisesFisher(3.0))
    >>> round(M.scalar_curvature([0.2, 0.1]).item(), 5)
    0.9926
    """

    def __init__(self, concentration: float | None = None) -> None:
        if concentration is not None and not 0 < number(concentration, "concentration", math.inf) <= _LARGEST:
            raise InputError(
                f"the concentration must be a positive number up to {_LARGEST:.0f}, or None for the length of the "
                f"output; got {concentration!r}"
            )
        self.concentration = None if concentration is None else float(concentration)

    @classmethod
    def of_radius(cls, radius: float, size: int) -> VonMisesFisher:
        """The one whose directions in so many dimensions are a sphere of a radius: with 1, lengths are angles.

        **Raises:** `InputError` where no concentration up to 10,000 has it.

        >>> import fisherflat as ff
        >>> ff.families.VonMisesFisher.of_radius(1.0, 2)
        VonMisesFisher(1.6082795)
        """
        low, high = 0.0, _LARGEST
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if _square(middle, size) < radius**2 else (low, middle)
            if high - low <= 1e-14 * high:
                break
        if not 0 < low < 0.999 * _LARGEST:
            raise InputError(f"no concentration up to {_LARGEST:.0f} makes a sphere of radius {radius!r}")
        return cls(high)

    def ambient_dim(self, shape: tuple[int, ...]) -> int:
        """N - 1 for each direction with a fixed concentration, n with a moving one."""
        size = last(shape, self, 2, "a vector whose direction counts")
        return leading(shape) * (size - (self.concentration is not None))

    def framed(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        """Of the sphere, or of the warped product: `(s_i, r n_i)` and its covariant seconds, s the arc length in c."""
        value, first, second = rows(jet, shape)
        (i, j), size = places(jet.k), shape[-1]
        length = _length(value)
        n = value / length
        radial, radials = ((n * x).sum(-1, keepdim=True) for x in (first, second))
        turn = (first - radial * n) / length
        why = "a direction has length 0 and points nowhere" if some(length == 0) else None

        def around(radius: float | Tensor, rate: Tensor) -> Tensor:
            """`r n_ij` and what its covariant derivative adds, of `rate` times `n_j`."""
            found = torch.mul(second, radius / length, out=sheet.second[-1])
            found = torch.addcmul(found, radials * (radius / length), n, value=-1, out=sheet.over(found))
            return sheet.plus(sheet.plus(found, rate, turn), turn, rate)

        if self.concentration is not None:
            square = _square(self.concentration, size)
            radius, sheet = math.sqrt(square), Sheet(jet, leading(shape), size)

            def round_(x: Tensor) -> Tensor:
                return spheres(gram(x.unflatten(-1, (-1, size))), 1 / square)

            tangents = [torch.mul(turn, radius, out=sheet.first[0])]
            seconds = [around(radius, -radius / length * radial)]
            return Framed(sheet.joined(tangents, seconds), Ambient(self.ambient_dim(shape), round_, outside=why))
        inner = gram(turn)[..., i, j].transpose(1, 2)[..., None]
        grow = radials + length * inner
        known = length <= _LARGEST
        if some(length > _LARGEST):
            most = float(length.nan_to_num(0.0, math.inf).max())
            why = f"the length of one, its concentration, is {most:.3g}, and VonMisesFisher takes up to {_LARGEST:.0f}"
        length, sheet = torch.where(known, length, 1.0), Sheet(jet, leading(shape), 1, size)
        w = _Warp(length, size)
        arc = torch.mul(torch.where(known, w.speed, math.nan), radial, out=sheet.first[0])
        curve = torch.mul(w.speed, grow, out=sheet.second[0])
        curve = torch.addcmul(curve, w.radius * w.slope, inner, value=-1, out=sheet.over(curve))
        arcs = sheet.plus(curve, w.bend * radial, radial)
        tangents = [arc, torch.mul(w.radius, turn, out=sheet.first[1])]
        seconds = [arcs, around(w.radius, w.slope * arc - w.radius / length * radial)]

        def curvature(x: Tensor) -> Tensor:
            x = x.unflatten(-1, (-1, size + 1))
            across, along = gram(x[..., 1:]), gram(x[..., :1])
            mixed, tangential = (t[:, 0, :, 0] for t in (w.mixed, w.tangential))
            return spheres(across + along, mixed) + spheres(across, tangential - mixed)

        def cubic(x: Tensor, y: Tensor) -> Tensor:
            x, y = (v.unflatten(-1, (-1, size + 1)) for v in (x, y))
            return w.cubic(x[..., :1], x[..., 1:], y[..., :1], y[..., 1:]).flatten(1)

        ambient = Ambient(self.ambient_dim(shape), curvature, cubic, outside=why)
        return Framed(sheet.joined(tangents, seconds), ambient)

    def __repr__(self) -> str:
        return f"VonMisesFisher({'' if self.concentration is None else format(self.concentration, '.8g')})"


class _Warp:
    """The warped product `ds^2 + r(s)^2 |dn|^2` at concentrations c: `speed` is ds/dc, slopes of r are by s.

    `A = c h(t)` with `t = c^2`, and all derivatives come from those of h.
    """

    def __init__(self, c: Tensor, size: int) -> None:
        t = c * c
        h, h1, h2 = _quotient(t, size)
        self._c, self._h1, self._h2 = c, h1, h2
        self.speed = (h + 2 * t * h1).sqrt()
        self.bend = c * (3 * h1 + 2 * t * h2) / self.speed
        self.radius = c * h.sqrt()
        self.slope = (h + t * h1) / h.sqrt() / self.speed
        # -(d^2 r/ds^2) / r and (1 - slope^2) / r^2, without the differences that vanish with t
        square = self.speed**2
        self.mixed = t * h1 * (h1 / h - (3 * h1 + 2 * t * h2) / square) / (h * square)
        self.tangential = -t * (h1 / h) ** 2 / square

    def cubic(self, x: Tensor, tx: Tensor, y: Tensor, ty: Tensor) -> Tensor:
        """From `2 h' (y_c d_ab + y_b d_ac + y_a d_bc) + 4 h'' y_a y_b y_c`, third derivatives of the log-partition."""
        c, h1, h2, speed, radius = (v[:, 0] for v in (self._c, self._h1, self._h2, self.speed, self.radius))
        cx, cy = x / speed, y / speed  # of the natural parameter, along the direction
        nx, ny = tx * c / radius, ty * c / radius  # and across it
        inner = cx * cy + (nx * ny).sum(-1, keepdim=True)
        along = 2 * h1 * c * (inner + 2 * cx * cy) + 4 * h2 * c**3 * cx * cy
        across = 2 * h1 * c * (cx * ny + cy * nx)
        return torch.cat([along / speed, across * c / radius], -1)


def _length(x: Tensor) -> Tensor:
    """Euclidean lengths, also of vectors whose squares no number holds."""
    found = x.norm(dim=-1, keepdim=True)
    if not some((found == 0) | found.isinf()):
        return found
    unit = x.detach().abs().amax(-1, keepdim=True)
    unit = torch.where((unit > 0) & unit.isfinite(), unit, 1.0)
    return unit * (x / unit).norm(dim=-1, keepdim=True)


def _square(concentration: float, size: int) -> float:
    """`c A(c)`, the square of the radius: by the continued fraction of `_quotient`, in numbers, which take no time."""
    square, order, h = concentration**2, size / 2 - 1, 0.0
    for step in range(_steps(concentration, order), -1, -1):
        h = 1 / (2 * (order + step + 1) + square * h)
    return square * h


def _steps(concentration: float, order: float) -> int:
    """From how far back the continued fraction is right to all digits, wherever it starts.

    What is wrong shrinks at each step by `t h_v h_(v + 1)`, which is below `(c / (v + sqrt(v^2 + c^2)))^2` (Amos,
    *Mathematics of Computation* 28, 1974).
    """
    steps, left = 0, 1.0
    while left > _UNSEEN:
        steps += 1
        v = order + steps
        left *= (concentration / (v + math.hypot(v, concentration))) ** 2
    return steps


def _quotient(t: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """`h = A(c) / c` at `t = c^2`, with its first and second derivative by t.

    The continued fraction `h_v = 1 / (2 (v + 1) + t h_(v + 1))`, `v = size / 2 - 1` (Watson 1944, section 9.65), whose
    terms are all positive, from far enough back that where it starts does not show.
    """
    order = size / 2 - 1
    steps = _steps(1.0 if t.is_meta else float(t.detach().max()) ** 0.5, order)
    h, h1, h2 = (torch.zeros_like(t) for _ in range(3))
    for step in range(steps, -1, -1):
        slope = torch.addcmul(h, t, h1)
        bend = torch.addcmul(2 * h1, t, h2)
        h = 1 / torch.addcmul(torch.full_like(t, 2 * (order + step + 1)), t, h)
        h1 = -slope * h * h
        h2 = -h * torch.addcmul(bend * h, slope, h1, value=2)
    return h, h1, h2
