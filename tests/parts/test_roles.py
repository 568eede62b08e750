"""Roles: which parts of a layer are found, on modules written in unusual ways, and what freezing them does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu

import fisherflat as ff
from fisherflat.jets.graph import Node

N, D = 5, 4


def weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = weight(N, D, seed=100)
Q, K, V, P, G, U, W = (weight(D, D, seed=seed) for seed in range(7))
SCALE, SHIFT = weight(D, seed=8), weight(D, seed=9)


def products(function: Callable[[Tensor], Tensor], role: str) -> list[Node]:
    """Where the factors of a role enter."""
    return [node for node in ff.trace(function, X).nodes if node.role == role and not node.factor]


def counts(function: Callable[[Tensor], Tensor]) -> dict[str, int]:
    found = {role: len(products(function, role)) for role in ff.jets.graph.ROLES[:-1]}
    return {role: count for role, count in found.items() if count}


def is_affine(function: Callable[[Tensor], Tensor], *roles: str) -> bool:
    """Whether the second derivatives of the function, with some roles frozen, vanish identically."""
    frozen = ff.freeze(function, X, roles)
    return (
        not ff.StatisticalManifold(frozen, ff.charts.affine(X, weight(2, N, D, seed=7))).jet([0.3, -0.2]).hessian.any()
    )


def pattern(x: Tensor) -> Tensor:
    return ((x @ Q) @ (x @ K).T / D**0.5).softmax(-1)


def attention(x: Tensor) -> Tensor:
    return pattern(x) @ (x @ V) @ P


def gate(x: Tensor) -> Tensor:
    return torch.sigmoid(x @ G)


# -- attention gates ---------------------------------------------------------------------------------------------------

GATED = {
    "output": lambda x: (pattern(x) @ (x @ V) * gate(x)) @ P,
    "output, factor first": lambda x: (gate(x) * (pattern(x) @ (x @ V))) @ P,
    "output, bilinear": lambda x: (pattern(x) @ (x @ V) * (x @ G)) @ P,
    "output, by itself": lambda x: (lambda o: o * torch.sigmoid(o @ G))(pattern(x) @ (x @ V)) @ P,
    "output, normed before": lambda x: nn.functional.rms_norm(pattern(x) @ (x @ V), [D]) * gate(x),
    "values": lambda x: pattern(x) @ (x @ V * gate(x)) @ P,
    "projected": lambda x: attention(x) * gate(x),
    "residual": lambda x: x + attention(x) * gate(x),
    "heads": lambda x: (pattern(x) @ (x @ V)).reshape(N, 2, 2) * torch.sigmoid(x @ G[:, :2])[..., None],
    "sigmoid attention": lambda x: torch.sigmoid((x @ Q) @ (x @ K).T) @ (x @ V) * gate(x),
    "linear attention": lambda x: torch.relu(x @ Q) @ (torch.relu(x @ K).T @ (x @ V)) * gate(x),
}


def with_sink(x: Tensor) -> Tensor:
    """A softmax with one more entry, whose value is zero, written as a factor."""
    scores = (x @ Q) @ (x @ K).T
    return scores.softmax(-1) @ (x @ V) * torch.sigmoid(scores.logsumexp(-1, keepdim=True) - 0.3)


UNGATED = {
    "plain": attention,
    "residual": lambda x: x + attention(x),
    "normed after": lambda x: nn.functional.layer_norm(x + attention(x), [D]),
    "then an MLP": lambda x: (lambda h: h + silu(h @ U) * (h @ W))(x + attention(x)),
    "then an MLP without residual": lambda x: (lambda h: silu(h @ U) * (h @ W))(attention(x)),
    "beside an MLP": lambda x: x + attention(x) + silu(x @ U) * (x @ W),
    "two layers": lambda x: attention(x + attention(x)),
    "queries gated": lambda x: ((x @ Q * gate(x)) @ (x @ K).T).softmax(-1) @ (x @ V),
    "capped scores": lambda x: (torch.tanh((x @ Q) @ (x @ K).T / 5) * 5).softmax(-1) @ (x @ V),
    "sink": with_sink,
}


@pytest.mark.parametrize("name", GATED)
def test_attention_gates_are_found(name: str) -> None:
    assert len(products(GATED[name], "attention_gate")) == 1
    assert not products(GATED[name], "mlp_gate")


@pytest.mark.parametrize("name", UNGATED)
def test_no_attention_gate_is_found_where_there_is_none(name: str) -> None:
    assert not products(UNGATED[name], "attention_gate")
    assert bool(products(UNGATED[name], "mlp_gate")) is ("MLP" in name)
    assert products(UNGATED[name], "pattern")


PLACES = [("output", "elementwise"), ("output", "headwise"), ("value", "elementwise"), ("value", "headwise")]


@pytest.mark.parametrize(("position", "granularity"), [*PLACES, ("projection", "elementwise")])
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "silu", "relu"])
def test_gates_of_our_own_layers(position: str, activation: str, granularity: str) -> None:
    layer = ff.layers.SelfAttention(D, 2, gate=ff.layers.Gate(activation, granularity, position)).double()
    assert len(products(layer, "attention_gate")) == 1
    assert is_affine(layer, "pattern", "attention_gate")
    assert not is_affine(layer, "pattern")


def test_a_gate_and_what_it_leaves_are_one_role() -> None:
    def highway(x: Tensor) -> Tensor:
        return gate(x) * attention(x) + (1 - gate(x)) * x

    def shared(x: Tensor) -> Tensor:
        g = gate(x)
        return g * attention(x) + (1 - g) * x

    assert counts(shared)["attention_gate"] == 2
    assert is_affine(shared, "pattern", "attention_gate")
    assert is_affine(highway, "pattern", "attention_gate", "mlp_gate")


# -- MLPs --------------------------------------------------------------------------------------------------------------


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.7 * x)


def gelu_new(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


MLPS = {
    "gated": (lambda x: silu(x @ U) * (x @ W) @ P, "mlp_gate"),
    "gate second": (lambda x: (x @ W) * silu(x @ U) @ P, "mlp_gate"),
    "bilinear": (lambda x: (x @ U) * (x @ W) @ P, "mlp_gate"),
    "halves": (lambda x: (lambda h: silu(h[:, :2]) * h[:, 2:])(x @ U), "mlp_gate"),
    "alternating": (lambda x: (lambda h: silu(h[:, ::2]) * h[:, 1::2])(x @ U), "mlp_gate"),
    "glu": (lambda x: nn.functional.glu(x @ U), "mlp_gate"),
    "gate written out": (lambda x: swish(x @ U) * (x @ W + 1), "mlp_gate"),
    "plain": (lambda x: silu(x @ U) @ P, "activation"),
    "written out": (lambda x: swish(x @ U) @ P, "activation"),
    "gelu written out": (lambda x: gelu_new(x @ U) @ P, "activation"),
    "square of relu": (lambda x: torch.relu(x @ U).square() @ P, "activation"),
    "power of relu": (lambda x: torch.relu(x @ U) ** 2 @ P, "activation"),
    "log sigmoid": (lambda x: nn.functional.logsigmoid(x @ U) @ P, "activation"),
}


@pytest.mark.parametrize("name", MLPS)
def test_what_bends_an_mlp_is_found(name: str) -> None:
    mlp, role = MLPS[name]
    assert counts(mlp).keys() == {role}
    assert role != "mlp_gate" or len(products(mlp, role)) == 1
    assert is_affine(mlp, role)
    assert not is_affine(mlp)


def test_a_frozen_activation_is_its_tangent_however_it_is_written() -> None:
    short, long = (ff.freeze(lambda x, f=f: f(x @ U), X, "activation") for f in (nn.GELU("tanh"), gelu_new))
    x = X + 0.5
    assert torch.allclose(short(x), long(x), rtol=1e-12, atol=1e-12)
    step = torch.func.jvp(lambda x: gelu_new(x @ U), (X,), (x - X,))[1]
    assert torch.allclose(short(x), gelu_new(X @ U) + step, rtol=1e-12, atol=1e-12)


def test_routers_are_no_gates() -> None:
    def experts(x: Tensor) -> Tensor:
        weights, chosen = (x @ G).softmax(-1).topk(2)
        stack = torch.stack([U, W, V, P])[chosen]  # [N, 2, D, D]
        return (weights[..., None] * (x[:, None, None] @ stack)[:, :, 0]).sum(1)

    assert counts(experts) == {}


# -- norms -------------------------------------------------------------------------------------------------------------

NORMS = {
    "layer norm": lambda x: nn.functional.layer_norm(x, [D], SCALE, SHIFT),
    "rms norm": lambda x: nn.functional.rms_norm(x, [D]),
    "group norm": lambda x: nn.functional.group_norm(x, 2),
    "written out": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * 2,
    "with a root": lambda x: x / (1e-6 + (x * x).mean(-1, keepdim=True)).sqrt(),
    "with a power": lambda x: x * (x.square().sum(-1, keepdim=True) / D) ** -0.5,
    "standard deviation": lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6),
    "unit length": lambda x: normalize(x, dim=-1),
    "length": lambda x: x / x.norm(dim=-1, keepdim=True),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_found(name: str) -> None:
    assert counts(NORMS[name]) == {"norm": 1}
    assert is_affine(NORMS[name], "norm")
    assert not is_affine(NORMS[name])


def test_a_norm_with_fixed_statistics_is_affine() -> None:
    norm = nn.BatchNorm1d(D).double().eval()
    assert counts(norm) == {}
    assert is_affine(norm)
