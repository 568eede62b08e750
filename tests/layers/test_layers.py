"""The reference layers against the reference values, `nn.MultiheadAttention` and the formulas of their papers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fisherflat.errors import InputError
from fisherflat.layers import MLP_ACTIVATIONS, BilinearAttention, Gate, GatedMLP, SelfAttention
from fisherflat.layers._activations import GATE_ACTIVATIONS

POSITIONS = ("output", "value", "key", "query", "projection")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def double(x: Any) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def at_chart(case: dict[str, Any], point: Tensor) -> Tensor:
    """The case's input: `point`, or its moved token, moved along the basis by the coordinates."""
    step = double(case["at"]) @ double(case["basis"])
    if "moved_token" not in case:
        return point + step
    moved = point.clone()
    moved[case["moved_token"]] += step
    return moved


def load_attention(case: dict[str, Any]) -> SelfAttention:
    layer = SelfAttention(
        len(case["Wq"]), case["heads"], case["causal"], Gate(**case["gate"]) if "gate" in case else None
    ).double()
    weights = {"query": "Wq", "key": "Wk", "value": "Wv", "output": "Wo"} | (
        {"gate.projection": "Wg"} if layer.gate else {}
    )
    layer.load_state_dict({f"{name}.weight": double(case[key]).T for name, key in weights.items()})
    return layer


def of_kind(cases: list[dict[str, Any]], kind: str, **selection: Any) -> list[dict[str, Any]]:
    chosen = [case for case in cases if case["kind"] == kind and all(case.get(k) == v for k, v in selection.items())]
    assert chosen
    return chosen


def test_live_attention_has_the_reference_values(cases: list[dict[str, Any]]) -> None:
    for case in of_kind(cases, "self_attention", reading="live"):
        y = load_attention(case)(at_chart(case, double(case["tokens"])))
        expected = double([float(v) for v in case["expected"]["value"]])
        torch.testing.assert_close(y.flatten(), expected, rtol=1e-13, atol=1e-14, msg=case["name"])


def test_attention_with_the_pattern_of_another_input_has_the_reference_values(cases: list[dict[str, Any]]) -> None:
    # frozen pattern, put together from the layer's public parts: the pattern at u = 0 applied to the values at u
    for case in of_kind(cases, "self_attention", reading="frozen_pattern", heads=1):
        layer, tokens = load_attention(case), double(case["tokens"])
        moved = at_chart(case, tokens)
        mixed = layer.pattern(tokens)[0] @ layer.value(moved)
        y = layer.output(mixed if layer.gate is None else mixed * layer.gate(moved))
        expected = double([float(v) for v in case["expected"]["value"]])
        torch.testing.assert_close(y.flatten(), expected, rtol=1e-13, atol=1e-14, msg=case["name"])


def test_gated_mlp_has_the_reference_values(cases: list[dict[str, Any]]) -> None:
    for case in of_kind(cases, "gated_mlp"):
        mlp = GatedMLP(len(case["Wg"]), len(case["Wd"]), case["activation"]).double()
        names = {"gate": "Wg", "up": "Wu", "down": "Wd"}
        mlp.load_state_dict({f"{name}.weight": double(case[key]).T for name, key in names.items()})
        expected = double([float(v) for v in case["expected"]["value"]])
        torch.testing.assert_close(
            mlp(at_chart(case, double(case["point"]))), expected, rtol=1e-13, atol=1e-14, msg=case["name"]
        )


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_ungated_attention_is_that_of_torch(heads: int, causal: bool, bias: bool) -> None:
    dim, n = 12, 5
    ours = SelfAttention(dim, heads, causal, bias=bias).double()
    theirs = nn.MultiheadAttention(dim, heads, bias=bias, batch_first=True, dtype=torch.float64)
    projections = [ours.query, ours.key, ours.value]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.out_proj.weight.copy_(ours.output.weight)
        if bias:
            for layer in (*projections, ours.output):
                layer.bias.normal_()
            theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
            theirs.out_proj.bias.copy_(ours.output.bias)
    x = torch.randn(3, n, dim, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(n, dtype=torch.float64) if causal else None
    expected, pattern = theirs(x, x, x, attn_mask=mask, average_attn_weights=False)
    torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(ours.pattern(x), pattern, rtol=1e-12, atol=1e-13)


def gated_by_loops(layer: SelfAttention, x: Tensor) -> Tensor:
    """Qiu et al. 2025, section 2, token by token and head by head, from the weights alone."""
    assert layer.gate is not None and layer.gate.projection is not None
    n, d = x.shape
    h = layer.heads
    w = d // h
    g = GATE_ACTIVATIONS[layer.gate.activation](x @ layer.gate.projection.weight.T)
    if layer.gate.granularity == "headwise":
        g = torch.stack([g[:, c // w] for c in range(d)], dim=1)
    q, k, v = (x @ p.weight.T for p in (layer.query, layer.key, layer.value))
    q, k, v = (t * g if layer.gate.position == name else t for t, name in ((q, "query"), (k, "key"), (v, "value")))
    y = torch.zeros_like(x)
    for t in range(n):
        for c in range(d):
            head = slice(c // w * w, (c // w + 1) * w)
            weights = torch.stack([torch.exp(q[t, head] @ k[s, head] / math.sqrt(w)) for s in range(n)])
            y[t, c] = (weights * v[:, c]).sum() / weights.sum()
    y = (y * g if layer.gate.position == "output" else y) @ layer.output.weight.T
    return y * g if layer.gate.position == "projection" else y


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("granularity", ["elementwise", "headwise"])
def test_gates_multiply_where_the_paper_says(position: str, granularity: str) -> None:
    if (position, granularity) == ("projection", "headwise"):
        with pytest.raises(InputError, match="mixed the heads"):
            Gate(granularity=granularity, position=position)
        return
    layer = SelfAttention(6, heads=2, gate=Gate("silu", granularity, position)).double()
    assert layer.gate is not None and layer.gate.projection is not None
    assert layer.gate.projection.weight.shape == ((2 if granularity == "headwise" else 6), 6)
    x = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), gated_by_loops(layer, x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("identity", lambda x: x),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("gelu", lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2)))),
        ("tanh", lambda x: 1 - 2 / (math.exp(2 * x) + 1)),
        ("relu", lambda x: max(x, 0.0)),
        ("softplus", lambda x: math.log(1 + math.exp(x))),
        ("relu2", lambda x: max(x, 0.0) ** 2),
    ],
)
def test_activations_are_those_of_their_names(name: str, formula: Callable[[float], float]) -> None:
    x = double([-3.0, -0.5, 0.25, 2.0])
    torch.testing.assert_close(MLP_ACTIVATIONS[name](x), double([formula(v) for v in x.tolist()]), rtol=1e-14, atol=0)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'swish'.*silu"):
        Gate("swish")
    with pytest.raises(InputError, match="unknown activation 'relu2'"):
        Gate("relu2")
    with pytest.raises(InputError, match=r"'swish'.*relu2"):
        GatedMLP(4, 8, "swish")
    with pytest.raises(InputError, match=r"granularity must be one of .*'headwise'; got 'channelwise'"):
        Gate(granularity="channelwise")
    with pytest.raises(InputError, match=r"position must be one of 'output', 'value', .*'projection'; got 'input'"):
        Gate(position="input")


def test_sizes_that_do_not_fit_are_refused() -> None:
    for dim, heads in ((6, 4), (6, 0), (0, 1)):
        with pytest.raises(InputError, match="heads"):
            SelfAttention(dim, heads)
    with pytest.raises(InputError, match="positive"):
        GatedMLP(4, 0)
    for layer in (
        SelfAttention(4),
        GatedMLP(4, 8),
        BilinearAttention(torch.ones(2, 1, 4), torch.ones(2, 1, 4), torch.ones(2, 4)),
    ):
        with pytest.raises(InputError, match=r"expects \[.*4\], got \[3, 5\]"):
            layer(torch.ones(3, 5))


def test_one_gate_specification_makes_independent_gates() -> None:
    specification = Gate("tanh", "headwise")
    one, two = SelfAttention(4, 2, gate=specification), SelfAttention(8, 2, gate=specification)
    assert one.gate is not None and two.gate is not None
    assert one.gate.projection is not two.gate.projection
    assert one.gate.projection is not None and one.gate.projection.weight.shape == (2, 4)
    assert two.gate.projection is not None and two.gate.projection.weight.shape == (2, 8)
    assert specification.projection is None and not list(specification.parameters())
    with pytest.raises(InputError, match="specification"):
        specification(torch.ones(1, 4))


def test_projections_have_the_names_of_the_contract() -> None:
    names = {"query.weight", "key.weight", "value.weight", "output.weight", "gate.projection.weight"}
    assert set(SelfAttention(4, gate=Gate()).state_dict()) == names
    assert set(SelfAttention(4, gate=Gate(), bias=True).state_dict()) == names | {
        n.replace("weight", "bias") for n in names
    }
    assert set(GatedMLP(4, 8).state_dict()) == {"gate.weight", "up.weight", "down.weight"}
    assert list(inspect.signature(SelfAttention).parameters) == ["dim", "heads", "causal", "gate", "bias"]
    assert list(inspect.signature(Gate).parameters) == ["activation", "granularity", "position"]


def test_leading_axes_are_a_batch() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    attention = SelfAttention(4, 2, causal=True, gate=Gate("tanh", "headwise")).double()
    torch.testing.assert_close(attention(x)[1, 2], attention(x[1, 2]))
    mlp = GatedMLP(4, 8).double()
    torch.testing.assert_close(mlp(x)[1, 2, 3], mlp(x[1, 2, 3]))
    bilinear = BilinearAttention(*(torch.randn(s, dtype=torch.float64) for s in ((5, 2, 4), (5, 2, 4), (5, 4))))
    torch.testing.assert_close(bilinear(x)[1, 2, 3], bilinear(x[1, 2, 3]))


def test_causal_attention_has_finite_derivatives_and_does_not_look_ahead() -> None:
    layer = SelfAttention(4, 2, causal=True, gate=Gate()).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    jacobian = torch.func.jacrev(layer)(x)
    hessian = torch.func.jacfwd(torch.func.jacrev(layer))(x)
    assert torch.isfinite(hessian).all()
    assert all((jacobian[t, :, s] == 0).all() for t in range(3) for s in range(t + 1, 3))
    assert all((jacobian[t, :, s] != 0).any() for t in range(3) for s in range(t + 1))


def test_attention_with_a_fixed_pattern_is_affine_and_with_a_gate_it_is_not() -> None:
    x, y = torch.randn(2, 5, 4, dtype=torch.float64)

    def defect(layer: SelfAttention) -> float:
        def frozen(tokens: Tensor) -> Tensor:
            mixed = layer.pattern(x)[0] @ layer.value(tokens)
            return layer.output(mixed if layer.gate is None else mixed * layer.gate(tokens))

        return (frozen((x + y) / 2) - (frozen(x) + frozen(y)) / 2).abs().max().item()

    assert defect(SelfAttention(4).double()) < 1e-14
    assert defect(SelfAttention(4, gate=Gate("identity")).double()) > 1e-2


def test_bilinear_attention_is_the_sum_of_its_definition() -> None:
    query, key, value = (torch.randn(s, dtype=torch.float64) for s in ((3, 2, 4), (3, 2, 4), (3, 4)))
    x = torch.randn(4, dtype=torch.float64)
    expected = sum(value[i] * (query[i, r] @ x) * (key[i, r] @ x) for i in range(3) for r in range(2))
    torch.testing.assert_close(BilinearAttention(query, key, value)(x), expected)


def test_gated_mlp_without_activation_is_bilinear_attention_of_rank_one() -> None:
    mlp = GatedMLP(4, 7, "identity").double()
    bilinear = BilinearAttention(mlp.gate.weight[:, None], mlp.up.weight[:, None], mlp.down.weight.T)
    x = torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(bilinear(x), mlp(x))


def test_bilinear_attention_refuses_factors_that_do_not_fit() -> None:
    query, value = torch.ones(3, 2, 4), torch.ones(3, 4)
    for wrong in ((query, torch.ones(3, 1, 4), value), (query, query, torch.ones(2, 4)), (query[0], query[0], value)):
        with pytest.raises(InputError, match=r"query and key \[h, rank, d\]"):
            BilinearAttention(*wrong)
    with pytest.raises(InputError, match="dtype"):
        BilinearAttention(query, query.double(), value)


def test_initial_weights_keep_the_scale_and_biases_are_zero() -> None:
    layer = SelfAttention(64, gate=Gate(), bias=True)
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        else:
            # variance 2 / (fan_in + fan_out) = 1 / 64 (Glorot & Bengio 2010)
            assert parameter.var().item() == pytest.approx(1 / 64, rel=0.1)
