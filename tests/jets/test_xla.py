"""The engine that XLA compiles: the reference values, the default engine op by op, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import pytest
import torch
from cases.maps import as_functions, as_layers, has_layers
from conftest import load_cases
from torch import Tensor
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.jets.engines import _prepared, _xla
from fisherflat.jets.rules import FUNCTIONS
from fisherflat.jets.xla import Program

#: norms, gates, patterns and stacks; engines agree on the rest if they do on these
CASES = (
    "torus_3_1", "paraboloid_full_covariance", "layer_norm_eps", "rms_norm_sphere", "gated_mlp_gelu",
    "ungated_live_two_heads_causal", "sigmoid_gate_live_3d", "two_block_stack",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_curvature_of_a_reference_case(name: str) -> None:
    case = next(case for case in load_cases() if case["name"] == name)
    mean, chart, family, at = (as_layers if has_layers(case) else as_functions)(case)
    geometry = ff.StatisticalManifold(mean, chart, family, engine="xla").at(at)
    metric, second = geometry.metric.numpy(), geometry.second_fundamental_form.numpy()
    inverse = np.linalg.inv(metric)
    trace = np.einsum("ij,ijd->d", inverse, second)
    cancelling = trace @ trace + np.einsum("il,jm,ijd,lmd->", inverse, inverse, second, second)
    assert np.abs(metric - np.array(case["expected"]["metric"], dtype=np.float64)).max() <= 1e-13 * np.abs(metric).max()
    assert abs(float(geometry.scalar_curvature) - float(case["expected"]["scalar_curvature"])) <= 1e-12 * cancelling


@pytest.fixture
def quick() -> Iterator[None]:
    """Without most of XLA's optimisation, which takes most of the time: what is tested is what it is given."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def both(f: Callable[[Tensor], Tensor], x: Tensor, points: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Coefficients by the default engine and by XLA, along two directions."""
    basis = torch.randn(2, *x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chart = ff.charts.affine(x, 0.1 * basis)
    return tuple(
        ff.StatisticalManifold(f, chart, engine=engine, **options).jet(points).coefficients
        for engine in ("taylor", "xla")
    )


def agree(pair: tuple[Tensor, Tensor], tolerance: float = 1e-13) -> None:
    ours, compiled = pair
    assert torch.equal(ours.isfinite(), compiled.isfinite())
    for k in ([0], range(1, 3), range(3, 6)):  # values, first and second derivatives
        a, b = (x[..., list(k), :].nan_to_num(0.0) for x in pair)
        assert (a - b).abs().max() <= tolerance * a.abs().max()


#: not a power of two
POINTS = torch.tensor([[0.0, 0.0], [0.3, -0.2], [-0.1, 0.4]], dtype=torch.float64)
X = torch.tensor([0.21, 0.4, 0.55, 0.7, 0.83, 0.33], dtype=torch.float64)
ARGUMENTS = {"clamp": (0.3, 0.6), "clamp_max": (0.5,), "clamp_min": (0.5,)}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("part", range(2))
def test_functions_of_single_entries(part: int) -> None:
    names = sorted(set(FUNCTIONS) - {"acosh", "log_sigmoid"})[part::2]

    def f(x: Tensor) -> Tensor:
        found = [getattr(torch.ops.aten, name)(x, *ARGUMENTS.get(name, ())) for name in names]
        return torch.cat([*found, torch.acosh(x + 1), F.logsigmoid(x)])

    agree(both(f, X, POINTS))


def _rows(x: Tensor) -> Tensor:
    y = x.view(2, 3)
    return torch.cat(
        [
            part.flatten()
            for part in (
                y.softmax(1), y.log_softmax(0), y.logsumexp(1), F.layer_norm(y, (3,)), y / y.norm(dim=1, keepdim=True),
                y.cumsum(1).square(), y.prod(1), y.var(1), y.amax(1) * y[:, 0], torch.where(y > 0.5, y.exp(), y.sin()),
                torch.maximum(y, 1 - y), torch.atan2(y, 1 + y), torch.logaddexp(y, 1 - y),
            )
        ]
    )  # fmt: skip


def _moved(x: Tensor) -> Tensor:
    y, places = x.exp(), torch.tensor([0, 1, 1, 2, 3, 5])
    return torch.cat(
        [
            part.flatten()
            for part in (
                x.topk(3).values.exp(), x.sort(descending=True).values.exp(), y.roll(2), y.flip(0), y.repeat(2),
                y[[0, 2, 5]], y.view(3, 2).T.tril(), torch.zeros_like(x).scatter_add(0, places, y),
                torch.zeros_like(x).index_add(0, places, y), F.pad(y, (1, 2)), torch.stack([y, x], 1),
                F.conv1d(y.view(1, 2, 3), torch.ones(2, 1, 2, dtype=x.dtype), padding=1, groups=2),
                y.view(3, 2).split(1), torch.outer(y, x), torch.view_as_real(torch.fft.rfft(y)),
            )
            for part in (part if isinstance(part, tuple) else (part,))
        ]
    )  # fmt: skip


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("f", [_rows, _moved])
def test_ops_of_rows_and_ops_that_move_entries(f: Callable[[Tensor], Tensor]) -> None:
    agree(both(f, X, POINTS))


def _attention() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.LayerNorm(8), ff.layers.SelfAttention(8, 2, gate=ff.layers.Gate(), causal=True)
    ).double()


TOKENS = torch.randn(3, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.usefixtures("quick")
def test_points_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    many = torch.randn(37, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    whole = both(_attention(), TOKENS, many)
    agree(whole)
    monkeypatch.setattr(_prepared, "WARM", 2**17)
    agree((whole[0], both(_attention(), TOKENS, many)[1]))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fewest", [1, 4])
def test_points_that_go_through_a_program_a_few_at_a_time(fewest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    many = torch.randn(37, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    times: list[int] = []
    before = Program.__init__

    def counted(self: Program, *args: Any, **kwargs: Any) -> None:
        times.append(args[3])
        before(self, *args, **kwargs)

    monkeypatch.setattr(Program, "__init__", counted)
    monkeypatch.setattr(_xla, "CLOSE", 1)
    monkeypatch.setattr(_xla, "FEWEST", fewest)
    agree(both(_attention(), TOKENS, many))
    agree(both(lambda x: torch.stack([x.norm(), x.sum(), x[0]]), X, many))  # some rows are zeros, and nothing is shared
    assert times == [64 // fewest] * 2


@pytest.mark.usefixtures("quick")
def test_what_was_given_before_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA writes into what it returned before, where nobody holds that any more."""
    monkeypatch.setattr(_xla, "CLOSE", 1)
    chart = ff.charts.affine(TOKENS, torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1)))
    manifold, taylor = (ff.StatisticalManifold(_attention(), chart, engine=engine) for engine in ("xla", "taylor"))
    points = [torch.randn(16, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    held = [manifold.jet(u).coefficients[3:] for u in points]  # a view holds it, too
    assert len({x.untyped_storage().data_ptr() for x in held}) == len(held)
    for i, u in enumerate(points):
        agree((taylor.jet(u).coefficients[3:], held[i]))
    where = held.pop().untyped_storage().data_ptr()
    assert manifold.jet(points[0]).coefficients.untyped_storage().data_ptr() == where
    with ThreadPoolExecutor(4) as pool:  # nor where several threads ask at a time
        found = list(pool.map(lambda u: manifold.jet(u).coefficients, points * 8))
    for x, u in zip(found, points * 8, strict=True):
        agree((taylor.jet(u).coefficients, x))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("quick", "two_threads")
def test_pieces_on_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread has a copy of what was compiled, and the last piece is lengthened."""
    monkeypatch.setattr(_prepared, "WARM", 2**15)
    many = torch.randn(39, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    agree(both(_attention(), TOKENS, many))


@pytest.mark.usefixtures("quick")
def test_single_precision() -> None:
    agree(both(_attention(), TOKENS, POINTS, dtype=torch.float32), 2e-5)


@pytest.mark.usefixtures("quick")
def test_directions_of_each_points_own() -> None:
    """Sampled curvature is measured along g-orthonormal directions, which differ from point to point."""
    chart = ff.charts.affine(TOKENS, 0.1 * torch.eye(24, dtype=torch.float64)[:4].view(4, 3, 8))
    found = [
        ff.StatisticalManifold(_attention(), chart, engine=engine).sampled_scalar_curvature([0.0] * 4, error=0.2)
        for engine in ("taylor", "xla")
    ]
    assert found[0].pairs == found[1].pairs
    assert abs(found[0].value - found[1].value) <= 1e-9 * abs(found[0].value)


@pytest.mark.usefixtures("quick")
def test_a_point_at_which_numbers_decide_is_the_default_engines() -> None:
    """The second point moves along itself before a norm, where the rule of norms is another one."""
    norm, x = torch.nn.LayerNorm(6, eps=1e-12).double(), X - X.mean()
    chart = ff.charts.affine(torch.zeros_like(x), torch.stack([x, torch.linspace(-1, 1, 6, dtype=x.dtype) ** 3]))
    points = torch.tensor([[1.0, 0.5], [1.0, 0.0], [0.7, -0.4]], dtype=torch.float64)
    ours, compiled = (
        ff.StatisticalManifold(norm, chart, engine=engine).jet(points).coefficients for engine in ("taylor", "xla")
    )
    assert torch.equal(ours[1], compiled[1])  # computed by the same code
    assert (ours - compiled).abs().max() <= 1e-13 * ours.abs().max()


@pytest.mark.usefixtures("quick")
def test_a_chart_that_is_written_into_is_compiled_again() -> None:
    chart = ff.charts.affine(TOKENS.clone(), torch.randn(2, 3, 8, dtype=torch.float64))
    manifold = ff.StatisticalManifold(_attention(), chart, engine="xla")
    before = manifold.scalar_curvature([0.1, 0.2])
    chart.point.mul_(0.5)
    again = ff.StatisticalManifold(_attention(), chart).scalar_curvature([0.1, 0.2])
    assert abs(manifold.scalar_curvature([0.1, 0.2]) - again) <= 1e-9 * abs(again)
    assert abs(before - again) > 1e-3 * abs(again)


@pytest.mark.usefixtures("quick")
def test_what_is_not_compiled_is_refused() -> None:
    chart = ff.charts.affine(torch.eye(3, dtype=torch.float64), torch.randn(2, 3, 3, dtype=torch.float64))
    manifold = ff.StatisticalManifold(torch.linalg.inv, chart, engine="xla")
    with pytest.raises(ff.errors.UnsupportedOpError, match=r"linalg_inv.*engine=\"taylor\""):
        manifold.scalar_curvature([0.0, 0.0])


def test_no_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    chart = ff.charts.identity(2)
    with pytest.raises(ff.errors.InputError, match="differentiable"):
        ff.StatisticalManifold(torch.sin, chart, engine="xla", differentiable=True).jet([0.0, 0.0])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ff.errors.InputError, match=r"fisherflat\[xla\]"):
        ff.StatisticalManifold(torch.sin, chart, engine="xla").jet([0.0, 0.0])


def spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all that is compiled give numbers that are wrong in the seventh digit."""
    from fisherflat.jets.xla import Program

    call = Program.__call__

    def wrong(self: Program, *given: Tensor, worker: int = 0) -> tuple[Tensor, ...]:
        rows, *right = call(self, *given, worker=worker)
        return rows * (1 + 1e-6), *right

    monkeypatch.setattr(Program, "__call__", wrong)


@pytest.mark.usefixtures("quick")
def test_wrong_numbers_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch)
    manifold = ff.StatisticalManifold(torch.sin, ff.charts.identity(2), engine="xla")
    for _ in range(2):  # nor when they are asked for again
        with pytest.raises(ff.errors.UnsupportedOpError, match="numbers of the default engine"):
            manifold.jet([0.3, 0.4])


@pytest.mark.usefixtures("quick")
def test_what_could_not_be_compared_at_first_is_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first point all that is computed is the default engine's; what was compiled shows at the second."""
    norm, x = torch.nn.LayerNorm(6, eps=1e-12).double(), X - X.mean()
    chart = ff.charts.affine(torch.zeros_like(x), torch.stack([x, torch.linspace(-1, 1, 6, dtype=x.dtype) ** 3]))
    spoil(monkeypatch)
    manifold = ff.StatisticalManifold(norm, chart, engine="xla")
    right = ff.StatisticalManifold(norm, chart).jet([1.0, 0.0]).coefficients
    assert torch.equal(manifold.jet([1.0, 0.0]).coefficients, right)
    with pytest.raises(ff.errors.UnsupportedOpError, match="numbers of the default engine"):
        manifold.jet([0.7, -0.4])
