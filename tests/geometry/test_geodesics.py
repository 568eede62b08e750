"""Geodesics against great circles and the hyperbolic plane in closed form, and against each other."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import InputError

D = torch.float64


def on_sphere(u: Tensor) -> Tensor:
    s, t = u[..., 0], u[..., 1]
    return 2 * torch.stack([s.sin() * t.cos(), s.sin() * t.sin(), s.cos()], -1)


SPHERE = ff.StatisticalManifold(on_sphere, ff.charts.identity(2))
NORMALS = ff.StatisticalManifold(lambda u: u, ff.charts.identity(2), ff.families.DiagonalGaussian())
GATED = ff.StatisticalManifold(
    lambda x: torch.tanh(x @ torch.tensor([[1.0, 0.5, -0.7], [-0.3, 1.2, 0.4]], dtype=D)) * (1 + x.square().sum()),
    ff.charts.identity(2),
)
A = torch.tensor([[0.7, 0.2], [1.0, -1.0], [1.5, 0.1]], dtype=D)
B = torch.tensor([[1.2, 1.5], [2.0, 1.0], [1.6, 0.3]], dtype=D)


def between_normals(a: Tensor, b: Tensor) -> Tensor:
    """Rao's distance of `N(m, s)` and `N(n, t)` (Atkinson & Mitchell 1981)."""
    m, s, n, t = a[:, 0], a[:, 1].exp(), b[:, 0], b[:, 1].exp()
    return math.sqrt(2) * torch.acosh(1 + ((m - n) ** 2 / 2 + (s - t) ** 2) / (2 * s * t))


def on_great_circles(a: Tensor, b: Tensor, times: Tensor) -> Tensor:
    x, y = on_sphere(a)[:, None], on_sphere(b)[:, None]
    angle = torch.acos((x * y).sum(-1, keepdim=True) / 4)
    return (((1 - times[:, None]) * angle).sin() * x + (times[:, None] * angle).sin() * y) / angle.sin()


def test_great_circles() -> None:
    path = SPHERE.geodesic(A, B, 7)
    assert path.shape == (3, 7, 2)
    right = on_great_circles(A, B, torch.linspace(0, 1, 7, dtype=D))
    torch.testing.assert_close(on_sphere(path), right, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("manifold", "exact"),
    [
        (SPHERE, lambda a, b: 2 * torch.acos((on_sphere(a) * on_sphere(b)).sum(-1) / 4)),
        (NORMALS, between_normals),
    ],
    ids=["sphere", "normals"],
)
def test_distances_and_their_errors(manifold: Any, exact: Any) -> None:
    found = manifold.distance(A, B, error=True)
    off = (found.value - exact(A, B)).abs()
    assert (off <= found.error).all() and (found.error <= 1e-8 * found.value).all()
    assert (found.straight >= found.value * (1 - 1e-12)).all()
    torch.testing.assert_close(manifold.distance(B, A), found.value, rtol=1e-9, atol=0)


@pytest.mark.parametrize("manifold", [SPHERE, NORMALS, GATED], ids=["sphere", "normals", "gated"])
def test_exp_after_log_is_the_identity(manifold: Any) -> None:
    a, b = (0.4 * A, 0.4 * B) if manifold is GATED else (A, B)
    v = manifold.log(a, b)
    torch.testing.assert_close(manifold.exp(a, v), b, rtol=0, atol=1e-8)
    # the speed is the length, and half of the way is half of it
    torch.testing.assert_close(
        manifold.distance(a, manifold.exp(a, v / 2)), manifold.distance(a, b) / 2, rtol=1e-7, atol=0
    )


def test_parallel_transport_keeps_lengths_and_angles_and_turns_by_the_area() -> None:
    x = torch.tensor([[1.0, 0.0], [0.3, -0.4], [0.1, 0.5]], dtype=D)
    y = torch.tensor([0.2, 0.7], dtype=D)
    first, second = SPHERE.metric(A), SPHERE.metric(B)
    moved = [SPHERE.parallel_transport(A, B, v) for v in (x, y)]
    before = torch.einsum("pij,pi,j->p", first, x, y)
    torch.testing.assert_close(torch.einsum("pij,pi,pj->p", second, *moved), before, rtol=1e-8, atol=1e-10)
    corners = torch.tensor([[0.6, 0.1], [1.4, 0.0], [1.0, 0.9]], dtype=D)
    v = torch.tensor([1.0, 0.0], dtype=D)
    for start, end in ((0, 1), (1, 2), (2, 0)):
        v = SPHERE.parallel_transport(corners[start], corners[end], v)
    metric = SPHERE.metric(corners[0])
    turned = math.acos(
        float(v @ metric @ torch.tensor([1.0, 0.0], dtype=D)) / float(metric[0, 0].sqrt() * (v @ metric @ v).sqrt())
    )
    p = on_sphere(corners) / 2
    triple, dots = float(torch.linalg.det(p)), p @ p.T
    area = 2 * math.atan2(abs(triple), 1 + float(dots[0, 1] + dots[1, 2] + dots[0, 2]))  # van Oosterom & Strackee 1983
    assert turned == pytest.approx(area, rel=1e-7)


def test_what_has_no_geodesic_is_refused() -> None:
    """The plane without a half line, and a metric that ends."""
    half = ff.StatisticalManifold(lambda u: torch.stack([u[0], u[1].sqrt(), u[1]]), ff.charts.identity(2))
    with pytest.raises(InputError, match=r"no geodesic was found .*degenerate=\"nan\""):
        half.log([0.0, 1.0], [0.0, -1.0])
    tolerant = ff.StatisticalManifold(half.mean, half.chart, degenerate="nan")
    found = tolerant.distance([[0.0, 1.0], [0.0, 1.0]], [[0.0, -1.0], [0.2, 1.5]])
    assert found.isnan().tolist() == [True, False]
    with pytest.raises(InputError, match="points, how many a geodesic is drawn with, must be at least 2, got 1"):
        SPHERE.geodesic(A, B, 1)
    with pytest.raises(InputError, match="do not fit together"):
        SPHERE.exp(A, torch.zeros(2, 2))


@pytest.mark.parametrize("side", [0.0, 0.13])
def test_a_fold_between_points_is_named(side: float) -> None:
    folded = ff.StatisticalManifold(lambda u: torch.stack([(u[0] - side) ** 2, u[1]]), ff.charts.identity(2))
    with pytest.raises(InputError, match="the metric is singular between them, about at") as caught:
        folded.distance([-1.0, 0.0], [1.0, 0.5])
    found = re.search(r"about at \[(.*?), (.*?)\]", str(caught.value))
    assert found is not None
    assert float(found[1]) == pytest.approx(side, abs=1e-5)
    assert float(found[2]) == pytest.approx(0.25 * (1 + side), abs=1e-5)


def test_a_metric_that_is_small_along_one_direction_alone_is_no_fold() -> None:
    steep = ff.StatisticalManifold(
        lambda u: torch.stack([*u, 1e3 * (30 * u[0]).sin() * (20 * u[1]).sin()]), ff.charts.identity(2)
    )
    with pytest.raises(InputError, match="too far apart, or the metric is singular"):
        steep.log([-1.0, 0.0], [1.0, 0.5])


def test_a_geodesic_longer_than_the_straight_line_is_no_distance() -> None:
    """More than half around the sphere, the great circle crosses the other hemisphere, and the parallel is shorter."""
    a, b = [1.3, 0.0], [1.3, 4.0]
    far = 2 * math.pi - math.acos(math.sin(1.3) ** 2 * math.cos(4.0) + math.cos(1.3) ** 2)
    assert SPHERE.metric(a)[1, 1].sqrt() * 4.0 < 2 * far
    v = SPHERE.log(a, b)
    assert (v @ SPHERE.metric(a) @ v).sqrt().item() == pytest.approx(2 * far, rel=1e-9)
    with pytest.raises(InputError, match=r"only a geodesic longer than the straight line .* 1 of 1 pairs .*\[1.3, 0"):
        SPHERE.distance(a, b)
    assert ff.StatisticalManifold(on_sphere, ff.charts.identity(2), degenerate="nan").distance(a, b).isnan()


def test_confident_classes_are_joined() -> None:
    """Logits of three classes, up to 1 - p = 1e-5, where nearly all of the way is made in a few of the logits."""
    simplex = ff.StatisticalManifold(
        lambda z: torch.cat([z, z.new_zeros(1)]), ff.charts.identity(2), ff.families.Categorical()
    )
    for size in (3.0, 6.0, 12.0):
        z = size * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], dtype=D)
        roots = (torch.cat([z, z.new_zeros(3, 1)], -1).log_softmax(-1) / 2).exp()
        exact = 2 * torch.acos((roots * roots.roll(-1, 0)).sum(-1))
        found = simplex.distance(z, z.roll(-1, 0), error=True)
        assert ((found.value - exact).abs() <= found.error).all() and (found.error <= 1e-6 * exact).all()


def test_paths_that_the_straight_line_does_not_lead_to_are_found() -> None:
    """Around a torus and over bumps: they are geodesics, and shorter than the straight line."""

    def torus(u: Tensor) -> Tensor:
        ring = 2 + u[1].cos()
        return torch.stack([ring * u[0].cos(), ring * u[0].sin(), u[1].sin()])

    def bumps(u: Tensor) -> Tensor:
        return torch.cat([u, ((3 * u[0]).sin() * (3 * u[1]).cos())[None]])

    for surface, a, b in (
        (torus, [2.820318010839318, 1.2469191863987277], [-1.6438787823696568, 0.34945845228135486]),
        (bumps, [-1.2, -0.9], [1.3, 0.8]),
    ):
        manifold = ff.StatisticalManifold(surface, ff.charts.identity(2))
        found = manifold.distance(a, b, error=True)
        assert found.value < found.straight and found.error < 1e-6 * found.value
        path, times = manifold.geodesic(a, b, 2001), torch.linspace(0, 1, 2001, dtype=D)[:, None]

        def length(u: Tensor, surface: Any = surface) -> float:
            """Of a polygon in space."""
            y = torch.func.vmap(surface)(u)
            return (y[1:] - y[:-1]).norm(dim=-1).sum().item()

        assert length(path) == pytest.approx(found.value.item(), rel=1e-4)
        for wave in range(1, 5):  # whichever way it is bent a little, its length does not change in the first order
            for axis in torch.eye(2, dtype=D):
                bent = 1e-3 * (wave * math.pi * times).sin() * axis
                assert abs(length(path + bent) - length(path - bent)) < 1e-4 * 2e-3


def test_over_bumps_all_are_found_and_shorter_than_the_straight_line() -> None:
    """A graph over the plane is complete, so that between any two points there is a shortest way (Hopf and Rinow)."""
    for height in (1.0, 1.5):
        manifold = ff.StatisticalManifold(
            lambda u, height=height: torch.cat([u, height * ((3 * u[0]).sin() * (3 * u[1]).cos())[None]]),
            ff.charts.identity(2),
        )
        draw = torch.Generator().manual_seed(1)
        a, b = (3 * torch.rand(6, 2, generator=draw, dtype=D) - 1.5 for _ in range(2))
        a[0], b[0] = torch.tensor([[0.239, -0.01], [0.879, 0.0]], dtype=D)  # there is also a longer one
        found = manifold.distance(a, b, error=True)
        ends = torch.stack([torch.func.vmap(manifold.mean)(x) for x in (a, b)])
        assert (found.value >= (ends[0] - ends[1]).norm(dim=-1)).all() and (found.value <= found.straight).all()
        assert (found.error <= 1e-7 * found.value).all()


def counted(manifold: Any) -> list[int]:
    """How many points the metric is asked for from now on."""
    geodesics, asked = manifold._geodesics, [0]
    local = geodesics.local

    def call(u: Tensor) -> Any:
        asked[0] += len(u)
        return local(u)

    object.__setattr__(geodesics, "local", call)
    return asked


def test_that_there_is_none_is_known_early() -> None:
    """Across a hole, and into a region without a metric."""
    for surface, a, b, most in (
        (lambda u: torch.cat([u, (u.square().sum() - 1).sqrt()[None]]), [-2.0, 0.1], [2.0, 0.1], 10_000),
        (lambda u: torch.stack([u[0], u[1].sqrt(), u[1]]), [0.0, 1.0], [0.0, -1.0], 10_000),
    ):
        manifold = ff.StatisticalManifold(surface, ff.charts.identity(2))
        asked = counted(manifold)
        with pytest.raises(InputError, match="no geodesic was found"):
            manifold.log(a, b)
        assert asked[0] < most


def test_many_geodesics_share_what_the_metric_is_asked_for() -> None:
    """Fewer places than the nodes of one step of Newton's method, and yet distances are those of great circles."""
    draw = torch.Generator().manual_seed(3)
    a, b = (torch.rand(60, 2, generator=draw, dtype=D) + torch.tensor([0.7, 0.0]) for _ in range(2))
    sphere = ff.StatisticalManifold(on_sphere, ff.charts.identity(2))
    asked = counted(sphere)
    exact = 2 * torch.acos((on_sphere(a) * on_sphere(b)).sum(-1) / 4)
    found = sphere.distance(a, b, error=True)
    assert asked[0] < 11 * 60
    assert ((found.value - exact).abs() <= found.error + 1e-14).all() and (found.error <= 1e-9 * found.value).all()


def test_in_single_precision_no_grid_is_asked_for_in_vain() -> None:
    """Its digits never suffice for polynomials."""
    ends = torch.tensor([[0.7, 0.1], [0.9, 0.4]], dtype=D), torch.tensor([[1.0, 0.5], [1.1, 0.2]], dtype=D)
    for dtype, places in ((torch.float32, 0), (D, 81)):
        sphere = ff.StatisticalManifold(on_sphere, ff.charts.identity(2), dtype=dtype)
        asked = counted(sphere)
        near = sphere._geodesics._around(*ends, 10000)
        assert (near is None) == (places == 0) and asked[0] >= places and (places or not asked[0])


def test_single_precision_is_asked_for_no_more_digits_than_it_has() -> None:
    """No solver goes on where rounding is all that it sees."""
    draw = torch.Generator().manual_seed(3)
    a, b = (torch.rand(20, 2, generator=draw, dtype=D) + torch.tensor([0.7, 0.0]) for _ in range(2))
    exact = 2 * torch.acos((on_sphere(a) * on_sphere(b)).sum(-1) / 4)
    sphere = ff.StatisticalManifold(on_sphere, ff.charts.identity(2), dtype=torch.float32)
    asked = counted(sphere)
    found = sphere.distance(a, b, error=True)
    assert asked[0] < 20_000 and (found.value - exact).abs().max() < 1e-5
    assert ((found.value - exact).abs() <= found.error).all()
    asked[0] = 0
    torch.testing.assert_close(sphere.exp(a, sphere.log(a, b)), b, rtol=0, atol=1e-4)
    assert asked[0] < 5_000


def test_what_a_grid_does_not_see_is_seen_on_the_paths() -> None:
    """A bowl that is a plane at every node of the grid: no path on its polynomials agrees with it."""
    a = torch.tensor([[0.2, 0.3], [0.9, 0.3], [0.3, 0.7], [0.5, 0.5]], dtype=D)
    b = torch.tensor([[0.8, 0.6], [0.6, 0.8], [0.5, 0.2], [0.6, 0.4]], dtype=D)
    plane = ff.StatisticalManifold(lambda u: torch.cat([u, u.square().sum()[None]]), ff.charts.identity(2))
    bowl = plane._geodesics
    wrong, calls = bowl.local, []

    def local(u: Tensor) -> Any:
        metric, symbols = wrong(u)
        calls.append(len(u))
        if len(calls) == 1:  # the first grid
            return torch.eye(2, dtype=D).expand_as(metric).clone(), torch.zeros_like(symbols)
        return metric, symbols

    right = plane.distance(a, b)
    plane.__dict__.pop("_joined")
    object.__setattr__(bowl, "local", local)
    assert calls == [] and plane.log(a, b).shape == (4, 2) and calls[0] == 81
    torch.testing.assert_close(plane.distance(a, b), right, rtol=1e-9, atol=0)


def test_a_point_is_at_no_distance_from_itself() -> None:
    assert SPHERE.distance(A, A).tolist() == [0.0, 0.0, 0.0] and SPHERE.log(A, A).tolist() == [[0.0, 0.0]] * 3
