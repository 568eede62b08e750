"""Maps that are affine piece by piece are proved flat off their kinks, and nothing that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from cases.certified import numbers
from torch import Tensor
from torch.nn import functional as F

import fisherflat as ff

Map = Callable[[Tensor], Tensor]

A, B, K, V = numbers(41, 5, 4), numbers(42, 5, 4), numbers(43, 6, 4), numbers(44, 5, 6)
EXPERTS, ROUTER = numbers(45, 3, 5, 4), numbers(46, 3, 4)
CHART = ff.charts.affine(3 * numbers(47, 4), 2 * numbers(48, 2, 4))

PIECES: dict[str, tuple[Map, set[str]]] = {
    "relu memory": (lambda x: A @ x + V @ torch.relu(K @ x), {"aten.relu"}),
    "two layers": (lambda x: A @ x + V @ F.leaky_relu(K @ (B.T @ torch.relu(A @ x))), {"aten.relu", "aten.leaky_relu"}),
    "hard gate": (lambda x: (A @ x) * (B @ x > 0), {"aten.gt"}),
    "hard gate, cast": (lambda x: (A @ x) * (1 - (B @ x > 0).double()), {"aten.gt"}),
    "masked": (lambda x: (A @ x).masked_fill(B @ x < 0.25, 0.0), {"aten.lt"}),
    "largest": (lambda x: torch.cat([A @ x, (B @ x).max()[None]]), {"aten.max"}),
    "clamped": (lambda x: A @ x + (B @ x).clamp(-0.5, 0.5), {"aten.clamp"}),
    "sorted": (lambda x: torch.cat([(A @ x).sort().values, x]), {"aten.sort"}),
    "routed experts": (lambda x: EXPERTS[(ROUTER @ x).argmax()[None]][0] @ x, {"aten.argmax"}),
    "two routed experts": (lambda x: (EXPERTS[(ROUTER @ x).topk(2).indices] @ x).sum(0), {"aten.topk"}),
    "where": (lambda x: torch.where((x.sum() > 0) & (x[0] > x[1]), A @ x, B @ x), {"aten.gt"}),
    "sign": (lambda x: torch.cat([x, x * torch.sign(x)]), {"aten.sign"}),
}
NOT: dict[str, Map] = {
    "bent between kinks": lambda x: torch.relu(A @ x) * (A @ x),
    "softmax of a relu": lambda x: A @ x + torch.relu(B @ x).softmax(0),
    "whole numbers added": lambda x: A @ x + torch.floor(x.sum()),
    "a cast to integers": lambda x: A @ x + x.sum().to(torch.int64).to(torch.float64),
    "a count": lambda x: (A @ x) * (x > 0).sum(),
    "a step added": lambda x: A @ x + (B @ x > 0),
    "a bend chosen by its sign": lambda x: torch.where(x.sum() > 0, A @ x, (B @ x) ** 2),
    "a choice by something bent": lambda x: torch.where((x * x).sum() > 1, A @ x, B @ x),
    "two gates": lambda x: torch.relu(A @ x) * torch.relu(B @ x),
    "elu": lambda x: F.elu(A @ x),
    "remainder": lambda x: torch.cat([x, torch.remainder(x, 0.5)]),
    "nothing but choices": lambda x: (A @ x > 0).double(),
}


@pytest.mark.parametrize("name", PIECES)
def test_affine_by_pieces_is_flat_off_its_kinks(name: str) -> None:
    f, kinks = PIECES[name]
    certificate = ff.certify(f, CHART)
    assert (certificate.verdict, certificate.scope, certificate.argument) == ("flat", "off kinks", "affine by pieces")
    assert {step.op for step in certificate.kinks} >= kinks
    assert "at a kink" in certificate.claim
    assert ff.verify(certificate, f, CHART).ok


@pytest.mark.parametrize("name", PIECES)
def test_differences_of_values_vanish_between_kinks(name: str) -> None:
    """The independent truth: at generic points the second differences of the map are nothing but rounding."""
    f, _ = PIECES[name]
    for u in ((0.3, -0.2), (-0.7, 0.9), (1.1, 0.4)):
        at = torch.tensor(u, dtype=torch.float64)
        for step in (torch.tensor([1e-6, 0.0]), torch.tensor([0.5e-6, 1e-6])):
            values = [f(CHART(at + k * step.double())) for k in (-1, 0, 1)]
            bend = values[0] - 2 * values[1] + values[2]
            assert bend.abs().max() < 1e-14


@pytest.mark.parametrize("name", NOT)
def test_nothing_else_is(name: str) -> None:
    f = NOT[name]
    try:
        certificate = ff.certify(f, CHART, at=[0.3, -0.2])
    except ff.errors.FisherflatError:
        return  # refused where the map is recorded
    assert certificate.verdict != "flat"
    assert ff.verify(certificate, f, CHART).ok or certificate.verdict == "undecided"


@pytest.mark.parametrize("name", ["relu memory", "routed experts"])
def test_scope_and_kinks_are_checked(name: str) -> None:
    f, _ = PIECES[name]
    certificate = ff.certify(f, CHART)
    everywhere = replace(certificate, argument="affine", kinks=(), rank=(2, True), witness=None)
    fewer = replace(certificate, kinks=certificate.kinks[1:])
    for false in (everywhere, fewer, replace(certificate, kinks=(certificate.steps[0],))):
        assert not ff.verify(false, f, CHART).ok


def test_an_affine_map_is_flat_everywhere() -> None:
    certificate = ff.certify(lambda x: A @ x, CHART)
    assert (certificate.verdict, certificate.scope, certificate.kinks) == ("flat", "everywhere", ())
