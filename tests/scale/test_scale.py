"""What a curvature means: radii and triangles against geometry that is built point by point, ranks against counting."""

from __future__ import annotations

import math
import re
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from conftest import ROOT

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.lab.experiments import reference_layers
from fisherflat.parts import readings
from fisherflat.scale import _reference

# -- radii ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("r", [0.25, 20.0])
def test_the_radius_is_that_of_a_sphere_that_was_measured(k: int, r: float) -> None:
    """A map onto a k-sphere of radius r σ, with σ = 1/2; its curvature comes from its 2-jets."""

    def sphere(u: torch.Tensor) -> torch.Tensor:
        x = torch.cat([u, torch.ones(1, dtype=u.dtype)])
        return 0.5 * r * x / x.norm()

    M = ff.StatisticalManifold(sphere, ff.charts.identity(k), ff.Gaussian(0.25))
    scal = M.scalar_curvature(torch.linspace(-0.3, 0.4, k, dtype=torch.float64)).item()
    assert ff.scale.of(scal, k, covariance=M.family).radius == pytest.approx(r, rel=1e-10)
    assert ff.scale.radius(-scal, k) == pytest.approx(r, rel=1e-10)


# -- triangles --------------------------------------------------------------------------------------------------------


def sum_of_angles(side: mpmath.mpf, sign: int) -> mpmath.mpf:
    """Of an equilateral triangle on the unit sphere or the hyperboloid, between tangents at its corners, in degrees."""
    mp = mpmath.mp
    cosine, sine = (mp.cos, mp.sin) if sign > 0 else (mp.cosh, mp.sinh)

    def inner(a: list[Any], b: list[Any]) -> Any:
        return a[0] * b[0] + a[1] * b[1] + sign * a[2] * b[2]

    # corners at the distance R from the axis, a third of a turn apart, where cos side = cos² R - sin² R / 2
    R = mp.findroot(lambda t: cosine(t) ** 2 - sign * sine(t) ** 2 / 2 - cosine(side), side / mp.sqrt(3))
    corners = [[sine(R) * mp.cos(t), sine(R) * mp.sin(t), cosine(R)] for t in (0, 2 * mp.pi / 3, 4 * mp.pi / 3)]
    total = mp.mpf(0)
    for i in range(3):
        p, *others = corners[i:] + corners[:i]
        tangents = [[q[j] - sign * inner(p, q) * p[j] for j in range(3)] for q in others]
        v, w = tangents
        total += mp.acos(inner(v, w) / mp.sqrt(inner(v, v) * inner(w, w)))
    return mp.degrees(total)


@pytest.mark.parametrize("degrees", [1e-6, 1.0, 30.0, 90.0, 170.0])
@pytest.mark.parametrize("curvature", [1.0, -1.0, 0.0025, -0.0025, 1e6, -1e-12])
def test_angles_of_a_triangle_with_that_side_sum_to_what_was_asked(curvature: float, degrees: float) -> None:
    side = ff.scale.triangle_side(curvature, degrees)
    with mpmath.workdps(40):
        of_radius_one = mpmath.mpf(side) * mpmath.sqrt(abs(mpmath.mpf(curvature)))
        off = sum_of_angles(of_radius_one, 1 if curvature > 0 else -1) - 180
        # E is about quadratic in the side, and steeper where the triangle is large
        assert float(off / math.copysign(degrees, curvature) - 1) == pytest.approx(0, abs=1e-13)


def test_triangles_known_from_school() -> None:
    assert ff.scale.triangle_side(1.0, 90.0) == pytest.approx(math.pi / 2, rel=1e-15)  # an octant, three right angles
    assert ff.scale.triangle_side(0.25, 359.999999) == pytest.approx(4 * math.pi / 3, rel=1e-6)  # a great circle
    # by l'Huilier: tan²(E/4) = tan(s/2) tan³((s - a)/2) with s = 3a/2
    a = ff.scale.of(2.0).side
    excess = 4 * math.atan(math.sqrt(math.tan(3 * a / 4) * math.tan(a / 4) ** 3))
    assert math.degrees(excess) == pytest.approx(1.0, rel=1e-13)
    # an ideal triangle has no angles at all
    assert ff.scale.triangle_side(-1.0, 180 - 1e-9) > 40


def test_the_angles_are_off_by_a_degree_on_a_surface_that_was_measured() -> None:
    """Geodesics of a saddle, which is no hyperbolic space: small triangles at its centre do as the scale says."""
    c = 1e-3
    saddle = ff.StatisticalManifold(lambda u: torch.stack([u[0], u[1], c * u[0] * u[1]]), ff.charts.identity(2))
    scal = saddle.scalar_curvature(torch.zeros(2, dtype=torch.float64)).item()
    side = ff.scale.triangle_side(scal / 2, 0.01)
    turns = [2 * math.pi * i / 3 for i in range(3)]
    corners = [side / math.sqrt(3) * torch.tensor([math.cos(t), math.sin(t)], dtype=torch.float64) for t in turns]
    total = 0.0
    for i in range(3):
        p, q, r = corners[i:] + corners[:i]
        v, w, g = saddle.log(p, q), saddle.log(p, r), saddle.metric(p)
        total += math.acos((v @ g @ w / ((v @ g @ v) * (w @ g @ w)).sqrt()).item())
    assert 180 - math.degrees(total) == pytest.approx(0.01, rel=0.02)


# -- extremes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e-9, 1.0, 1e9, 1e300, 1.7e308])
def test_any_finite_number_has_a_size(size: float, sign: int) -> None:
    found = ff.scale.of(sign * size, width=384, part="mlp")
    with mpmath.workdps(30):
        assert found.radius == pytest.approx(float(mpmath.sqrt(2 / mpmath.mpf(size))), rel=1e-14)
    one = ff.scale.of(sign * 2.0)
    assert found.side == pytest.approx(found.radius * one.side, rel=1e-14)
    assert all(word not in str(found) for word in ("nan", "inf", "∞"))
    assert ("ball" in str(found)) == (sign > 0) and ("saddle" in str(found)) == (sign < 0)


def test_zero_and_what_is_not_known() -> None:
    flat = ff.scale.of(0.0, part="attention", volume_density=2.0)
    assert flat.radius == flat.side == math.inf and flat.less_curved == 0 and flat.chart_side is None
    assert "flat" in str(flat) and "∞" not in str(flat)
    for unknown in (ff.scale.of(math.nan, part="mlp"), ff.scale.of(3.0, error=math.inf, part="mlp")):
        assert math.isnan(unknown.radius) and math.isnan(unknown.side) and not unknown.known
        assert unknown.sentences() == ["The curvature is not known, so that there is nothing to compare it with."]
    assert ff.scale.of(0.5, error=math.nan).known


def test_a_value_within_its_error_is_bounded_and_not_ranked() -> None:
    found, bound = ff.scale.of(-0.001, error=0.02, part="mlp"), ff.scale.of(0.02)
    assert not found.known and found.radius == bound.radius == pytest.approx(10.0)
    assert "at most 0.02" in str(found) and "reference" not in str(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scalar_curvature": math.inf}, "scalar_curvature must be finite"),
        ({"scalar_curvature": -math.inf}, "scalar_curvature must be finite"),
        ({"scalar_curvature": "0.1"}, "must be a number"),
        ({"scalar_curvature": None}, "must be a number"),
        ({"scalar_curvature": True}, "must be a number"),
        ({"scalar_curvature": torch.zeros(2)}, "must be a number"),
        ({"scalar_curvature": 1 + 2j}, "must be a number"),
        ({"k": 1}, "k must be at least 2"),
        ({"k": 2.0}, "k must be an integer"),
        ({"error": -1.0}, "from 0"),
        ({"width": 0}, "width must be at least 1"),
        ({"width": 3.5}, "width must be an integer"),
        ({"volume_density": -1.0}, "from 0"),
        ({"volume_density": math.inf}, "must be finite"),
        ({"covariance": "words"}, "'calibrated' or a family"),
        ({"part": "mlp", "reading": "frozen soup"}, "is no reading"),
        ({"part": 3}, "must be a name"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ff.scale.of(**{"scalar_curvature": 0.1} | arguments)


@pytest.mark.parametrize(
    ("curvature", "degrees"), [(1.0, 0.0), (1.0, 360.0), (-1.0, 180.0), (1.0, -1.0), (1.0, math.nan)]
)
def test_triangles_that_there_are_none_of(curvature: float, degrees: float) -> None:
    with pytest.raises(InputError, match="degrees must be between 0 and"):
        ff.scale.triangle_side(curvature, degrees)


def test_numbers_of_other_libraries_are_numbers() -> None:
    for given in (np.float32(0.5), np.array(0.5), torch.tensor(0.5), 0.5):
        assert ff.scale.of(given, np.int64(2)).radius == 2.0


# -- units ------------------------------------------------------------------------------------------------------------


def test_curvatures_in_other_units_mean_the_same_length() -> None:
    """σ twice as large: the curvature is four times as large, and the radius half as many of them."""
    one, other = ff.scale.of(0.1, covariance=ff.Gaussian(1.0)), ff.scale.of(0.4, covariance=ff.Gaussian(4.0))
    for length in ("radius", "side"):
        assert getattr(one, length) == pytest.approx(2 * getattr(other, length), rel=1e-15)
    assert "σ is 2, in the units of the outputs" in str(other)


def test_lengths_are_said_in_units_of_the_chart_and_of_the_outputs() -> None:
    chart = ff.charts.affine(torch.zeros(3), 3.0 * torch.eye(3)[:2])
    bowl = ff.StatisticalManifold(lambda x: torch.stack([x[0], x[1], 0.05 * (x[0] ** 2 + x[1] ** 2)]), chart)
    u = torch.zeros(2, dtype=torch.float64)
    found = ff.scale.of(bowl.scalar_curvature(u), width=3, volume_density=bowl.volume_density(u))
    assert found.chart_side == pytest.approx(found.side / 3)  # a unit of the chart is 3 σ in every direction
    assert found.cloud == pytest.approx(3**0.5)
    x = torch.randn(20000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    family = ff.Gaussian.calibrated(x @ torch.diag(torch.tensor([1.0, 5.0, 0.1], dtype=torch.float64)))
    spread = family.whiten(x * torch.tensor([1.0, 5.0, 0.1])).square().sum(1).mean().sqrt()
    assert found.cloud == pytest.approx(spread.item(), rel=0.02)


# -- the reference layers ---------------------------------------------------------------------------------------------


def test_the_table_holds_quantiles_and_says_what_of() -> None:
    about = ff.scale.provenance()
    assert {"command", "versions", "models", "settings", "levels"} <= about.keys() and "quantiles" not in about
    assert "reference_layers" in about["command"]
    for times_width in (False, True):
        table = ff.scale.reference(times_width=times_width)
        assert ("block", "live") in table.index and table.index.is_unique
        values = table[about["levels"]].to_numpy()
        assert (np.diff(values) >= 0).all() and (values >= 0).all()
    assert all(readings.canonical(reading) == reading for _, reading in table.index)
    assert (table["count"] <= sum(model["layers"] * len(model["prompts"]) for model in about["models"])).all()
    widths = [model["width"] for model in about["models"]]
    for part, reading in table.index:
        plain, times = (ff.scale.reference(times_width=w).loc[(part, reading), 1.0] for w in (False, True))
        assert min(widths) * plain * 0.999 <= times <= max(widths) * plain * 1.001


def test_the_page_shows_the_table() -> None:
    rows = re.findall(
        r"^\| (\w+), ([\w +]+) \| (.*) \| (.*) \|$", (ROOT / "docs" / "scale.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 10
    for part, reading, *cells in rows:
        for times_width, cell in zip((False, True), cells, strict=True):
            known = ff.scale.reference(times_width=times_width).loc[(part.lower(), reading), [0.5, 0.05, 0.95]]
            assert [float(x) for x in re.findall(r"[\d.]+", cell)] == pytest.approx(list(known), rel=0.06)


def test_shipped_models_measured_anew_lie_within_the_table() -> None:
    some = {"layers": [2], "parts": ["attention"], "progress": False}
    rows = reference_layers.layers(ff.load("python-llama"), reference_layers.PYTHON, **some)
    assert len(rows) == 16
    table = ff.scale.reference()
    for row in rows.itertuples():
        known = table.loc[(row.part, row.reading)]
        assert known[0.0] * 0.999 <= row.scalar_curvature <= known[1.0] * 1.001


def test_ranks_are_the_shares_that_counting_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of layers with ties, many flat ones among them, to the distance between two quantiles of the table."""
    import pandas as pd

    rng = np.random.default_rng(0)
    sizes = np.concatenate([np.zeros(300), rng.lognormal(-5, 1, 600), np.full(100, 0.02)])
    rows = pd.DataFrame({"model": "a", "layer": np.arange(1000) % 4, "part": "mlp", "reading": "live", "prompt": 0})
    rows = rows.assign(scalar_curvature=sizes, width=1)
    content = {"levels": list(reference_layers.LEVELS), "quantiles": reference_layers.quantiles(rows)}
    monkeypatch.setattr(_reference, "_content", lambda: content)
    for size in (0.0, 1e-12, *np.quantile(sizes, [0.35, 0.5, 0.77]), 0.0199, 0.0201, 10.0):
        counted = (sizes < size).mean()
        assert ff.scale.less_curved(-size, "mlp") == pytest.approx(counted, abs=0.0501)
    assert ff.scale.less_curved(0.0, "mlp") == 0.0 and ff.scale.less_curved(1e9, "mlp") == 1.0


def test_ranks_rise_and_depend_on_the_width_as_lengths_do() -> None:
    sizes = np.geomspace(1e-7, 10, 200)
    for width in (None, 96, 4096):
        shares = [ff.scale.less_curved(size, "block", width=width) for size in sizes]
        assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    wide, narrow = (ff.scale.less_curved(0.01 * 96 / d, "block", width=d) for d in (768, 96))
    assert wide == narrow and 0 < wide < 1


def test_only_what_was_measured_alike_is_ranked() -> None:
    assert ff.scale.of(0.01, part="mlp").less_curved is not None
    assert ff.scale.of(0.01, 3, part="mlp").less_curved is None
    assert ff.scale.of(0.01, part="mlp", covariance=ff.Gaussian(1.0)).less_curved is None
    assert ff.scale.of(0.01, part="head 0").less_curved is None
    assert ff.scale.of(0.01).less_curved is None
    assert ff.scale.of(0.01, part="attention", reading="gate, pattern").reading == "frozen pattern+gate"


def test_the_words_hold_the_numbers() -> None:
    found = ff.scale.of(-0.005, width=384, part="attention", volume_density=0.3)
    bends, triangle, rank, unit = found.sentences()
    assert "−0.005" in bends and "saddle of radius 20 σ" in bends
    assert f"{found.side:.3g} σ" in triangle and f"{found.chart_side:.3g} units of the chart" in triangle
    assert "179°" in triangle and "181°" in ff.scale.of(0.005).sentences()[1]
    assert int(re.search(r"(\d+) %", rank).group(1)) == round(100 * found.less_curved)
    assert "standard deviation of the outputs" in unit
    assert str(found) == " ".join(found.sentences())
