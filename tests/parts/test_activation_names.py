"""Names of activations: by their values, however they are written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.parts import activation_name, activation_names

GENERATOR = torch.Generator().manual_seed(0)
X, U, W = (torch.randn(shape, generator=GENERATOR, dtype=torch.float64) for shape in ((3, 4), (4, 6), (6, 4)))
SLOPES = torch.linspace(0.5, 1.5, 6, dtype=torch.float64)

NAMED: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "relu": ("relu", torch.relu),
    "relu as a clamp": ("relu", lambda z: z.clamp(min=0)),
    "relu as a maximum": ("relu", lambda z: (z + z.abs()) / 2),
    "relu, biased and scaled": ("relu", lambda z: 3 * torch.relu(2 * z + 1)),
    "gelu": ("gelu", F.gelu),
    "gelu by erf": ("gelu", lambda z: z * 0.5 * (1 + torch.erf(z / 2**0.5))),
    "gelu_new": ("gelu_tanh", lambda z: 0.5 * z * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)))),
    "gelu_tanh": ("gelu_tanh", lambda z: F.gelu(z, approximate="tanh")),
    "quick_gelu": ("quick_gelu", lambda z: z * torch.sigmoid(1.702 * z)),
    "silu": ("silu", lambda z: z / (1 + torch.exp(-z))),
    "tanh": ("tanh", lambda z: (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z))),
    "relu2": ("relu2", lambda z: torch.relu(z) ** 2),
    "mish": ("mish", lambda z: z * torch.tanh(F.softplus(z))),
    "softplus": ("softplus", F.softplus),
    "unknown": ("sin", torch.sin),
    "different for each unit": ("sigmoid", lambda z: z * torch.sigmoid(SLOPES * z)),
}


@pytest.mark.parametrize("case", NAMED)
def test_activations_are_named(case: str) -> None:
    name, function = NAMED[case]
    assert activation_names(ff.trace(lambda x: function(x @ U) @ W, X)) == [name]


def test_gates_are_named() -> None:
    graph = ff.trace(lambda x: (x @ U).square() * (x @ U[:, :1]), X)
    (product,) = [node for node in graph.nodes if node.role == "mlp_gate" and not node.factor]
    factor = next(node for node in product.inputs if node.factor)
    assert activation_name(graph, factor) == "square"
    assert activation_name(graph, graph.input) == "none"
