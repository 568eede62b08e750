"""Certificates of every kind, and what they are about."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.certificates import CurvatureCertificate, digests

Document = dict[str, Any]


class Subject(NamedTuple):
    """What a certificate is about."""

    certificate: CurvatureCertificate
    mean: Callable[[Tensor], Tensor]
    chart: ff.charts.Chart


def layer(gate: ff.layers.Gate | None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return ff.layers.SelfAttention(4, heads=2, gate=gate).double()


HIDDEN = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
BASIS = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def on_three_sphere(u: Tensor) -> Tensor:
    return torch.cat([u, (1 - (u * u).sum()).sqrt()[None]])


@cache
def subject(name: str) -> Subject:
    """Certificates of every kind; do not change them in place."""
    gate = ff.layers.Gate("silu")
    chart = ff.charts.token(HIDDEN, 1, BASIS[:2])
    if name == "flat":
        mean: Any = ff.freeze(layer(None), HIDDEN)
        return Subject(ff.certify(mean, chart), mean, chart)
    if name == "deficient":
        chart = ff.charts.token(HIDDEN, 1, torch.stack([BASIS[0], 2 * BASIS[0]]))
        mean = ff.freeze(layer(None), HIDDEN)
        return Subject(ff.certify(mean, chart), mean, chart)
    if name == "curved":
        mean = layer(gate)
        return Subject(ff.certify(mean, chart, ff.Gaussian(0.3)), mean, chart)
    if name == "frozen":
        mean = ff.freeze(layer(gate), HIDDEN)
        return Subject(ff.certify(mean, chart, at=[0.5, -0.25]), mean, chart)
    if name == "box":
        mean = layer(gate)
        return Subject(ff.certify(mean, chart, at=[0.5, -0.25], radius=2.0**-16), mean, chart)
    if name == "plane":
        mean, chart = layer(gate), ff.charts.token(HIDDEN, 1, BASIS)
        return Subject(ff.certify(mean, chart, at=[0.5, -0.25, 0.125]), mean, chart)
    if name == "curve":
        chart = ff.charts.token(HIDDEN, 1, BASIS[:1])
        return Subject(ff.certify(layer(gate), chart), layer(gate), chart)
    assert name == "undecided"
    mean, chart = lambda u: torch.stack([u[0].cos(), u[0].sin(), u[1] * 0.3]), ff.charts.identity(2)
    return Subject(ff.certify(mean, chart, at=[0.3, 0.1]), mean, chart)


KINDS = ["flat", "deficient", "curved", "frozen", "box", "plane", "curve", "undecided"]
CURVED = ["curved", "frozen", "box", "plane"]


def signed(document: Document) -> Document:
    """With the digest that fits."""
    return {**document, "digest": digests.of_json({k: v for k, v in document.items() if k != "digest"})}
