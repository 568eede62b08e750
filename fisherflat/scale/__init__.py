"""Is 0.005 large? What a curvature means, in lengths that one can hold on to.

Beside a curvature stand the radius of a sphere as curved, the triangle whose angles are off by a degree, and the place
among the layers of some trained models that were measured in the same way. docs/scale.md says how to read them.
"""

from __future__ import annotations

from fisherflat.scale._reference import less_curved, provenance, reference
from fisherflat.scale._scale import Scale, of
from fisherflat.scale._sphere import radius, triangle_side

__all__ = ["Scale", "less_curved", "of", "provenance", "radius", "reference", "triangle_side"]
