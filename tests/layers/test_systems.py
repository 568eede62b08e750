"""The systems behind gated MLPs: each layer against its paper's formula, and where it is flat or curved."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, einsum, nn

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.lab.experiments import systems
from fisherflat.layers import (
    BilinearAttentionNetwork,
    GatedConv1d,
    GatedMLP,
    Joined,
    KeyValueMemory,
    LowRankBilinearPooling,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(layer: nn.Module) -> dict[str, Tensor]:
    """The layer's weights by name, after they were made random."""
    layer.double()
    for index, parameter in enumerate(layer.parameters()):
        parameter.data.copy_(normal(*parameter.shape, seed=100 + index))
    return {name: parameter.data for name, parameter in layer.named_parameters()}


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach(), expected, rtol=1e-12, atol=1e-12)


# -- the papers' formulas ----------------------------------------------------------------------------------------------


def test_gated_convolution_is_a_sum_over_the_tokens_before() -> None:
    layer, x = GatedConv1d(3, kernel=4, bias=True), normal(2, 6, 3)
    w = filled(layer)
    h = torch.empty(2, 6, 3, dtype=torch.float64)
    for t in range(6):
        linear, gate = (w[f"{part}.bias"].expand(2, 3).clone() for part in ("value", "gate"))
        for s in range(4):
            if t - s >= 0:  # the last column of a kernel is that of the token itself
                linear += einsum("bi,oi->bo", x[:, t - s], w["value.weight"][..., 3 - s])
                gate += einsum("bi,oi->bo", x[:, t - s], w["gate.weight"][..., 3 - s])
        h[:, t] = linear / (1 + (-gate).exp())
    close(layer(x), h)
    close(layer(x[0]), h[0])
    later = x.clone()
    later[:, 4:] = normal(2, 2, 3, seed=5)
    close(layer(later)[:, :4], layer(x)[:, :4])


def test_pooling_is_a_bilinear_form_of_low_rank_for_each_output() -> None:
    layer, x, y = LowRankBilinearPooling(4, 3, 2, 5, "identity", bias=True), normal(7, 4), normal(7, 3, seed=1)
    w = filled(layer)
    first, second = (torch.cat([w[f"{part}.weight"], w[f"{part}.bias"][:, None]], 1) for part in ("first", "second"))
    forms = einsum("or,ri,rj->oij", w["output.weight"], first, second)
    x1, y1 = (torch.cat([z, z.new_ones(7, 1)], 1) for z in (x, y))
    close(layer(x, y), einsum("oij,ni,nj->no", forms, x1, y1) + w["output.bias"])
    assert torch.linalg.matrix_rank(forms).max() == 2


def test_pooling_with_activations() -> None:
    layer, x, y = LowRankBilinearPooling(4, 3, 6, 5, "tanh", bias=False), normal(4), normal(3, seed=1)
    w = filled(layer)
    u, v = einsum("ri,i->r", w["first.weight"], x), einsum("ri,i->r", w["second.weight"], y)
    hyperbolic = [((2 * z).exp() - 1) / ((2 * z).exp() + 1) for z in (u, v)]
    close(layer(x, y), einsum("or,r,r->o", w["output.weight"], *hyperbolic))


@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_bilinear_attention_network(activation: str) -> None:
    layer, x, y = BilinearAttentionNetwork(4, 3, 5, 6, 2, 3, activation), normal(7, 4), normal(8, 3, seed=1)
    w = filled(layer)

    def sigma(z: Tensor) -> Tensor:
        return z if activation == "identity" else z * (z > 0)

    u, v = sigma(einsum("na,ra->nr", x, w["query.weight"])), sigma(einsum("mb,rb->mr", y, w["key.weight"]))
    scores = einsum("gr,nr,mr->gnm", w["glimpse"], u, v).exp()
    attention = scores / einsum("gnm->g", scores)[:, None, None]
    close(layer.pattern(x, y), attention)
    u, v = sigma(einsum("na,ka->nk", x, w["first.weight"])), sigma(einsum("mb,kb->mk", y, w["second.weight"]))
    joint = einsum("gnm,nk,mk->gk", attention, u, v)
    expected = einsum("ogk,gk->o", w["output.weight"].unflatten(1, (3, 6)), joint)
    close(layer(x, y), expected)
    close(layer.pooled(attention, x, y), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_memory_adds_values_as_much_as_keys_match(bias: bool) -> None:
    key, value, c, b = normal(6, 4), normal(6, 3, seed=1), normal(6, seed=2), normal(3, seed=3)
    memory = KeyValueMemory(key, value, key_bias=c if bias else None, value_bias=b if bias else None)
    x = normal(2, 5, 4, seed=4)
    matches = einsum("tnd,hd->tnh", x, key) + bias * c
    coefficients = matches * (matches > 0)
    close(memory.coefficients(x), coefficients)
    close(memory(x), einsum("tnh,ho->tno", coefficients, value) + bias * b)


def test_how_they_are_related_to_the_gated_mlp() -> None:
    mlp, x = GatedMLP(4, 6, "identity"), normal(5, 4)
    w = filled(mlp)
    pooling = LowRankBilinearPooling(4, 4, 6, 4, "identity", bias=False).double()
    for mine, theirs in (("first", "gate"), ("second", "up"), ("output", "down")):
        getattr(pooling, mine).weight.data.copy_(w[f"{theirs}.weight"])
    close(pooling(x, x), mlp(x).detach())

    convolution, windows = (
        GatedConv1d(2, 2, bias=True),
        torch.cat([normal(5, 2, seed=1)[:-1], normal(5, 2, seed=1)[1:]], 1),
    )
    w = filled(convolution)
    mlp = GatedMLP(4, 2, "sigmoid", bias=True).double()
    for mine, theirs in (("gate", "gate"), ("up", "value")):
        getattr(mlp, mine).weight.data.copy_(w[f"{theirs}.weight"].mT.flatten(1))
        getattr(mlp, mine).bias.data.copy_(w[f"{theirs}.bias"])
    units = torch.sigmoid(mlp.gate(windows)) * mlp.up(windows)
    close(convolution(normal(5, 2, seed=1))[1:], units.detach())


def test_joined_inputs_are_one_vector() -> None:
    layer, x, y = LowRankBilinearPooling(4, 3, 6, 5, bias=True).double(), normal(4), normal(3, seed=1)
    joined = Joined(layer, (4,), (3,))
    close(joined(joined.join(x, y)), layer(x, y))
    assert joined.join(None, y).tolist() == [0] * 4 + y.tolist()


def test_what_does_not_fit_is_refused() -> None:
    pooling = LowRankBilinearPooling(4, 3, 6, 5).double()
    network = BilinearAttentionNetwork(4, 3, 5, 6, 2).double()
    for call, message in (
        (lambda: GatedConv1d(3, 0), "positive"),
        (lambda: GatedConv1d(3, 2, "swish"), "'swish'"),
        (lambda: GatedConv1d(3, 2)(normal(5, 4)), r"expects \[n, 3\]"),
        (lambda: LowRankBilinearPooling(4, 3, 0, 5), "positive"),
        (lambda: pooling(normal(3), normal(4)), r"widths \(4, 3\)"),
        (lambda: BilinearAttentionNetwork(4, 3, 5, 6, 2, glimpses=0), "positive"),
        (lambda: network(normal(5, 3), normal(5, 4)), r"takes \[n, 4\] and \[m, 3\]"),
        (lambda: KeyValueMemory(normal(5, 3), normal(4, 3)), r"key \[h, d\]"),
        (lambda: KeyValueMemory(normal(5, 3), normal(5, 3), key_bias=normal(3)), "biases"),
        (lambda: KeyValueMemory(normal(5, 3), normal(5, 3).float()), "one floating dtype"),
        (lambda: KeyValueMemory(normal(5, 3), normal(5, 2))(normal(2)), "width 3"),
        (lambda: Joined(pooling), "shapes"),
        (lambda: Joined(pooling, (4,), (3,))(normal(8)), "7 numbers"),
        (lambda: Joined(pooling, (4,), (3,)).join(normal(4)), "to join"),
        (lambda: Joined(pooling, (4,), (3,)).join(None, None), "to join"),
        (lambda: Joined(pooling, (4,), (3,)).join(normal(3), normal(4)), "to join"),
    ):
        with pytest.raises(InputError, match=message):
            call()


# -- geometry ----------------------------------------------------------------------------------------------------------

#: what theory says, (system, what moves, how many roles are held) -> verdict; relu is affine piece by piece, which is
#: not affine, and flat off its kinks
VERDICTS = {
    ("key-value memory, relu", "coefficients", 0): "flat",
    ("key-value memory, relu", "input", 1): "flat",
    ("key-value memory, relu", "input", 0): "flat",
    ("key-value memory, gelu", "coefficients", 0): "flat",
    ("key-value memory, gelu", "input", 1): "flat",
    ("key-value memory, gelu", "input", 0): "curved",
    ("gated MLP, identity", "input", 1): "flat",
    ("gated MLP, identity", "input", 0): "curved",
    ("gated MLP, silu", "input", 1): "flat",
    ("gated MLP, silu", "input", 0): "curved",
    ("gated convolution, identity", "input", 1): "flat",
    ("gated convolution, identity", "input", 0): "curved",
    ("gated convolution, sigmoid", "input", 1): "flat",
    ("gated convolution, sigmoid", "input", 0): "curved",
    ("bilinear pooling, identity", "x", 0): "flat",
    ("bilinear pooling, identity", "y", 0): "flat",
    ("bilinear pooling, identity", "one direction of each", 0): "curved",
    ("bilinear pooling, identity", "x and y", 0): "curved",
    ("bilinear pooling, identity", "x and y", 1): "flat",
    ("bilinear pooling, tanh", "x", 0): "curved",
    ("bilinear pooling, tanh", "y", 0): "curved",
    ("bilinear pooling, tanh", "one direction of each", 0): "curved",
    ("bilinear pooling, tanh", "x and y", 0): "curved",
    ("bilinear pooling, tanh", "x and y", 2): "flat",
    ("bilinear attention network, identity", "attention map", 0): "flat",
    ("bilinear attention network, identity", "X", 1): "flat",
    ("bilinear attention network, identity", "Y", 1): "flat",
    ("bilinear attention network, identity", "X and Y", 1): "curved",
    ("bilinear attention network, identity", "X and Y", 2): "flat",
    ("bilinear attention network, identity", "X", 0): "curved",
    ("bilinear attention network, identity", "X and Y", 0): "curved",
    ("bilinear attention network, relu", "attention map", 0): "flat",
    ("bilinear attention network, relu", "X", 1): "flat",
    ("bilinear attention network, relu", "Y", 1): "flat",
    ("bilinear attention network, relu", "X and Y", 1): "curved",
    ("bilinear attention network, relu", "X and Y", 3): "flat",
    ("bilinear attention network, relu", "X", 0): "curved",
    ("bilinear attention network, relu", "X and Y", 0): "curved",
}
ROWS = list(systems.systems(seed=3))


def test_the_table_is_whole() -> None:
    assert [(row.name, row.moves, len(row.held)) for row in ROWS] == list(VERDICTS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join((row.name, row.moves, *row.held)).replace(" ", "_"))
def test_flat_or_curved_as_theory_says(row: systems.System) -> None:
    certificate, verified = systems.proved(row)
    assert certificate.verdict == VERDICTS[row.name, row.moves, len(row.held)]
    assert verified
    kinked = "relu" in row.name and row.moves in ("input", "X", "Y") and "activation" not in row.held
    if certificate.verdict == "flat":
        assert certificate.scope == ("off kinks" if kinked else "everywhere")
    geometry = ff.StatisticalManifold(row.mean, row.chart, engine="autodiff").at(torch.zeros(2))
    curvature = geometry.scalar_curvature.item() / 2
    rounding = 1e-11 * (1 + geometry.cancellation_scale.item())
    low, high = map(float, certificate.enclosure) if certificate.verdict == "curved" else (0.0, 0.0)
    assert low - rounding <= curvature <= high + rounding


def test_frozen_parts_are_the_gate_and_the_pattern() -> None:
    layer = BilinearAttentionNetwork(4, 3, 5, 6, 2).double()
    joined = Joined(layer, (7, 4), (8, 3))
    point = joined.join(normal(7, 4), normal(8, 3, seed=1))
    nodes = {(node.role, node.op) for node in ff.trace(joined, point).nodes}
    assert ("pattern", "aten._softmax") in nodes and ("attention_gate", "aten.mul") in nodes
    frozen = ff.freeze(joined, point)
    x, y = normal(7, 4, seed=2), normal(8, 3, seed=3)
    pattern = layer.pattern(normal(7, 4), normal(8, 3, seed=1))
    close(frozen(joined.join(x, y)), layer.pooled(pattern, x, y).detach())

    convolution, x = GatedConv1d(4, 3, bias=True).double(), normal(7, 4)
    frozen, moved = ff.freeze(convolution, x, ("mlp_gate",)), normal(7, 4, seed=2)
    gate = (convolution(x) / linear_part(convolution, x)).detach()
    close(frozen(moved), gate * linear_part(convolution, moved))


def linear_part(layer: GatedConv1d, x: Tensor) -> Tensor:
    padded = torch.cat([x.new_zeros(layer.kernel - 1, layer.width), x]).T
    return layer.value(padded).T.detach()


def test_pooling_along_one_direction_of_each_argument_is_a_saddle() -> None:
    """`f_xx = f_yy = 0`, so that K is minus the square of the normal part of `f_xy` for each unit of area."""
    layer = LowRankBilinearPooling(4, 3, 6, 5, "identity", bias=False)
    w = filled(layer)
    x, y, dx, dy = normal(4, seed=1), normal(3, seed=2), normal(4, seed=3), normal(3, seed=4)

    def form(a: Tensor, b: Tensor) -> Tensor:
        return einsum("or,ri,rj,i,j->o", w["output.weight"], w["first.weight"], w["second.weight"], a, b)

    tangent, mixed = torch.stack([form(dx, y), form(x, dy)]), form(dx, dy)
    normal_part = mixed - tangent.T @ torch.linalg.lstsq(tangent.T, mixed[:, None]).solution[:, 0]
    expected = -normal_part.square().sum() / torch.linalg.det(tangent @ tangent.T)
    joined = Joined(layer, (4,), (3,))
    chart = ff.charts.affine(joined.join(x, y), torch.stack([joined.join(dx, None), joined.join(None, dy)]))
    found = ff.StatisticalManifold(joined, chart).scalar_curvature(torch.zeros(2)) / 2
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)


def test_the_command_prints_the_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["systems"])
    monkeypatch.setattr(systems, "systems", lambda seed: ROWS[14:17])
    systems.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| bilinear pooling, identity | x | live | flat |  | yes |"
    assert lines[4].startswith("| bilinear pooling, identity | one direction of each | live | curved | -")
