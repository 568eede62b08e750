"""A prover that is wrong is found by the verifier."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from cases.proved import subject

import fisherflat as ff
from fisherflat.jets.ops import OPS
from fisherflat.jets.rules import FUNCTIONS, elementwise
from fisherflat.provers import _curvature as prove
from fisherflat.provers._enclosure import sectional

aten = torch.ops.aten


def test_a_wrong_derivative_in_the_prover_is_found_by_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    _, mean, chart = subject("curved")
    value = FUNCTIONS["silu"]

    def wrong(x: Any) -> Any:
        y, slope, bend = value(x)
        return y, slope, bend + bend * 2.0**-60

    monkeypatch.setitem(OPS, aten.silu, dataclasses.replace(OPS[aten.silu], rule=elementwise(wrong)))
    certificate = ff.certify(mean, chart, at=[0.25, 0.5])
    assert certificate.verdict == "curved"
    (reason,) = ff.verify(certificate, mean, chart).reasons
    assert reason.startswith("enclosure")


def test_an_op_taken_for_affine_by_the_prover_is_found_by_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, aten.sin, dataclasses.replace(OPS[aten.sin], rule=OPS[aten.neg].rule))
    mean, chart = lambda u: torch.cat([u, u.sin()]), ff.charts.identity(2)
    certificate = ff.certify(mean, chart)
    assert certificate.verdict == "flat"
    assert ff.verify(certificate, mean, chart).reasons == ("witness: there is none, or none was needed",)


def test_wrong_geometry_in_the_prover_is_found_by_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    _, mean, chart = subject("curved")
    monkeypatch.setattr(prove, "sectional", lambda *args: (sectional(*args)[0] * 1.01, sectional(*args)[1]))
    (reason,) = ff.verify(ff.certify(mean, chart, at=[0.25, 0.5]), mean, chart).reasons
    assert reason.startswith("enclosure")
