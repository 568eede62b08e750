"""Prompts of kinds that are no plain tensors, and prompts that a certificate is fitted to."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import InputError

QUICK: dict[str, Any] = {"layers": [0], "parts": ["mlp"], "points": 1, "positions": "last", "progress": False}
STATES = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> ff.models.Model:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
    return ff.load(nn.TransformerEncoder(layer, 2))


def nested() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([STATES, STATES[:3]])


@pytest.mark.parametrize(
    ("given", "kind"),
    [(STATES.to_sparse(), "sparse"), (STATES.to("meta"), "without values"), (nested(), "nested")],
    ids=["sparse", "meta", "nested"],
)
def test_tensors_that_are_not_plain_are_named(given: Tensor, kind: str, model: ff.models.Model) -> None:
    for ask in (lambda: ff.analyze(model, given, **QUICK), lambda: ff.inspect(model, given)):
        with pytest.raises(InputError, match=kind):
            ask()


def test_prompts_of_a_certificate_are_taken_as_those_of_an_analysis(model: ff.models.Model) -> None:
    """A list, a batch, or one."""
    others = torch.stack([STATES, STATES.flip(0)])
    made = ff.certify_layer(model, 0, "mlp", prompt=STATES, among=list(others))
    assert made.subject == ff.certify_layer(model, 0, "mlp", prompt=STATES, among=others).subject
    assert ff.verify_layer(made, model, prompt=STATES, among=others).ok
    alone = ff.certify_layer(model, 0, "mlp", prompt=STATES, among=STATES)
    assert alone.subject is not None and len(alone.subject["among"]) == 1
