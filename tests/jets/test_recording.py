"""What a trace reads as something simpler: complex numbers, custom functions, copies, composite ops, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fisherflat as ff

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ANGLES = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def rotate_complex(x: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.float().reshape(3, 2, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(ANGLES), ANGLES)).flatten(1).type_as(x)


def rotate_real(x: Tensor) -> Tensor:
    even, odd, cos, sin = x[:, ::2], x[:, 1::2], ANGLES.cos(), ANGLES.sin()
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(1)


class CubeWithContext(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise AssertionError("the derivative is that of the forward formula")


class CubeWithSetup(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)


def write_halves(x: Tensor) -> Tensor:
    y = x.new_empty(3, 4)
    y[:, 2:] = x[:, :2] ** 3
    y[:, :2] = x[:, 2:]
    return y


PAIRS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "complex rotation": (rotate_complex, rotate_real),
    "custom function": (lambda x: CubeWithContext.apply(x), lambda x: x**3),
    "custom function with setup": (lambda x: CubeWithSetup.apply(x), lambda x: x**3),
    "halves written": (write_halves, lambda x: torch.cat([x[:, 2:], x[:, :2] ** 3], 1)),
    "copied": (lambda x: torch.zeros(2, 3, 4, dtype=x.dtype).copy_(x * x), lambda x: (x * x).expand(2, 3, 4)),
    "einsum": (lambda x: torch.einsum("ij,ik->jk", x, x), lambda x: x.T @ x),
    "silu": (torch.nn.functional.silu, lambda x: x * torch.sigmoid(x)),
    "cast down and up": (lambda x: (x.bfloat16().double() * x.half()).double(), lambda x: x * x),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
def test_written_one_way_or_the_other(name: str, engine: str) -> None:
    chart = ff.charts.affine(
        X, torch.randn(2, *X.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    )
    graph, plain = ff.trace(PAIRS[name][0], X), PAIRS[name][1]
    ours = ff.StatisticalManifold(graph, chart, engine=engine).jet([0.2, -0.1]).coefficients
    truth = ff.StatisticalManifold(plain, chart, engine="autodiff").jet([0.2, -0.1]).coefficients
    assert torch.allclose(ours, truth, rtol=1e-12, atol=1e-12)


def test_nothing_is_left_of_what_only_renames() -> None:
    graph = ff.trace(lambda x: x.clone()[:, :].reshape(3, 4).permute(0, 1).contiguous().float().double() * 2, X)
    assert [node.op for node in graph.nodes] == ["input", "aten.mul"]


def test_a_graph_can_be_transformed_by_torch() -> None:
    graph = ff.trace(lambda x: torch.nn.functional.silu(x @ x.T), X)
    assert torch.func.vmap(graph)(X[None]).shape == (1, 3, 3)
    assert torch.func.jacfwd(torch.func.jacrev(graph))(X).shape == (3, 3, 3, 4, 3, 4)
    assert ff.trace(graph, X).shape == (3, 3)
