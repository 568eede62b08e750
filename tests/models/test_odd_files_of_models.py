"""Files of odd kinds where a model, vectors or a result are read: what is there is named, and nothing waits for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.tiny_models import save_tiny

import fisherflat as ff
from fisherflat.errors import FisherflatError
from fisherflat.report._load import renew


def circle(path: Path) -> None:
    path.symlink_to(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


ODD: dict[str, Callable[[Path], Any]] = {"pipe": os.mkfifo, "folder": Path.mkdir, "device": device, "circle": circle}
#: what is said of each
SAID = {"pipe": "but a pipe", "folder": "but a folder", "device": "but a device", "circle": "Too many levels"}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model(name: str, odd: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "llama", torch.float32)
    (folder / name).unlink()
    ODD[odd](folder / name)
    with pytest.raises(FisherflatError, match=SAID[odd]) as refused:
        ff.load(folder)
    assert name in str(refused.value)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_vectors(suffix: str, odd: str, tmp_path: Path) -> None:
    ODD[odd](tmp_path / f"v.{suffix}")
    with pytest.raises(FisherflatError, match=SAID[odd]):
        ff.moves.vectors(tmp_path / f"v.{suffix}")
    with pytest.raises(FisherflatError, match="there is no file"):
        ff.moves.vectors(tmp_path / f"w.{suffix}")


@pytest.mark.parametrize("odd", ODD)
def test_a_result_and_its_page(odd: str, tmp_path: Path) -> None:
    for name in ("analysis.json", "report.html"):
        ODD[odd](tmp_path / name)
    with pytest.raises(FisherflatError, match=SAID[odd]):
        ff.report.load(tmp_path)
    assert renew(tmp_path) == []  # a page of that name that is not ours stays
