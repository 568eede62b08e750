"""Tables that a model computes, rounded before it came here."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from cases.tiny_models import tiny_model
from torch import nn

import fisherflat as ff
from fisherflat.errors import CheckpointWarning
from fisherflat.jets.recording import Mapping, recorded

IDS = [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, "two to three"), (torch.float16, "three to four")])
def test_rotary_frequencies_in_half_precision_are_warned_of_and_reported(dtype: torch.dtype, digits: str) -> None:
    with pytest.warns(CheckpointWarning, match=rf"rounded to {digits} digits \(.*inv_freq"):
        model = ff.load(tiny_model("llama").to(dtype))
    assert set(model.rounded.values()) == {str(dtype).removeprefix("torch.")}
    found = ff.analyze(model, IDS, layers=[0], parts=["attention"], positions="last", points=1, progress=False)
    assert any("tables that the model computes" in said or "a table that it computes" in said for said in found.notes)
    (said,) = [said for said in found.notes if "Rounding them differently" in said]
    assert f"have the digits of {str(dtype).removeprefix('torch.')}" in said
    assert changed(said) > 1e-5  # no error shows it: nothing else is wrong by so much


def changed(said: str) -> float:
    """By how much of its value a curvature changes, as a sentence says."""
    return float(said.partition("by up to ")[2].partition(" of its value")[0])


def test_it_is_said_once_how_much_the_tables_of_a_checkpoint_matter() -> None:
    module = tiny_model("llama")
    model = ff.load(module)
    tables = {name: table for name, table in model.module.named_buffers() if "inv_freq" in name}
    kept = {name: table.clone() for name, table in tables.items()}
    settings = {"layers": [0], "parts": ["attention"], "positions": "last", "progress": False}
    found = ff.analyze(model, IDS, points=1, **settings)
    (said,) = [said for said in found.notes if "Rounding them differently" in said]
    assert "have the digits of float32" in said and "inv_freq" in said
    # nothing is left of it, and graphs that were traced before hold
    assert all(table is tables[name] and torch.equal(table, kept[name]) for name, table in model.module.named_buffers()
               if name in tables)  # fmt: skip
    # the same model with frequencies of a last place more, by hand
    other = tiny_model("llama")
    other.load_state_dict(module.state_dict())
    for part in other.modules():
        for table in part._non_persistent_buffers_set:
            part._buffers[table] = part._buffers[table].double() * (1 + 2.0**-24)
    both = [ff.analyze(m, IDS, points=4, **settings).table for m in (module, other)]
    rows = [table[table["reading"] == "live"]["scalar_curvature"] for table in both]
    by_hand = ((rows[0] - rows[1]).abs() / rows[0].abs()).max()
    assert by_hand / 100 < changed(said) < 100 * by_hand


def test_what_was_traced_for_the_study_is_not_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []

    def counted(mapping: Mapping, at: Any) -> Any:
        traces.append(mapping)
        return recorded(mapping, at)

    monkeypatch.setattr("fisherflat.parts._tracing.recorded", counted)
    model = ff.load(tiny_model("llama"))
    said, counts = [], []
    for part in ("attention", "mlp"):
        found = ff.analyze(model, IDS, layers=[0], parts=[part], positions="last", points=1, progress=False)
        said += [note for note in found.notes if "Rounding them differently" in note]
        counts.append(len(traces))
    assert len(said) == 2 and said[0] == said[1]
    assert counts == [2, 2 + 3]  # the part and the attention with other tables; behind the MLP both attentions


def test_models_without_tables_have_nothing_said_of_them() -> None:
    found = ff.analyze(tiny_model("bert"), IDS, layers=[0], parts=["mlp"], positions="last", points=1, progress=False)
    assert not any("Rounding them differently" in said or "Computed" in said for said in found.notes)


@pytest.mark.parametrize("settings", [{"dtype": torch.float32}, {"engine": "autodiff"}])
def test_digits_are_said_by_part_where_they_are_not_the_usual_ones(settings: dict[str, Any]) -> None:
    found = ff.analyze(tiny_model("bert"), IDS, layers=[0], parts=["attention", "mlp"], heads="all", positions="last",
                       points=4, errors="all", progress=False, **settings)  # fmt: skip
    (said,) = [said for said in found.notes if said.startswith("Computed")]
    exact = ff.analyze(tiny_model("bert"), IDS, layers=[0], parts=["attention", "mlp"], heads="all", positions="last",
                       points=4, progress=False)  # fmt: skip
    right = -(((found.table.scalar_curvature - exact.table.scalar_curvature) / exact.table.scalar_curvature).abs()
              .clip(lower=1e-17).map(math.log10))  # fmt: skip
    for part, word in (("attention", "attention"), ("mlp", "MLPs"), ("head", "heads")):
        stated = float(said.partition(f" in {word}")[0].rpartition(" ")[2])
        curved = found.table.part.str.startswith(part) & (exact.table.scalar_curvature != 0)
        assert stated <= right[curved].median() + 0.5  # an estimate does not claim more
        assert stated > right[curved].median() - 4


def test_buffers_in_half_precision_that_are_stored_are_named_once() -> None:
    module = tiny_model("llama")
    module.layers[0].register_buffer("scale", torch.tensor([1.1, 2.3]))
    model = ff.load(module.to(torch.float32))
    assert model.notes == [] and model.halved == ()
    module.layers[0].scale = module.layers[0].scale.to(torch.bfloat16)
    (said,) = ff.load(module).notes
    assert "layers.0.scale" in said and "half precision" in said


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
