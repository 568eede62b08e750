"""Curvature against depth in random stacks of attention and MLPs: `python -m fisherflat.lab.experiments.stacks`.

A block is `x + scale * attention(x)`, followed by `x + scale * mlp(x)` where it has an MLP; without norms, so that a
stack whose patterns and gates are frozen and whose MLPs have no activation left is affine. Weights are normal with
variance 1 / inputs, inputs standard normal; one token moves in two random directions. A trajectory is a seed: the
median of |scal| over its points, per variance of the tokens at each depth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path

import torch
from torch import nn

from fisherflat._files import whole
from fisherflat._typing import Float, Tensor
from fisherflat.layers import Gate, GatedMLP, SelfAttention
from fisherflat.spaces import charts
from fisherflat.studies.depth import Growth, Stack, growth, profile

POSITIONS = ("none", "output", "value", "projection", "key", "query")
MLPS = ("none", "plain", "gated")
READINGS = ("live", "frozen pattern", "frozen pattern+gate+mlp gate")
WIDTHS, SCALES, DEPTH, TOKENS, POINTS = (16, 64), (0.3, 1.0), 8, 6, 4


@dataclass(frozen=True)
class Kind:
    """A kind of stack: the position of the attention's gate, the MLP, the width, and the scale of what blocks add."""

    gate: str
    mlp: str
    width: int
    scale: float


class Block(nn.Module):
    """`x + scale * attention(x)`, then `x + scale * mlp(x)` where there is an MLP."""

    def __init__(self, kind: Kind, generator: torch.Generator) -> None:
        super().__init__()
        gate = None if kind.gate == "none" else Gate("sigmoid", position=kind.gate)
        self.attention = SelfAttention(kind.width, heads=2, gate=gate)
        self.mlp: nn.Module | None = {
            "none": lambda: None,
            "plain": lambda: nn.Sequential(
                nn.Linear(kind.width, 2 * kind.width, bias=False),
                nn.GELU(),
                nn.Linear(2 * kind.width, kind.width, bias=False),
            ),
            "gated": lambda: GatedMLP(kind.width, 2 * kind.width),
        }[kind.mlp]()
        self.scale = kind.scale
        self.double()
        for parameter in self.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_(noise / parameter.shape[-1] ** 0.5)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The block's output."""
        x = x + self.scale * self.attention(x)
        return x if self.mlp is None else x + self.scale * self.mlp(x)


def trajectories(kind: Kind, seeds: int, depth: int = DEPTH) -> dict[str, Float[Tensor, "depths seeds"]]:
    """|scal| after 1, 2, ... blocks, the median over points, for each reading and seed."""
    found: dict[str, list[Tensor]] = {reading: [] for reading in READINGS}
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(TOKENS, kind.width, generator=generator, dtype=torch.float64)
        basis = torch.randn(2, kind.width, generator=generator, dtype=torch.float64) / kind.width**0.5
        u = 0.5 * torch.randn(POINTS, 2, generator=generator, dtype=torch.float64)
        blocks = [Block(kind, generator) for _ in range(depth)]
        live = Stack(blocks, charts.token(hidden, -1, basis), "calibrated")
        for reading, columns in found.items():
            curvature = profile(live.read(reading), u).scalar_curvature[1:]
            columns.append(curvature.abs().quantile(0.5, 1))
    return {reading: torch.stack(columns, 1) for reading, columns in found.items()}


@dataclass(frozen=True)
class Row:
    """A kind of stack in a reading: medians over seeds after the first and the last block, and the law between them."""

    kind: Kind
    reading: str
    first: float
    last: float
    law: Growth

    @property
    def cell(self) -> str:
        """The law and the curvature after the last block, in a few characters; the power law's exponent if it holds."""
        if self.law.trajectories == 0:
            return "flat"
        sign = {"power": "", "exponential": "e ", "none": "– "}[self.law.model]
        return f"{self.last:.1g}; {sign}{self.law.rate:.2f} ({self.law.low:.2f}, {self.law.high:.2f})"


def rows(seeds: int, mlps: Sequence[str] = MLPS, widths: Sequence[int] = WIDTHS) -> Iterator[Row]:
    """A row for each kind of stack and reading."""
    for mlp, gate, width, scale in product(mlps, POSITIONS, widths, SCALES):
        kind = Kind(gate, mlp, width, scale)
        for reading, values in trajectories(kind, seeds).items():
            first, last = (values[index].quantile(0.5).item() for index in (0, -1))
            yield Row(kind, reading, first, last, growth(values))


def table(found: Sequence[Row]) -> Iterator[str]:
    """Lines of Markdown: a row for each MLP, gate and reading, a column for each width and scale."""
    columns = list(dict.fromkeys((row.kind.width, row.kind.scale) for row in found))
    yield "| MLP | gate | reading | " + " | ".join(f"{width}, {scale}" for width, scale in columns) + " |"
    yield "|" + "---|" * (3 + len(columns))
    cells = {(row.kind.mlp, row.kind.gate, row.reading, row.kind.width, row.kind.scale): row.cell for row in found}
    for mlp, gate, reading in dict.fromkeys(key[:3] for key in cells):
        short = reading.replace("pattern+gate+mlp gate", "pattern+gates")
        yield "| " + " | ".join([mlp, gate, short, *(cells[mlp, gate, reading, *column] for column in columns)]) + " |"


def save(found: Sequence[Row], path: Path) -> None:
    """All numbers, as CSV, whole or not at all."""
    lines = ["gate,mlp,width,scale,reading,first,last,law,rate,low,high,aic_power,aic_exponential,seeds"]
    for row in found:
        law = row.law
        aic = (law.aic.get("power", ""), law.aic.get("exponential", ""))
        values = (*astuple(row.kind), row.reading, row.first, row.last, law.model, law.rate, law.low, law.high, *aic)
        lines.append(",".join(map(str, (*values, law.trajectories))))
    with whole(path) as part:
        part.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Measure, print the table, and write all numbers to a file where one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6, help="random stacks of each kind, at least 2 (default: 6)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all numbers there, as CSV")
    parser.add_argument("--mlp", action="append", choices=MLPS, help="only with this MLP; may be given several times")
    parser.add_argument("--width", action="append", type=int, help=f"default: {', '.join(map(str, WIDTHS))}")
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error("--seeds must be at least 2: an interval needs a spread")
    torch.set_num_threads(1)
    found: list[Row] = []
    for row in rows(given.seeds, given.mlp or MLPS, given.width or WIDTHS):
        found.append(row)
        if given.out is not None:  # what is done is kept
            save(found, given.out)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
