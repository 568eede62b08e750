"""What a certificate says about a layer of a model is derived from the model, and refused otherwise."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

import fisherflat as ff
from fisherflat.certificates import CurvatureCertificate
from fisherflat.spaces.charts import Chart

PROMPT = "def f(x):"

pytestmark = pytest.mark.xdist_group("layer certificates")  # what is made once in a process


@cache
def model() -> ff.models.Model:
    return ff.load("python-llama")


@cache
def certificate(moves: str = "principal") -> CurvatureCertificate:
    return ff.certify_layer(model(), 0, prompt=PROMPT, reading="frozen pattern", moves=moves)


def refused(c: CurvatureCertificate) -> str:
    """The first reason."""
    verification = ff.verify_layer(c, model())
    assert not verification.ok
    return verification.reasons[0]


@pytest.mark.parametrize("moves", ["principal", "random:3", "vectors"])
def test_an_honest_subject_is_verified_without_a_word_of_the_prover(moves: str) -> None:
    if moves == "vectors":
        basis = torch.eye(2, model().blocks(PROMPT)[0].attention_input.shape[-1])
        made = ff.certify_layer(model(), 0, prompt=PROMPT, reading="frozen pattern", moves=ff.moves.vectors(basis))
    else:
        made = certificate(moves)
    verification = ff.verify_layer(made, model())
    assert verification.ok, verification
    assert verification.notes == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer": 1}, "subject: "),
        ({"layer": -1}, "subject: "),
        ({"layer": "0"}, "subject: "),
        ({"part": "mlp"}, "subject: "),
        ({"part": "encoder"}, "subject: "),
        ({"position": 1}, "subject: the chart's basis is not what moves"),
        ({"position": None}, "subject: the chart's basis is not what moves"),
        ({"position": 99}, "subject: there is no position 99"),
        ({"position": "last"}, "subject: there is no position"),
        ({"moves": {"kind": "random", "dim": 2, "seed": 0}}, "subject: the chart is called 'principal'"),
        ({"moves": {"kind": "principal", "dim": 3}}, "subject: "),
        ({"moves": {"kind": "principal"}}, "subject: moves"),
        ({"moves": "principal"}, "subject: moves"),
        ({"token_ids": [5, 6, 7]}, "subject: "),
        ({"token_ids": "x"}, "subject: "),
        ({"token_ids": []}, "subject: "),
        ({"more": 1}, "subject: its fields"),
    ],
)
def test_a_changed_subject_is_refused(change: dict[str, object], reason: str) -> None:
    made = certificate()
    assert refused(replace(made, subject={**made.subject, **change})).startswith(reason)


def test_a_changed_kind_of_chart_is_refused() -> None:
    made = certificate()
    for kind in ("attention weights", "random", "token", "words", "identity", "anything"):
        chart = Chart(made.chart.point, made.chart.basis, kind)
        assert "called" in refused(replace(made, chart=chart)) or kind == "attention weights"


@pytest.mark.parametrize(
    ("kind", "basis"),
    [("identity", 2 * torch.eye(2, 2)), ("token", torch.ones(2, 2)), ("principal", torch.eye(2, 2))],
)
def test_a_kind_that_the_numbers_of_a_chart_contradict_is_refused(kind: str, basis: torch.Tensor) -> None:
    chart = Chart(torch.zeros(2), basis.double(), kind)

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x * 2])

    reasons = ff.verify(ff.certify(f, chart), f, chart).reasons
    assert reasons and reasons[0].startswith("chart: kind:")


def test_vectors_that_are_not_those_of_the_digest_are_refused() -> None:
    basis = torch.eye(2, model().blocks(PROMPT)[0].attention_input.shape[-1])
    made = ff.certify_layer(model(), 0, prompt=PROMPT, reading="frozen pattern", moves=ff.moves.vectors(basis))
    scaled = Chart(made.chart.point, 2 * made.chart.basis, made.chart.kind)
    assert "digest" in refused(replace(made, chart=scaled))


def test_a_subject_is_the_provers_word_where_no_model_is_given() -> None:
    made = certificate()
    part = model().blocks(PROMPT)[0].attention
    verification = ff.verify(made, ff.freeze(part, made.chart.point), made.chart)
    assert verification.ok
    assert any(note.startswith("subject:") for note in verification.notes)


@cache
def next_tokens() -> CurvatureCertificate:
    return ff.certify_layer(model(), 0, "block", prompt=PROMPT, family="next-token")


def test_a_family_is_proved_at_the_number_of_the_table() -> None:
    """Twice the Gauss curvature is the scalar curvature, which analyze takes from floats, block by block over V."""
    made = next_tokens()
    assert made.subject is not None and made.subject["family"] == "next-token"
    assert made.enclosure is not None and ff.verify_layer(made, model()) and not ff.verify_layer(made, model()).notes
    row = ff.analyze(
        model(), PROMPT, family="next-token", layers=[0], points=1, positions="last", readings=["live"], progress=False
    ).table.iloc[0]
    assert row["position"] == made.subject["position"]
    assert 2 * float(made.enclosure[0]) == pytest.approx(row["scalar_curvature"], rel=1e-9)


@pytest.mark.parametrize("change", [{"family": "class"}, {"family": "given"}, {"family": 3}, {"family": None}, {}])
def test_another_family_in_the_subject_is_refused(change: dict[str, object]) -> None:
    subject = {name: value for name, value in (next_tokens().subject or {}).items() if name != "family"}
    assert not ff.verify_layer(replace(next_tokens(), subject=subject | change), model())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"part": "mlp", "family": "next-token"}, "part=\"block\", not 'mlp'"),
        ({"part": "head 0", "family": "next-token"}, "part=\"block\", not 'head 0'"),
        ({"part": "block", "family": "direction"}, "nothing can be proved in VonMisesFisher"),
        ({"part": "block", "family": "class"}, "no head for classes"),
        ({"part": "block", "family": "tokens"}, "next-token"),
        ({"part": "block", "family": 3}, "family must be a name"),
        ({"part": "block", "family": ff.families.NextToken(torch.eye(3))}, "names no unembedding"),
        ({"part": "block", "family": "next-token", "covariance": 2.0}, "no covariance, no output"),
        ({"part": "block", "family": "next-token", "output": "moved"}, "no covariance, no output"),
        (
            {"part": "block", "family": "next-token", "reading": "frozen norm"},
            "would hold something in the model's head",
        ),
    ],
)
def test_what_cannot_be_proved_of_a_family_is_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ff.errors.FisherflatError, match=said):
        ff.certify_layer(model(), 0, prompt=PROMPT, **arguments)  # type: ignore[arg-type]
