"""What is measured of a representation, against the library's manifolds and against closed forms."""

import math
from functools import partial

import pytest
import torch
from torch import nn

import fisherflat as ff
from fisherflat.geometry import Geometry
from fisherflat.lab.claims._measures import METRICS, READINGS, _Engine, columns, described, measure, planes
from fisherflat.lab.claims._models import classifier
from fisherflat.lab.claims._protocol import Cell, Protocol
from fisherflat.lab.claims._tasks import examples

PROTOCOL = Protocol.load()
DEEP = Cell("test", "product", "gated", depth=2, residual=True, norm=True)
FLAT = Cell("test", "ring", "ungated")


def _encoder(cell: Cell) -> nn.Module:
    return classifier(PROTOCOL, cell, 1).double().representation.requires_grad_(False)


def _geometry(cell: Cell, held: bool) -> tuple[nn.Module, object, Geometry]:
    encoder, where = _encoder(cell), planes(PROTOCOL, cell.task, examples(cell.task, 300, 0).inputs)
    return encoder, where, _Engine(encoder, where, held).geometry(where.points[::29], ff.Gaussian())


@pytest.mark.parametrize("cell", [DEEP, FLAT, Cell("test", "ring", "gated_silu", depth=2, heads=2)], ids=str)
@pytest.mark.parametrize("held", [False, True], ids=["live", "held"])
def test_geometry_is_that_of_a_manifold_at_each_point(cell: Cell, held: bool) -> None:
    encoder, where, found = _geometry(cell, held)
    for index, (first, second, plane) in enumerate(where.points[::29][:4].tolist()):
        origin, directions = where.origin[int(plane)], where.directions[int(plane)]
        point = origin + first * directions[0] + second * directions[1]
        mean = partial(encoder, at=point) if held else encoder
        M = ff.StatisticalManifold(mean, ff.charts.affine(point, directions))
        expected = M.at(torch.zeros(2, dtype=torch.float64))
        for name in ("scalar_curvature", "second_fundamental_form_norm", "volume_density"):
            scale = expected.cancellation_scale.item() if name == "scalar_curvature" else 1.0
            value, wanted = getattr(found, name)[index].item(), getattr(expected, name).item()
            assert value == pytest.approx(wanted, rel=1e-7, abs=1e-10 * max(scale, 1.0))


def test_patterns_are_held_as_the_library_holds_them() -> None:
    encoder, x = _encoder(DEEP), examples("product", 5, 0).inputs
    frozen = ff.freeze(encoder, x[0], roles=("pattern",))
    assert len(frozen.held) == 2
    for one in x:
        assert torch.allclose(encoder(one, x[0]), frozen(one), atol=1e-12)
        assert torch.allclose(encoder(one, one), encoder(one), atol=1e-12)


class Paraboloid(nn.Module):
    """`z = (x² + y²) / 2` over the plane, K = 1 / (1 + r²)²; it has no pattern to hold."""

    def forward(self, x: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        return torch.cat([x, x.square().sum(-1, keepdim=True) / 2], -1)


def test_a_paraboloid_has_its_own_curvature() -> None:
    x = examples("ring", 4000, 0).inputs
    found = measure(PROTOCOL, "ring", Paraboloid(), x)
    first = x[:256].square().sum(-1)
    scalar = 2 / (1 + first) ** 2
    assert found["scalar_mean:live:unit"] == pytest.approx(scalar.mean().item(), rel=1e-9)
    assert found["scalar_median:held:unit"] == pytest.approx(scalar.median().item(), rel=1e-9)
    assert found["scalar_positive_share:live:unit"] == 1.0
    # ∫ K dA by polar coordinates is 2π (1 - 1 / sqrt(1 + R²)) for a disc; the square lies between two discs
    low, high = (2 * math.pi * (1 - 1 / math.sqrt(1 + r**2)) for r in (2, 2 * math.sqrt(2)))
    assert low < found["total_absolute_gauss:live:unit"] < high
    form = ((1 + (1 + first) ** 2) / (1 + first) ** 3).sqrt()  # principal curvatures w^(-3/2), w^(-1/2), w = 1 + r²
    assert found["mean_second_fundamental_norm:live:unit"] == pytest.approx(form.mean().item(), rel=1e-9)
    assert found["log_volume:live:unit"] == pytest.approx((1 + first).log().mean().item() / 2, rel=1e-9)
    spread = torch.cov(Paraboloid()(x).T)
    assert found["scalar_mean:live:calibrated"] == pytest.approx(
        found["scalar_mean:live:unit"] * spread.trace().item() / 3, rel=1e-9
    )
    assert found["image_size:live:unit"] == pytest.approx(spread.trace().sqrt().item(), rel=1e-9)
    # |f(x+hv) - 2f(x) + f(x-hv)| = h² and |f(x+hv) - f(x-hv)| = 2h sqrt(1 + (x·v)²)
    assert 0 < found["proxy_0.1:live:unit"] <= 0.05 and found["proxy_0.5:live:unit"] == pytest.approx(
        5 * found["proxy_0.1:live:unit"], rel=1e-9
    )


class Stretched(nn.Module):
    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix, requires_grad=False)

    def forward(self, x: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        return Paraboloid()(x) @ self.matrix


def test_what_is_whitened_does_not_feel_a_stretch_and_what_is_not_does() -> None:
    x = examples("ring", 1000, 0).inputs
    matrix = torch.tensor([[1.0, 0.2, 0.0], [0.0, 3.0, 0.5], [0.1, 0.0, 7.0]], dtype=torch.float64)
    plain, stretched = (measure(PROTOCOL, "ring", encoder, x) for encoder in (Paraboloid(), Stretched(matrix)))
    for name, value in plain.items():
        if name.endswith("whitened"):
            assert stretched[name] == pytest.approx(value, rel=1e-7, abs=1e-12)
    assert abs(stretched["scalar_mean:live:calibrated"] / plain["scalar_mean:live:calibrated"] - 1) > 0.1
    assert stretched["total_absolute_gauss:live:unit"] > 1.1 * plain["total_absolute_gauss:live:unit"]


def test_ungated_attention_is_exactly_flat_where_patterns_are_held() -> None:
    found = measure(PROTOCOL, "ring", _encoder(FLAT), examples("ring", 600, 0).inputs)
    for metric in ("unit", "calibrated"):
        assert found[f"scalar_median:held:{metric}"] == found[f"total_absolute_gauss:held:{metric}"] == 0
        assert found[f"undecided:held:{metric}"] == 0 < found[f"scalar_median:live:{metric}"]
    assert math.isnan(found["scalar_positive_share:held:unit"])


@pytest.mark.parametrize("cell", [DEEP, FLAT], ids=str)
def test_columns_are_those_that_are_announced(cell: Cell) -> None:
    found = measure(PROTOCOL, cell.task, _encoder(cell), examples(cell.task, 400, 0).inputs)
    assert set(found) == set(columns()) == set(described(found))
    quantities = set(PROTOCOL["measures"]["quantities"]) | {"undecided", "degenerate"}
    assert {name.split(":")[0] for name in found} == quantities
    assert {tuple(name.split(":")[1:]) for name in found} == {(r, m) for r in READINGS for m in METRICS}


def test_a_representation_without_surface_has_no_numbers() -> None:
    class Line(nn.Module):
        def forward(self, x: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
            return x.sum(-1, keepdim=True) * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    found = described(measure(PROTOCOL, "ring", Line(), examples("ring", 300, 0).inputs))
    assert found["degenerate:live:unit"] == 1.0
    assert math.isnan(found["scalar_median:live:unit"]) and math.isnan(found["scalar_median:live:whitened"])
