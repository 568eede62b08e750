"""Spheres and hyperbolic spaces of constant curvature, and the triangles in them."""

from __future__ import annotations

import math
from typing import Any

from fisherflat._arrays import integer, number
from fisherflat.errors import InputError


def radius(scalar_curvature: Any, k: Any = 2) -> float:
    """The radius of a k-sphere of this scalar curvature: `scal = k (k - 1) / r²` (Lee, *Riemannian Manifolds*, 2018).

    Of a negative curvature it is the radius of the hyperbolic space, in the sense in which `-1/r²` is its sectional
    curvature.

    **Args:**

    - `scalar_curvature`, in 1/σ²; `k`, the dimension of the surface, from 2.

    **Returns:** the radius in σ: infinite for 0, NaN for NaN.

    **Raises:** `InputError` for a curvature that is no finite number (NaN is let pass), or a k below 2.

    >>> import fisherflat as ff
    >>> ff.scale.radius(0.005), ff.scale.radius(-6.0, k=3), ff.scale.radius(0.0)
    (20.0, 1.0, inf)
    """
    k = integer(k, "k", 2)
    size = abs(number(scalar_curvature, "scalar_curvature"))
    if size == 0:
        return math.inf
    return math.sqrt(k * (k - 1)) / math.sqrt(size)  # the quotient itself overflows for the smallest numbers


def triangle_side(sectional_curvature: Any, degrees: Any = 1.0) -> float:
    """The side of the equilateral geodesic triangle whose angles sum to 180° and so many more, or fewer.

    More on a sphere, fewer in hyperbolic space. An angle α = (π ± E) / 3 lies opposite a side a with
    `sin²(a / 2r) = sin((α + π/3) / 2) sin(E / 6) / sin²(α / 2)`, sinh for sin on the left in hyperbolic space: the law
    of cosines for angles, `cos a = cos α / (1 - cos α)`, without cancellation (Ratcliffe, *Foundations of Hyperbolic
    Manifolds*, 2019, sections 2.5 and 3.5). To leading order the excess is the curvature times the area,
    `E = K a² √3 / 4` (Gauss and Bonnet).

    **Args:**

    - `sectional_curvature`: K, in 1/σ².
    - `degrees`: by how much the sum of the angles is off, between 0 and 360, or 180 where K is negative.

    **Returns:** the side in σ: infinite for 0, NaN for NaN.

    **Raises:** `InputError` for a number that is out of range.

    >>> import fisherflat as ff
    >>> round(ff.scale.triangle_side(1.0, 90.0), 12), round(ff.scale.triangle_side(0.0025), 3)
    (1.570796326795, 4.005)
    """
    curvature = number(sectional_curvature, "sectional_curvature")
    off, most = number(degrees, "degrees"), 180.0 if curvature < 0 else 360.0
    if not 0 < off < most:
        raise InputError(f"degrees must be between 0 and {most:g} for this curvature, got {off:g}")
    if curvature == 0:
        return math.inf
    excess = math.radians(off)
    angle = (math.pi + math.copysign(excess, curvature)) / 3
    half = math.sqrt(math.sin((angle + math.pi / 3) / 2) * math.sin(excess / 6)) / math.sin(angle / 2)
    length = 2 * (math.asinh(half) if curvature < 0 else math.asin(min(half, 1.0)))
    return length / math.sqrt(abs(curvature))
