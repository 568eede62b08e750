"""What measuring leaves alone: other threads, torch's settings, the user's modules and random numbers."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from functools import cache, reduce
from typing import Any

import numpy as np
import pytest
import torch
from cases.training import undisturbed
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import FisherflatError, MapError
from fisherflat.jets.recording import own


class Measured(nn.Module):
    """A module in training as it comes, with dropout, a norm with statistics, a counter and a custom function."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm, self.drop = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.second = nn.Linear(6, 5)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(1)
        hidden = self.drop(torch.tanh(self.norm(self.first(x)[None])[0]))
        return self.second(Cubed.apply(hidden))


class Cubed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x**3 + x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.zeros_like(grad)


CHART = ff.charts.affine(torch.ones(4), torch.eye(4)[:2])
U = torch.tensor([[0.1, 0.2], [0.3, -0.1]], dtype=torch.float64)


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("double", [True, False])
def test_training_in_another_thread_is_undisturbed(engine: str, double: bool) -> None:
    module = Measured().double() if double else Measured()
    values = undisturbed(lambda: ff.StatisticalManifold(module, CHART, engine=engine).scalar_curvature(U), rounds=2)
    for value in values:
        torch.testing.assert_close(value, values[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
def test_measuring_changes_nothing_that_others_see(engine: str) -> None:
    module, other = Measured().double(), Measured().double()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    versions = [tensor._version for tensor in module.state_dict(keep_vars=True).values()]
    settings = lambda: (  # noqa: E731
        torch.get_default_dtype(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
        torch.is_grad_enabled(),
        torch.autograd.Function.apply,
        [part.training for part in module.modules()],
        [list(part._forward_pre_hooks) for part in module.modules()],
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002  (what a user may depend on)
    )
    before, seen, watching = settings(), [], threading.Event()

    def watch() -> None:
        while not watching.is_set():
            seen.append((settings()[0], settings()[1:6], settings()[6]))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        manifold = ff.StatisticalManifold(module, CHART, engine=engine)
        manifold.scalar_curvature(U)
        ff.trace(module, CHART.point)
        ff.freeze(module, CHART.point, ("norm",))
        with pytest.raises(FisherflatError):
            ff.StatisticalManifold(lambda x: other(x), CHART, engine=engine).metric(U)
    finally:
        watching.set()
        thread.join()
    assert settings() == before
    assert {(kind, flags[:5]) for kind, flags, _ in seen} == {(before[0], before[1:6])}
    assert all(training == before[6] for *_, training in seen)
    assert module.seen == []
    assert versions == [tensor._version for tensor in module.state_dict(keep_vars=True).values()]
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_the_forward_formula_is_differentiated_whatever_its_backward_says() -> None:
    module = Measured().double().eval()
    found = [ff.StatisticalManifold(module, CHART, engine=e).jet(U).coefficients for e in ("taylor", "autodiff")]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    assert found[0][:, 1:].abs().max() > 1e-3


def test_a_copy_of_a_tree_of_modules_stands_on_its_own() -> None:
    from fisherflat.jets.recording import own

    module = nn.Sequential(nn.Linear(3, 3), nn.GRU(3, 2), nn.ModuleDict({"a": nn.Dropout()}))
    module.bound = module[0].forward
    module.pair = (module[0], [module[1]])
    copy = own(module)
    assert module.training and not any(part.training for part in copy.modules())
    assert copy.bound.__self__ is copy[0] and copy.pair[0] is copy[0] and copy.pair[1][0] is copy[1]
    assert [a is b for a, b in zip(module.parameters(), copy.parameters(), strict=True)] == [True] * 6
    handle = copy[0].register_forward_hook(lambda *args: None)
    assert not module[0]._forward_hooks
    handle.remove()
    copy[1].flatten_parameters()
    assert copy[1](torch.ones(2, 3))[0].shape == (2, 2)


@pytest.mark.parametrize("double", [True, False])
def test_weights_that_change_afterwards_are_noticed(double: bool) -> None:
    module = nn.Linear(4, 3).double() if double else nn.Linear(4, 3)
    manifold = ff.StatisticalManifold(module, CHART)
    manifold.metric(U)
    with torch.no_grad():
        module.weight.mul_(2)
    with pytest.raises(MapError, match=r"'weight' has changed .* anew"):
        manifold.metric(U)
    ff.StatisticalManifold(module, CHART).metric(U)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("use", ["call", "measure", "certify", "freeze further", "in a function"])
def test_a_graph_says_that_its_weights_have_changed(double: bool, use: str) -> None:
    """What is held belongs to the weights as they were: the rest would follow, or not, as their precision has it."""
    layer = ff.layers.SelfAttention(4)
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chart = ff.charts.token(x, -1, torch.eye(4)[:2])
    layer = layer.double() if double else layer
    frozen, twin = ff.freeze(layer, x), ff.freeze(layer, x)
    before, copies = frozen(x), (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen)))
    function = lambda h: layer(h.to(layer.query.weight.dtype)).double()  # noqa: E731
    manifold = ff.StatisticalManifold(function, chart)
    manifold.metric(torch.zeros(2))
    with torch.no_grad():
        layer.query.weight.add_(1)
    with pytest.raises(MapError, match=r"'query.weight' has changed|'weight' has changed"):
        {
            "call": lambda: frozen(x),
            "measure": lambda: ff.StatisticalManifold(frozen, chart).metric(torch.zeros(2)),
            "certify": lambda: ff.certify(frozen, chart),
            "freeze further": lambda: ff.freeze(twin, x, ("norm",)),
            "in a function": lambda: manifold.metric(torch.zeros(2)),
        }[use]()
    for stood_alone in copies:  # what was copied or pickled before stands on its own
        torch.testing.assert_close(stood_alone(x), before, rtol=1e-12, atol=0)
    assert not torch.equal(ff.freeze(layer, x)(x), before)


@cache
def block_and_graphs() -> tuple[ff.Block, ff.jets.Graph, ff.jets.Graph, ff.jets.Graph]:
    """A block, its graph, live and frozen, and a long graph."""
    block = ff.load("python-qwen3-next").blocks([1, 2, 3, 4])[0]
    long = ff.trace(lambda x: reduce(lambda y, _: torch.tanh(y), range(3000), x), torch.ones(3))
    return block, ff.trace(block, block.input), ff.freeze(block, block.input), long


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_graphs_blocks_and_manifolds_can_be_copied_and_pickled(how: Any) -> None:
    """What comes out says and does the same, names of weights and what is held included; also where it is long."""
    block, graph, frozen, long = block_and_graphs()
    chart, zero = ff.charts.principal(block.input, index=-1), torch.zeros(2)
    for thing in (block, block.attention, graph, frozen):
        torch.testing.assert_close(how(thing)(block.input), thing(block.input), rtol=1e-12, atol=1e-14)
    assert str(how(graph)) == str(graph) and how(frozen).held == frozen.held
    assert [name for name, _ in how(frozen).constants()] == [name for name, _ in frozen.constants()]
    assert str(ff.freeze(how(graph), block.input)) == str(frozen)
    for mean in (block, frozen):
        manifold = ff.StatisticalManifold(mean, chart)
        expected = manifold.scalar_curvature(zero)
        torch.testing.assert_close(how(manifold).scalar_curvature(zero), expected, rtol=1e-9, atol=1e-14)
    assert len(how(long).nodes) == 3001


def test_what_is_compiled_is_compiled_after_a_measurement_too() -> None:
    """Torch gives up on code for good that it meets below modes like ours; measured, it runs as it was written."""
    compiled: list[int] = []

    def backend(module: torch.fx.GraphModule, inputs: object) -> object:
        compiled.append(1)
        return module.forward

    function = torch.compile(lambda x: torch.cat([x, (x * x).sum()[None]]), backend=backend)
    curvature = ff.StatisticalManifold(function, ff.charts.identity(2)).scalar_curvature([0.0, 0.0])
    assert float(curvature) == pytest.approx(8.0)
    assert not compiled
    function(torch.ones(2))
    function(torch.zeros(2))
    assert compiled == [1]


def test_a_copy_of_a_module_ends_with_its_last_reference() -> None:
    """It may be a block whose weights fill the memory: it is not to wait until garbage is collected."""
    gc.collect()
    gc.disable()
    try:
        made = own(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh()))
        seen = weakref.ref(made)
        del made
        assert seen() is None
    finally:
        gc.enable()
