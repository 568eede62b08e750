"""What rules say of their own gradients: against differences, op by op, and second gradients too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat.jets.engines import TensorAlgebra, evaluated
from fisherflat.jets.rules import Series, moving_rows
from fisherflat.spaces.jets import size

F = torch.nn.functional


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHT, STACK, POWERS = drawn(4, 2, seed=1), drawn(3, 4, 2, seed=2), drawn(4, seed=4)
#: maps of [3, 4]: a product with a constant on each side, of one matrix or of several; two moving factors; functions
MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "a matrix behind": lambda x: x @ WEIGHT,
    "a matrix before": lambda x: WEIGHT.T @ x.T,
    "several behind": lambda x: torch.bmm(x[:, None, :], STACK),
    "several before": lambda x: torch.bmm(STACK.mT, x[:, :, None]),
    "two that move": lambda x: x @ x.T,
    "entries": lambda x: x * x[:1],
    "softmax": lambda x: x.softmax(-1),
    "softmax over rows": lambda x: x.softmax(0),
    "silu": F.silu,
    "exp": torch.exp,
    "relu": torch.relu,
    "a power": lambda x: (x.square() + 1) ** POWERS,
    "an exponent": lambda x: (POWERS.square() + 1) ** x,
    "norm": lambda x: F.rms_norm(x, (4,), eps=1e-3),
}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", MAPS)
def test_gradients_of_a_rule(name: str, order: int) -> None:
    k, graph = 2, ff.trace(MAPS[name], drawn(3, 4))
    data = 0.5 * drawn((1 + k, size(k))[order - 1], 2, 3, 4, seed=3).requires_grad_()

    def rule(data: Tensor) -> Tensor:
        return evaluated(TensorAlgebra(tape=True), graph, Series(data, k)).data

    assert torch.autograd.gradcheck(rule, (data,))
    assert torch.autograd.gradgradcheck(rule, (data,), fast_mode=True)


@pytest.mark.parametrize("name", ["a matrix behind", "a matrix before", "several behind", "several before"])
def test_gradients_of_a_product_by_what_stands_still(name: str) -> None:
    weight = (STACK if "several" in name else WEIGHT).clone().requires_grad_()
    maps: dict[str, Any] = {
        "a matrix behind": lambda x: x @ weight,
        "a matrix before": lambda x: weight.T @ x.T,
        "several behind": lambda x: torch.bmm(x[:, None, :], weight),
        "several before": lambda x: torch.bmm(weight.mT, x[:, :, None]),
    }
    graph = ff.trace(maps[name], drawn(3, 4), differentiable=True)
    data = drawn(size(2), 2, 3, 4, seed=3).requires_grad_()

    def rule(data: Tensor, change: Tensor) -> Tensor:
        program = graph.program
        assert program is not None
        constants = {i: constant + _placed(change, constant) for i, constant in program.constants().items()}
        return evaluated(TensorAlgebra(constants=constants, tape=True), graph, Series(data, 2)).data

    def _placed(change: Tensor, constant: Tensor) -> Tensor:
        return change if change.shape == constant.shape else change.mT

    change = torch.zeros_like(weight, requires_grad=True)
    assert torch.autograd.gradcheck(rule, (data, change))
    assert torch.autograd.gradgradcheck(rule, (data, change), fast_mode=True)


@pytest.mark.parametrize("name", ["of a power", "of an exponent"])
def test_gradients_by_what_else_a_function_takes(name: str) -> None:
    other = (drawn(4, seed=1).square() + 1).requires_grad_()
    f = (lambda x: (x.square() + 1) ** other) if name == "of a power" else (lambda x: other**x)
    graph, data = ff.trace(f, drawn(3, 4), differentiable=True), 0.3 * drawn(size(2), 2, 3, 4, seed=3)

    def rule(data: Tensor, other: Tensor) -> Tensor:
        assert graph.program is not None
        constants = {i: other if c.shape == (4,) else c for i, c in graph.program.constants().items()}
        return evaluated(TensorAlgebra(constants=constants, tape=True), graph, Series(data, 2)).data

    assert torch.autograd.gradcheck(rule, (data.requires_grad_(), other))
    assert torch.autograd.gradcheck(lambda other: rule(data.detach(), other), (other,))
    assert torch.autograd.gradgradcheck(rule, (data, other), fast_mode=True)


@pytest.mark.parametrize("still", [slice(0, 128), slice(640, 768), slice(0, 768), slice(0, 768, 3), [5, 9, 300]])
def test_rows_of_zeros_are_left_out_and_nothing_changes(still: Any) -> None:
    weight = drawn(256, 128, seed=1).requires_grad_()
    graph = ff.trace(lambda x: (x @ weight).square(), drawn(128, 256), differentiable=True)
    data = drawn(size(2), 1, 128, 256, seed=2)
    data.view(-1, 256)[still] = 0
    data[:, 0, :, 0] = 0  # a glance at one column does not do
    data.requires_grad_()
    program = graph.program
    assert program is not None
    found = evaluated(TensorAlgebra(constants=program.constants(), tape=True), graph, Series(data, 2)).data
    slopes = drawn(*found.shape, seed=3)
    slopes[0] = 0

    y, first, second = data @ weight, slice(1, 3), slice(3, 6)
    a, b = (y[first][list(places)] for places in ((0, 0, 1), (0, 1, 1)))
    want = torch.cat([y[:1].square(), 2 * y[:1] * y[first], 2 * y[:1] * y[second] + 2 * a * b])
    assert torch.allclose(found, want, rtol=1e-12, atol=1e-10)
    got = torch.autograd.grad(found, (data, weight), slopes)
    for one, other in zip(got, torch.autograd.grad(want, (data, weight), slopes), strict=True):
        assert (one - other).abs().max() <= 1e-12 * other.abs().max()


@torch.no_grad()
def test_which_rows_are_left_out() -> None:
    rows = drawn(512, 128)
    assert moving_rows(rows, 256) is None  # of all there is something
    rows[:64] = 0
    assert moving_rows(rows, 256) == slice(64, 512)
    rows[:, :8] = 0
    assert moving_rows(rows, 256) == slice(64, 512)
    rows[::2] = 0
    assert moving_rows(rows, 1) is None  # not worth a look
    found = moving_rows(rows, 256)
    assert isinstance(found, Tensor) and found.tolist() == list(range(65, 512, 2))
    assert moving_rows(torch.zeros_like(rows), 256) == slice(0, 0)
    rows[0, -1] = float("nan")
    found = moving_rows(rows, 256)
    assert isinstance(found, Tensor) and found[0] == 0
