"""The autodiff engine through the modules of torch, against differences of the same formulas in 100 digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from cases.differences import exactly, mpmath_jet
from cases.maps import as_functions
from conftest import load_cases
from torch import Tensor, nn
from torch.func import jacfwd, jacrev
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.errors import TraceError, UnsupportedOpError
from fisherflat.geometry import Geometry
from fisherflat.jets import Jet
from fisherflat.jets.engines import _derivatives
from fisherflat.jets.engines._derivatives import _calls
from fisherflat.jets.recording import Mapping, recorded

Truth = Callable[[np.ndarray], Any]

exp, log1p, ncdf, sqrt, tanh = (
    np.frompyfunc(f, 1, 1) for f in (mpmath.exp, mpmath.log1p, mpmath.ncdf, mpmath.sqrt, mpmath.tanh)
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


A = random(2, 2, seed=1)


def wild(module: nn.Module) -> nn.Module:
    """`module` in float64 with weights, biases and running statistics that are nowhere 0 or 1."""
    module.double().requires_grad_(False)
    for seed, tensor in enumerate(module.state_dict().values()):
        if tensor.is_floating_point():
            numbers = random(*tensor.shape, seed=seed) / 2
            tensor.copy_(numbers.abs() + 0.1 * seed if tensor.dim() == 1 else numbers)
    return module


def numbers(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: exactly(tensor) for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


# -- the formulas, on numpy arrays of mpmath numbers -------------------------------------------------------------------


def gelu(x: np.ndarray) -> np.ndarray:
    return x * ncdf(x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = exp(x)
    return e / e.sum(-1, keepdims=True)


def standardised(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    centred = x - x.mean(axes, keepdims=True)
    return centred / sqrt((centred**2).mean(axes, keepdims=True) + mpmath.mpf(eps))


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return x @ weight.T + bias


def attention(x: np.ndarray, w: dict[str, np.ndarray], heads: int) -> np.ndarray:
    q, k, v = np.split(linear(x, w["in_proj_weight"], w["in_proj_bias"]), 3, axis=-1)
    width = x.shape[-1] // heads
    parts = [slice(h * width, (h + 1) * width) for h in range(heads)]
    mixed = [softmax(q[:, part] @ k[:, part].T / mpmath.sqrt(width)) @ v[:, part] for part in parts]
    return linear(np.concatenate(mixed, -1), w["out_proj.weight"], w["out_proj.bias"])


def encoder(x: np.ndarray, w: dict[str, np.ndarray], heads: int) -> np.ndarray:
    """Pre-norm: `x += attention(norm1(x)); x += linear2(gelu(linear1(norm2(x))))`."""
    inner = {name.removeprefix("self_attn."): tensor for name, tensor in w.items()}
    x = x + attention(standardised(x, (-1,), 1e-5) * w["norm1.weight"] + w["norm1.bias"], inner, heads)
    z = standardised(x, (-1,), 1e-5) * w["norm2.weight"] + w["norm2.bias"]
    return x + linear(gelu(linear(z, w["linear1.weight"], w["linear1.bias"])), w["linear2.weight"], w["linear2.bias"])


class Attending(nn.Module):
    """`nn.MultiheadAttention` of a sequence to itself, in training as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.mha(x, x, x, need_weights=False)[0]


def modules() -> dict[str, tuple[Any, tuple[int, ...], Truth]]:
    """name -> the map, the shape of its input, its formula."""
    layer_norm, rms_norm, group_norm = wild(nn.LayerNorm(5)), wild(nn.RMSNorm(5, eps=1e-3)), wild(nn.GroupNorm(2, 4))
    batch_norm = wild(nn.Sequential(nn.BatchNorm1d(3), nn.SiLU()))
    instance_norm = wild(nn.InstanceNorm1d(3, affine=True))
    attending, block = wild(Attending()), wild(nn.TransformerEncoderLayer(4, 2, 6, 0.5, F.gelu, 1e-5, True, True))
    ln, rms, group, batch, instance, mha, enc = (
        numbers(m) for m in (layer_norm, rms_norm, group_norm, batch_norm, instance_norm, attending.mha, block)
    )

    def batch_truth(x: np.ndarray) -> np.ndarray:
        z = (x - batch["0.running_mean"]) / sqrt(batch["0.running_var"] + mpmath.mpf(1e-5))
        z = z * batch["0.weight"] + batch["0.bias"]
        return z * sigmoid(z)

    return {
        "LayerNorm": (layer_norm, (2, 5), lambda x: standardised(x, (-1,), 1e-5) * ln["weight"] + ln["bias"]),
        "RMSNorm": (
            rms_norm,
            (2, 5),
            lambda x: x / sqrt((x**2).mean(-1, keepdims=True) + mpmath.mpf(1e-3)) * rms["weight"],
        ),
        "GroupNorm": (
            group_norm,
            (1, 4, 3),
            lambda x: (
                standardised(x.reshape(1, 2, 6), (-1,), 1e-5).reshape(1, 4, 3) * group["weight"][:, None]
                + group["bias"][:, None]
            ),
        ),
        "InstanceNorm": (
            instance_norm,
            (1, 3, 4),
            lambda x: standardised(x, (-1,), 1e-5) * instance["weight"][:, None] + instance["bias"][:, None],
        ),
        "BatchNorm in eval, then SiLU": (batch_norm, (2, 3), batch_truth),
        "GELU": (nn.GELU(), (4,), gelu),
        "SiLU": (nn.SiLU(), (4,), lambda x: x * sigmoid(x)),
        "Mish": (nn.Mish(), (4,), lambda x: x * tanh(log1p(exp(x)))),
        "GLU": (nn.GLU(), (6,), lambda x: x[:3] * sigmoid(x[3:])),
        "softmax attention": (
            lambda x: (x @ x.mT / 2).softmax(-1) @ x,
            (3, 4),
            lambda x: softmax(x @ x.T / 2) @ x,
        ),
        "scaled_dot_product_attention": (
            lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
            (3, 4),
            lambda x: softmax(x @ x.T / 2) @ x,
        ),
        "MultiheadAttention": (attending, (3, 4), lambda x: attention(x, mha, 2)),
        "TransformerEncoderLayer": (block, (3, 4), lambda x: encoder(x, enc, 2)),
    }


def solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array(mpmath.lu_solve(mpmath.matrix(a), mpmath.matrix(b)).tolist(), dtype=object)


def inverse(a: np.ndarray) -> np.ndarray:
    return np.array(mpmath.inverse(mpmath.matrix(a)).tolist(), dtype=object)


def spd(x: Any) -> Any:
    """A positive definite matrix that depends on the square `x`."""
    return x @ x.T + np.eye(3) if isinstance(x, np.ndarray) else x @ x.mT + torch.eye(3, dtype=x.dtype)


LINALG: dict[str, tuple[Callable[[Tensor], Tensor], Truth]] = {
    "det": (torch.linalg.det, lambda x: np.array([mpmath.det(mpmath.matrix(x))])),
    "logdet": (lambda x: torch.logdet(spd(x)), lambda x: np.array([mpmath.log(mpmath.det(mpmath.matrix(spd(x))))])),
    "solve": (lambda x: torch.linalg.solve(x, x[0]), lambda x: solve(x, x[0])),
    "inv": (torch.linalg.inv, inverse),
    "cholesky_inverse": (lambda x: torch.cholesky_inverse(torch.linalg.cholesky(spd(x))), lambda x: inverse(spd(x))),
    # the sum of the cubes of the eigenvalues is the trace of the cube
    "eigvalsh": (
        lambda x: (torch.linalg.eigvalsh(spd(x)) ** 3).sum(),
        lambda x: np.array([np.trace(spd(x) @ spd(x) @ spd(x))]),
    ),
}


def chart_of(shape: tuple[int, ...]) -> ff.charts.Chart:
    point = random(*shape) + (3 * torch.eye(3, dtype=torch.float64) if shape == (3, 3) else 0)
    return ff.charts.affine(point, random(2, *shape, seed=1) / 2)


U = torch.tensor([[0.25, -0.5], [0.0, 0.125]], dtype=torch.float64)


def truth_at(f: Truth, chart: ff.charts.Chart) -> Tensor:
    """The jets `[P, S, D]` of the formula after the chart, at `U`."""
    return mpmath_jet(f, torch.cat([chart(U)[None], chart.basis[:, None].expand(2, *chart(U).shape)]), 2)


def assert_jet(mean: Any, shape: tuple[int, ...], truth: Truth) -> None:
    chart = chart_of(shape)
    # a curve's worth of outputs is too little for a manifold: the coordinates themselves are appended
    manifold = ff.StatisticalManifold(_Appended(mean, chart), chart, engine="autodiff")
    expected = truth_at(truth, chart)
    found = manifold.jet(U).coefficients[..., : expected.shape[-1]]
    for order, rows in (("value", [0]), ("first", [1, 2]), ("second", [3, 4, 5])):
        scale = expected[:, rows].abs().max() + expected[:, 1:3].abs().max()
        assert (found - expected)[:, rows].abs().max() <= 1e-13 * scale, order


class _Appended(nn.Module):
    """A map, and then the coordinates of its input along the chart."""

    def __init__(self, mean: Any, chart: ff.charts.Chart) -> None:
        super().__init__()
        self.mean, self.directions = mean, chart.basis.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mean(x).reshape(-1), self.directions @ x.reshape(-1)])


@pytest.mark.parametrize("name", [*modules()])
def test_jets_through_the_modules_of_torch(name: str) -> None:
    assert_jet(*modules()[name])


@pytest.mark.parametrize("name", [*LINALG])
def test_jets_through_linear_algebra(name: str) -> None:
    f, truth = LINALG[name]
    assert_jet(f, (3, 3), truth)


# -- what a map computes, not what it hides ----------------------------------------------------------------------------


def norm_in_float32(x: Tensor) -> Tensor:
    """As many models write it: the statistics in float32, whatever the input is."""
    z = x.to(torch.float32)
    return (z * torch.rsqrt(z.float().pow(2).mean(-1, keepdim=True) + 1e-3)).type_as(x)


def norm_in_half(x: Tensor) -> Tensor:
    return (x.half() * torch.rsqrt(x.pow(2).mean(-1, keepdim=True, dtype=torch.bfloat16) + 1e-3)).to(x.dtype)


def norm_detached(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.detach().pow(2).mean(-1, keepdim=True) + 1e-3)


def norm_without_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3)
    return x * scale


@pytest.mark.parametrize("norm", [norm_in_float32, norm_in_half, norm_detached, norm_without_grad])
def test_derivatives_are_those_of_the_function_computed(norm: Callable[[Tensor], Tensor]) -> None:
    assert_jet(norm, (2, 5), lambda x: x / sqrt((x**2).mean(-1, keepdims=True) + mpmath.mpf(1e-3)))


def test_an_op_without_second_derivative_is_refused() -> None:
    mean = ff.StatisticalManifold(lambda x: torch.cdist(x, 2 * x + 1), chart_of((3, 3)), engine="autodiff")
    with pytest.raises(UnsupportedOpError, match=r"no second derivative .*cdist.*engine=\"taylor\""):
        mean.metric(U)


@pytest.mark.parametrize(("output", "scale"), [(1, 1e-3), (2, 1e3)])
def test_an_output_without_a_derivative_is_refused_beside_one_that_has_it(output: int, scale: float) -> None:
    """Torch knows no derivative of the mean and of the inverse scale, which are small here beside the first output."""

    def f(x: Tensor) -> Tensor:
        outputs = torch.native_layer_norm(x * scale, [4], x[0] + 3, None, 1e-5)
        return torch.cat([outputs[0].reshape(-1), outputs[output].reshape(-1)])

    with pytest.raises(UnsupportedOpError, match=r"native_layer_norm .*its derivative is not that of its values"):
        ff.StatisticalManifold(f, chart_of((3, 4)), engine="autodiff").jet(U)


def test_an_op_without_a_derivative_is_refused_also_where_some_of_its_values_are_nan() -> None:
    mean = ff.StatisticalManifold(torch.special.bessel_y0, chart_of((6,)), engine="autodiff")
    assert torch.special.bessel_y0(mean.chart(U)).isnan().any()
    with pytest.raises(UnsupportedOpError, match=r"special_bessel_y0 .*its derivative is not that of its values"):
        mean.jet(U)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
@pytest.mark.parametrize("op", [torch.sin, nn.GroupNorm(2, 6).double(), nn.LayerNorm(6).double(), torch.cumprod])
def test_an_op_whose_second_derivative_is_a_tenth_off_is_refused(
    op: Callable[..., Tensor], scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if torch had it so; what rounding leaves of slopes, which may be more than the slopes, does not hide it."""
    right = _derivatives._gradient_of
    wrong = lambda *given: (bends := right(*given)) and [1.1 * bend for bend in bends]  # noqa: E731
    mean = ff.StatisticalManifold(
        lambda x: op(x * scale, -1) if op is torch.cumprod else op(x * scale), chart_of((3, 6)), engine="autodiff"
    )
    monkeypatch.setattr(_derivatives, "_gradient_of", wrong)
    with pytest.raises(UnsupportedOpError, match=r"its second derivative is not that of its values"):
        mean.jet(U)
    monkeypatch.undo()
    assert mean.jet(U).hessian.isfinite().all()


def test_points_are_kept_apart_where_torch_mixes_them_in_the_derivatives_of_an_op() -> None:
    """The batched derivative of `prelu` with a weight without axes takes points for outputs; its values are right."""

    def f(x: Tensor) -> Tensor:
        return torch.stack([F.prelu(x[0] - 3, x[1]), x[0] * x[1]])

    u = torch.tensor([[0.1, 0.2], [0.3, -0.4]], dtype=torch.float64)
    jet = ff.StatisticalManifold(f, ff.charts.identity(2), engine="autodiff").jet(u)
    torch.testing.assert_close(jet.jacobian[..., 0], torch.stack([u[:, 1], u[:, 0] - 3], -1))
    torch.testing.assert_close(jet.hessian[..., 0], torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double().expand(2, 2, 2))


@pytest.mark.parametrize(
    ("f", "kinds"),
    [
        (lambda x: x.sin() + (x + 1).sin() + (x.sin() * 2).sin(), 1),
        (lambda x: x.sin() + x.T.sin(), 2),
        (lambda x: x.sin() + x[:1].sin(), 2),
        (lambda x: x.cumsum(0) + x.cumsum(1) + (x + 1).cumsum(1), 2),
        (lambda x: x.pow(3) + x.pow(5), 2),
        (lambda x: x.matmul(x) + x.matmul(A) + A.matmul(x) + x.matmul(A + 1), 3),
    ],
)
def test_calls_are_of_one_kind_where_all_but_numbers_in_tensors_is_the_same(f: Any, kinds: int) -> None:
    """So that one of them says of all whether torch can batch it."""
    tape, points = recorded(Mapping(f, torch.float64, torch.device("cpu")), random(2, 2))
    asked = {"sin", "cumsum", "pow", "mm"}
    assert len({call.kind() for call in _calls(tape, points) if call.node.op.rpartition(".")[2] in asked}) == kinds


def test_a_constant_that_is_written_into_is_refused() -> None:
    memory = torch.zeros(2, dtype=torch.float64)
    mean = ff.StatisticalManifold(lambda x: memory.add_(x) * 1, ff.charts.identity(2), engine="autodiff")
    with pytest.raises(TraceError, match=r"writes values of the map into a tensor that was there before"):
        mean.metric(U)


# -- what torch gets wrong, so that we notice when it is repaired ------------------------------------------------------

REPAIRED = (
    "torch {} now returns the right second derivative of {}. Run the other versions that pyproject.toml allows; if all "
    "are right, forward mode, which is faster, may come back into fisherflat/jets/autodiff.py and docs/design.md"
)


def relative_error(found: Tensor, right: Tensor) -> float:
    return ((found - right).abs().max() / right.abs().max()).item()


@pytest.mark.parametrize("outer", [jacfwd, jacrev])
def test_nested_forward_mode_is_still_wrong_through_layer_norm(outer: Callable[..., Any]) -> None:
    x = random(4)
    series = torch.cat([x[None], torch.eye(4, dtype=torch.float64)])[:, None]
    right = mpmath_jet(lambda x: standardised(x, (-1,), 1e-5), series, 4)[0, 5:]
    hessian = outer(jacfwd(lambda x: F.layer_norm(x, (4,))))(x).permute(1, 2, 0)
    first, second = torch.triu_indices(4, 4)
    name = f"layer_norm by {outer.__name__}(jacfwd(...))"
    assert relative_error(hessian[first, second], right) > 0.1, REPAIRED.format(torch.__version__, name)
    # and this is no mistake of the comparison
    trusted = jacrev(jacrev(lambda x: F.layer_norm(x, (4,))))(x).permute(1, 2, 0)
    assert relative_error(trusted[first, second], right) < 1e-12


def test_a_layer_norm_sphere_has_its_curvature_here_and_not_by_nested_forward_mode() -> None:
    mean, chart, family, at = as_functions(next(case for case in load_cases() if case["name"] == "layer_norm_sphere"))

    def f(u: Tensor) -> Tensor:
        return mean(chart(u))

    hessian = jacfwd(jacfwd(f))(at).permute(1, 2, 0)
    jet = Jet(torch.cat([f(at)[None], jacfwd(f)(at).T, hessian[[0, 0, 1], [0, 1, 1]]]), 2)
    nested = Geometry(jet).scalar_curvature.item()
    assert abs(nested - 0.5) > 0.05, REPAIRED.format(torch.__version__, "layer_norm")
    for engine in ("taylor", "autodiff"):
        ours = ff.StatisticalManifold(mean, chart, family, engine=engine).scalar_curvature(at).item()
        assert abs(ours - 0.5) < 1e-12


@pytest.mark.parametrize(("name", "grad"), [("cholesky_inverse", True), ("det", False), ("solve", False)])
def test_forward_over_reverse_is_still_wrong_through_linear_algebra(name: str, grad: bool) -> None:
    f, truth = LINALG[name]
    chart = chart_of((3, 3))
    right = truth_at(truth, chart)[0, 3:]
    with torch.set_grad_enabled(grad):
        hessian = jacfwd(jacrev(lambda v: f(chart(v)).reshape(-1)))(U[0])
    found = hessian.permute(1, 2, 0)[[0, 0, 1], [0, 1, 1]]
    name = f"{name} by jacfwd(jacrev(...))" + ("" if grad else " under no_grad")
    assert relative_error(found, right) > 0.1, REPAIRED.format(torch.__version__, name)


@pytest.mark.parametrize("n", [4, 40, 400])
def test_one_wrong_entry_of_many_is_seen(n: int) -> None:
    """Of two values for one place the last one stays; torch's derivative gives the gradient to both."""
    places = torch.arange(n)
    chart = ff.charts.affine(random(n), random(2, n, seed=1))

    def unpooled(places: Tensor) -> ff.StatisticalManifold:
        return ff.StatisticalManifold(
            lambda x: F.max_unpool1d(x[None], places[None], 1)[0][:4], chart, engine="autodiff"
        )

    u = torch.zeros(1, 2, dtype=torch.float64)
    assert torch.allclose(unpooled(places).jet(u).coefficients[0, 1:3], chart.basis[:, :4])
    with pytest.raises(UnsupportedOpError, match="not that of its values"):
        unpooled(places.clamp(min=1)).jet(u)
