"""Certificates whose products are large: the same numbers as by Arb alone, from either side."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.jets.balls import _slices as slices
from fisherflat.verifier import _polynomials as polynomials

WIDTH = 96


def chart(width: int, tokens: int = 6) -> ff.charts.Chart:
    generator = torch.Generator().manual_seed(5)
    point = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    return ff.charts.affine(point, torch.randn(2, tokens, width, generator=generator, dtype=torch.float64) / 8)


def attention(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(2)
    return ff.layers.SelfAttention(WIDTH, heads=4, gate=ff.layers.Gate()).to(dtype).double()


class Block(nn.Module):
    """A norm, a gated MLP with weights of very different sizes, and the residual."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.norm, self.mlp = nn.LayerNorm(WIDTH).double(), ff.layers.GatedMLP(WIDTH, 200).double()
        with torch.no_grad():
            self.mlp.up.weight[::3] *= 2.0**-90
            self.mlp.gate.weight[:, ::5] = 0
            self.mlp.down.weight[1, 1] = 5e-324

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


MODULES = {
    "float64": lambda: attention(torch.float64),
    "bfloat16": lambda: attention(torch.bfloat16),
    "sizes apart": Block,
}


def refuse(monkeypatch: pytest.MonkeyPatch, here: bool) -> list[int]:
    """All products in slices and integers, or none."""
    large: list[int] = []

    def decide(rows: int, n: int, *_: object) -> bool:
        large.append(n)
        return here and n > 1 and rows > 0

    monkeypatch.setattr(slices, "worthwhile", decide)
    monkeypatch.setattr(polynomials, "is_large", decide)
    return large


@pytest.mark.parametrize("radius", [0.0, 1e-9])
@pytest.mark.parametrize("name", sorted(MODULES))
def test_enclosures_hold_what_arb_alone_finds(name: str, radius: float, monkeypatch: pytest.MonkeyPatch) -> None:
    module, where, found = MODULES[name](), chart(WIDTH), {}
    for here in (True, False):
        with monkeypatch.context() as patch:
            asked = refuse(patch, here)
            found[here] = ff.certify(module, where, at=[0.0, 0.0], radius=radius)
            assert asked
            assert found[here].verdict == "curved"
    (low, high), (below, above) = found[True].enclosure, found[False].enclosure
    assert low <= (below + above) / 2 <= high
    assert high - low <= 2 * (above - below)
    for here in (True, False):  # each verifier confirms both
        with monkeypatch.context() as patch:
            refuse(patch, here)
            for certificate in found.values():
                verification = ff.verify(certificate, module, where)
                assert verification.ok, verification.reasons
