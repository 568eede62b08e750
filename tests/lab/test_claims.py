"""The protocol of the claims: its tasks, its models, their training, and what is kept of them."""

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

import fisherflat as ff
from fisherflat.lab.claims._models import classifier, parameters
from fisherflat.lab.claims._protocol import PATH, Cell, Protocol, Unit
from fisherflat.lab.claims._push import Push
from fisherflat.lab.claims._run import Run, load, plan, rows, run, units
from fisherflat.lab.claims._tasks import GENERATORS, examples
from fisherflat.lab.claims._training import data, train

PROTOCOL = Protocol.load()
POINT, SEQUENCE = {"weight_decay": 0.1}, {"depth": 2, "residual": True, "norm": True, "weight_decay": 0.1}


def cell(task: str, arm: str, **other) -> Cell:
    family = PROTOCOL["tasks"][task]["family"]
    return Cell("test", task, arm, **{**(POINT if family == "point" else SEQUENCE), **other})


# -- tasks -----------------------------------------------------------------------------------------------------------


def _spiral(x: np.ndarray) -> bool:
    """Whether the nearer of the two arms, on a fine grid, is the second."""
    along = np.linspace(0, 1, 400)
    far = []
    for turn in (0, np.pi):
        angle, radius = 2.5 * np.pi * along + turn, 0.2 + 1.5 * along
        far.append(np.hypot(radius * np.cos(angle) - x[0], radius * np.sin(angle) - x[1]).min())
    return far[1] < far[0]


def _moon(x: np.ndarray) -> bool:
    angle = np.linspace(0, np.pi, 400)
    upper = np.hypot(-0.5 + np.cos(angle) - x[0], np.sin(angle) - 0.25 - x[1]).min()
    lower = np.hypot(0.5 + np.cos(angle) - x[0], 0.25 - np.sin(angle) - x[1]).min()
    return lower < upper


def _tilted(x: np.ndarray) -> bool:
    return x[0] > -(math.tan(math.radians(60)) ** -1) * x[1]


#: each rule again, of one input, in words of its own
RULES = {
    "linear": lambda x: x[0] > 0,
    "linear_margin": lambda x: x[0] > 0,
    "linear_tilted": _tilted,
    "linear_tilted_margin": _tilted,
    "ring": lambda x: 0.49 < x[0] ** 2 + x[1] ** 2 < 0.49 + 8 / math.pi,
    "xor": lambda x: (x[0] > 0) == (x[1] > 0),
    "moons": _moon,
    "spirals": _spiral,
    "sum_threshold": lambda x: x[:, 0].mean() > 0,
    "majority": lambda x: (x[:, 0] == 1).sum() >= 5,
    "xor_of_counts": lambda x: ((x[:, 0] == 1).sum() >= 5) != ((x[:, 1] == 1).sum() >= 5),
    "product": lambda x: x[:, 0] @ x[:, 1] > 0,
    "marked_parity": lambda x: len(set(x[x[:, 1] == 1, 0])) == 1,
    "hull": lambda x: Delaunay(x[1:, :2]).find_simplex(x[0, :2]) >= 0,
}


@pytest.mark.parametrize("task", list(GENERATORS))
def test_labels_follow_the_rule(task: str) -> None:
    found = examples(task, 600, 7)
    ruled = np.array([bool(RULES[task](x)) for x in found.inputs.numpy()])
    # the arms of moons and spirals have some width, and may reach over each other
    assert (ruled == found.labels.numpy().astype(bool)).mean() >= (0.97 if task in ("moons", "spirals") else 1.0)
    assert torch.equal(found.labels, found.clean)
    assert abs(found.labels.mean().item() - 0.5) < 0.09  # over four deviations of 600 tosses
    if PROTOCOL["tasks"][task]["family"] == "point":
        assert found.inputs.abs().max() <= 2


def test_tasks_are_those_of_the_protocol() -> None:
    assert set(GENERATORS) == set(PROTOCOL["tasks"]) == set(RULES)


@pytest.mark.parametrize("task", ["linear_margin", "linear_tilted_margin"])
def test_a_margin_is_kept(task: str) -> None:
    angle = math.radians(30 if "tilted" in task else 0)
    away = examples(task, 2000, 0).inputs.numpy() @ [math.cos(angle), math.sin(angle)]
    assert 0.2 <= np.abs(away).min() < 0.21


def test_so_many_labels_are_flipped() -> None:
    found = examples("ring", 20_000, 3, noise=0.05)
    assert abs((found.labels != found.clean).double().mean().item() - 0.05) < 0.007
    assert torch.equal(found.clean, examples("ring", 20_000, 3).clean)


def test_a_seed_fixes_its_data_and_no_other_shares_them() -> None:
    (one, test), (other, _) = data(PROTOCOL, "moons", 4), data(PROTOCOL, "moons", 5)
    assert torch.equal(one.inputs, data(PROTOCOL, "moons", 4)[0].inputs)
    assert not set(one.inputs[:, 0].tolist()) & set(test.inputs[:, 0].tolist())
    assert not set(one.inputs[:, 0].tolist()) & set(other.inputs[:, 0].tolist())
    shuffled = data(PROTOCOL, "moons", 4, shuffled=True)[0]
    assert torch.equal(shuffled.inputs, one.inputs) and shuffled.labels.sum() == one.labels.sum()
    assert abs((shuffled.labels == one.labels).double().mean().item() - 0.5) < 0.08


@pytest.mark.parametrize("task, count", [("rings", 3), ("ring", 0)])
def test_a_task_that_is_none_is_refused(task: str, count: int) -> None:
    with pytest.raises(ff.errors.InputError):
        examples(task, count, 0)


# -- protocol --------------------------------------------------------------------------------------------------------


def test_the_hash_is_that_of_the_file() -> None:
    assert PROTOCOL.sha256 == hashlib.sha256(PATH.read_bytes()).hexdigest()


def test_each_model_is_asked_for_once_and_pilots_count_for_nothing() -> None:
    asked, pilots = units(PROTOCOL), units(PROTOCOL, pilot=True)
    assert len({unit.name for unit in asked}) == len(asked) == len(pilots)
    assert not {unit.name for unit in asked} & {unit.name for unit in pilots}
    assert max(seed for unit in asked for seed in unit.seeds) < PROTOCOL["pilot"]
    assert min(seed for unit in pilots for seed in unit.seeds) >= PROTOCOL["pilot"]
    assert sum(count for _, count, _ in plan(PROTOCOL, asked)) == sum(len(unit.seeds) for unit in asked)
    for group in PROTOCOL["groups"]:
        wanted = {(found.key, seed) for found in PROTOCOL.cells(group) for seed in range(group["seeds"])}
        assert wanted <= {(unit.cell.key, seed) for unit in asked if isinstance(unit, Unit) for seed in unit.seeds}


def test_every_task_and_arm_that_is_named_exists() -> None:
    for group in PROTOCOL["groups"]:
        assert set(group["tasks"]) <= set(PROTOCOL["tasks"]) and set(group["arms"]) <= set(PROTOCOL["arms"])


@pytest.mark.parametrize("asked", [{"groups": ["mian"]}, {"tasks": ["rings"]}])
def test_a_group_or_a_task_that_is_none_is_refused(asked: dict) -> None:
    with pytest.raises(ff.errors.InputError):
        PROTOCOL.units(**asked)


def test_a_property_that_no_model_has_is_refused() -> None:
    with pytest.raises(ff.errors.InputError, match="colour"):
        list(PROTOCOL.cells({"name": "x", "tasks": ["ring"], "arms": ["gated"], "seeds": 1, "colour": ["red"]}))


# -- models ----------------------------------------------------------------------------------------------------------

#: embedding and its bias, context, read-out and its bias; then by layer query, key, value, output
BASE = 3 * 16 + 2 * 16 + 16 + 1
COUNTS = {
    "ungated": BASE + 4 * 256,
    "gated": BASE + 5 * 256,
    "gated_constant": BASE + 4 * 256,
    "plain_silu": BASE + 5 * 256,
    "ungated_wide": 3 * 18 + 2 * 18 + 18 + 1 + 4 * 18**2,
}


@pytest.mark.parametrize("arm", list(PROTOCOL["arms"]))
@pytest.mark.parametrize("heads", [1, 2])
def test_parameters_are_as_stated(arm: str, heads: int) -> None:
    about = PROTOCOL["arms"][arm]
    found = parameters(classifier(PROTOCOL, cell("ring", arm, heads=heads), 0), about)
    plainer = "gated" if "gate" in about and not about.get("constant") else "plain_silu" if "plain" in about else arm
    assert found == COUNTS[plainer if plainer in COUNTS else "ungated"]


@pytest.mark.parametrize("task, depth", [("ring", 1), ("ring", 6), ("product", 2)])
def test_arms_of_equal_parameters_are_equal_within_three_percent(task: str, depth: int) -> None:
    gated, *others = (
        parameters(classifier(PROTOCOL, cell(task, arm, depth=depth), 0), PROTOCOL["arms"][arm])
        for arm in ("gated", "ungated_wide", "plain_silu")
    )
    assert all(abs(other / gated - 1) < 0.03 for other in others)


@pytest.mark.parametrize("position", ff.layers.GATE_POSITIONS)
@pytest.mark.parametrize("heads", [1, 2])
def test_attention_is_that_of_the_library(position: str, heads: int) -> None:
    arm = "gated" if position == "output" else f"gated_{position}"
    attention = classifier(PROTOCOL, cell("ring", arm, heads=heads), 3).double().representation.layers[0].attention
    x = torch.randn(5, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = attention.weights(x)
    assert torch.allclose(weights, attention.pattern(x), atol=1e-14)
    assert torch.allclose(attention.read(x, weights), attention(x), atol=1e-13)
    assert torch.allclose(attention.read(x, attention.weights(x, 1)), attention(x)[:, :1], atol=1e-13)


def test_arms_start_from_the_same_weights() -> None:
    states = [classifier(PROTOCOL, cell("ring", arm, depth=2), 5).state_dict() for arm in ("ungated", "gated")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = classifier(PROTOCOL, cell("ring", "ungated", depth=2), 6).state_dict()
    assert not torch.equal(states[0]["readout.weight"], other["readout.weight"])


# -- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", list(GENERATORS))
def test_training_is_better_than_chance(task: str) -> None:
    steps = 60 if PROTOCOL["tasks"][task]["boundary"] == "linear" else 150
    (found,) = train(PROTOCOL, Unit(cell(task, "gated"), (1001,)), steps)
    assert found.test_accuracy > 0.58  # ten deviations of 4000 tosses


@pytest.mark.parametrize("task", ["ring", "product"])
def test_shuffled_labels_teach_nothing(task: str) -> None:
    found = train(PROTOCOL, Unit(cell(task, "gated", shuffled=True), (1000, 1001, 1002)), 100)
    assert abs(sum(one.test_accuracy for one in found) / 3 - 0.5) < 0.06
    assert min(one.train_accuracy for one in found) > 0.5


def test_seeds_that_are_trained_together_do_not_touch_each_other() -> None:
    alone = train(PROTOCOL, Unit(cell("xor", "gated"), (1001,)), 20)[0]
    together = train(PROTOCOL, Unit(cell("xor", "gated"), (1000, 1001, 1002)), 20)[1]
    assert together.seed == 1001
    x = together.test.inputs
    assert torch.allclose(alone.model(x), together.model(x), rtol=1e-3, atol=1e-3)  # single precision, 20 steps


def test_a_gate_that_is_held_constant_stays_so() -> None:
    (found,) = train(PROTOCOL, Unit(cell("ring", "gated_constant"), (1000,)), 10)
    assert not found.model.representation.layers[0].attention.gate.projection.weight.any()
    (gated,) = train(PROTOCOL, Unit(cell("ring", "gated"), (1000,)), 10)
    assert gated.model.representation.layers[0].attention.gate.projection.weight.any()


def test_a_push_has_the_gradient_of_what_it_says() -> None:
    """Against differences of the value, which is made of the library's quantity once more."""
    model = classifier(PROTOCOL, cell("ring", "gated"), 2).double()
    x = examples("ring", 16, 0).inputs
    names = [name for name, _ in model.named_parameters()]
    push = Push([model], names, 4.0, {"every": 2, "points": 16, "weight": 0.5})

    def value() -> float:
        M = ff.StatisticalManifold(model.representation, ff.charts.identity(2))
        form = M.measure(x, ["second_fundamental_form_norm"])["second_fundamental_form_norm"]
        off = (form**2 * model.representation(x).var(0).mean()).log() - 2 * math.log(4.0)
        small = off.abs() < 1
        return torch.where(small, off**2 / 2, off.abs() - 0.5).mean().item()  # times weight and every, which is 1

    state = {name: torch.nn.Parameter(p.detach()[None].clone()) for name, p in model.named_parameters()}
    for one in state.values():
        one.grad = torch.zeros_like(one)
    push.add(state, x[None])
    name, step = "representation.embedding.weight", 1e-5
    weight = dict(model.named_parameters())[name]
    for entry in ((0, 0), (7, 1)):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[entry] += sign * step
                ends.append(value())
                weight[entry] -= sign * step
        assert state[name].grad[0][entry].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7)


# -- runs ------------------------------------------------------------------------------------------------------------


def _few(folder, count: int = 4) -> Run:
    chosen = [unit for unit in units(PROTOCOL, ["main", "symmetries"], ["ring"], 2, True) if "adam" not in unit.name]
    picked = [*chosen[: count - 1], *(unit for unit in chosen if unit.table == "symmetries")][:count]
    return Run(folder, PROTOCOL, tuple(picked), True, 3)


def test_resuming_gives_what_an_uninterrupted_run_gives(tmp_path, monkeypatch) -> None:
    whole, parts = _few(tmp_path / "whole"), _few(tmp_path / "parts")
    assert run(whole)

    def interrupted(what: str, done: int, total: int | None) -> None:
        if len(list((parts.out / "parts").glob("*.parquet"))) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(parts, step=interrupted)
    kept = {path: path.stat().st_mtime_ns for path in (parts.out / "parts").glob("*.parquet")}
    assert len(kept) == 2 and run(parts)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())  # these were not trained again
    for name in ("models", "symmetries"):
        one, about = load(whole.out / f"{name}.parquet")
        other, same = load(parts.out / f"{name}.parquet")
        assert about == same and about["protocol_sha256"] == PROTOCOL.sha256 and len(one)
        assert one.equals(other)  # the same program on the same machine: bit for bit


def test_processes_give_the_same_table_and_a_limit_ends_a_run(tmp_path) -> None:
    late = _few(tmp_path / "late", 2)
    assert not run(late, jobs=2, limit=0.0)
    assert not (late.out / "models.parquet").exists()
    assert run(late, jobs=2, limit=120.0)
    here = [row for unit in late.units if unit.table == "models" for row in rows(PROTOCOL, unit, 3, True)]
    table, _ = load(late.out / "models.parquet")
    assert [row["test_accuracy"] for row in here] == table["test_accuracy"].tolist()


def test_a_unit_that_fails_says_why_and_the_others_go_on(tmp_path, monkeypatch) -> None:
    one = _few(tmp_path, 2)

    def failing(protocol, unit, steps, pilot):
        if unit is one.units[0]:
            raise RuntimeError("no luck")
        return rows(protocol, unit, steps, pilot)

    monkeypatch.setattr("fisherflat.lab.claims._run.rows", failing)
    assert not run(one)
    assert "no luck" in one.part(one.units[0]).with_suffix(".error").read_text()
    assert one.done(one.units[1])


def test_rows_of_another_protocol_are_not_taken_for_done(tmp_path) -> None:
    one = _few(tmp_path, 1)
    assert run(one) and one.done(one.units[0])
    assert not Run(tmp_path, Protocol(PROTOCOL.text + "\n"), one.units, True, 3).done(one.units[0])
    one.part(one.units[0]).write_bytes(b"PAR1 not really")
    assert not one.done(one.units[0])
