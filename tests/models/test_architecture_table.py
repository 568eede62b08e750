"""The table of architectures: parts, gates, engines and certificates are what the source of each says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from cases.architecture_table import agrees, row
from cases.architectures import ARCHITECTURES, GATED, UNGATED, blocks, traced
from conftest import ROOT

#: where the engines are compared here; the command that makes the page compares them for all
COMPARED = set(UNGATED) | {kind for kind, said in ARCHITECTURES.items() if said.gate}
PAGE = ROOT / "docs" / "coverage.md"


@pytest.fixture(autouse=True)
def forgetting() -> Iterator[None]:
    """A small model of every architecture at a time would fill the memory."""
    yield
    blocks.cache_clear()
    traced.cache_clear()


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_an_architecture_is_what_its_source_says(kind: str) -> None:
    said, engines = ARCHITECTURES[kind], kind in COMPARED
    found = row(kind, engines)
    layers = found["layers"]
    attentive = [layer for layer in layers if layer["softmax"]]
    states = [layer[part] for layer in layers for part in ("block", "mlp")]
    states += [layer["attention"] for layer in attentive] or ["no softmax"]
    assert all(state == "traces" for state in states) is not bool(said.missing)
    assert agrees(found, said)
    for layer in attentive:
        if "verdict" in layer:
            assert layer["verdict"] == ("curved" if layer["gates"] else "flat")
    differences = [layer["difference"] for layer in layers if layer["difference"] is not None]
    assert all(difference < 1e-9 for difference in differences)
    assert bool(differences) is engines


def test_the_page_is_of_this_list() -> None:
    assert re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.M) == sorted(ARCHITECTURES)
    assert "**no**" not in PAGE.read_text()


def test_all_architectures_promised_are_here() -> None:
    gated = [kind for kind, said in ARCHITECTURES.items() if said.gate]
    assert len(ARCHITECTURES) >= 100 and len(gated) >= 14
    assert (len(UNGATED), len(GATED)) == (39, 10) and set(GATED) <= set(gated)
