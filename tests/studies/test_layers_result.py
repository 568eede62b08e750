"""What the study of layers returns: columns, sentences, verdicts and files."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from cases.tiny_models import save_word_tokenizer, tiny_model
from rich.console import Console
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.jets.engines import TaylorEngine
from fisherflat.models import Model, moves
from fisherflat.report import Analysis
from fisherflat.studies.layers import QUANTITIES
from fisherflat.studies.layers._measure import Measured, Surface, rows

IDS = [5, 6, 7, 8, 9, 11]
OTHER = [12, 4, 8, 30]
FILES = ["table.csv", "table.parquet", "analysis.json"]


def quiet(model: Model, prompts: Any, dim: int = 2, **options: Any) -> Analysis:
    return ff.analyze(model, prompts, dim=dim, progress=False, **{"positions": "last", "points": 1, **options})


@pytest.fixture(scope="module")
def llama() -> Model:
    return Model(tiny_model("llama"), name="llama")


# -- results -----------------------------------------------------------------------------------------------------------


def test_saved_files_hold_the_table(llama: Model, tmp_path: Path) -> None:
    analysis = quiet(llama, [IDS, OTHER], points=2)
    files = {path.name: path for path in analysis.save(tmp_path / "new" / "folder")}
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(files)
    read = pd.read_csv(files["table.csv"])
    assert list(read.columns) == list(analysis.table.columns)
    assert read.scalar_curvature.tolist() == analysis.table.scalar_curvature.tolist()
    content = json.loads(files["analysis.json"].read_text())
    assert content["complete"] is True and content["settings"]["moves"]["dim"] == 2
    for picture in ("layers.png", "gaps.png"):
        assert files[picture].read_bytes().startswith(b"\x89PNG")

    again = Analysis.load(tmp_path / "new" / "folder")
    pd.testing.assert_frame_equal(again.table, analysis.table)
    assert again.sentences() == analysis.sentences() and again.settings == analysis.settings
    with pytest.raises(InputError, match="does not hold the files"):
        Analysis.load(tmp_path)


def test_one_column_a_reading(llama: Model) -> None:
    analysis = quiet(llama, [IDS, OTHER], points=2, parts=["mlp", "block"])
    wide = analysis.by_reading("mean_curvature_norm")
    assert len(wide) == 2 * 2 * 2 * 2  # layers, parts, prompts, points
    held = wide.query("part == 'mlp'")["frozen mlp gate"]
    table = analysis.table.query("part == 'mlp' and reading == 'frozen mlp gate'")
    assert held.tolist() == table.mean_curvature_norm.tolist()
    assert wide.query("part == 'mlp'")["frozen pattern"].isna().all()  # an MLP has none
    with pytest.raises(InputError, match="no quantity of the table"):
        analysis.by_reading("verdict")


class OneLayer(nn.Module):
    """An attention layer on its own, as a model of one block that takes hidden states."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([layer])

    def forward(self, hidden: Tensor) -> Tensor:
        return self.blocks[0](hidden)


def test_the_gate_of_the_ring_classifier_is_what_bends_it() -> None:
    """The trained pair over the plane that it classifies: with the pattern held the ungated one is exactly flat."""
    points = torch.tensor([[0.3, -0.8], [1.1, 0.4]], dtype=torch.float64)
    found = {}
    for name, classifier in ff.zoo.ring_pair().items():
        encoder = classifier.representation
        plane = ff.moves.vectors(encoder.embedding.weight.T)
        prompts = [encoder.tokens(point) for point in points]
        model = ff.load(OneLayer(encoder.attention))
        found[name] = quiet(model, prompts, None, moves=plane, positions=[0], points=6, parts=["block"])
    ungated, gated = found["ungated"].by_reading(), found["gated"].by_reading()
    assert (ungated["frozen pattern"] == 0).all() and len(found["ungated"].gaps) == 0
    assert (ungated["live"] != 0).all()
    assert (gated["frozen pattern+gate"] == 0).all() and (gated["frozen pattern"] != 0).all()
    gap = found["gated"].gaps.iloc[0]
    assert (gap.live, gap.held, gap["count"]) == ("frozen pattern", "frozen pattern+gate", 12)
    assert gap["mean"] == pytest.approx(gated["frozen pattern"].mean(), rel=1e-12)
    assert gap.low <= gap["mean"] <= gap.high


def test_columns_of_a_sphere() -> None:
    """Every number of a row, on a piece of a sphere of radius 2 in calibrated units: all curvatures are known."""
    x = torch.tensor([[0.6, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    chart = ff.charts.token(x, 1, torch.eye(3, dtype=torch.float64))

    def sphere(hidden: Tensor) -> Tensor:
        """Stereographic projection of the moving token, in three dimensions."""
        u, square = hidden[1], hidden[1] @ hidden[1]
        return torch.cat([2 * u, (1 - square)[None]]) / (1 + square)

    points = torch.tensor([[0.0, 0.0, 0.0], [0.4, -0.2, 0.1]], dtype=torch.float64)
    family = ff.Gaussian(0.25)  # lengths double
    measured = Measured(ff.trace(sphere, x), chart, points, {"sphere": Surface(lambda jets: jets, family)})
    for row, u in zip(rows([measured], "all")[0]["sphere"], points, strict=True):
        scale = 4 / (1 + float(u @ u))  # the metric is scale^2 times the identity
        assert row["scalar_curvature"] == pytest.approx(6 / 4, rel=1e-12)
        for name in ("mean", "smallest", "largest"):
            assert row[f"{name}_sectional_curvature"] == pytest.approx(1 / 4, rel=1e-12)
        assert row["mean_curvature_norm"] == pytest.approx(1 / 2, rel=1e-12)
        assert row["second_fundamental_form_norm"] == pytest.approx(3**0.5 / 2, rel=1e-12)
        assert row["volume_density"] == pytest.approx(scale**3, rel=1e-12)
        assert row["effective_rank"] == pytest.approx(3, rel=1e-12)
        assert row["condition_number"] == pytest.approx(1, rel=1e-12)
        assert (row["verdict"], row["error"], row["u"]) == ("curved", None, u.tolist())
        assert abs(row["scalar_curvature"] - 6 / 4) <= row["scalar_curvature_error"] < 1e-12


def test_effective_rank_of_stretched_planes() -> None:
    """The metric of `u -> (a u, b v)` has eigenvalues a^2 and b^2, so the entropy is that of their shares."""
    for a, b in ((1.0, 1.0), (3.0, 1.0), (1.0, 1e-9)):
        geometry = ff.StatisticalManifold(
            lambda u, a=a, b=b: torch.stack([a * u[0], b * u[1], 0 * u[0]]), ff.charts.identity(2), engine="autodiff"
        ).at(torch.zeros(2, dtype=torch.float64))
        shares = [a**2 / (a**2 + b**2), b**2 / (a**2 + b**2)]
        expected = math.exp(-sum(share * math.log(share) for share in shares))
        assert geometry.effective_rank.item() == pytest.approx(expected, rel=1e-12)


def test_float32_on_request(llama: Model) -> None:
    double, single = (
        quiet(llama, IDS, parts=["mlp"], readings=["live"], dtype=d) for d in (torch.float64, torch.float32)
    )
    found, exact = single.table.scalar_curvature.to_numpy(), double.table.scalar_curvature.to_numpy()
    assert found == pytest.approx(exact, rel=2e-2) and (found != exact).all()
    assert single.settings["dtype"] == "float32" and any("float32" in said for said in single.sentences())


def test_memory_that_runs_out_halves_the_chunk(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quiet(llama, IDS, points=8, parts=["mlp"], layers=[0]).table
    jet, sizes = TaylorEngine.jet, []

    def small(self: TaylorEngine, u: Tensor) -> Tensor:
        sizes.append(len(u))
        if len(u) > 2:
            raise MemoryError
        return jet(self, u)

    monkeypatch.setattr(TaylorEngine, "jet", small)
    pd.testing.assert_frame_equal(quiet(llama, IDS, points=8, parts=["mlp"], layers=[0]).table, whole)
    assert sizes[:5] == [8, 4, 2, 2, 2]

    def none(self: TaylorEngine, u: Tensor) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TaylorEngine, "jet", none)
    errors = quiet(llama, IDS, points=8, parts=["mlp"], layers=[0]).table.error
    assert errors.str.contains("one point needs about").all()


def test_readings_that_no_part_has_are_said_so(llama: Model) -> None:
    analysis = quiet(llama, IDS, readings=["live", "frozen gate"], layers=[0])
    assert set(analysis.table.reading) == {"live"}
    assert "No part has what 'frozen gate' holds, so it was measured nowhere." in analysis.sentences()


def test_nothing_half_written_stays(llama: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "disk full")

    analysis = quiet(llama, IDS, layers=[0], parts=["mlp"])
    files = analysis.files() | {"table.parquet": fail}
    monkeypatch.setattr(Analysis, "files", lambda self: files)
    with pytest.raises(InputError, match=r"cannot be written.*disk full"):
        analysis.save(tmp_path)
    there = {path.name for path in tmp_path.iterdir()}
    # one half, and the document, which is written last, so that it says that all is there
    assert there <= set(files) - {"table.parquet", "analysis.json"}
    with pytest.raises(InputError, match="cannot be made"):
        analysis.save(tmp_path / "table.csv")


def test_summary_in_words(llama: Model) -> None:
    analysis = quiet(llama, IDS)
    said = analysis.sentences()
    assert "Attention with its pattern frozen: flat, by structure alone, in all 2 layers." in said
    assert any(s == "So, where it was measured, the softmax pattern alone bends this attention." for s in said)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(analysis.summary())
    text = console.export_text()
    assert "frozen pattern" in text and "flat" in text


class Cylinder(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return torch.stack([torch.cos(u[0]), torch.sin(u[0]), u[1]])


def graph(a: float, b: float) -> Any:
    """`(u, v) -> (u, v, a u^2 + b v^2)`, of curvature `8 a b` at the origin."""
    return lambda u: torch.stack([u[0], u[1], a * u[0] ** 2 + b * u[1] ** 2])


@pytest.mark.parametrize(
    ("surface", "verdict"),
    [
        (graph(0.0, 0.0), "flat to its error"),
        (graph(1.0, 0.0), "flat to its error"),  # bent, yet flat
        (Cylinder(), "flat to its error"),
        (graph(1.0, 1.0), "curved"),
        (graph(1.0, -1.0), "curved"),
        # no absolute tolerance: these are nearly flat and yet curved
        (graph(1e-9, 1e-9), "curved"),
        (graph(1e-9, -1e-9), "curved"),
        (graph(1e6, -1e-3), "curved"),
    ],
)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_verdicts(surface: Any, verdict: str, scale: float) -> None:
    chart = ff.charts.identity(2)
    u = torch.tensor([[0.0, 0.0], [0.1, -0.2]], dtype=torch.float64)
    family = ff.Gaussian(scale**2)
    assert ff.StatisticalManifold(surface, chart, family, engine="autodiff").verdict(u) == [verdict] * 2
    measured = Measured(ff.trace(surface, chart.point), chart, u, {"it": Surface(lambda jets: jets, family)})
    assert [row["verdict"] for row in rows([measured])[0]["it"]] == [verdict] * 2


class Cancelling(nn.Module):
    """A bowl that is lost in what cancels beside it: `2e-3` against the roundings of `1e14`."""

    def forward(self, u: Tensor) -> Tensor:
        large = 1e14 * (u[0] + u[1]).tanh()
        return torch.stack([u[0], u[1], (1e-3 * u.square().sum() + large) - large])


@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0), (2.0**-30, 2.0**20, 2.0**40)])
def test_a_curvature_below_its_error_is_undecided_in_whatever_units(scales: tuple[float, float, float]) -> None:
    coordinates, outputs, deviation = scales
    chart = ff.charts.affine(torch.tensor([0.3, 0.2]), torch.eye(2) * coordinates)
    cancelling = Cancelling()

    def f(u: Tensor) -> Tensor:
        return cancelling(u) * outputs

    manifold = ff.StatisticalManifold(f, chart, ff.Gaussian(deviation**2))
    assert manifold.verdict([[0.0, 0.0]]) == ["undecided"]
    assert manifold.verdict([0.0, 0.0]) == "undecided"


def test_undecided_rows_are_in_no_mean_and_are_counted() -> None:
    about: dict[str, Any] = {
        "part": "mlp",
        "roles": "",
        "reading": "live",
        "text": "",
        "position": 0,
        "token": "",
        "u": [0.0, 0.0],
    }
    about |= dict.fromkeys(QUANTITIES, 1.0) | {"scalar_curvature_error": 1e-9, "verdict": "curved"}
    lost = {"scalar_curvature": -5.29e8, "scalar_curvature_error": 1e9, "verdict": "undecided"}
    bad = {(0, 0), (1, 0), (1, 1)}
    found = [
        {
            "layer": layer,
            "prompt": prompt,
            "point": point,
            **about,
            **(lost if (layer, point) in bad else {}),
        }
        for layer in (0, 1)
        for prompt in range(5)
        for point in (0, 1)
    ]
    analysis = Analysis(found, model="m", settings={}, complete=True)
    table = analysis.estimates.set_index("layer")
    assert table.loc[0, ["count", "missing", "mean", "mean_error"]].tolist() == [5, 5, 1.0, pytest.approx(1e-9)]
    assert table.loc[1, ["count", "missing"]].tolist() == [0, 10]
    said = analysis.sentences()
    assert (
        said[0] == "The MLP, live: positive curvature in layer 0, on average 1 (95 % interval 1 to 1 over 5 prompts)."
    )
    assert said[1].startswith("At 15 of 20 points the error of the scalar curvature exceeds its value")
    (overview,) = analysis.overview()
    cells = [str(cell) for cell in overview.columns[1].cells]
    assert "5 undecided" in cells[0] and cells[1] == "undecided"
    assert analysis.by_reading()["live"].isna().sum() == 15


def test_the_covariance_is_that_of_the_words(tmp_path: Path) -> None:
    """What the MLP puts out at [CLS] and [SEP] does not set the unit of curvature."""
    from transformers import AutoTokenizer

    save_word_tokenizer(tmp_path)
    model = Model(tiny_model("bert"), AutoTokenizer.from_pretrained(tmp_path))
    text = "the cat sat on a mat and saw dogs"
    row = quiet(model, text, parts=["mlp"], layers=[0], positions="last", points=1, readings=["live"]).table.iloc[0]
    block = model.blocks(text)[0]
    states, outputs = block.mlp_input[1:-1], block.mlp(block.mlp_input)[1:-1]
    _, singular, directions = torch.linalg.svd(states - states.mean(0), full_matrices=False)
    chart = ff.charts.token(block.mlp_input, -2, directions[:2] * singular[:2, None] / math.sqrt(len(states) - 1))
    family = ff.Gaussian(outputs.var(0).mean().item())
    expected = ff.StatisticalManifold(block.mlp, chart, family, engine="autodiff").scalar_curvature(torch.zeros(2))
    assert row.scalar_curvature == pytest.approx(expected.item(), rel=1e-9)


def test_all_words_together_are_summed_up_as_one_chart(llama: Model) -> None:
    found = quiet(llama, IDS, parts=["mlp"], layers=[0], positions="together", points=2, readings=["live"])
    assert found.table.position.isna().all() and set(found.table.token) == {"all words"}
    assert any("over 2 points of a single chart" in said for said in found.sentences())


# -- how much there is that bends --------------------------------------------------------------------------------------


def test_columns_of_size_are_those_of_the_image() -> None:
    """Against the Jacobian of the same map by differences, and the area of the image of the unit disc."""
    model, text = ff.load("python-llama"), "def mean(values):"
    row = quiet(model, text, parts=["mlp"], layers=[1], positions=[2], points=1, readings=["live"]).table.iloc[0]
    part = model.blocks(text)[1].mlp
    moving = moves.parse("principal")
    chart = moving.fit([part.input], [model.encode(text)]).chart([part.input], [2])
    outputs = part(part.input)
    unit = ff.Gaussian.calibrated(outputs[model.encode(text).special.count(True) :]).covariance
    h = 1e-5
    steps = [(part(chart(h * e)) - part(chart(-h * e))).flatten() / (2 * h) for e in torch.eye(2).double()]
    singular = torch.linalg.svdvals(torch.stack(steps)) / float(unit) ** 0.5
    assert row["largest_stretch"] == pytest.approx(float(singular[0]), rel=1e-6)
    assert row["smallest_stretch"] == pytest.approx(float(singular[1]), rel=1e-6)
    turned = math.degrees(row["scalar_curvature"] / 2 * math.pi * float(singular.prod()))
    assert row["total_bend"] == pytest.approx(turned, rel=1e-6) and not row["negligible_image"]


def test_a_sphere_that_is_covered_turns_by_its_solid_angle() -> None:
    """However small a sphere is, its unit disc bends as much: the curvature grows as the area falls."""

    class Cap(torch.nn.Module):
        def __init__(self, size: float) -> None:
            super().__init__()
            self.size = size

        def forward(self, x: Tensor) -> Tensor:
            z = (16 - x[..., :2].square().sum(-1)).sqrt()
            return x + self.size * torch.cat([x[..., :2], z[..., None]], -1) - x

    found = {}
    for size in (1.0, 1e-7):
        chart = ff.charts.affine(torch.zeros(1, 3).double(), torch.eye(3).double()[:2, None])
        M = ff.StatisticalManifold(Cap(size).double(), chart)
        geometry = M.at([0.0, 0.0])
        found[size] = float(QUANTITIES["total_bend"](geometry))
        assert float(QUANTITIES["largest_stretch"](geometry)) == pytest.approx(size)
    assert found[1.0] == pytest.approx(math.degrees(math.pi / 16)) == pytest.approx(found[1e-7], rel=1e-6)


def test_negligible_images_are_named() -> None:
    about = {"part": "mlp", "roles": "", "reading": "live", "prompt": 0, "text": "", "position": 0, "token": ""}
    numbers = dict.fromkeys(QUANTITIES, 1.0) | {"scalar_curvature": -1.6e6, "scalar_curvature_error": 1.0}
    found = [
        {
            "layer": layer,
            "point": 0,
            **about,
            **numbers,
            "u": [0.0, 0.0],
            "verdict": "curved",
            "negligible_image": small,
        }
        for layer, small in ((0, False), (1, True))
    ]
    said = " ".join(Analysis(found, model="m", settings={}, complete=True).sentences())
    assert "At 1 of 2 points a unit of the chart changes the outputs by less than a thousandth" in said
    assert "(layer 1, mlp, live): negligible images" in said
