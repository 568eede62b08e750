"""Modules that run by other means, compiled or on several devices, and weights that are computed: as the plain ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.utils import parametrizations, parametrize

import fisherflat as ff
from fisherflat.errors import MapError


class Attention(nn.Module):
    """Plain torch, for what compiles does not read the types that tests check."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.gate = (nn.Linear(8, 8) for _ in range(4))
        self.factor = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pattern = (self.query(x) @ self.key(x).mT / 8**0.5).softmax(-1)
        return self.gate(x).sigmoid() * (pattern @ self.value(x))


class Layer(nn.Module):
    """In training mode it would draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(8), nn.Dropout(0.5)
        self.attention = Attention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(self.attention(self.norm(x)))


def layer() -> Layer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Layer().train()  # in float32, and measured in float64


def in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


def inside(module: Layer) -> nn.Module:
    module.attention = torch.compile(module.attention, backend="eager")
    return module


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS: dict[str, Callable[[Any], nn.Module]] = {
    "compiled": lambda module: torch.compile(module, backend="eager"),
    "compiled in place": in_place,
    "a compiled part": inside,
    "parallel": nn.DataParallel,
    "distributed": nn.parallel.DistributedDataParallel,
    "distributed and compiled": lambda module: torch.compile(
        nn.parallel.DistributedDataParallel(module), backend="eager"
    ),
    "compiled and distributed": lambda module: nn.parallel.DistributedDataParallel(
        torch.compile(module, backend="eager")
    ),
}
HIDDEN = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
CHART = ff.charts.token(HIDDEN, -1, torch.eye(8)[:2])
U = [[0.1, 0.2], [-0.3, 0.0]]


def check(wrapped: nn.Module, weights: list[nn.Parameter]) -> None:
    plain = layer()
    want = ff.StatisticalManifold(plain, CHART, differentiable=True).scalar_curvature(U)
    want.sum().backward()
    assert torch.allclose(ff.StatisticalManifold(wrapped, CHART).scalar_curvature(U), want.detach(), rtol=1e-12)
    M = ff.StatisticalManifold(wrapped, CHART, differentiable=True)
    found = M.scalar_curvature(U)
    found.sum().backward()
    assert torch.allclose(found, want, rtol=1e-12) and wrapped.training
    for own, other in zip(weights, plain.parameters(), strict=True):
        assert own.grad is not None and other.grad is not None
        assert torch.allclose(own.grad, other.grad, rtol=1e-5, atol=1e-6 * float(other.grad.abs().max()))
    with torch.no_grad():  # a step is seen
        for own, other in zip(weights, plain.parameters(), strict=True):
            own.mul_(1.5), other.mul_(1.5)  # type: ignore[func-returns-value]
    stepped = ff.StatisticalManifold(plain, CHART).scalar_curvature(U)
    assert torch.allclose(M.scalar_curvature(U), stepped, rtol=1e-12)
    assert not torch.allclose(stepped, want, rtol=1e-3)


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_runs_a_module_by_other_means(name: str, group: None) -> None:
    module = layer()
    weights = list(module.parameters())
    wrapped = WRAPPERS[name](module)
    check(wrapped, weights)
    wrapped(HIDDEN).sum().backward()  # it still runs, and hands on its gradients
    check(WRAPPERS[name](copied := layer()), list(copied.parameters()))


def test_a_sharded_module_is_measured_while_its_weights_are_whole(group: None) -> None:
    want = ff.StatisticalManifold(layer(), CHART).scalar_curvature(U)
    sharded, mesh = layer(), torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    fully_shard(sharded.attention, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for measured in (sharded, lambda x: sharded(x)):
        with pytest.raises(MapError, match=r"'[\w.]+' is a shard .* unshard\(\) of each module"):
            ff.StatisticalManifold(measured, CHART)
    parts = [part for part in sharded.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.unshard()
    assert torch.allclose(ff.StatisticalManifold(sharded, CHART).scalar_curvature(U), want, rtol=1e-12)
    for part in parts:
        part.reshard()
    with pytest.raises(MapError, match="shard"):
        ff.StatisticalManifold(sharded, CHART)


def test_hooks_of_a_compiled_module_and_what_is_read_of_the_one_inside() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.compile(layer(), backend="eager")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * self.inner.attention.factor

    around = Around()
    around.inner.register_forward_hook(lambda module, args, output: 2 * output)
    plain = layer().eval().double()
    want = ff.StatisticalManifold(lambda x: 6 * plain(x), CHART).scalar_curvature(U)
    assert torch.allclose(ff.StatisticalManifold(around, CHART).scalar_curvature(U), want, rtol=1e-12)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal", "one's own"])
def test_weights_that_are_computed(name: str) -> None:
    class Symmetric(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.triu() + x.triu(1).T

    module = layer()
    query = module.attention.query
    if name == "one's own":
        parametrize.register_parametrization(query, "weight", Symmetric())
    else:
        getattr(parametrizations, name)(query)
    M = ff.StatisticalManifold(module, CHART, differentiable=True)
    for _ in range(2):
        twin = copy.deepcopy(module).double().eval()
        want = ff.StatisticalManifold(lambda x, twin=twin: twin(x), CHART, differentiable=True).scalar_curvature(U)
        found = M.scalar_curvature(U)
        assert torch.allclose(found, want, rtol=1e-9)
        module.zero_grad(), found.sum().backward(), want.sum().backward()  # type: ignore[func-returns-value]
        for own, other in zip(module.parameters(), twin.parameters(), strict=True):
            assert own.grad is not None and other.grad is not None
            assert torch.allclose(own.grad.double(), other.grad, rtol=1e-5, atol=1e-6 * float(other.grad.abs().max()))
        with torch.no_grad():
            for weight in module.parameters():
                weight.add_(0.1 * weight.sin())
