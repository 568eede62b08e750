"""Flat or curved, in which coordinates: `python -m fisherflat.lab.experiments.systems`.

The systems that the reading of gated MLPs as attention leans on, each as a small random layer, with a certificate for
each choice of what moves and what is held. Weights and inputs are normal, the covariance is 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from fisherflat import layers
from fisherflat.certificates import CurvatureCertificate
from fisherflat.parts import freeze, readings
from fisherflat.provers import certify
from fisherflat.spaces import charts
from fisherflat.spaces.charts import Chart
from fisherflat.verifier import verify

Layer = TypeVar("Layer", bound=nn.Module)

WIDTH, OTHER, TOKENS, UNITS, KERNEL = 6, 5, 4, 8, 3


@dataclass(frozen=True)
class System:
    """A row of the table: a map of what moves, with the parts of some roles held, and its chart."""

    name: str
    moves: str
    held: tuple[str, ...]
    mean: Callable[[Tensor], Tensor]
    chart: Chart


def systems(seed: int = 0) -> Iterator[System]:
    """All rows of the table."""
    random = torch.Generator().manual_seed(seed)
    for family in (_memories, _convolutions, _pooling, _networks):
        yield from family(random)


def proved(system: System) -> tuple[CurvatureCertificate, bool]:
    """The certificate of a row at its chart's point, and whether the verifier confirms it."""
    certificate = certify(system.mean, system.chart, at=(0.0,) * system.chart.k)
    return certificate, verify(certificate, system.mean, system.chart).ok


def _memories(random: torch.Generator) -> Iterator[System]:
    key, value = _normal(random, UNITS, WIDTH), _normal(random, UNITS, WIDTH)
    gate, x = _chart(random, UNITS), _chart(random, WIDTH)
    for activation in ("relu", "gelu"):
        memory = layers.KeyValueMemory(key, value, activation)
        name = f"key-value memory, {activation}"
        yield _row(name, "coefficients", memory.recall, gate)
        yield _row(name, "input", memory, x, "activation")
        yield _row(name, "input", memory, x)
    for activation in ("identity", "silu"):
        mlp = _filled(layers.GatedMLP(WIDTH, UNITS, activation), random)
        yield _row(f"gated MLP, {activation}", "input", mlp, x, "mlp_gate")
        yield _row(f"gated MLP, {activation}", "input", mlp, x)


def _convolutions(random: torch.Generator) -> Iterator[System]:
    x = _chart(random, TOKENS, WIDTH)
    for activation in ("identity", "sigmoid"):
        layer = _filled(layers.GatedConv1d(WIDTH, KERNEL, activation, bias=True), random)
        yield _row(f"gated convolution, {activation}", "input", layer, x, "mlp_gate")
        yield _row(f"gated convolution, {activation}", "input", layer, x)


def _pooling(random: torch.Generator) -> Iterator[System]:
    x, y = _chart(random, WIDTH), _chart(random, OTHER)
    for activation in ("identity", "tanh"):
        layer = _filled(layers.LowRankBilinearPooling(WIDTH, OTHER, UNITS, WIDTH, activation, bias=True), random)
        joined, both = _joined(layer, x, y)
        each = charts.affine(both.point, torch.stack([joined.join(x.basis[0], None), joined.join(None, y.basis[0])]))
        name = f"bilinear pooling, {activation}"
        yield _row(name, "x", partial(layer, y=y.point), x)
        yield _row(name, "y", partial(layer, x.point), y)
        yield _row(name, "one direction of each", joined, each)
        yield _row(name, "x and y", joined, both)
        yield _row(name, "x and y", joined, both, "mlp_gate", *_activations(activation))


def _networks(random: torch.Generator) -> Iterator[System]:
    x, y = _chart(random, TOKENS, WIDTH), _chart(random, TOKENS + 1, OTHER)
    for activation in ("identity", "relu"):
        layer = layers.BilinearAttentionNetwork(WIDTH, OTHER, UNITS, UNITS, WIDTH, glimpses=2, activation=activation)
        layer = _filled(layer, random)
        joined, both = _joined(layer, x, y)
        name = f"bilinear attention network, {activation}"
        pattern = layer.pattern(x.point, y.point).detach()
        weights = charts.affine(pattern, _normal(random, 2, *pattern.shape))
        yield _row(name, "attention map", partial(layer.pooled, x=x.point, y=y.point), weights)
        yield _row(name, "X", partial(layer, y=y.point), x, "pattern")
        yield _row(name, "Y", partial(layer, x.point), y, "pattern")
        yield _row(name, "X and Y", joined, both, "pattern")
        yield _row(name, "X and Y", joined, both, "pattern", "attention_gate", *_activations(activation))
        yield _row(name, "X", partial(layer, y=y.point), x)
        yield _row(name, "X and Y", joined, both)


def _activations(activation: str) -> list[str]:
    """What else has to be held: a second factor that is not affine stays live when the first one is held."""
    return [] if activation == "identity" else ["activation"]


def _row(name: str, moves: str, mean: Callable[[Tensor], Tensor], chart: Chart, *held: str) -> System:
    return System(name, moves, held, freeze(mean, chart.point, held) if held else mean, chart)


def _joined(layer: nn.Module, x: Chart, y: Chart) -> tuple[layers.Joined, Chart]:
    """Both arguments as one, moving together."""
    joined = layers.Joined(layer, x.point.shape, y.point.shape)
    directions = [joined.join(*pair) for pair in zip(x.basis, y.basis, strict=True)]
    return joined, charts.affine(joined.join(x.point, y.point), torch.stack(directions))


def _chart(random: torch.Generator, *shape: int) -> Chart:
    return charts.affine(_normal(random, *shape), _normal(random, 2, *shape))


def _filled(layer: Layer, random: torch.Generator) -> Layer:
    """The layer in float64 with normal weights of variance 1 / inputs."""
    layer = layer.double().requires_grad_(False)
    for parameter in layer.parameters():
        parameter.copy_(_normal(random, *parameter.shape) / max(1, parameter[0].numel()) ** 0.5)
    return layer


def _normal(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=random, dtype=torch.float64)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs (default: 0)")
    seed = parser.parse_args().seed
    torch.set_num_threads(1)
    print("| system | moves | reading | verdict | sectional curvature | verified |\n|---|---|---|---|---|---|")
    for system in systems(seed):
        certificate, verified = proved(system)
        bounds = certificate.enclosure if certificate.verdict == "curved" else None
        curvature = "" if bounds is None else f"{float(bounds[0]):.4g}"
        reading = readings.name(system.held)
        cells = (system.name, system.moves, reading, certificate.verdict, curvature, "yes" if verified else "no")
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
