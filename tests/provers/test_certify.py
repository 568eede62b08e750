"""What `certify` proves: flatness by structure alone, curvature where the search finds it, and never more than that."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.tiny_models import tiny_model
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.models import Model
from fisherflat.parts import readings
from fisherflat.parts.structure import NAMES, read
from fisherflat.provers import _curvature as prove
from fisherflat.provers import _search as finder

Map = Callable[[Tensor], Tensor]
F = nn.functional


def bowl(u: Tensor) -> Tensor:
    return torch.cat([u, (u * u).sum()[None]])


# -- flat by structure -------------------------------------------------------------------------------------------------

W = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

AFFINE: list[Map] = [
    lambda x: x @ W / 3 + x.sum(0) - W[:3],
    lambda x: (x - x.mean(-1, keepdim=True)).T.reshape(2, 6).cumsum(1).flip(0).roll(1),
    lambda x: torch.where(W[:3] > 0, x, 2 * x),
    lambda x: x.masked_fill(W[:3] > 0, 1.5),
    lambda x: F.pad(torch.stack([x, W[:3] * x]), (1, -1), value=7.0).tril(),
    lambda x: x[[2, 0]] * torch.ones_like(x)[:2] + torch.zeros_like(x)[1:],
    lambda x: torch.softmax(W, -1)[:3, :3] @ x,
    lambda x: F.conv1d(x[None], W[:2, :3, None]),
    lambda x: nn.functional.linear(x, W, W[0]),
]

NOT_AFFINE: list[Map] = [
    lambda x: torch.where(x > 0, x, 2 * x),
    lambda x: x.abs(),
    lambda x: x.relu(),
    lambda x: x.clamp(-1e9, 1e9),
    lambda x: x.sort(0)[0],
    lambda x: x.topk(2)[0],
    lambda x: x.max(0)[0],
    lambda x: x.amin(1),
    lambda x: torch.maximum(x, 2 * x),
    lambda x: x.masked_fill(x > 0, 0.0),
    lambda x: x[x.argsort(0)[:, 0]],
    lambda x: torch.gather(x, 1, x.argmax(1, keepdim=True)),
    lambda x: x.floor() + x,
    lambda x: x.sign() * 0 + x,
    lambda x: (x > 0).double() + x,
    lambda x: x.long().double() + x,
    lambda x: x * (x > 0),
    lambda x: torch.div(x, 2, rounding_mode="floor") + x,
    lambda x: x * x,
    lambda x: x**2,
    lambda x: 2**x,
    lambda x: x @ x.T,
    lambda x: x.scatter(0, torch.tensor([[0, 1, 2, 0]]), x[1:], reduce="multiply"),
    lambda x: x / x.sum(),
    lambda x: 1 / x,
    lambda x: x.softmax(-1),
    lambda x: x.logsumexp(-1),
    lambda x: F.layer_norm(x, (4,)),
    lambda x: F.rms_norm(x, (4,)),
    lambda x: x + 1e-12 * x.sin(),
    lambda x: x.norm() + x,
    lambda x: x.prod(0),
    lambda x: F.gelu(x),
]


@pytest.mark.parametrize("f", AFFINE)
def test_affine_maps_are_flat_and_the_proof_names_each_node(f: Map) -> None:
    chart = ff.charts.affine(W[:3], torch.stack([W[:3] ** 2, W[1:]]))
    certificate = ff.certify(f, chart)
    assert (certificate.verdict, certificate.argument) == ("flat", "affine")
    assert certificate.enclosure is None
    assert len(certificate.steps) == len(ff.trace(f, chart.point).nodes)
    assert {step.order for step in certificate.steps} <= {"constant", "affine"}
    assert all(str(step) in certificate.reason for step in certificate.steps)


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter")
@pytest.mark.parametrize("f", NOT_AFFINE)
def test_what_is_affine_only_piece_by_piece_or_nearly_is_not_called_affine(f: Map) -> None:
    structure = read(ff.trace(f, W[:3]))
    assert NAMES[structure.order] == "nonlinear"
    assert structure.witness is not None


def test_the_witness_is_the_first_nonlinear_node_with_its_line_and_role() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64)
    layer = ff.layers.SelfAttention(4, gate=ff.layers.Gate("identity")).double()
    frozen = ff.freeze(layer, x)
    certificate = ff.certify(frozen, ff.charts.token(x, 0, W[:2]))
    assert "product of two input-dependent factors at _attention.py:" in certificate.reason
    assert certificate.witness.role == "attention_gate"
    assert certificate.witness.node == min(n.index for n in frozen.nodes if len(n.inputs) > 1)


def test_the_rank_of_an_affine_map_is_proved() -> None:
    def ranked(matrix: list[list[float]]) -> Any:
        m = torch.tensor(matrix, dtype=torch.float64)
        return ff.certify(lambda u: m @ u, ff.charts.identity(len(matrix[0])))

    assert ranked([[1, 2], [3, 4], [5, 6]]).rank == (2, True)
    deficient = ranked([[1, 2, 3], [2, 4, 6], [0, 1, 1], [1, 3, 4]])
    assert deficient.rank == (2, True)
    assert "the rank of the map is 2 < k = 3" in deficient.claim
    # a third is no binary fraction, so that a vanishing minor cannot be proved to vanish
    rounded = ff.certify(lambda u: torch.stack([u[0] / 3, u[0], u[0] + u[0] / 3]) + 0 * u.sum(), ff.charts.identity(2))
    assert rounded.rank == (1, False)
    assert "at least 1" in rounded.claim


def test_other_reasons_for_flatness_have_their_own_names() -> None:
    curve = ff.certify(lambda u: torch.cat([u.sin(), u.cos(), u * u]), ff.charts.identity(1))
    assert (curve.verdict, curve.argument) == ("flat", "one coordinate")
    open_piece = ff.certify(
        lambda u: torch.stack([u[0].exp() * u[1].cos(), u[0].exp() * u[1].sin()]), ff.charts.identity(2)
    )
    assert (open_piece.verdict, open_piece.argument) == ("flat", "full dimension")
    folded = ff.certify(lambda u: torch.stack([u[0] ** 2 * 0 + u[1], u[1] ** 2]), ff.charts.identity(2))
    assert folded.verdict == "undecided"


# -- undecided ---------------------------------------------------------------------------------------------------------


def test_flat_but_not_affine_is_undecided_with_an_enclosure_of_zero() -> None:
    cylinder = ff.certify(lambda u: torch.stack([u[0].cos(), u[0].sin(), u[1]]), ff.charts.identity(2), at=[0.3, 0.1])
    low, high = cylinder.enclosure
    assert (cylinder.verdict, cylinder.argument) == ("undecided", "zero enclosed")
    assert low <= 0 <= high
    assert high - low < 1e-30
    assert cylinder.precision == 512


@pytest.mark.parametrize(
    ("f", "argument"),
    [
        (lambda u: torch.stack([u[0], u[1], u[0] * u[1].relu()]), "open decision"),
        (lambda u: torch.stack([u[0], u[1], torch.where(u[0] == 0, u[1] ** 2, u[0] * u[1])]), "open decision"),
        (lambda u: torch.stack([u[0], u[1], torch.where(u[0] >= 0, u[1] ** 2, u[0] * u[1])]), "open decision"),
        (lambda u: torch.stack([u[0], u[1], u[0] * u[1] * (1 + u[0]).long()]), "open decision"),
        (lambda u: torch.stack([u[0], u[1], u.sort()[0][0] * u[1]]), "open decision"),
        (lambda u: torch.stack([u[0] * u[1], u[0] * u[1], (u[0] * u[1]) ** 2]), "degenerate immersion"),
        (lambda u: torch.cat([u, torch.linalg.eigvalsh(torch.diag(u * u) + torch.eye(2).to(u))]), "unsupported op"),
        (lambda u: torch.cat([u, torch.linalg.svdvals(torch.outer(u, u) + torch.eye(2).to(u))]), "unsupported op"),
        (lambda u: torch.stack([u[0], u[1], (u[0] * u[1] + 1).log()]), "outside"),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_says_why(f: Map, argument: str) -> None:
    at, argument = ([2.0, -2.0], "not finite") if argument == "outside" else ([0.0, 0.0], argument)
    certificate = ff.certify(f, ff.charts.identity(2), at=at)
    assert (certificate.verdict, certificate.argument) == ("undecided", argument)
    assert ff.verify(certificate, f, ff.charts.identity(2)).ok


# -- almost everywhere -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "restricted"),
    [
        (lambda x: F.layer_norm(x, (4,)).tanh(), ()),
        (lambda x: x.softmax(-1) @ F.gelu(x).T, ()),
        (lambda x: x / (1 + (x * x).sum()), ()),
        (lambda x: F.layer_norm(x, (4,), eps=0.0), ("aten.rsqrt",)),
        (lambda x: x * (x[0] + 9).log(), ("aten.log",)),
        (lambda x: x / x.norm(), ("aten.sqrt", "aten.div")),
        (lambda x: F.layer_norm(x, (4,)) * x.relu(), None),
        (lambda x: x * x.abs(), None),
        (lambda x: F.softplus(x), None),
        (lambda x: x.topk(2)[0] ** 2, None),
        (lambda x: torch.where(x > 0, x, 2 * x) ** 2, None),
    ],
)  # fmt: skip
def test_curved_almost_everywhere_only_for_analytic_ops(f: Map, restricted: tuple[str, ...] | None) -> None:
    chart = ff.charts.affine(W[:3], torch.stack([W[:3].flip(0), W[1:]]))
    certificate = ff.certify(f, chart, at=[0.1, 0.2])
    assert certificate.verdict == "curved"
    assert ("almost everywhere" in certificate.claim) == (restricted is not None)
    if restricted is not None:
        assert tuple(op.split()[0] for op in certificate.analytic.restricted) == restricted
        assert ("R^k" in certificate.claim) == (restricted == ())
    assert ff.verify(certificate, f, chart).ok


# -- the search is not trusted -----------------------------------------------------------------------------------------


def test_the_search_finds_curvature_away_from_the_origin() -> None:
    def flat_at_the_origin(u: Tensor) -> Tensor:
        return torch.stack([u[0], u[1], u[0] ** 4 + u[1] ** 4])

    certificate = ff.certify(flat_at_the_origin, ff.charts.identity(2))
    assert certificate.verdict == "curved"
    assert max(map(abs, certificate.point)) <= finder.REACH


def test_a_plane_of_curvature_is_found_in_three_dimensions() -> None:
    def cylinder_over_a_bowl(u: Tensor) -> Tensor:  # curved in the plane of (1, 1, 0) and (0, 0, 1) only
        s = u[0] + u[1]
        return torch.cat([u, (s * s + u[2] ** 2)[None]])

    low, _ = ff.certify(cylinder_over_a_bowl, ff.charts.identity(3), at=[0.0, 0.0, 0.0]).enclosure
    assert float(low) == pytest.approx(8, rel=1e-4)  # second derivatives 4 along (1, 1, 0) / sqrt 2, and 2


def test_a_search_that_is_wrong_only_proves_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove, "find", lambda manifold, at: ((0.5, 0.5, 0.5), ((1.0, 0.0, 0.0), (1.0, 2.0**-20, 0.0))))
    f = lambda u: torch.cat([u, (u[0] * u[1])[None], (u[2] ** 2)[None]])  # noqa: E731
    certificate = ff.certify(f, ff.charts.identity(3))
    K = ff.StatisticalManifold(f, ff.charts.identity(3)).sectional_curvature([0.5] * 3, [1.0, 0, 0], [0, 1.0, 0])
    assert float(certificate.enclosure[0]) == pytest.approx(K.item(), rel=1e-12)
    assert ff.verify(certificate, f, ff.charts.identity(3)).ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": [0.0]}, "k = 2"),
        ({"at": [0.0, math.nan]}, "NaN"),
        ({"radius": -1.0}, "radius"),
        ({"radius": math.inf}, "radius"),
        ({"precision": 8}, "precision"),
    ],
)  # fmt: skip
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ff.certify(bowl, ff.charts.identity(2), **options)


# -- real layers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", range(6))
def test_every_attention_layer_of_minilm(minilm_path: Path, layer: int) -> None:
    block = ff.load(str(minilm_path)).blocks("Flat.")[layer]
    chart = ff.charts.principal(block.attention_input.double(), 1)
    frozen = ff.freeze(block.attention, block.attention_input.double())
    for mean, verdict in ((frozen, "flat"), (block.attention, "curved")):
        certificate = ff.certify(mean, chart, at=[0.0, 0.0])
        assert certificate.verdict == verdict
        assert ff.verify(certificate, mean, chart).ok
        assert any(weight.name.endswith("value.weight") for weight in certificate.weights)


def test_gated_attention_of_qwen3_next_is_flat_once_its_gate_is_frozen_too() -> None:
    block = Model(tiny_model("qwen3_next")).blocks([5, 17, 3, 9])[1]
    x = block.attention_input
    chart = ff.charts.token(x, 2, torch.randn(2, x.shape[1], generator=torch.Generator().manual_seed(0)))
    for reading, verdict in (("frozen pattern", "curved"), ("frozen pattern+gate", "flat")):
        mean = readings.held(block.attention, x, reading)
        certificate = ff.certify(mean, chart)
        assert certificate.verdict == verdict
        assert certificate.reading == reading
        assert ff.verify(certificate, mean, chart).ok
