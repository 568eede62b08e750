"""Curvature pushed on XOR of counts and with patterns held: the term, the rule, and what is shipped."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat.lab.claims import pushed
from fisherflat.lab.claims._models import classifier
from fisherflat.lab.claims._protocol import Cell, Protocol
from fisherflat.lab.claims._tasks import examples

PROTOCOL = Protocol.load()
ROOT = Path(__file__).parents[2]


def _bend(model: torch.nn.Module, x: Tensor, reading: str) -> Tensor:
    """`|II|² Var` at each input, one manifold a point: the pattern as it is, or frozen there."""
    encoder, found = model.representation, []
    for index, point in enumerate(x):
        if x.dim() == 2:
            chart = ff.charts.affine(point, torch.eye(2))
        else:
            chart = ff.charts.affine(point, torch.stack([x[index - 1] - point, x[index - 2] - point]))
        held = lambda y, at=point: encoder(y, at)  # noqa: E731
        M = ff.StatisticalManifold(held if reading == "held" else encoder, chart)
        found.append(M.measure(torch.zeros(2), ["second_fundamental_form_norm"])["second_fundamental_form_norm"])
    return torch.stack(found).square() * encoder(x).var(0).mean()


@pytest.mark.parametrize(("task", "arm", "reading"), pushed.PUSHED)
def test_the_term_has_the_gradient_of_what_it_says(task: str, arm: str, reading: str) -> None:
    model = classifier(PROTOCOL, Cell("pushed", task, arm), 2).double()
    x = examples(task, pushed.POINTS, 5).inputs
    names = [name for name, _ in model.named_parameters()]
    term = pushed.Further([model], names, reading, 2.0, x[0])

    def value() -> float:
        off = _bend(model, x, reading).log() - 2 * math.log(2.0)
        small = off.abs() < 1
        loss = torch.where(small, off**2 / 2, off.abs() - 0.5).mean()
        return (pushed.WEIGHT * pushed.EVERY * loss).item()

    state = {name: torch.nn.Parameter(p.detach()[None].clone()) for name, p in model.named_parameters()}
    for one in state.values():
        one.grad = torch.zeros_like(one)
    term.add(state, x[None])
    weights, step = dict(model.named_parameters()), 1e-5
    for name in ("representation.embedding.weight", "representation.layers.0.attention.key.weight"):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weights[name][3, 1] += sign * step
                ends.append(value())
                weights[name][3, 1] -= sign * step
        want = (ends[0] - ends[1]) / (2 * step)
        assert state[name].grad[0, 3, 1].item() == pytest.approx(want, rel=1e-5, abs=1e-8)


def test_there_is_nothing_to_push_without_a_gate() -> None:
    model = classifier(PROTOCOL, Cell("pushed", "xor_of_counts", "ungated"), 2).double().requires_grad_(False)
    assert _bend(model, examples("xor_of_counts", 8, 5).inputs, "live").amax() < 1e-20


@pytest.mark.parametrize(
    ("low", "high", "ratio", "said"),
    [
        (1.2, 3.0, (2.0, 4.0), "holds"),
        (-3.0, 0.8, (0.2, 0.6), "does not hold"),
        (0.5, 1.5, (2.0, 4.0), "undecided"),
        (1.2, 3.0, (0.9, 4.0), "not pushed"),
    ],
)
def test_the_rule(low: float, high: float, ratio: tuple[float, float], said: str) -> None:
    assert pushed.verdict(low, high, ratio) == said


def test_a_run_goes_on_from_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushed, "PUSHED", pushed.PUSHED[2:3])
    monkeypatch.setattr(pushed, "FLAT", ())
    found = pushed.measure(tmp_path, seeds=2, steps=6)
    assert list(found.groupby("push").size().items()) == [("down", 2), ("free", 2), ("up", 2)]
    targets = found.groupby("push")["target"].first()
    assert targets["up"] == pytest.approx(16 * targets["down"])
    monkeypatch.setattr(pushed, "train", None)
    pd.testing.assert_frame_equal(pushed.measure(tmp_path, seeds=2, steps=6), found)


def test_the_page_has_the_table_that_is_shipped() -> None:
    found = pd.read_parquet(ROOT / "docs" / "data" / "pushed.parquet")
    assert pushed.table(pushed.settled(found)) in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    free = found[found["push"] == "free"].groupby(["task", "arm"])["accuracy"].mean()
    assert round(100 * free["xor_of_counts", "ungated"], 1) == 58.6
    ungated = found[found["arm"] == "ungated"]
    assert (ungated["bend"] < 1e-9).all()


def test_the_figure_draws_each_row() -> None:
    figure = pushed.draw(pushed.settled(pd.read_parquet(ROOT / "docs" / "data" / "pushed.parquet")))
    assert len(figure.axes[0].get_yticklabels()) == 2 * len(pushed.PUSHED)
