"""docs/extending.md is true: the files and names that it names exist, and its recipes hold for what is there."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import ROOT

import fisherflat as ff
from fisherflat.gated_mlp import PROOFS
from fisherflat.jets.graph import ROLES
from fisherflat.jets.ops import OPS
from fisherflat.jets.rules import FUNCTIONS
from fisherflat.layers import GATE_POSITIONS, MLP_ACTIVATIONS
from fisherflat.models import PARTS

PAGE = (ROOT / "docs" / "extending.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| (?:`([^`]+)`)? ?\|", PAGE, re.MULTILINE)
D = torch.float64


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def test_the_page_has_its_five_recipes() -> None:
    assert re.findall(r"^## \((\w)\)", PAGE, re.MULTILINE) == list("abcde") and len(ROWS) > 25


@pytest.mark.parametrize(("file", "name"), ROWS)
def test_files_and_names_exist(file: str, name: str) -> None:
    assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", (ROOT / file).read_text()), f"{file} has no {name}"


# -- (a) an activation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MLP_ACTIVATIONS)
def test_an_activation_by_name_is_all_that_layers_need(name: str) -> None:
    """Its degree is known, and the two engines, of which one knows no rules, agree on a layer that has it."""
    assert name in PROOFS
    torch.manual_seed(0)
    mlp, chart = ff.layers.GatedMLP(4, 6, name).double(), ff.charts.affine(normal(4, seed=1), normal(2, 4, seed=2))
    taylor, autodiff = (
        ff.StatisticalManifold(mlp, chart, engine=engine).jet([0.1, 0.2]) for engine in ("taylor", "autodiff")
    )
    torch.testing.assert_close(taylor.coefficients, autodiff.coefficients, rtol=1e-11, atol=1e-11)


def test_an_activation_without_a_name_needs_nothing() -> None:
    mlp = lambda x: (x.sin() + torch.nn.functional.mish(x)) * x.flip(-1)  # noqa: E731
    chart = ff.charts.affine(normal(4, seed=1), normal(2, 4, seed=2))
    certificate = ff.certify(mlp, chart, at=[0.0, 0.0])
    assert certificate.verdict == "curved"
    scal = ff.StatisticalManifold(mlp, chart, engine="autodiff").scalar_curvature([0.0, 0.0]).item()
    low, high = map(float, certificate.enclosure)
    assert low - 1e-9 <= scal / 2 <= high + 1e-9


# -- (b) an op ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_its_row_without_being_written_there(name: str) -> None:
    row = OPS[getattr(torch.ops.aten, name)]
    assert row.kind == "function" and row.function is FUNCTIONS[name] and row.rule is not None


# -- (c) a gate position -----------------------------------------------------------------------------------------------


class OneBlock(torch.nn.Module):
    def __init__(self, position: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        attention = ff.layers.SelfAttention(8, heads=2, gate=ff.layers.Gate("silu", position=position))
        mlp = ff.layers.GatedMLP(8, 12)
        self.blocks = torch.nn.ModuleList([Residual(attention, mlp)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Residual(torch.nn.Module):
    def __init__(self, attention: torch.nn.Module, mlp: torch.nn.Module) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


@pytest.mark.parametrize("position", GATE_POSITIONS)
def test_a_gate_is_found_where_the_layer_puts_it(position: str) -> None:
    """By its position in a model; a gate on queries or keys acts through the pattern alone, and is part of it."""
    layer = ff.inspect(ff.load(OneBlock(position)), normal(5, 8)).layers[0]
    found = [gate.position for gate in layer.gates if gate.kind == "attention"]
    assert found == ([] if position in ("query", "key") else [position])


# -- (e) a reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [role for role in ROLES if role != "other"])
def test_every_role_but_the_last_makes_a_reading(role: str) -> None:
    assert ROLES[-1] == "other"
    reading = ff.readings.name([role])
    assert ff.readings.roles(reading) == (role,) and reading == f"frozen {ff.readings.WORDS[role]}"
    attention, mlp = ff.layers.SelfAttention(8, gate=ff.layers.Gate()), ff.layers.GatedMLP(8, 6)
    everything = torch.nn.Sequential(attention, torch.nn.LayerNorm(8), mlp, torch.nn.Linear(8, 8), torch.nn.GELU())
    assert ff.freeze(everything, normal(5, 8), (role,)).frozen == (role,)


# -- the glossary ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word", [*ROLES, *PARTS, *GATE_POSITIONS, "flat", "curved", "undecided", "live", "frozen pattern"]
)
def test_the_glossary_has_the_words_that_results_are_written_in(word: str) -> None:
    assert f"`{word}`" in (ROOT / "docs" / "glossary.md").read_text()


def test_an_entry_of_the_glossary_is_two_sentences() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    entries = re.findall(r"^\*\*(.+?)\*\*\n: (.+?)(?=\n\n)", text + "\n\n", re.MULTILINE | re.DOTALL)
    assert len(entries) > 60
    wrong = {word: said for word, said in entries if len(re.findall(r"[.](?:\s|$)", said)) != 2}
    assert not wrong
