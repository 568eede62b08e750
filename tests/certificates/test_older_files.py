"""Certificates that fisherflat 0.1.0 wrote load and verify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import certified

import fisherflat as ff
from fisherflat.certificates import Certificate

FOLDER = Path(__file__).parents[1] / "data" / "certificates" / "0.1.0"

#: file -> the map and chart that it is about
ABOUT: dict[str, Callable[[], tuple[Any, ...]]] = {
    "flat": lambda: (ff.freeze(certified.Attention(), certified.HIDDEN), certified.CHART),
    "curved": lambda: (certified.Attention("silu"), certified.CHART),
    "box": lambda: (certified.Attention("silu"), certified.CHART),
    "undecided": lambda: (certified.cylinder, ff.charts.identity(2)),
    "symmetry": lambda: (certified.gated_mlp(),),
}
LAYERS = ["layer-flat", "layer-mlp"]


@pytest.mark.parametrize("name", ABOUT)
def test_an_older_file_verifies(name: str) -> None:
    verification = ff.verify(Certificate.load(FOLDER / f"{name}.json"), *ABOUT[name]())
    assert verification.ok, verification


@pytest.mark.parametrize("name", LAYERS)
def test_an_older_file_about_a_layer_verifies(name: str) -> None:
    verification = ff.verify_layer(Certificate.load(FOLDER / f"{name}.json"), ff.load("python-llama"))
    assert verification.ok, verification


@pytest.mark.parametrize(("name", "wrong"), [("flat", "curved"), ("curved", "flat"), ("box", "flat")])
def test_an_older_file_does_not_verify_for_another_map(name: str, wrong: str) -> None:
    assert not ff.verify(Certificate.load(FOLDER / f"{name}.json"), *ABOUT[wrong]()).ok
