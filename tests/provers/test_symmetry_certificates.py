"""Certificates about symmetries: what they prove, their files, and the verifier that believes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import pytest
import torch
from cases.gated_mlps import DEGREES, layer, normal
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.certificates import Bound, Counterexample, Finding, SymmetryCertificate, digests, files
from fisherflat.errors import CertificateError, InputError
from fisherflat.gated_mlp import PROOFS, gated_units
from fisherflat.layers import MLP_ACTIVATIONS
from fisherflat.verifier import scaling

#: activations in arbitrary precision, by another library
FORMULAS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "gelu": lambda z: z * mpmath.ncdf(z),
    "tanh": mpmath.tanh,
    "relu": lambda z: max(z, mpmath.mpf(0)),
    "softplus": lambda z: mpmath.log(1 + mpmath.exp(z)),
    "relu2": lambda z: max(z, mpmath.mpf(0)) ** 2,
}


@pytest.mark.parametrize("activation", MLP_ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_certificates_survive_their_files_and_are_verified(activation: str, bias: bool, tmp_path: Path) -> None:
    mlp = layer(activation, bias)
    certificate = ff.symmetry.certify(mlp)
    certificate.save(tmp_path / "c.json")
    loaded = ff.Certificate.load(tmp_path / "c.json")
    assert isinstance(loaded, SymmetryCertificate) and loaded.claim == certificate.claim
    assert ff.verify(loaded, mlp).ok and ff.verify(loaded, ff.symmetry.gated_units(mlp)).ok
    verdicts = {f.symmetry: f.verdict for f in loaded.findings}
    assert verdicts.pop("inverse scaling") == ("preserved" if activation in DEGREES else "broken")
    assert verdicts.pop("exchange") == ("preserved" if activation == "identity" else "broken")
    assert verdicts.pop("factor sign") == ("preserved" if activation in ("identity", "tanh") else "broken")
    assert set(verdicts.values()) == {"preserved"}


def test_mlps_of_checkpoints_are_certified_too() -> None:
    from cases.tiny_models import tiny_model

    from fisherflat.models import Model

    blocks = Model(tiny_model("phi3")).blocks([5, 6, 7])
    certificate = ff.symmetry.certify(blocks[0].mlp)
    assert ff.verify(certificate, blocks[0].mlp).ok
    (first, *_) = ff.verify(certificate, blocks[1].mlp).reasons
    assert first.startswith("weights: the numbers of 'gate'")


@pytest.mark.parametrize("activation", FORMULAS)
@pytest.mark.parametrize("bias", [False, True])
def test_counterexamples_are_true_in_another_arithmetic(activation: str, bias: bool) -> None:
    mlp, phi = layer(activation, bias), FORMULAS[activation]
    for finding in ff.symmetry.certify(mlp).findings:
        c = finding.counterexample
        if c is None:
            continue
        with mpmath.workdps(60):
            g, u = ([mpmath.mpf(x) for x in linear.weight[c.unit].tolist()] for linear in (mlp.gate, mlp.up))
            shift = [linear.bias[c.unit].item() if bias else 0 for linear in (mlp.gate, mlp.up)]
            places = [[a * p + b * q for p, q in zip(g, u, strict=True)] for a, b in c.inputs]
            (z, w), *more = ([mpmath.fdot(row, x) + s for row, s in zip((g, u), shift, strict=True)] for x in places)
            if finding.symmetry == "inverse scaling":
                ((other, _),) = more
                pair = phi(2 * z) * phi(other), phi(2 * other) * phi(z)
            else:
                pair = phi(z) * w, phi(w) * z if finding.symmetry == "exchange" else phi(-z) * -w
            for number, (low, high) in zip(pair, (c.left, c.right), strict=True):
                assert mpmath.mpf(str(low)) <= number <= mpmath.mpf(str(high))
            assert abs(pair[0] - pair[1]) > 1e-3
        assert mlp.down.weight[c.output, c.unit] != 0


def test_weights_activations_and_maps_that_are_others_are_refused() -> None:
    mlp = layer("silu", bias=True)
    certificate = ff.symmetry.certify(mlp)
    with torch.no_grad():
        mlp.down.weight[1, 2] += 2**-50
    assert ff.verify(certificate, mlp).reasons == ("weights: the numbers of 'value' are not those of the certificate",)
    reasons = ff.verify(ff.symmetry.certify(layer("silu")), layer("gelu")).reasons
    # of the activation: its name, and its values
    assert [reason.partition(":")[0] for reason in reasons] == ["activation", "activation", "graph"]
    assert ff.verify(certificate, layer("silu")).reasons[0].startswith("constant")
    assert ff.verify(certificate, lambda x: x).reasons[0].startswith("mlp: it could not be read")
    with pytest.raises(InputError, match="needs no chart"):
        ff.verify(certificate, mlp, ff.charts.identity(2))
    with pytest.raises(InputError, match="precision"):
        ff.symmetry.certify(mlp, precision=1)


def edited(c: SymmetryCertificate, symmetry: str, **changes: Any) -> SymmetryCertificate:
    findings = tuple(dataclasses.replace(f, **changes) if f.symmetry == symmetry else f for f in c.findings)
    return dataclasses.replace(c, findings=findings)


def moved(c: SymmetryCertificate, symmetry: str, **changes: Any) -> SymmetryCertificate:
    example = next(f.counterexample for f in c.findings if f.symmetry == symmetry)
    return edited(c, symmetry, counterexample=dataclasses.replace(example, **changes))


def other_side(c: SymmetryCertificate, symmetry: str) -> Counterexample:
    return next(f.counterexample for f in c.findings if f.symmetry == symmetry)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: edited(c, "exchange", argument="linear", counterexample=None), "exchange: there is an activation"),
        (lambda c: edited(c, "factor sign", argument="odd", counterexample=None), "factor sign: the ops"),
        (lambda c: edited(c, "inverse scaling", argument="homogeneous", counterexample=None), "inverse scaling: the"),
        (lambda c: edited(c, "exchange", argument="any activation", counterexample=None), "exchange: the argument"),
        (lambda c: edited(c, "exchange", argument="order", counterexample=None), "exchange: the argument"),
        (lambda c: dataclasses.replace(c, degree=1), "degree: the ops"),
        (lambda c: dataclasses.replace(c, activation="gelu"), "activation: "),
        (lambda c: dataclasses.replace(c, units=5), "units: "),
        (lambda c: moved(c, "exchange", left=(Bound(3), Bound(4))), "exchange: left: "),
        (lambda c: moved(c, "exchange", right=other_side(c, "exchange").left), "exchange: right: "),
        (lambda c: moved(c, "exchange", left=(Bound(-9), Bound(9))), "exchange: the two sides"),
        (lambda c: moved(c, "exchange", inputs=((1.0, 2.0),)), "exchange: left: "),
        (lambda c: moved(c, "exchange", unit=1), "exchange: left: "),
        (lambda c: moved(c, "exchange", output=0), "exchange: unit 0 does not reach output 0"),
        (lambda c: moved(c, "inverse scaling", inputs=((1.0, 2.0),)), "inverse scaling: it has another number"),
        (lambda c: dataclasses.replace(c, graph="0" * 64), "graph: "),
        (lambda c: dataclasses.replace(c, findings=c.findings[::-1]), "form: findings"),
        (lambda c: edited(c, "exchange", counterexample=None), "form: findings"),
        (lambda c: edited(c, "exchange", note="trust me"), "form: findings"),
    ],
)
def test_edited_certificates_are_refused(edit: Callable[..., SymmetryCertificate], reason: str) -> None:
    mlp = layer("silu")
    mlp.down.weight.data[0, 0] = 0
    certificate = ff.symmetry.certify(mlp)
    assert ff.verify(certificate, mlp).ok
    reasons = ff.verify(edit(certificate), mlp).reasons
    assert any(found.startswith(reason) for found in reasons), reasons


def test_a_prover_with_a_wrong_belief_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROOFS, "silu", (1, "φ is about max(z, 0)"))
    mlp = layer("silu")
    lie = ff.symmetry.certify(mlp)
    assert "inverse scaling" in lie.claim.partition(", and does not")[0]
    assert ff.verify(lie, mlp).reasons[0].startswith("degree: ")
    monkeypatch.setitem(PROOFS, "relu2", (3, "cubes are squares"))
    mlp = layer("relu2")
    assert ff.verify(ff.symmetry.certify(mlp), mlp).reasons[0].startswith("degree: ")


def test_files_with_other_contents_are_refused_by_field() -> None:
    document = files.document(ff.symmetry.certify(layer("silu")))
    assert files.document(files.certificate(document)) == document
    for field, value in {
        "kind": "curvature",
        "claim": "It is symmetric.",
        "units": 0,
        "degree": "inf",
        "constant": 1,
        "findings": [],
        "graph": "0",
        "precision": "128",
    }.items():
        body = {name: given for name, given in {**document, field: value}.items() if name != "digest"}
        with pytest.raises(CertificateError, match="verdict" if field == "kind" else field):
            files.certificate({**body, "digest": digests.of_json(body)})
    with pytest.raises(CertificateError, match="digest"):
        files.certificate({**document, "digest": "0" * 64})


def test_nothing_is_claimed_of_what_was_only_tested() -> None:
    mlp = layer("identity")
    units = ff.symmetry.gated_units(lambda x: mlp.down(F.leaky_relu(mlp.gate(x)) * mlp.up(x)), normal(3, 5))
    certificate = ff.symmetry.certify(units)
    assert "nothing is claimed of inverse scaling" in certificate.claim
    assert certificate.findings[3] == Finding("inverse scaling", "test", note=units.homogeneity.evidence)
    assert ff.verify(certificate, units).ok


@pytest.mark.parametrize(
    ("function", "degree", "parity"),
    [
        (lambda z: z, 1, -1),
        (torch.relu, 1, None),
        (lambda z: torch.relu(z).square(), 2, None),
        (lambda z: torch.relu(z) ** 2, 2, None),
        (lambda z: z**3 * 2, 3, -1),
        (lambda z: z.abs() * z, 2, -1),
        (lambda z: z + z.abs(), 1, None),
        (lambda z: z + 1, None, None),
        (lambda z: z + z**2, None, None),
        (lambda z: z / z.abs(), 0, -1),
        (torch.tanh, None, -1),
        (torch.cos, None, 1),
        (F.silu, None, None),
        (lambda z: F.gelu(z), None, None),
        (lambda z: 2**z, None, None),
        (lambda z: z.clamp(min=-1), None, None),
    ],
)
def test_scaling_is_read_from_ops(function: Callable[..., Any], degree: int | None, parity: int | None) -> None:
    graph = ff.trace(function, torch.tensor([0.5], dtype=torch.float64))
    assert scaling.degree(graph) == degree and scaling.parity(graph) == parity
    z = torch.tensor([-1.7, -0.3, 0.4, 2.1], dtype=torch.float64)
    if degree is not None:
        torch.testing.assert_close(function(3 * z), 3**degree * function(z))
    if parity is not None:
        torch.testing.assert_close(function(-z), parity * function(z))


@pytest.mark.parametrize(
    ("claimed", "real"), [("relu", "silu"), ("tanh", "relu"), ("identity", "gelu"), ("relu2", "relu")]
)
def test_the_name_of_an_activation_is_not_believed(claimed: str, real: str) -> None:
    units = gated_units(ff.layers.GatedMLP(4, 6, activation=real).double())
    named = dataclasses.replace(units, name=claimed)
    certificate = ff.symmetry.certify(named)
    assert claimed not in certificate.claim
    assert named.homogeneity.degree == units.homogeneity.degree
    assert ff.verify(certificate, named).ok
    false = dataclasses.replace(certificate, activation=claimed)
    assert any(reason.startswith("activation:") for reason in ff.verify(false, named).reasons)
