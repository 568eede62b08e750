"""Architectures of transformers from small random configurations: traced, differentiated, read, frozen and proved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.architecture_table import agrees, row
from cases.architectures import ARCHITECTURES, CLOSELY, GATED, UNGATED, blocks, jet, softmax_blocks, traced
from conftest import ROOT
from torch import Tensor
from torch.overrides import TorchFunctionMode

import fisherflat as ff
from fisherflat.jets.engines import TensorAlgebra
from fisherflat.jets.graph import Node

PAGE = ROOT / "docs" / "coverage.md"
#: where the engines are compared here: what is gated, and of the rest one of each design (encoders, relative positions,
#: experts, hybrids, caps, latent attention); the command that makes the page compares them for all
COMPARED = {
    *GATED, "bert", "bitnet", "bloom", "deberta-v2", "deepseek_v3", "gemma2", "gpt2", "gpt_oss", "lfm2", "llama",
    "llama4_text", "minimax", "mixtral", "modernbert", "olmo2", "t5",
}  # fmt: skip

every_architecture = pytest.mark.parametrize("kind", CLOSELY, indirect=True, scope="module")


@pytest.fixture(scope="module")
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """An architecture; all that is tested of it comes one after the other, since its model and graphs are made once."""
    yield request.param
    blocks.cache_clear()
    traced.cache_clear()


class Exact(TorchFunctionMode):
    """What a model does in float32 is done in float64, by other means than a trace; `casts` counts the places."""

    def __init__(self) -> None:
        super().__init__()
        self.casts = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def double(value: Any) -> Any:
            self.casts += value is torch.float32
            return torch.float64 if value is torch.float32 else value

        if func is Tensor.float:
            self.casts += 1
            func = Tensor.double
        return func(*map(double, args), **{name: double(value) for name, value in (kwargs or {}).items()})


def moved(x: Tensor, seed: int) -> Tensor:
    """A point away from `x`."""
    return x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def products(graph: ff.jets.Graph, role: str) -> list[Node]:
    """The nodes at which the factors of a role enter."""
    return [node for node in graph.nodes if node.role == role and not node.factor]


def test_configurations_are_of_transformers() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert set(ARCHITECTURES) <= set(CONFIG_MAPPING_NAMES)


def test_the_page_is_of_this_list() -> None:
    assert re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.M) == sorted(ARCHITECTURES)
    assert "**no**" not in PAGE.read_text()


def test_all_architectures_promised_are_here() -> None:
    gated = [kind for kind, said in ARCHITECTURES.items() if said.gate]
    assert len(ARCHITECTURES) >= 100 and len(gated) >= 14
    assert (len(UNGATED), len(GATED)) == (39, 10) and set(GATED) <= set(gated)
    assert set(CLOSELY) >= COMPARED


@every_architecture
def test_a_graph_is_its_module_without_the_casts(kind: str) -> None:
    for part in (part for block in blocks(kind) for part in (block.attention, block)):
        x = moved(part.input, seed=1)
        y, plain = traced(part)(x), part(x)
        with Exact() as mode:
            exact = part(x)
        assert error(y, exact) < 1e-10
        assert error(y, plain) < (1e-5 if mode.casts else 1e-10)


@pytest.mark.parametrize("kind", ARCHITECTURES, indirect=True, scope="module")
def test_an_architecture_is_what_its_source_says(kind: str) -> None:
    """Its row in the table of the docs: parts, gates, engines and certificates."""
    said, engines = ARCHITECTURES[kind], kind in COMPARED
    found = row(kind, engines)
    layers = found["layers"]
    attentive = [layer for layer in layers if layer["softmax"]]
    states = [layer[part] for layer in layers for part in ("block", "mlp")]
    states += [layer["attention"] for layer in attentive] or ["no softmax"]
    assert all(state == "traces" for state in states) is not bool(said.missing)
    assert agrees(found, said)
    for layer in attentive:
        if "verdict" in layer:
            assert layer["verdict"] == ("curved" if layer["gates"] or said.bent else "flat")
    differences = [layer["difference"] for layer in layers if layer["difference"] is not None]
    assert all(difference < 1e-9 for difference in differences)
    assert bool(differences) is engines


@every_architecture
def test_no_op_needs_a_fallback(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorAlgebra, "fallback", lambda self, node, *rest: pytest.fail(f"{node.op} has no rule"))
    for block in blocks(kind):
        jet(traced(block), block.input)


@every_architecture
def test_the_pattern_is_found(kind: str) -> None:
    assert softmax_blocks(kind)
    for block in softmax_blocks(kind):
        graph = traced(block)
        softmax = [node for node in graph.nodes if node.op == "aten._softmax" and "mlp" not in node.module_path]
        assert {node.role for node in softmax} == {"pattern"}
        assert "aten.bmm" in {node.op for node in products(graph, "pattern")}


@every_architecture
def test_the_attention_gate_is_found_where_there_is_one(kind: str) -> None:
    projection = CLOSELY[kind].gate
    for block in softmax_blocks(kind):
        for part in (block, block.attention):
            gates = products(traced(part), "attention_gate")
            assert len(gates) == (projection is not None)
            for gate in gates:
                factor = next(source for source in gate.inputs if source.factor)
                assert any(node.module_path.endswith(f".{projection}") for node in ancestors(factor))


def ancestors(node: Node) -> set[Node]:
    found, frontier = {node}, [node]
    while frontier:
        fresh = set(frontier.pop().inputs) - found
        found |= fresh
        frontier += fresh
    return found


@every_architecture
def test_mlp_gates_are_found_where_there_are_some(kind: str) -> None:
    for block in blocks(kind):
        assert bool(products(traced(block.mlp), "mlp_gate")) is CLOSELY[kind].gated_mlp
    for block in softmax_blocks(kind):
        assert not products(traced(block.attention), "mlp_gate")


@every_architecture
def test_norms_are_found(kind: str) -> None:
    for block in blocks(kind):
        roles: dict[str, set[str]] = {}
        for node in traced(block).nodes:
            roles.setdefault(node.module_path, set()).add(node.role)
        called = [
            (path, module) for path, module in block.named_modules() if path in roles and not list(module.children())
        ]
        norms = [path for path, module in called if "norm" in type(module).__name__.lower()]
        assert norms
        for path in norms:
            assert roles[path] & {"norm", "pattern"}  # norms of queries and keys are part of the pattern


@every_architecture
def test_attention_is_affine_once_its_pattern_and_its_gate_are_frozen(kind: str) -> None:
    architecture = CLOSELY[kind]
    needed = ("pattern", *(("attention_gate",) if architecture.gate else ()), *architecture.also)
    for block in softmax_blocks(kind):
        assert is_affine(ff.freeze(traced(block.attention), block.attention_input, needed), block.attention_input)
    for role in needed:
        fewer = tuple(other for other in needed if other != role)
        assert not is_affine(ff.freeze(traced(block.attention), block.attention_input, fewer), block.attention_input)


@every_architecture
def test_an_mlp_is_affine_once_its_gate_and_activation_are_frozen(kind: str) -> None:
    roles = ("mlp_gate", "activation", *CLOSELY[kind].also)
    for block in blocks(kind):
        graph = traced(block.mlp)
        if any(node.op == "aten.topk" for node in graph.nodes):
            continue  # the weights of a router are no gate
        frozen, x = ff.freeze(graph, block.mlp_input, roles), block.mlp_input
        assert is_affine(frozen, x)
        assert error(frozen(moved(x, 1)), graph(moved(x, 1))) > 1e-6


def is_affine(graph: ff.jets.Graph, x: Tensor) -> bool:
    """Whether second derivatives vanish identically; a second difference must say the same."""
    a, b = moved(x, 1), moved(x, 2)
    difference = float((graph(a + b - x) - graph(a) - graph(b) + graph(x)).abs().max() / graph(x).abs().max())
    affine = not jet(graph, x).hessian.any()
    assert affine == (difference < 1e-12)
    return affine


@every_architecture
def test_freezing_changes_nothing_at_the_point(kind: str) -> None:
    for block in blocks(kind):
        frozen = ff.freeze(traced(block), block.input, ("pattern", "attention_gate", "norm", "mlp_gate", "activation"))
        assert error(frozen(block.input), traced(block)(block.input)) < 1e-12


def test_a_trained_model(minilm_path: Path) -> None:
    found = ff.load(minilm_path).blocks("the cat sat on the mat")
    assert len(found) == 6
    for block in found:
        roles = {role: len(products(traced(block), role)) for role in ff.jets.graph.ROLES[:-1]}
        assert roles == {"pattern": 1, "attention_gate": 0, "norm": 2, "mlp_gate": 0, "activation": 1}
        x = block.attention_input
        frozen = ff.freeze(block.attention, x)
        assert (
            not ff.StatisticalManifold(frozen, ff.charts.token(x, 2, torch.eye(2, x.shape[1])))
            .jet([0.1, 0.2])
            .hessian.any()
        )
