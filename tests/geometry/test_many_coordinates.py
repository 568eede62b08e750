"""Charts of many coordinates: closed forms, and memory of a few Hessians."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fisherflat as ff
from fisherflat.geometry import Geometry
from fisherflat.jets import Jet, pairs

DIMS = (2, 3, 15, 16, 17, 40, 64)


def forms(k: int, count: int = 3) -> Tensor:
    """Symmetric matrices, `[count, k, k]`."""
    a = torch.randn(count, k, k, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    return a + a.mT


def change(k: int, points: int = 2) -> Tensor:
    """Coordinates that are not orthonormal, `[points, k, k]`."""
    c = torch.randn(points, k, k, dtype=torch.float64, generator=torch.Generator().manual_seed(k + 1))
    return c / k**0.5 + 2 * torch.eye(k, dtype=torch.float64)


def graph(k: int, extra: int = 9, along: float = 1.0) -> tuple[Geometry, Tensor, Tensor]:
    """`f = (C u, u' C' A_r C u / 2)` at zero, turned in space, with second derivatives along the surface as well."""
    a, c = forms(k), change(k)
    ambient_dim = k + len(a) + extra
    generator = torch.Generator().manual_seed(k + 2)
    turn = torch.linalg.qr(torch.randn(ambient_dim, ambient_dim, dtype=torch.float64, generator=generator))[0]
    jet = torch.zeros(len(c), 1 + k + len(pairs(k)), ambient_dim, dtype=torch.float64)
    jet[:, 1 : 1 + k, :k] = c.mT
    first, second = torch.tensor(pairs(k)).T
    bent = torch.einsum("pai,rab,pbj->pijr", c, a, c)
    jet[:, 1 + k :, k : k + len(a)] = bent[:, first, second]
    jet[:, 1 + k :, :k] = along * torch.randn(len(first), k, dtype=torch.float64, generator=generator)
    return Geometry(Jet(jet @ turn, k)), a, turn


def close(found: Tensor, truth: Tensor, size: float) -> bool:
    return bool((found - truth).abs().max() <= 1e-12 * size)


@pytest.mark.parametrize("k", DIMS)
def test_a_graph_of_quadratic_forms(k: int) -> None:
    geometry, a, turn = graph(k)
    c = change(k)
    traces, squares = a.diagonal(dim1=-2, dim2=-1).sum(-1), a.square().sum((-2, -1))
    size = float((traces**2 + squares).sum())
    assert close(geometry.scalar_curvature, (traces**2 - squares).sum().expand(2), size)
    assert close(geometry.cancellation_scale, (traces**2 + squares).sum().expand(2), size)
    assert close(geometry.second_fundamental_form_norm, squares.sum().sqrt().expand(2), size**0.5)
    normal = torch.cat([torch.zeros(k).double(), traces / k, torch.zeros(9).double()]) @ turn
    assert close(geometry.mean_curvature, normal.expand(2, -1), size**0.5)
    on_frame = torch.einsum("r,rbc->bc", traces, a) - torch.einsum("rab,rac->bc", a, a)
    assert close(geometry.ricci, c.mT @ on_frame @ c, size * float(c.abs().max()) ** 2 * 10)
    if k >= 2:
        x, y = torch.randn(2, 2, k, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
        forward = [torch.einsum("pai,pi->pa", c, v) for v in (x, y)]
        q = torch.linalg.qr(torch.stack(forward, -1))[0]
        bent = torch.einsum("pas,rab,pbt->pstr", q, a, q)
        truth = (bent[:, 0, 0] * bent[:, 1, 1] - bent[:, 0, 1].square()).sum(-1)
        assert close(geometry.sectional_curvature(x, y), truth, size)


@pytest.mark.parametrize("along", [0.0, 1.0, 1e5, 1e9])  # the digits that a projection leaves
@pytest.mark.parametrize("extra", [1, 100, 700])
def test_many_coordinates_in_few_outputs_and_in_many(extra: int, along: float) -> None:
    geometry, a, _ = graph(20, extra, along)
    traces, squares = a.diagonal(dim1=-2, dim2=-1).sum(-1), a.square().sum((-2, -1))
    size = float((traces**2 + squares).sum())
    # of so many numbers along the surface as there are, rounding of each is normal to it
    noise = (along * torch.finfo(torch.float64).eps) ** 2 * 20**2 * geometry.ambient_dim
    for found, truth in (
        (geometry.scalar_curvature, (traces**2 - squares).sum()),
        (geometry.second_fundamental_form_norm.square(), squares.sum()),
        (geometry.cancellation_scale, (traces**2 + squares).sum()),
    ):
        assert bool(((found - truth).abs() <= 1e-13 * size + noise + (noise * size) ** 0.5).all())


@pytest.mark.parametrize("k", [3, 24])
def test_spheres_of_many_dimensions(k: int) -> None:
    basis = torch.linalg.qr(torch.randn(2 * k, k, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]

    def f(u: Tensor) -> Tensor:
        x = torch.cat([u @ basis.mT + 0 * u.sum(), torch.ones(1, dtype=torch.float64)])
        return x / x.square().sum().sqrt()

    M = ff.StatisticalManifold(f, ff.charts.identity(k))
    u = torch.randn(2, k, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) / 9
    found = M.measure(u, ["scalar_curvature", "ricci", "metric", "mean_curvature_norm"])
    assert torch.allclose(found["scalar_curvature"], torch.tensor(k * (k - 1.0)).double(), rtol=1e-11)
    assert torch.allclose(found["ricci"], (k - 1) * found["metric"], rtol=1e-10, atol=1e-12)
    assert torch.allclose(found["mean_curvature_norm"], torch.ones(2).double(), rtol=1e-12)


class Largest(TorchDispatchMode):
    """The entries of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.entries = max(self.entries, out.untyped_storage().nbytes() // out.itemsize)
        return out


@pytest.mark.parametrize("k", [16, 48])
def test_no_tensor_is_larger_than_a_few_hessians(k: int) -> None:
    geometry = graph(k)[0]
    jet = geometry.working
    with Largest() as largest:
        fresh = Geometry(jet)
        for name in ("scalar_curvature", "mean_curvature", "mean_curvature_norm", "second_fundamental_form_norm",
                     "cancellation_scale", "ricci"):  # fmt: skip
            getattr(fresh, name)
        fresh.sectional_curvature(torch.eye(k)[:1].double().expand(2, -1), torch.eye(k)[1:2].double().expand(2, -1))
    assert largest.entries <= 2 * k**2 * fresh.ambient_dim  # of two points


def test_gradients_through_many_coordinates() -> None:
    k = 16
    jet = graph(k)[0].working.coefficients[:1].clone().requires_grad_()
    direction = torch.randn(jet.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) / 50

    def value(t: float) -> Tensor:
        return Geometry(Jet(jet + t * direction, k)).scalar_curvature.sum()

    (gradient,) = torch.autograd.grad(value(0.0), jet)
    step = 1e-4
    with torch.no_grad():
        slopes = [(value(s * step) - value(-s * step)) / (2 * s * step) for s in (1, 2)]
    truth = (4 * slopes[0] - slopes[1]) / 3
    assert torch.allclose((gradient * direction).sum(), truth, rtol=1e-8)


def test_a_point_larger_than_the_cache_is_measured_without_a_budget() -> None:
    attention, k = ff.layers.SelfAttention(64, heads=2).double(), 64
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(24, 64, generator=generator, dtype=torch.float64)
    chart = ff.charts.affine(hidden, torch.randn(k, 24, 64, generator=generator, dtype=torch.float64) / 8)
    M = ff.StatisticalManifold(attention, chart)
    assert M.engine.bytes_per_point > 2**26  # what of a chunk should stay warm
    assert M.scalar_curvature(torch.zeros(1, k)).isfinite().all()
