"""Run in a process of its own: geomstats' geometry of surfaces, from JSON on standard input to JSON on standard output.

With its autograd backend, because with that of PyTorch its curvatures come out as zero.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["GEOMSTATS_BACKEND"] = "autograd"

import geomstats.backend as gs
from geomstats.geometry.base import ImmersedSet
from geomstats.geometry.euclidean import Euclidean


def surface(components: list[str]) -> ImmersedSet:
    class Surface(ImmersedSet):
        def immersion(self, point):
            u0, u1 = point[..., 0], point[..., 1]
            names = {name: getattr(gs, name) for name in ("sin", "cos", "exp", "cosh")} | {"u0": u0, "u1": u1}
            return gs.stack([0 * u0 + eval(component, names) for component in components], axis=-1)

        def _define_embedding_space(self):
            return Euclidean(len(components))

    return Surface(2)


values = {}
for name, (components, point) in json.load(sys.stdin).items():
    metric = surface(components).metric
    u = gs.array(point)
    quantities = ("metric_matrix", "christoffels", "covariant_riemann_tensor", "ricci_tensor", "scalar_curvature")
    values[name] = {quantity: getattr(metric, quantity)(u).tolist() for quantity in quantities}
json.dump(values, sys.stdout)
