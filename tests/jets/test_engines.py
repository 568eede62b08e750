"""Engine against engine: Taylor arithmetic on the traced graph and `torch.func` on the module agree on every jet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases.differences import dyadic
from cases.rules import c
from cases.stacks import Bypassed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import fisherflat as ff
from fisherflat.geometry import ENGINES
from fisherflat.jets.engines import TaylorEngine
from fisherflat.jets.recording import Mapping
from fisherflat.lab.bench.memory import peak
from fisherflat.spaces.charts import Chart

N, D = 3, 4
Map = Callable[[Tensor], Tensor]


def jet(f: Map, chart: Chart, u: Tensor, engine: str) -> Tensor:
    mapping = Mapping(f, torch.float64, chart.point.device)
    return ENGINES[engine](mapping, chart, mapping.check(chart.point).numel(), None).jet(u)


def assert_engines_agree(
    f: Map, shape: tuple[int, ...] = (N, D), k: int = 2, seed: int = 0, written_out: Map | None = None
) -> None:
    """To 1e-9 of the largest derivative of each order; the autodiff engine may be given `f` in simpler words."""
    chart = Chart(dyadic(shape, seed, 2.0**-10), dyadic((k, *shape), seed + 1, 2.0**-5, 16))
    u = dyadic((2, k), seed + 2, 2.0**-6, 8)
    got, want = jet(f, chart, u, "taylor"), jet(written_out or f, chart, u, "autodiff")
    for order in (slice(0, 1), slice(1, 1 + k), slice(1 + k, None)):
        scale = max(1.0, want[:, order].abs().max().item())
        assert (got[:, order] - want[:, order]).abs().max() <= 1e-9 * scale


# -- random stacks -----------------------------------------------------------------------------------------------------


class Gated(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.gate, self.up, self.activation = nn.Linear(D, D), nn.Linear(D, D, bias=False), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.gate(x)) * self.up(x)


class Attention(nn.Module):
    def __init__(self, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.output = nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(0, 1) for part in self.qkv(x).chunk(3, -1))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones(N, N, dtype=torch.bool).triu(1), -torch.inf)
        return self.output((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))


class Convolution(nn.Module):
    """Along the tokens."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.inner = nn.Conv1d(D, D, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.T).T


ACTIVATIONS = [
    nn.SiLU,
    nn.GELU,
    lambda: nn.GELU("tanh"),
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.Mish,
    nn.ReLU,
    nn.LogSigmoid,
    nn.Softsign,
    nn.Tanhshrink,
    nn.LeakyReLU,
    nn.Hardswish,
    nn.Identity,
]
activations = st.sampled_from(ACTIVATIONS).map(lambda make: make())
layers = st.deferred(
    lambda: st.one_of(
        st.builds(nn.Linear, st.just(D), st.just(D), bias=st.booleans()),
        st.builds(nn.LayerNorm, st.just(D), elementwise_affine=st.booleans()),
        st.builds(nn.RMSNorm, st.just(D), eps=st.sampled_from([None, 1e-5])),
        st.builds(nn.GroupNorm, st.sampled_from([1, 2]), st.just(D)),
        activations,
        st.builds(Attention, st.sampled_from([1, 2]), st.booleans()),
        st.builds(Gated, activations),
        st.builds(Convolution, st.sampled_from([1, 2])),
        st.builds(nn.Softmax, st.just(-1)),
        st.builds(Bypassed, layers),
    )
)


@settings(max_examples=20)
@given(st.lists(layers, min_size=1, max_size=5), st.integers(1, 3), st.integers(0, 1000))
def test_random_stacks(stack: list[nn.Module], k: int, seed: int) -> None:
    module = nn.Sequential(*stack).double()
    for number, parameter in enumerate(module.parameters()):
        parameter.data = dyadic(tuple(parameter.shape), seed + number, 2.0**-10)
    assert_engines_agree(module, k=k, seed=seed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize(
    ("width", "norm"),
    [(D, lambda: nn.GroupNorm(2, D)), (2, lambda: nn.LayerNorm(2)), (1, lambda: nn.RMSNorm(1, eps=1e-5))],
)
def test_norms_of_norms(width: int, norm: Callable[[], nn.Module], times: int, seed: int) -> None:
    """Of one or two numbers a norm leaves hardly more than a sign: its derivatives cancel within it."""
    norms = (norm() for _ in range(times))
    stack = nn.Sequential(nn.LayerNorm(D), nn.Unflatten(-1, (-1, width)), nn.Flatten(0, 1), *norms)
    assert_engines_agree(stack.double(), k=1, seed=seed)


# -- modules and functions of torch ------------------------------------------------------------------------------------


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double()


def self_attention(**options: Any) -> Map:
    module = seeded(lambda: nn.MultiheadAttention(D, 2, batch_first=True, **options))
    return lambda x: module.eval()(x[None], x[None], x[None], need_weights=False)[0][0]


def attention_with_weights() -> Map:
    module = seeded(lambda: nn.MultiheadAttention(D, 2))
    mask = torch.tensor([[False, False, True]])

    def f(x: Tensor) -> Tensor:
        y, weights = module.eval()(x[:, None], x[:, None], x[:, None], key_padding_mask=mask)
        return torch.cat([y[:, 0], weights[0]], -1)

    return f


def encoder(**options: Any) -> nn.Module:
    layer = seeded(lambda: nn.TransformerEncoderLayer(D, 2, 8, batch_first=True, **options))
    return nn.Sequential(nn.Unflatten(0, (1, N)), layer, nn.Flatten(0, 1)).train()  # dropout is off in any mode


def statistics(module: nn.Module) -> nn.Module:
    for name, tensor in module.double().named_buffers():
        if tensor.is_floating_point():
            tensor.copy_(c(*tensor.shape).abs() + 0.5 if "var" in name else c(*tensor.shape))
    return module


def sdpa(x: Tensor, **options: Any) -> Tensor:
    q = x.reshape(1, N, 2, 2).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q * 2, q.flip(-1), **options)


def grouped(x: Tensor) -> Tensor:
    q = torch.cat([x, x * x], -1).reshape(1, N, 4, 2).transpose(1, 2)
    kv = x.reshape(1, N, 2, 2).transpose(1, 2)
    return F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True, is_causal=True)


def rotary(x: Tensor) -> Tensor:
    angles = torch.outer(torch.arange(N).float(), 1 / 10 ** torch.arange(0, 1, 0.5)).double()
    cos, sin = (torch.cat([t, t], -1) for t in (angles.cos(), angles.sin()))
    turned = x * cos + torch.cat([-x[..., 2:], x[..., :2]], -1) * sin
    return (turned @ turned.T).softmax(-1) @ x


def rotary_interleaved(x: Tensor) -> Tensor:
    angles = torch.outer(torch.arange(N).double(), torch.tensor([1, 0.1], dtype=torch.float64))
    even, odd = x[..., ::2], x[..., 1::2]
    turned = torch.stack(
        [even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos()], -1
    ).flatten(-2)
    return (turned @ turned.T).softmax(-1) @ x


def alibi(x: Tensor) -> Tensor:
    distance = torch.arange(N)[None] - torch.arange(N)[:, None]
    slopes = torch.tensor([0.5, 0.25], dtype=torch.float64)[:, None, None]
    return ((x @ x.T)[None] + slopes * distance).softmax(-1) @ x


def masked(x: Tensor) -> Tensor:
    scores = torch.einsum("id,jd->ij", x, x)
    kept = torch.where(torch.ones(N, N, dtype=torch.bool).tril(), scores, torch.finfo(x.dtype).min)
    return torch.einsum("ij,jd->id", kept.softmax(-1), x)


def routed(x: Tensor) -> Tensor:
    """A mixture of experts, by the two best of three."""
    weights, chosen = (x @ c(4, 3)).softmax(-1).topk(2, -1)
    weights = weights / weights.sum(-1, keepdim=True)
    experts = torch.einsum("nd,edh->neh", x, c(3, 4, 4)).tanh()
    return (weights[..., None] * experts.gather(1, chosen[..., None].expand(-1, -1, 4))).sum(1)


def embedded() -> Map:
    table = seeded(lambda: nn.Embedding(5, D))
    return lambda x: x * table(torch.tensor([0, 3, 1])) + table(torch.arange(3)).sigmoid() * x**3


def normed_queries(x: Tensor) -> Tensor:
    q, k = F.normalize(x, dim=-1), F.rms_norm(x, (D,), c(4))
    return torch.tanh(q @ k.T / 5) * 5 @ x


MODULES: dict[str, Callable[[], Map]] = {
    "MultiheadAttention": self_attention,
    "MultiheadAttention, bias and zero attention": lambda: self_attention(add_bias_kv=True, add_zero_attn=True),
    "MultiheadAttention, weights and padding": attention_with_weights,
    "TransformerEncoderLayer": encoder,
    "TransformerEncoderLayer, norm first": lambda: encoder(norm_first=True, activation="gelu"),
    "TransformerEncoderLayer, own activation": lambda: encoder(norm_first=True, activation=F.silu, bias=False),
    "sdpa": lambda: sdpa,
    "sdpa, causal": lambda: lambda x: sdpa(x, is_causal=True, scale=0.3),
    "sdpa, mask": lambda: lambda x: sdpa(x, attn_mask=torch.eye(N, dtype=torch.bool).logical_not()),
    "sdpa, bias": lambda: lambda x: sdpa(x, attn_mask=c(3, 3)),
    "sdpa, moving bias": lambda: lambda x: sdpa(x, attn_mask=x @ x.T),
    "sdpa, grouped queries": lambda: grouped,
    "GLU": lambda: nn.Sequential(nn.Linear(D, 2 * D), nn.GLU()).double(),
    "Conv1d": lambda: seeded(
        lambda: nn.Sequential(nn.Conv1d(N, 4, 2, padding="same"), nn.SiLU(), nn.Conv1d(4, 2, 2, 2))
    ),
    "ConvTranspose1d": lambda: seeded(lambda: nn.Sequential(nn.ConvTranspose1d(N, 2, 2, 2), nn.Tanh())),
    "BatchNorm1d": lambda: nn.Sequential(statistics(nn.BatchNorm1d(D)), nn.Tanh()).double(),
    "InstanceNorm1d": lambda: nn.Sequential(nn.Unflatten(0, (1, N)), nn.InstanceNorm1d(N), nn.Flatten(0, 1)).double(),
    "Embedding": embedded,
    "Bilinear": lambda: (lambda layer: lambda x: layer(x, x))(seeded(lambda: nn.Bilinear(D, D, 3))),
    "CosineSimilarity": lambda: lambda x: nn.CosineSimilarity(-1)(x, x.flip(0)),
    "PairwiseDistance": lambda: lambda x: nn.PairwiseDistance()(x, x.flip(1)),
    "Softmin": lambda: nn.Softmin(-1),
    "MaxPool1d": lambda: nn.Sequential(nn.Tanh(), nn.MaxPool1d(2)),
    "AdaptiveAvgPool1d": lambda: nn.Sequential(nn.Tanh(), nn.AdaptiveAvgPool1d(3)),
    "LPPool1d": lambda: lambda x: nn.LPPool1d(2, 2)(x[None] ** 2 + 1)[0],
    "LocalResponseNorm": lambda: lambda x: nn.LocalResponseNorm(2)(x[None]),
    "rms_norm": lambda: lambda x: F.rms_norm(x, (D,), c(4), 1e-5),
    "rotary code": lambda: rotary,
    "rotary code, interleaved": lambda: rotary_interleaved,
    "alibi": lambda: alibi,
    "where mask and einsum": lambda: masked,
    "mixture of experts": lambda: routed,
    "normed queries and capped scores": lambda: normed_queries,
    "cumulative": lambda: lambda x: (x.cumsum(0).tanh().cumprod(-1) + 2).log().logcumsumexp(0),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_of_torch(name: str) -> None:
    assert_engines_agree(MODULES[name]())


def test_linear_layers_on_any_rank() -> None:
    layer = seeded(lambda: nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, 2)))
    for shape in ((D,), (2, D), (2, 1, 2, D)):
        assert_engines_agree(layer, shape)


def test_a_scalar_as_output_and_as_factor() -> None:
    assert_engines_agree(lambda x: (x * x).sum().sqrt())
    assert_engines_agree(lambda x: x[0, 0].exp() * x[1] / x.sum().cosh())
    assert_engines_agree(lambda x: x[0, 0] * x[0, 1], k=1)


# -- what the autodiff engine cannot differentiate, against the same written out -------------------------------------


def test_lstm() -> None:
    layer = seeded(lambda: nn.LSTM(D, 3))

    def written_out(x: Tensor) -> Tensor:
        hidden, cell, outputs = c(3) * 0, c(3) * 0, []
        for row in x:
            i, f, g, o = (
                layer.weight_ih_l0 @ row + layer.bias_ih_l0 + layer.weight_hh_l0 @ hidden + layer.bias_hh_l0
            ).chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            outputs.append(hidden)
        return torch.stack(outputs)

    assert_engines_agree(lambda x: layer(x)[0], written_out=written_out)


def test_gru() -> None:
    layer = seeded(lambda: nn.GRU(D, 3))

    def written_out(x: Tensor) -> Tensor:
        hidden, outputs = c(3) * 0, []
        for row in x:
            r, z, n = (layer.weight_ih_l0 @ row + layer.bias_ih_l0).chunk(3)
            r_, z_, n_ = (layer.weight_hh_l0 @ hidden + layer.bias_hh_l0).chunk(3)
            z = (z + z_).sigmoid()
            hidden = (1 - z) * (n + (r + r_).sigmoid() * n_).tanh() + z * hidden
            outputs.append(hidden)
        return torch.stack(outputs)

    assert_engines_agree(lambda x: layer(x)[0], written_out=written_out)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_distances(p: float) -> None:
    def written_out(x: Tensor) -> Tensor:
        return ((x[:, None] - c(2, 4)).abs() ** p).sum(-1) ** (1 / p)

    assert_engines_agree(lambda x: torch.cdist(x, c(2, 4), p), written_out=written_out)


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize(
    "name", ["Linear", "LayerNorm", "SelfAttention", "GatedMLP", "TransformerEncoderLayer", "Conv1d"]
)
def test_the_memory_estimate_is_that_of_a_run(name: str, k: int) -> None:
    module = {
        "Linear": lambda: nn.Linear(16, 16),
        "LayerNorm": lambda: nn.LayerNorm(16),
        "SelfAttention": lambda: ff.layers.SelfAttention(16, heads=4, gate=ff.layers.Gate()),
        "GatedMLP": lambda: ff.layers.GatedMLP(16, 64),
        "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(16, 2, 64, norm_first=True),
        "Conv1d": lambda: nn.Sequential(nn.Conv1d(8, 16, 3), nn.GELU()),
    }[name]().double()
    chart, points = Chart(c(8, 16), dyadic((k, 8, 16), 1, 2.0**-10)), 16
    mapping = Mapping(module, torch.float64, chart.point.device)
    engine = ENGINES["taylor"](mapping, chart, mapping.check(chart.point).numel(), None)
    u = torch.zeros(points, k, dtype=torch.float64)
    assert engine.bytes_per_point / 2 < peak(lambda: engine.jet(u), u.device) / points < engine.bytes_per_point * 2


EMPTY: dict[str, Map] = {
    "no rows": lambda x: x[:0].sin() @ x.cos().mT,
    "no columns": lambda x: x.sin() @ x[:0].cos().mT,
    "nothing to sum": lambda x: x[:, :0].sin() @ x[:, :0].cos().mT,
    "no rows that are affine": lambda x: x[:0] @ x.cos().mT,
    "no columns that are affine": lambda x: x.sin() @ x[:0].mT,
}


@pytest.mark.parametrize("name", EMPTY)
def test_matrix_products_without_entries(name: str) -> None:
    assert_engines_agree(lambda x: torch.cat([EMPTY[name](x).flatten(), x.exp().flatten()]))


# -- work --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 8])
@pytest.mark.parametrize(("f", "left", "right"), [
    (lambda x: x.sin() @ x.cos().mT, 2, 2), (lambda x: x.sin() @ x.mT, 2, 1), (lambda x: x @ x.cos().mT, 1, 2),
], ids=["both curved", "curved by affine", "affine by curved"])  # fmt: skip
def test_a_matrix_product_multiplies_only_what_is_read(f: Map, left: int, right: int, k: int) -> None:
    """Each coefficient of one with the value of the other, and slopes with slopes: k² products and no more."""
    n, d, points = 5, 6, 3
    chart, u = Chart(dyadic((n, d), 0, 2.0**-4), dyadic((k, n, d), 1, 2.0**-4)), dyadic((points, k), 2, 2.0**-4)
    engine = TaylorEngine(ff.trace(f, chart.point), chart, n * n, torch.float64)
    with FlopCounterMode(display=False) as counter:
        engine.jet(u)
    with FlopCounterMode(display=False) as before:
        chart(u)
    coefficients = (1, 1 + k, (k + 1) * (k + 2) // 2)
    products = coefficients[left] + coefficients[right] - 1 + k**2
    assert counter.get_total_flops() - before.get_total_flops() == points * products * 2 * n * d * n
