"""What the certificate files in `tests/data/certificates` are about: weights are multiples of 1/64, exact anywhere.

The files name lines of this module, so that it is not to be changed, only added to at its end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fisherflat as ff


def numbers(seed: int, *shape: int) -> Tensor:
    """Dyadic numbers between -1/2 and 1/2, from integers alone."""
    entries = [((i * i * 37 + i * 11 + seed * 29) * 7 % 67 - 33) / 64 for i in range(1, 1 + math.prod(shape))]
    return torch.tensor(entries, dtype=torch.float64).reshape(shape)


class Attention(nn.Module):
    """Self-attention with two heads of width 2, and a gate where there is an activation for one."""

    def __init__(self, gate: str | None = None) -> None:
        super().__init__()
        for seed, name in enumerate(("query", "key", "value", "output", "gate"), 1):
            self.register_parameter(name, nn.Parameter(numbers(seed, 4, 4), requires_grad=False))
        self.activation = gate

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = ((x @ w).unflatten(-1, (2, 2)).transpose(0, 1) for w in (self.query, self.key, self.value))
        y = ((q @ k.mT / 2).softmax(-1) @ v).transpose(0, 1).flatten(1)
        if self.activation is not None:
            y = y * getattr(F, self.activation)(x @ self.gate)
        return y @ self.output


HIDDEN = 4 * numbers(7, 3, 4)
CHART = ff.charts.token(HIDDEN, 1, 2 * numbers(8, 2, 4))


def cylinder(u: Tensor) -> Tensor:
    return torch.stack([u[0].cos(), u[0].sin(), u[1] * 0.25])


def gated_mlp() -> nn.Module:
    mlp = ff.layers.GatedMLP(4, 6).double()
    with torch.no_grad():
        for seed, parameter in enumerate(mlp.parameters(), 11):
            parameter.copy_(numbers(seed, *parameter.shape))
    return mlp


class Unit(nn.Module):
    """An RMS norm, a gated MLP and its residual, in plain functions."""

    def __init__(self) -> None:
        super().__init__()
        for seed, (name, shape) in enumerate({"gate": (4, 6), "up": (4, 6), "down": (6, 4)}.items(), 21):
            self.register_parameter(name, nn.Parameter(numbers(seed, *shape), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        h = x * (x.pow(2).mean(-1, keepdim=True) + 2.0**-10).rsqrt()
        return x + (torch.tanh(h @ self.gate) * (h @ self.up)) @ self.down


class Plain(nn.Module):
    """An MLP without a gate, and its residual."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(numbers(24, 4, 6), requires_grad=False)
        self.down = nn.Parameter(numbers(25, 6, 4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(x @ self.up) @ self.down


#: what is certified: name -> the map, the chart and the point
SUBJECTS = {
    "flat": lambda: (ff.freeze(Attention(), HIDDEN), CHART, None),
    "frozen": lambda: (ff.freeze(Attention("silu"), HIDDEN), CHART, (0.5, -0.25)),
    "norm": lambda: (ff.freeze(Unit(), HIDDEN, ("norm",)), CHART, (0.5, -0.25)),
    "tangent": lambda: (ff.freeze(nn.Sequential(Plain(), Attention()), HIDDEN, ("activation",)), CHART, (0.25, 0.125)),
    "live": lambda: (Attention("gelu"), CHART, (0.5, -0.25)),
}  # fmt: skip
#: reading of the attention of the first layer of the shipped `python-llama`, on a prompt
LAYERS = {"layer-frozen": "frozen pattern", "layer-live": "live"}
PROMPT = "def f(x):"


def made(name: str) -> ff.Certificate:
    """The certificate of a name, made here."""
    if name in LAYERS:
        return ff.certify_layer(ff.load("python-llama"), 0, prompt=PROMPT, reading=LAYERS[name])
    mean, chart, at = SUBJECTS[name]()
    return ff.certify(mean, chart, at=at)


def verified(name: str, certificate: ff.Certificate) -> ff.Verification:
    """What the verifier says of it, here."""
    if name in LAYERS:
        return ff.verify_layer(certificate, ff.load("python-llama"))
    return ff.verify(certificate, *SUBJECTS[name]()[:2])


def said(folder: str) -> list[str]:
    """What the files of a folder claim, and what the verifier finds wrong with each."""
    files = {name: ff.Certificate.load(f"{folder}/{name}.json") for name in (*SUBJECTS, *LAYERS)}
    return [f"{name} {file.verdict} {verified(name, file).reasons}" for name, file in files.items()]
