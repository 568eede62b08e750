"""Tables that a model computes, rounded before it came here."""

from __future__ import annotations

import warnings

import pytest
import torch
from cases.tiny_models import tiny_model
from torch import nn

import fisherflat as ff
from fisherflat.errors import CheckpointWarning

IDS = [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, "two to three"), (torch.float16, "three to four")])
def test_rotary_frequencies_in_half_precision_are_warned_of_and_reported(dtype: torch.dtype, digits: str) -> None:
    with pytest.warns(CheckpointWarning, match=rf"rounded to {digits} digits \(.*inv_freq"):
        model = ff.load(tiny_model("llama").to(dtype))
    assert set(model.rounded.values()) == {str(dtype).removeprefix("torch.")}
    found = ff.analyze(model, IDS, layers=[0], parts=["attention"], positions="last", points=1, progress=False)
    assert any("tables that the model computes" in said or "a table that it computes" in said for said in found.notes)


def test_nothing_is_said_of_whole_tables_and_of_weights() -> None:
    class Tabled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.ones(4, 4).tril(), persistent=False)
            self.register_buffer("stored", torch.rand(4))

    from fisherflat.models._rounded import rounded_tables

    assert rounded_tables(Tabled().to(torch.bfloat16)) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        assert ff.load(tiny_model("llama")).notes == []
