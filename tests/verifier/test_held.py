"""What is held is what the reading says: the verifier finds it again, and refuses what a wrong finder holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import certified, roles
from cases.certified import CHART, HIDDEN, numbers
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.jets.graph import ROLES, Graph
from fisherflat.verifier import Comparison, parts_that_are_none


def forced(mean, at: Tensor, role: str, *chosen: int) -> Graph:
    """A graph in which a finder of parts that is wrong has given nodes a role, and held them."""
    graph = ff.trace(mean, at)
    for node in graph.nodes:
        node.factor = False
    for index in chosen:
        graph.nodes[index].role, graph.nodes[index].factor = role, True
    return ff.freeze(graph, at, (role,))


class Behind(nn.Module):
    """A nonlinearity and a projection without bias behind attention."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = certified.Attention()
        self.out = nn.Parameter(numbers(31, 4, 4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.inner(x)) @ self.out


@pytest.mark.parametrize("op", ["aten.tanh", "aten.mm", "aten.bmm"])
def test_what_is_behind_the_weighing_of_values_is_no_pattern(op: str) -> None:
    live = ff.trace(Behind(), HIDDEN)
    last = max(node.index for node in live.nodes if node.op == op)
    mean = forced(Behind(), HIDDEN, "pattern", last)
    certificate = ff.certify(mean, CHART)
    assert certificate.verdict == "flat"  # the prover believes the finder
    reasons = ff.verify(certificate, mean, CHART).reasons
    assert reasons and all(reason.startswith("held:") and "held as pattern" in reason for reason in reasons)


@pytest.mark.parametrize("role", ["norm", "attention_gate", "mlp_gate"])
def test_a_pattern_is_nothing_else(role: str) -> None:
    live = ff.trace(certified.Attention(), HIDDEN)
    (softmax,) = [node.index for node in live.nodes if node.op == "aten._softmax"]
    mean = forced(certified.Attention(), HIDDEN, role, softmax)
    reasons = ff.verify(ff.certify(mean, CHART), mean, CHART).reasons
    assert reasons and reasons[0].startswith("held:")


def test_a_memory_is_no_pattern() -> None:
    """`softmax(x K) V` with weights K and V weighs no values of tokens."""
    keys, values = numbers(32, 4, 6), numbers(33, 6, 4)
    memory = nn.ParameterDict({"k": nn.Parameter(keys), "v": nn.Parameter(values)})

    def f(x: Tensor) -> Tensor:
        return x + (x @ memory["k"]).softmax(-1) @ memory["v"]

    live = ff.trace(f, HIDDEN)
    softmax = next(node.index for node in live.nodes if node.op == "aten._softmax")
    mean = forced(f, HIDDEN, "pattern", softmax)
    assert [r.split(":")[0] for r in ff.verify(ff.certify(mean, CHART), mean, CHART).reasons] == ["held"]


@pytest.mark.parametrize("name", roles.LAYERS)
def test_the_verifier_agrees_on_layers_whose_parts_are_known_by_construction(name: str) -> None:
    at = roles.point(name)

    def layer(x: Tensor) -> Tensor:
        return roles.LAYERS[name](x, lambda role, kept: kept)

    for chosen in (*((role,) for role in ROLES[:-1]), ROLES[:-1]):
        frozen = ff.freeze(layer, at, chosen)
        if frozen.holdings:
            assert not list(parts_that_are_none(Comparison(frozen)))


def test_a_role_that_holds_nothing_is_not_named() -> None:
    mean = ff.freeze(certified.Attention(), HIDDEN, ("pattern", "norm", "mlp_gate"))
    certificate = ff.certify(mean, CHART)
    assert certificate.frozen == ("pattern",)
    assert certificate.reading == "frozen pattern"
    bare = ff.certify(ff.freeze(certified.Plain(), HIDDEN, ("pattern",)), CHART)
    assert (bare.frozen, bare.held, bare.reading) == ((), [], "live")
    named = replace(certificate, frozen=("pattern", "norm"))
    assert not ff.verify(named, mean, CHART).ok


def test_what_is_held_is_listed_and_the_list_is_checked() -> None:
    mean = ff.freeze(nn.Sequential(certified.Plain(), certified.Attention("silu")), HIDDEN, ("pattern", "activation"))
    certificate = ff.certify(mean, CHART, at=[0.5, -0.25])
    assert [tuple(held) for held in certificate.held] == [tuple(held) for held in mean.held]
    assert {held.op for held in certificate.held} == {"aten._softmax", "aten.tanh"}
    assert ff.verify(certificate, mean, CHART).ok
    for fewer in (certificate.held_nodes[:1], certificate.held_nodes[1:]):
        assert not ff.verify(replace(certificate, held_nodes=fewer), mean, CHART).ok
    first = certificate.held_nodes[0]
    for changed in (
        first._replace(node=first.node + 1),
        first._replace(op="aten.relu"),
        first._replace(source="x.py:1"),
    ):
        nodes = (changed, *certificate.held_nodes[1:])
        assert not ff.verify(replace(certificate, held_nodes=nodes), mean, CHART).ok


def test_a_frozen_graph_that_was_changed_is_no_reading_of_its_live_one() -> None:
    mean = ff.freeze(certified.Attention("silu"), HIDDEN)
    certificate = ff.certify(mean, CHART, at=[0.5, -0.25])
    gate = next(node for node in mean.nodes if node.op == "aten.silu")
    gate.target = torch.ops.aten.relu.default
    reasons = ff.verify(certificate, mean, CHART).reasons
    assert reasons and reasons[0].startswith("held: the frozen graph differs from the live one")


def test_freezing_at_two_inputs_is_refused_and_at_one_is_one_freezing() -> None:
    once = ff.freeze(certified.Attention("silu"), HIDDEN, ("pattern", "attention_gate"))
    again = ff.freeze(ff.freeze(certified.Attention("silu"), HIDDEN), HIDDEN, ("attention_gate",))
    certificate = ff.certify(once, CHART)
    assert certificate.verdict == "flat" and ff.verify(certificate, again, CHART).ok
    twice = ff.freeze(ff.freeze(certified.Attention("silu"), HIDDEN), 2 * HIDDEN, ("attention_gate",))
    with pytest.raises(ff.errors.InputError, match="freeze it once"):
        ff.certify(twice, CHART)
