"""Attention classifiers of points and of sequences, whose representation is what a linear read-out reads."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from fisherflat._typing import Tensor
from fisherflat.lab.claims._protocol import Cell, Protocol
from fisherflat.layers import Gate, SelfAttention

#: features of a token, by task, where they are not two
FEATURES = {"majority": 1, "hull": 3}
#: of the normalisation, whose input may be small
_EPS = 1e-6


def rowwise(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer that acts on each vector `[..., d]`, applied to a matrix of them.

    Where weights are batched over models, that is one product a model, not one an example.
    """
    return layer(x) if x.dim() <= 2 else layer(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


class Attention(SelfAttention):
    """Self-attention whose pattern may be given, and which computes only the first tokens if no others are read."""

    def weights(self, x: Tensor, count: int | None = None) -> Tensor:
        """The attention weights `[..., heads, count, n]` of the first tokens of `x` `[..., n, d]`, by default all."""
        first = x[..., :count, :]
        query = self._split(self._gated("query", rowwise(self.query, first), first))
        key = self._split(self._gated("key", rowwise(self.key, x), x))
        return (query @ key.transpose(-2, -1) / math.sqrt(self.width // self.heads)).softmax(-1)

    def read(self, x: Tensor, weights: Tensor) -> Tensor:
        """What tokens `x` `[..., n, d]` give with attention weights `[..., heads, count, n]`."""
        first = x[..., : weights.shape[-2], :]
        value = self._split(self._gated("value", rowwise(self.value, x), x))
        mixed = (weights @ value).transpose(-3, -2).flatten(-2)
        return self._gated("projection", rowwise(self.output, self._gated("output", mixed, first)), first)

    def _gated(self, position: str, y: Tensor, x: Tensor) -> Tensor:
        return y * rowwise(self.gate, x) if self.gate is not None and self.gate.position == position else y


class Layer(nn.Module):
    """Attention with what an arm adds: a norm before it, a nonlinearity behind it, a residual around it."""

    def __init__(self, width: int, heads: int, arm: dict[str, Any], residual: bool, norm: bool) -> None:
        super().__init__()
        gate = Gate(arm["gate"], position=arm["position"]) if "gate" in arm else None
        self.attention = Attention(width, heads, gate=gate)
        self.mix = nn.Linear(width, width, bias=False) if "plain" in arm else None
        self.norm = nn.RMSNorm(width, eps=_EPS, elementwise_affine=False) if norm else None
        self.residual = residual
        if arm.get("constant"):
            nn.init.zeros_(self.attention.gate.projection.weight)  # type: ignore[union-attr]

    def weights(self, x: Tensor, count: int | None = None) -> Tensor:
        """The attention weights of the first tokens of `x` `[..., n, d]`, by default all."""
        return self.attention.weights(x if self.norm is None else self.norm(x), count)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """As many tokens as there are rows of attention weights."""
        y = self.attention.read(x if self.norm is None else self.norm(x), weights)
        if self.mix is not None:
            y = rowwise(self.mix, nn.functional.silu(y))
        return x[..., : weights.shape[-2], :] + y if self.residual else y


class Encoder(nn.Module):
    """The representation `[..., width]`: of a point, read at its token; of a sequence, the mean over its tokens."""

    def __init__(
        self,
        features: int,
        width: int,
        context: int,
        seed: int,
        depth: int = 1,
        heads: int = 1,
        arm: dict[str, Any] | None = None,
        residual: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(features, width)
        self.context = nn.Parameter(torch.randn(context, width)) if context else None
        layers = []
        for index in range(depth):
            torch.manual_seed(1000 * seed + index + 1)  # so that what all arms have starts the same in each layer
            layers.append(Layer(width, heads, arm or {}, residual, norm))
        self.layers = nn.ModuleList(layers)

    def tokens(self, x: Tensor) -> Tensor:
        """`[..., n, width]` of points `[..., 2]` or sequences `[..., n, features]`."""
        if self.context is None:
            return rowwise(self.embedding, x)
        carrier = rowwise(self.embedding, x).unsqueeze(-2)
        return torch.cat([carrier, self.context.expand(*x.shape[:-1], *self.context.shape)], -2)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """The representation of inputs `x`, with all patterns held at what they are for inputs `at`, if given."""
        tokens = self.tokens(x)
        held = None if at is None else self.tokens(at)
        layers: list[Any] = list(self.layers)
        for index, layer in enumerate(layers):
            read = 1 if self.context is not None and index + 1 == len(layers) else None
            weights = layer.weights(tokens if held is None else held, read)
            tokens, held = layer(tokens, weights), None if held is None else layer(held, weights)
        return tokens.mean(-2) if self.context is None else tokens[..., 0, :]


class Classifier(nn.Module):
    """`representation`, an `Encoder`, with a linear `readout`."""

    def __init__(self, features: int, width: int, context: int, seed: int, **shape: Any) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * seed)
            self.readout = nn.Linear(width, 1)
            self.representation = Encoder(features, width, context, seed, **shape)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[...]`."""
        return self.readout(self.representation(x)).squeeze(-1)


def classifier(protocol: Protocol, cell: Cell, seed: int) -> Classifier:
    """The untrained model of a cell; with one seed, arms start from the same weights where they have the same."""
    family, arm = protocol.family(cell.task), protocol["arms"][cell.arm]
    return Classifier(
        FEATURES.get(cell.task, 2), arm.get("width", family["width"]), family["context"], seed,
        depth=cell.depth, heads=cell.heads, arm=arm, residual=cell.residual, norm=cell.norm,
    )  # fmt: skip


def trained_names(model: nn.Module, arm: dict[str, Any]) -> list[str]:
    """The names of the parameters that are trained: all but the gates that are held constant."""
    return [name for name, _ in model.named_parameters() if not (arm.get("constant") and ".gate." in name)]


def parameters(model: nn.Module, arm: dict[str, Any]) -> int:
    """How many parameters are trained."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return sum(sizes[name] for name in trained_names(model, arm))
