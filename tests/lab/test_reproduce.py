"""The command `reproduce`: what it keeps, what it does again, and when it says that a claim does not hold."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from fisherflat import cli
from fisherflat.errors import InputError
from fisherflat.lab.experiments.language import CONSTANT_GATE, LLAMA, QWEN3_NEXT
from fisherflat.lab.reproduce import Claim, Section, certificates, claims, depth, language, reproduce, ring, symmetry
from fisherflat.lab.reproduce import _page as page
from fisherflat.lab.reproduce import _run as run
from fisherflat.lab.reproduce._report import table


@dataclass(frozen=True)
class Settings:
    size: int = 2


class Sections:
    """Two sections that cost nothing, and how often each was measured."""

    def __init__(self) -> None:
        self.measured: list[tuple[str, int]] = []
        self.interrupted = False

    def module(self, name: str) -> ModuleType:
        def measure(settings: Settings, folder: Path) -> Section:
            self.measured.append((name, settings.size))
            if self.interrupted and name == "second":
                raise KeyboardInterrupt
            (folder / "line.png").write_bytes(b"png")
            claim = Claim("arXiv 0", f"{name} | holds", "1 of 1", "agrees")
            rows = [{"x": 0.123456, "y": None}, {"x": float("nan"), "y": "b"}]
            return Section(name, "About it.", [claim], {"numbers": rows}, ("line.png",))

        module = ModuleType(name)
        vars(module).update(Settings=Settings, QUICK=Settings(1), measure=measure)
        return module


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> Sections:
    fake = Sections()
    for room in (run, page):
        monkeypatch.setattr(room, "SECTIONS", {name: fake.module(name) for name in ("first", "second")})
    return fake


def test_a_section_that_is_done_is_not_done_again(sections: Sections, tmp_path: Path) -> None:
    assert reproduce(tmp_path, progress=False) and reproduce(tmp_path, progress=False)
    assert sections.measured == [("first", 2), ("second", 2)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "fisherflat reproduce --out again"),
        ({"quick": True}, "fisherflat reproduce --quick --out again"),
        ({"only": ["first"]}, "fisherflat reproduce --only first --out again"),
        ({"quick": True, "only": ["second"]}, "fisherflat reproduce --quick --only second --out again"),
    ],
)
def test_the_page_gives_the_command_that_was_run(
    sections: Sections, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    reproduce(tmp_path, progress=False, **options)
    assert f">{said}<" in (tmp_path / "report.html").read_text()


def test_other_settings_a_lost_file_and_other_versions_are_measured_again(
    sections: Sections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reproduce(tmp_path, only=["first"], progress=False)
    reproduce(tmp_path, quick=True, only=["first"], progress=False)
    assert sections.measured == [("first", 2), ("first", 1)]
    (tmp_path / "first" / "line.png").unlink()
    reproduce(tmp_path, quick=True, only=["first"], progress=False)
    assert len(sections.measured) == 3
    (tmp_path / "first" / "section.json").write_text('{"half": ')
    reproduce(tmp_path, quick=True, only=["first"], progress=False)
    assert len(sections.measured) == 4
    monkeypatch.setattr("fisherflat._versions.installed", lambda package: "0.0")
    reproduce(tmp_path, quick=True, only=["first"], progress=False)
    assert len(sections.measured) == 5


def test_an_interrupt_keeps_what_is_done_and_the_next_call_goes_on(sections: Sections, tmp_path: Path) -> None:
    sections.interrupted = True
    assert not reproduce(tmp_path, progress=False)
    assert set(json.loads((tmp_path / "results.json").read_text())) == {"first"}
    assert not (tmp_path / "second" / "section.json").exists()
    sections.interrupted = False
    assert reproduce(tmp_path, progress=False)
    assert sections.measured == [("first", 2), ("second", 2), ("second", 2)]
    assert set(json.loads((tmp_path / "results.json").read_text())) == {"first", "second"}


def test_one_section_alone_leaves_the_others_in_the_report(sections: Sections, tmp_path: Path) -> None:
    reproduce(tmp_path, progress=False)
    (tmp_path / "second" / "section.json").unlink()
    reproduce(tmp_path, only=["second"], progress=False)
    assert sections.measured[2:] == [("second", 2)]
    assert "## first" in (tmp_path / "report.md").read_text()


def test_the_report_holds_every_claim_table_and_figure(sections: Sections, tmp_path: Path) -> None:
    reproduce(tmp_path, progress=False)
    text = (tmp_path / "report.md").read_text()
    assert "| first \\| holds | arXiv 0 | 1 of 1 | agrees |" in text
    assert "| 0.123 |  |\n|  | b |" in text
    assert "![line](second/line.png)" in text
    with (tmp_path / "first" / "numbers.csv").open() as file:
        assert next(csv.DictReader(file)) == {"x": "0.123456", "y": ""}
    numbers = json.loads((tmp_path / "results.json").read_text())["first"]
    assert numbers["tables"]["numbers"] == [{"x": 0.123456, "y": None}, {"x": None, "y": "b"}]
    assert numbers["settings"] == {"size": 2} and set(numbers["versions"]) == {"fisherflat", "torch", "python"}


def test_columns_of_different_rows_are_joined() -> None:
    assert table([{"a": 1}, {"b": (0.5, 2)}]).splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| 1 |  |",
        "|  | 0.5 to 2 |",
    ]


def test_the_command_ends_with_130_when_interrupted_and_1_for_a_section_that_is_none(
    sections: Sections, tmp_path: Path
) -> None:
    result = CliRunner().invoke(cli.app, ["reproduce", "--out", str(tmp_path), "--quick"])
    assert result.exit_code == 0 and f"written: {tmp_path / 'report.md'}" in result.output
    assert sections.measured == [("first", 1), ("second", 1)]
    sections.interrupted = True
    assert CliRunner().invoke(cli.app, ["reproduce", "--out", str(tmp_path)]).exit_code == 130
    with pytest.raises(InputError, match="no section 'third'; there are first, second"):
        reproduce(tmp_path, only=["third"])


# -- the sections themselves, small ----------------------------------------------------------------------------------

SMALL = {
    "ring": ring.Settings(seeds=2, steps=60, resolution=5, heads=(1,)),
    "certificates": certificates.Settings(models=(LLAMA,), layers=(2,)),
    "language": language.Settings(models=(QWEN3_NEXT,), layers=(3,), points=1, files=("queue.py",)),
    "depth": depth.Settings(
        seeds=2, gates=("none", "output"), mlps=("none",), widths=(8,), scales=(0.3,), models=(LLAMA,), points=2,
        resolution=0, aligned=4,
    ),
    "symmetry": symmetry.Settings(seeds=1, width=4, units=3, inputs=60, models=(LLAMA,)),
    "claims": claims.Settings(seeds=1, steps=2, groups=("symmetries",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduced")
    assert reproduce(folder, settings=SMALL, progress=False)
    return folder


def test_every_section_leaves_its_files(small: Path) -> None:
    found = json.loads((small / "results.json").read_text())
    assert list(found) == list(run.SECTIONS) == list(SMALL)
    for name, section in found.items():
        for rows in section["tables"]:
            assert (small / name / f"{rows}.csv").stat().st_size > 0
        for figure in section["figures"]:
            assert (small / name / figure).read_bytes().startswith(b"\x89PNG")
    for row in found["certificates"]["tables"]["certificates"]:
        assert (small / "certificates" / row["certificate"]).is_file() and row["verified"]


def test_what_theory_says_is_found_at_any_size(small: Path) -> None:
    found = json.loads((small / "results.json").read_text())
    verdicts = {claim["statement"]: claim["verdict"] for section in found.values() for claim in section["claims"]}
    for statement in (
        "With its pattern held, ungated attention is flat",
        "and a gate bends it",
        "Ungated attention in the coordinates of its weights, values fixed, is flat",
        "Ungated attention with its pattern held is flat",
        "It is the gate that bends it: with both held it is flat",
        "Curvature can accumulate under composition (aligned layers, K = 4a²L²)",
        "What bends the others is their gates: with these held too, every stack is flat",
        "A nonlinearity on one factor breaks the exchange symmetry",
        "and, if it is not homogeneous, the inverse scaling symmetry as well",
    ):
        assert verdicts[statement] == "agrees"
    null = {row["activation"]: row["null directions"] for row in found["symmetry"]["tables"]["null_directions"]}
    assert null["relu"] == null["identity"] == 6 and null["silu"] == null["gelu"] == 3
    aligned = found["depth"]["tables"]["aligned"]
    assert [row["Gauss curvature"] for row in aligned] == pytest.approx([0.25, 1.0, 4.0])  # 4 (1/4)² L², L = 1, 2, 4


# -- verdicts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "low", "high", "expected"),
    [
        ("ring", 0.02, 0.05, "agrees"),
        ("ring", -0.02, 0.005, "does not agree"),
        ("ring", -0.02, 0.05, "open"),
        ("half plane", -0.001, 0.002, "agrees"),
        ("half plane", 0.01, 0.02, "does not agree"),
    ],
)
def test_a_gain_is_judged_by_its_interval(task: str, low: float, high: float, expected: str) -> None:
    gain = {"mean": (low + high) / 2, "interval_95": [low, high], "values": [low, high]}
    claim = ring._gain(task, 1, {"test_accuracy_gated_minus_ungated": gain})
    assert claim.verdict == expected
    assert f"({100 * low:.1f} to {100 * high:.1f}, 2 seeds)" in claim.measured


def test_a_proof_that_fails_or_is_not_verified_is_no_agreement() -> None:
    row = {"subject": "python-llama layer 0", "reading": "frozen pattern", "verdict": "flat", "from": 0.0, "to": 0.0}
    statement = "Ungated attention with its pattern held is flat"
    for changed, expected in (
        ({"verified": True}, "agrees"),
        ({"verified": False}, "does not agree"),
        ({"verified": True, "verdict": "undecided"}, "does not agree"),
    ):
        rows = [row | {"verified": True}, row | changed]
        assert {claim.statement: claim.verdict for claim in certificates._claims(rows)}[statement] == expected


@pytest.mark.parametrize(
    ("gains", "expected"),
    [((-0.1, -0.11), "agrees"), ((0.1, 0.11), "does not agree"), ((-0.1, 0.1), "open"), ((-0.1,), "open")],
)
def test_a_gate_helps_where_the_interval_of_the_loss_over_seeds_says_so(
    gains: tuple[float, ...], expected: str
) -> None:
    def runs(losses: list[float]) -> dict[str, Any]:
        return {str(seed): {"trained": {"held_out_bits_per_byte": loss}} for seed, loss in enumerate(losses)}

    gated, held = runs([2 + gain for gain in gains]), runs([2.0] * (len(gains) + 1))  # one seed without its counterpart
    claim = language._helps({"runs": {QWEN3_NEXT: gated, CONSTANT_GATE: held}})
    assert claim.verdict == expected
    assert claim.measured.startswith(f"{sum(gains) / len(gains):+.4f} bits per byte")


def test_what_training_did_to_the_gates_is_the_geometric_mean_over_layers() -> None:
    def one(factor: float) -> dict[str, Any]:
        before, after = {"1": 0.5, "2": 2.0}, {"1": 0.5 * factor, "2": 2.0 * factor**3}
        return {
            when: {"attention_curvature": {"frozen pattern": layers}}
            for when, layers in (("trained", after), ("untrained", before))
        }

    [claim] = language._trained({"runs": {QWEN3_NEXT: {"0": one(1.5), "1": one(1.5)}}})
    assert claim.measured.startswith("times 2.25 (2.25 to 2.25, 2 seeds)") and claim.verdict == "agrees"
    [claim] = language._trained({"runs": {QWEN3_NEXT: {"0": one(0.5), "1": one(0.51)}}})
    assert claim.verdict == "does not agree"
    [claim] = language._trained({"runs": {QWEN3_NEXT: {"0": one(0.5), "1": one(2.0)}}})
    assert claim.verdict == "open"


def test_a_section_of_parts_goes_on_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def part(settings: Settings, folder: Path, name: str) -> None:
        if name == "c" and "interrupt" not in measured:
            measured.append("interrupt")
            raise KeyboardInterrupt
        measured.append(name)
        (folder / "parts").mkdir(exist_ok=True)
        (folder / "parts" / name).write_text(name * settings.size)

    def left(settings: Settings, folder: Path) -> list[str]:
        return [name for name in "abc" if not (folder / "parts" / name).is_file()]

    def measure(settings: Settings, folder: Path) -> Section:
        whole = "".join(path.read_text() for path in sorted((folder / "parts").iterdir()))
        return Section("Parts", "About them.", [Claim("arXiv 0", "whole", whole, "agrees")])

    module = ModuleType("parts")
    vars(module).update(Settings=Settings, QUICK=Settings(1), measure=measure, left=left, part=part)
    for room in (run, page):
        monkeypatch.setattr(room, "SECTIONS", {"parts": module})
    assert not reproduce(tmp_path, progress=False)
    assert not (tmp_path / "results.json").exists()
    assert reproduce(tmp_path, progress=False)
    assert measured == ["a", "b", "interrupt", "c"]
    assert json.loads((tmp_path / "results.json").read_text())["parts"]["claims"][0]["measured"] == "aabbcc"
    assert reproduce(tmp_path, progress=False) and len(measured) == 4
    (tmp_path / "parts" / "section.json").unlink()  # all its parts are there
    assert reproduce(tmp_path, progress=False) and len(measured) == 4
    assert (tmp_path / "parts" / "section.json").is_file()


def test_the_claims_are_settled_from_their_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds of what ships: figures and tables of all claims, and no verdict."""
    shipped = Path(__file__).parents[2] / "docs" / "data" / "claims"
    paths = [tmp_path / f"{name}.parquet" for name in ("models", "symmetries")]
    for path in paths:
        table = pd.read_parquet(shipped / path.name)
        table[table["seed"] < 2].to_parquet(path)
    monkeypatch.setattr(claims, "collect", lambda run: paths)
    found = claims.measure(claims.Settings(seeds=2), tmp_path)
    assert [claim.verdict for claim in found.claims] == ["open"] * 7
    assert set(found.figures) == {f"{name}.png" for name in "ABCDEFG"}
    assert all((tmp_path / figure).read_bytes().startswith(b"\x89PNG") for figure in found.figures)
    assert {row["verdict"] for row in found.tables["tests"]} == {"undecided"}
