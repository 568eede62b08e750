"""Certificates about layers that ran on hidden states, or on inputs of a model's own, name them by digests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import CertificateError


def rows(seed: int, n: int = 5, d: int = 8) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> ff.models.Model:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
    return ff.load(nn.TransformerEncoder(layer, 2))


@pytest.mark.parametrize("options", [{}, {"moves": "random:1", "output": "moved"}, {"covariance": "diagonal"}])
def test_what_is_proved_is_what_is_measured(model: ff.models.Model, tmp_path: Path, options: dict[str, Any]) -> None:
    """The curvature that is proved lies where an analysis of these states has it."""
    states, covariance = rows(1), options.get("covariance", "words")
    made = ff.certify_layer(model, 1, "mlp", prompt=states, **options)
    made.save(tmp_path / "proof.json")
    read = ff.Certificate.load(tmp_path / "proof.json")
    assert isinstance(read, ff.certificates.CurvatureCertificate) and read.verdict == "curved"
    assert read.subject is not None and set(read.subject["inputs"]) == {"hidden_states"}
    table = ff.analyze(
        model, states, layers=[1], parts=["mlp"], readings=["live"], points=1, positions=[[4]], progress=False,
        moves=options.get("moves", "principal"), output=options.get("output", "all"), covariance=covariance,
    ).table  # fmt: skip
    assert read.enclosure is not None
    low, high = (float(bound) for bound in read.enclosure)
    measured, error = table.scalar_curvature.item() / 2, table.scalar_curvature_error.item()
    assert low - error <= measured <= high + error and high - low < 1e-6 * abs(low)
    assert ff.verify_layer(read, model, prompt=states).ok


def test_other_states_are_refused(model: ff.models.Model) -> None:
    states = rows(1)
    made = ff.certify_layer(model, 0, prompt=states, reading="frozen pattern")
    assert made.verdict == "flat"
    with pytest.raises(CertificateError, match=r"digests alone; give them: .*prompt="):
        ff.verify_layer(made, model)
    for other in (states.flip(0), states + torch.eye(5, 8) * 1e-7, states[:4], torch.tensor([5, 6, 7, 8, 9])):
        found = ff.verify_layer(made, model, prompt=other)
        assert not found.ok and found.reasons[0].startswith("subject: "), other
    digest = "0" * 64
    forged = replace(made, subject={**(made.subject or {}), "inputs": {"hidden_states": digest}})
    assert "not the one" in ff.verify_layer(forged, model, prompt=states).reasons[0]
    both = replace(made, subject={**(made.subject or {}), "token_ids": [1, 2]})
    assert "its fields" in ff.verify_layer(both, model, prompt=states).reasons[0]


def test_prompts_that_directions_are_fitted_to_are_named_too(model: ff.models.Model) -> None:
    prompts = [rows(1), rows(2), rows(3)]
    made = ff.certify_layer(model, 0, "mlp", prompt=prompts[1], among=prompts)
    alone = ff.certify_layer(model, 0, "mlp", prompt=prompts[1])
    assert made.enclosure != alone.enclosure
    assert ff.verify_layer(made, model, prompt=prompts[1], among=prompts).ok
    with pytest.raises(CertificateError, match="among="):
        ff.verify_layer(made, model, prompt=prompts[1])
    for others in (prompts[:2], prompts[::-1], []):
        assert not ff.verify_layer(made, model, prompt=prompts[1], among=others).ok


def test_a_mask_is_part_of_what_is_named(minilm_path: Path) -> None:
    bert = ff.load(minilm_path)
    first = {"input_ids": [[5, 6, 7, 8]], "attention_mask": [[1, 0, 1, 1]]}
    made = ff.certify_layer(bert, 0, prompt=first, reading="frozen pattern")
    assert made.subject is not None and set(made.subject["inputs"]) == set(first)
    assert ff.verify_layer(made, bert, prompt=first).ok
    other = ff.verify_layer(made, bert, prompt=first | {"attention_mask": [[1, 1, 0, 1]]})
    assert not other.ok and "not the one" in other.reasons[0]


def test_tokens_in_another_order_are_named_in_that_order() -> None:
    """A control that shuffles tokens runs on the order that its certificate names, and not on one shuffled again."""
    control = ff.control(ff.load("python-llama"), "shuffled tokens")
    made = ff.certify_layer(control, 0, prompt="def mean(values, weights):", reading="frozen pattern")
    ran = control.blocks("def mean(values, weights):")[0].attention_input
    assert torch.equal(made.chart.point, ran)
    assert ff.verify_layer(made, control).ok
