"""The ring task, its classifiers, and the trained pair with what is said about it."""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from cases.closeness import assert_same

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.geometry import curvature_field
from fisherflat.lab.experiments import train
from fisherflat.lab.experiments.half_plane import NORMAL, half_plane_data
from fisherflat.lab.experiments.ring import INNER_RADIUS, OUTER_RADIUS, SQUARE, ring_data
from fisherflat.zoo import FOLDER, PointClassifier, build, ring_pair, ring_provenance

ORIGIN = torch.zeros(2, dtype=torch.float64)


def test_ring_labels_are_balanced_and_reproducible() -> None:
    points, labels = ring_data(20_000, seed=3)
    radius = points.norm(dim=1)
    assert points.abs().max() <= 2
    assert ((labels == 1) == ((radius > INNER_RADIUS) & (radius < OUTER_RADIUS))).all()
    assert labels.mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 20_000**0.5)
    assert_same(ring_data(20_000, seed=3)[0], points)
    assert not torch.allclose(ring_data(20_000, seed=4)[0], points)
    with pytest.raises(InputError, match="at least one point"):
        ring_data(0, seed=0)


def test_the_half_plane_has_the_points_of_the_ring_and_a_straight_boundary() -> None:
    points, labels = half_plane_data(500, seed=3)
    assert_same(points, ring_data(500, seed=3)[0])
    side = NORMAL[0] * points[:, 0] + NORMAL[1] * points[:, 1]
    assert torch.equal(labels == 1, side > 0) and 0.4 < labels.mean() < 0.6


def test_points_go_in_alone_or_in_batches() -> None:
    model = PointClassifier(8, heads=2, context=3, gate=ff.layers.Gate()).double()
    points, _ = ring_data(6, seed=0)
    assert model.representation(points[0]).shape == (8,)
    assert model.representation.tokens(points[0]).shape == (4, 8)
    batch = points.reshape(2, 3, 2)
    torch.testing.assert_close(model(batch)[1, 2], model(points[5]))


# -- the shipped pair ------------------------------------------------------------------------------------------------


def test_the_pair_differs_in_the_gate_alone() -> None:
    ungated, gated = (model.state_dict() for model in (ring_pair()["ungated"], ring_pair()["gated"]))
    assert set(gated) - set(ungated) == {"representation.attention.gate.projection.weight"}
    assert all(gated[name].shape == ungated[name].shape and gated[name].dtype == torch.float64 for name in ungated)


def test_the_shipped_files_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) < 200_000
    assert {path.name for path in FOLDER.glob("ring*")} == {
        "ring.json",
        "ring_gated.safetensors",
        "ring_ungated.safetensors",
    }


@pytest.mark.parametrize("name", ["ungated", "gated"])
def test_the_shipped_models_do_what_their_provenance_says(name: str) -> None:
    record, model = ring_provenance(), ring_pair()[name]
    recipe, said = record["recipe"], record["shipped"][name]
    training = ring_data(recipe["train_points"], record["shipped_seed"])
    new = ring_data(recipe["test_points"], record["task"]["test_seed"])
    # to a point or two that rounding puts on the other side of the boundary
    assert train.accuracy(model, *training) == pytest.approx(said["train_accuracy"], abs=2 / len(training[0]))
    assert train.accuracy(model, *new) == pytest.approx(said["test_accuracy"], abs=2 / len(new[0]))
    # the shipped seed is one of those compared, not a chosen one
    assert record["comparison"][0][name]["test_accuracy"]["values"][record["shipped_seed"]] == said["test_accuracy"]


def test_provenance_says_how_to_make_it_again() -> None:
    record = ring_provenance()
    assert record["command"].startswith("python -m fisherflat.lab.experiments.train")
    assert set(record["versions"]) == {"fisherflat", "torch", "python"}
    assert record["recipe"] == vars(train.Recipe())
    assert record["architecture"] == {**train.SHIPPED, "gate": train.GATE}
    assert [found["sizes"] for found in record["comparison"]] == list(train.COMPARED)
    for found in record["comparison"]:
        low, high = found["test_accuracy_gated_minus_ungated"]["interval_95"]
        assert low < found["test_accuracy_gated_minus_ungated"]["mean"] < high
        assert len(found["gated"]["test_accuracy"]["values"]) >= 5


@pytest.mark.parametrize(
    ("name", "roles", "flat"),
    [
        ("ungated", (), False),
        ("ungated", ("pattern",), True),
        ("gated", (), False),
        ("gated", ("pattern",), False),
        ("gated", ("attention_gate",), False),
        ("gated", ("pattern", "attention_gate"), True),
    ],
)
def test_what_is_flat_and_what_is_not(name: str, roles: tuple[str, ...], flat: bool) -> None:
    encoder = ring_pair()[name].representation
    mean = ff.freeze(encoder, ORIGIN, roles=roles) if roles else encoder
    torch.testing.assert_close(mean(ORIGIN), encoder(ORIGIN))
    M = ff.StatisticalManifold(mean, ff.charts.identity(2))
    assert curvature_field(M, SQUARE, resolution=9).is_flat == flat


@pytest.mark.parametrize("name", ["ungated", "gated"])
def test_a_frozen_pattern_is_that_of_the_origin(name: str) -> None:
    # independently of the graph: the layer's own parts, put together with the pattern at the origin
    encoder = ring_pair()[name].representation
    attention, point = encoder.attention, torch.tensor([0.7, -1.1], dtype=torch.float64)
    tokens = encoder.tokens(point)
    mixed = attention.pattern(encoder.tokens(ORIGIN))[0] @ attention.value(tokens)
    if attention.gate is not None:
        mixed = mixed * attention.gate(tokens)
    torch.testing.assert_close(ff.freeze(encoder, ORIGIN)(point), attention.output(mixed)[0])


# -- training --------------------------------------------------------------------------------------------------------

QUICK = train.Recipe(train_points=200, test_points=200, steps=60)


def test_training_is_fixed_by_its_seed_and_leaves_the_global_generator_alone() -> None:
    sizes = {"dim": 4, "heads": 1, "context": 1}
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (train.train(True, seed, QUICK, **sizes).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    one, two, other = (torch.cat([weight.flatten() for weight in state.values()]) for state in (one, two, other))
    assert (one - two).norm() < 1e-3 * (one - other).norm()  # what sixty steps make of the last places


def test_training_learns() -> None:
    model = train.train(True, 0, QUICK, **train.SHIPPED)
    assert train.accuracy(model, *ring_data(500, seed=11)) > 0.8


def test_gated_and_ungated_models_start_from_the_same_weights() -> None:
    states = []
    for gated in (False, True):
        torch.manual_seed(5)
        states.append(build(gated, train.GATE, **train.SHIPPED).state_dict())
    for name, weight in states[0].items():
        assert_same(states[1][name], weight)


def test_interval_is_students() -> None:
    found = train.interval([1.0, 2.0, 3.0])
    # t with 2 degrees of freedom at 97.5 %: 4.302653; standard error 1 / √3
    low, high = 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)
    assert found["interval_95"] == pytest.approx([low, high], rel=1e-6)
    assert (found["mean"], found["median"], found["range"], found["values"]) == (2, 2, [1, 3], [1, 2, 3])


def test_the_training_command_writes_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "Recipe", partial(train.Recipe, train_points=40, test_points=40, steps=2))
    monkeypatch.setattr(train, "COMPARED", train.COMPARED[:1])
    for name in ("measure", "compare"):
        monkeypatch.setattr(train, name, partial(getattr(train, name), resolution=5))
    monkeypatch.setattr(sys, "argv", ["train", "--out", str(tmp_path / "new"), "--seeds", "2"])
    train.main()
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in FOLDER.glob("ring*")}
    record = json.loads((tmp_path / "new" / "ring.json").read_text())
    assert set(record) == set(ring_provenance())
    assert (
        record["shipped"]["gated"]["train_accuracy"] == record["comparison"][0]["gated"]["train_accuracy"]["values"][0]
    )
    monkeypatch.setattr(sys, "argv", ["train", "--out", str(tmp_path / "none"), "--seeds", "1"])
    with pytest.raises(SystemExit, match="2"):
        train.main()
    assert not (tmp_path / "none").exists()
