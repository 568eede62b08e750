"""A manifold as geomstats knows manifolds, with our metric, Christoffel symbols, curvature and geodesics.

Its estimators (the Fréchet mean, tangent principal components, geodesic regression) then run on it. It computes in the
backend that geomstats runs on, of which numpy is the default.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def space(manifold: Any) -> Any:
    """`R^k` with the metric of a `StatisticalManifold`.

    **Raises:** `ImportError` where geomstats is not installed.
    """
    import geomstats.backend as gs
    from geomstats.geometry.base import VectorSpace
    from geomstats.geometry.riemannian_metric import RiemannianMetric

    def into(x: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(gs.to_numpy(x)), dtype=torch.float64)

    def back(x: torch.Tensor) -> Any:
        return gs.array(x.cpu().numpy())

    class FisherMetric(RiemannianMetric):
        """The Fisher-Rao metric of a map on a chart; indices are those of geomstats."""

        def metric_matrix(self, base_point: Any = None) -> Any:
            return back(manifold.metric(into(base_point)))

        def christoffels(self, base_point: Any = None) -> Any:
            return back(manifold.christoffel(into(base_point)))

        def covariant_riemann_tensor(self, base_point: Any = None) -> Any:
            return back(_covariant(base_point))

        def riemann_tensor(self, base_point: Any = None) -> Any:
            inverse = torch.linalg.inv(manifold.metric(into(base_point)))
            return back(torch.einsum("...ij,...iklm->...klmj", inverse, _covariant(base_point)))

        def ricci_tensor(self, base_point: Any = None) -> Any:
            return back(manifold.ricci(into(base_point)))

        def scalar_curvature(self, base_point: Any = None) -> Any:
            return back(manifold.scalar_curvature(into(base_point)))

        def exp(self, tangent_vec: Any, base_point: Any) -> Any:
            return back(manifold.exp(into(base_point), into(tangent_vec)))

        def log(self, point: Any, base_point: Any) -> Any:
            return back(manifold.log(into(base_point), into(point)))

        def parallel_transport(
            self, tangent_vec: Any, base_point: Any, direction: Any = None, end_point: Any = None
        ) -> Any:
            end = into(end_point) if direction is None else manifold.exp(into(base_point), into(direction))
            return back(manifold.parallel_transport(into(base_point), end, into(tangent_vec)))

    def _covariant(base_point: Any) -> torch.Tensor:
        riemann = manifold.riemann(into(base_point))  # theirs is <R(d_k, d_l) d_j, d_i> where ours is of i, j, l, m
        return torch.einsum("...klji->...ijkl", riemann)

    class Coordinates(VectorSpace):
        """The coordinates of a chart."""

        def __init__(self) -> None:
            super().__init__(shape=(manifold.k,), equip=False)

        def _create_basis(self) -> Any:
            return gs.eye(manifold.k)

    found = Coordinates()
    found.equip_with_metric(FisherMetric)
    return found
