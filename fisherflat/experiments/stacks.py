"""Curvature against depth in random stacks of attention: `python -m fisherflat.experiments.stacks`.

Each block is `x + scale * attention(x)`, so that with its patterns frozen an ungated stack is affine. Weights are
normal with variance 1 / width, inputs standard normal; one token moves in two random directions. A trajectory is a
seed: the median of |scal| over its points, per variance of the tokens at each depth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import nn

from fisherflat import charts
from fisherflat._typing import Float, Tensor
from fisherflat.depth import Growth, Stack, depth_profile, freeze_stack, growth
from fisherflat.layers import Gate, SelfAttention

POSITIONS = (None, "output", "value", "projection", "query")
WIDTHS, SCALES, DEPTH, TOKENS, POINTS = (16, 48), (0.3, 1.0), 8, 6, 4


class ResidualAttention(nn.Module):
    """`x + scale * attention(x)`."""

    def __init__(self, width: int, position: str | None, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        gate = None if position is None else Gate("sigmoid", position=position)
        self.attention, self.scale = SelfAttention(width, heads=2, gate=gate).double(), scale
        for parameter in self.attention.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_(noise / width**0.5)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The block's output."""
        return x + self.scale * self.attention(x)


def trajectories(
    width: int, position: str | None, scale: float, seeds: int, depth: int = DEPTH
) -> dict[str, Float[Tensor, "depths seeds"]]:
    """|scal| after 1, 2, ... blocks, the median over points, for each reading and seed."""
    found: dict[str, list[Tensor]] = {"live": [], "frozen pattern": []}
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(TOKENS, width, generator=generator, dtype=torch.float64)
        basis = torch.randn(2, width, generator=generator, dtype=torch.float64) / width**0.5
        u = 0.5 * torch.randn(POINTS, 2, generator=generator, dtype=torch.float64)
        chart = charts.token(hidden, -1, basis)
        blocks = [ResidualAttention(width, position, scale, generator) for _ in range(depth)]
        live = Stack(blocks, chart, "calibrated").graphs
        for reading, stack in (("live", live), ("frozen pattern", freeze_stack(live, chart.point))):
            profile = depth_profile(stack, chart, u, "calibrated")
            found[reading].append(profile.scalar_curvature[1:].abs().quantile(0.5, 1))
    return {reading: torch.stack(columns, 1) for reading, columns in found.items()}


def rows(seeds: int) -> Iterator[tuple[str, ...]]:
    """A row of the table for each width, scale, gate position and reading."""
    for width in WIDTHS:
        for scale in SCALES:
            for position in POSITIONS:
                for reading, values in trajectories(width, position, scale, seeds).items():
                    ends = [f"{values[index].quantile(0.5).item():.2g}" for index in (0, -1)]
                    yield str(width), str(scale), position or "none", reading, *ends, _law(growth(values))


def _law(law: Growth) -> str:
    if law.trajectories == 0:
        return "flat at every depth"
    interval = f"({law.low:.2f} to {law.high:.2f})"
    return {
        "power": f"depth^{law.rate:.2f} {interval}",
        "exponential": f"exp({law.rate:.2f} depth) {interval}",
        "none": f"none; exponent {law.rate:.2f} {interval}",
    }[law.model]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6, help="random stacks of each kind, at least 2 (default: 6)")
    seeds = parser.parse_args().seeds
    if seeds < 2:
        parser.error("--seeds must be at least 2: an interval needs a spread")
    torch.set_num_threads(1)
    print(f"| width | scale | gate | reading | after 1 | after {DEPTH} | law |\n|---|---|---|---|---|---|---|")
    for row in rows(seeds):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
