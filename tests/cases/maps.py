"""Maps whose geometry is known: the reference cases as maps on charts, and surfaces in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fisherflat as ff

Map = Callable[[Tensor], Tensor]

#: name -> components in the coordinates u0, u1, ...; `formula` makes a map of them, other tests read them as they are
SURFACES = {
    "sphere of radius 2": ("2*sin(u0)*cos(u1)", "2*sin(u0)*sin(u1)", "2*cos(u0)"),
    "torus": ("(3+cos(u0))*cos(u1)", "(3+cos(u0))*sin(u1)", "sin(u0)"),
    "catenoid": ("cosh(u0)*cos(u1)", "cosh(u0)*sin(u1)", "u0"),
    "helicoid": ("u0*cos(u1)", "u0*sin(u1)", "u1"),
    "graph in R^4": ("u0", "u1", "u0**2*u1-u1**2", "exp(u0/2)*sin(u1)"),
    "sphere times line": ("sin(u0)*cos(u1)", "sin(u0)*sin(u1)", "cos(u0)", "u2"),
    "three-dimensional in R^6": ("u0", "u1", "u2", "u0*u1+u2**2", "exp(u0/2)*cos(u2)", "u0*u1*u2"),
    "four-dimensional in R^7": ("u0", "u1", "u2", "u3", "u0*u1+u2*u3", "u0**2-sin(u1)*u2", "exp(u3/2)*u1"),
}

ACTIVATIONS: dict[str, Map] = {"identity": lambda x: x, "sigmoid": torch.sigmoid, "silu": F.silu, "gelu": F.gelu}


def double(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def evaluated(components: Sequence[str], u: Sequence[Any], functions: Any) -> list[Any]:
    """The components at `u`, with `sin`, `exp`, ... taken from the module `functions`."""
    names = {name: getattr(functions, name) for name in ("sin", "cos", "exp", "cosh")}
    names |= {"sqrt": math.sqrt} | {f"u{i}": u[i] for i in range(len(u))}
    return [eval(component, names) for component in components]


def formula(components: Sequence[str]) -> Map:
    """The components, written in `u0`, `u1`, ..., as a map."""

    def f(u: Tensor) -> Tensor:
        return torch.stack([0 * u[0] + component for component in evaluated(components, u.unbind(), torch)])

    return f


class Case(NamedTuple):
    """What a `StatisticalManifold` is made of, and where to look."""

    mean: Map
    chart: ff.charts.Chart
    family: ff.Gaussian
    at: Tensor


def as_functions(case: dict[str, Any]) -> Case:
    """A reference case in torch functions, from its definition."""
    return Case(FUNCTIONS[case["kind"]](case), _chart(case), ff.Gaussian(_covariance(case)), double(case["at"]))


def as_layers(case: dict[str, Any]) -> Case:
    """A reference case in modules, ours and torch's, with its weights loaded; frozen by `ff.freeze`."""
    return as_functions(case)._replace(mean=_LAYERS[case["kind"]](case))


def has_layers(case: dict[str, Any]) -> bool:
    return case["kind"] in _LAYERS


def _covariance(case: dict[str, Any]) -> Any:
    covariance = case.get("covariance", 1.0)
    return double(covariance) if isinstance(covariance, list) else covariance


def _chart(case: dict[str, Any]) -> ff.charts.Chart:
    if case["kind"] == "formula":
        return ff.charts.identity(len(case["at"]))
    if case["kind"] == "attention_weights":
        return ff.charts.attention_weights(double(case["values"]))
    if "tokens" in case:
        return ff.charts.token(double(case["tokens"]), case["moved_token"], double(case["basis"]))
    return ff.charts.affine(double(case["point"]), double(case["basis"]))


# -- in torch functions ------------------------------------------------------------------------------------------------


def pattern(weights: dict[str, Any], x: Tensor) -> Tensor:
    heads, (n, d) = weights["heads"], x.shape
    q, k = (_split(x @ double(weights[name]), heads) for name in ("Wq", "Wk"))
    scores = q @ k.mT / math.sqrt(d // heads)
    if weights["causal"]:
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -math.inf)
    return scores.softmax(-1)


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(0, 1)


def attend(weights: dict[str, Any], x: Tensor, pattern: Tensor) -> Tensor:
    y = (pattern @ _split(x @ double(weights["Wv"]), weights["heads"])).transpose(0, 1)
    if "gate" in weights:
        factor = ACTIVATIONS[weights["gate"]["activation"]](x @ double(weights["Wg"]))
        y = y * factor.unflatten(-1, (weights["heads"], -1))
    return y.flatten(1) @ double(weights["Wo"])


def _self_attention(case: dict[str, Any]) -> Map:
    if case["reading"] == "live":
        return lambda x: attend(case, x, pattern(case, x))
    frozen = pattern(case, double(case["tokens"]))
    return lambda x: attend(case, x, frozen)


def _gated_mlp(weights: dict[str, Any]) -> Map:
    gate, up, down = (double(weights[name]) for name in ("Wg", "Wu", "Wd"))
    return lambda x: (ACTIVATIONS[weights["activation"]](x @ gate) * (x @ up)) @ down


def _self_gated(case: dict[str, Any]) -> Map:
    if "gate" not in case:
        return lambda y: y
    return lambda y: y * ACTIVATIONS[case["gate"]["activation"]](y @ double(case["Wg"]))


def _block_stack(case: dict[str, Any]) -> Map:
    def f(x: Tensor) -> Tensor:
        for block in case["blocks"]:
            z = F.rms_norm(x, x.shape[-1:], eps=case["eps"])
            x = x + attend(block["attention"], z, pattern(block["attention"], z))
            x = x + _gated_mlp(block["mlp"])(F.rms_norm(x, x.shape[-1:], eps=case["eps"]))
        return x

    return f


FUNCTIONS: dict[str, Callable[[dict[str, Any]], Map]] = {
    "formula": lambda case: formula(case["components"]),
    "layer_norm": lambda case: lambda x: F.layer_norm(x, x.shape, eps=case["eps"]),
    "rms_norm": lambda case: lambda x: F.rms_norm(x, x.shape, eps=case["eps"]),
    "gated_mlp": _gated_mlp,
    "attention_weights": _self_gated,
    "self_attention": _self_attention,
    "block_stack": _block_stack,
}


# -- in modules --------------------------------------------------------------------------------------------------------


def loaded(module: nn.Module, weights: dict[str, Any], names: dict[str, str]) -> nn.Module:
    """`module` in float64 with the matrices of a case, which act on row vectors."""
    module.double().load_state_dict({f"{name}.weight": double(weights[key]).T for name, key in names.items()})
    return module


def attention_layer(weights: dict[str, Any]) -> nn.Module:
    gate = ff.layers.Gate(**weights["gate"]) if "gate" in weights else None
    layer = ff.layers.SelfAttention(len(weights["Wq"]), weights["heads"], weights["causal"], gate)
    names = {"query": "Wq", "key": "Wk", "value": "Wv", "output": "Wo"}
    return loaded(layer, weights, names | ({"gate.projection": "Wg"} if gate else {}))


def mlp_layer(weights: dict[str, Any]) -> nn.Module:
    mlp = ff.layers.GatedMLP(len(weights["Wg"]), len(weights["Wd"]), weights["activation"])
    return loaded(mlp, weights, {"gate": "Wg", "up": "Wu", "down": "Wd"})


class Block(nn.Module):
    """A pre-norm block of two residual steps."""

    def __init__(self, weights: dict[str, Any], width: int, eps: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps=eps, elementwise_affine=False) for _ in range(2))
        self.attention, self.mlp = attention_layer(weights["attention"]), mlp_layer(weights["mlp"])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


def _attention_module(case: dict[str, Any]) -> Map:
    layer = attention_layer(case)
    return layer if case["reading"] == "live" else ff.freeze(layer, double(case["tokens"]))


def _stack_module(case: dict[str, Any]) -> nn.Module:
    width = len(case["tokens"][0])
    return nn.Sequential(*(Block(weights, width, case["eps"]) for weights in case["blocks"]))


_LAYERS: dict[str, Callable[[dict[str, Any]], Map]] = {
    "layer_norm": lambda case: nn.LayerNorm(len(case["point"]), case["eps"], elementwise_affine=False),
    "rms_norm": lambda case: nn.RMSNorm(len(case["point"]), case["eps"], elementwise_affine=False),
    "gated_mlp": mlp_layer,
    "self_attention": _attention_module,
    "block_stack": _stack_module,
}
