"""How curvature grows with depth: aligned stacks, random ones, the trained language models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from fisherflat.lab.experiments import stacks
from fisherflat.lab.experiments.language import PROMPTS
from fisherflat.lab.reproduce._section import GATING, OWN, Claim, Section, verdict
from fisherflat.layers import BilinearAttention
from fisherflat.models import load
from fisherflat.parts import readings
from fisherflat.report import study_depth
from fisherflat.spaces import charts
from fisherflat.studies.depth import Growth, depth_profile, growth
from fisherflat.zoo import CHECKPOINTS, checkpoint

PATTERN = readings.name(["pattern"])
HELD = readings.name(["pattern", *readings.GATES])


@dataclass(frozen=True)
class Settings:
    """Sizes of the three kinds of stacks.

    **Attributes:** `seeds` of random stacks with each of the `gates`, `mlps`, `widths` and `scales`; the trained
    `models`, `points` and `resolution` of their profiles and maps; `aligned`, the depth of the aligned stack.
    """

    seeds: int = 6
    gates: tuple[str, ...] = stacks.POSITIONS
    mlps: tuple[str, ...] = ("none", "gated")
    widths: tuple[int, ...] = stacks.WIDTHS[:2]
    scales: tuple[float, ...] = stacks.SCALES
    models: tuple[str, ...] = CHECKPOINTS
    points: int = 64
    resolution: int = 15
    aligned: int = 32


QUICK = Settings(seeds=2, mlps=("none",), widths=(16,), scales=(0.3,), points=8, resolution=5, aligned=16)


def measure(settings: Settings, folder: Path) -> Section:
    """Three kinds of stacks, from closed form to trained."""
    aligned = aligned_stack(settings.aligned)
    random = list(_random(settings))
    trained, figures = [], []
    for name in settings.models:
        found = study_depth(
            load(checkpoint(name)), PROMPTS[0], points=settings.points, budget_points=min(8, settings.points),
            resolution=settings.resolution, progress=False,
        )  # fmt: skip
        if not found.complete:  # the study keeps an interrupt to itself
            raise KeyboardInterrupt
        files = found.save(folder / name)
        figures += [f"{name}/{path.name}" for path in files if path.name in ("profile_calibrated.png", "transport.png")]
        trained += [
            {"model": name, "covariance": covariance, "reading": reading, **_law(law)}
            for (covariance, reading), law in found.growth().items()
        ]
    return Section(
        "Depth: does curvature accumulate?",
        f"Aligned: {settings.aligned} residual bilinear layers that each add a(u² + v²) to one coordinate. Random: "
        f"{stacks.DEPTH} blocks x + scale · attention(x), and x + scale · mlp(x) where there is one, {settings.seeds} "
        "seeds, per variance of the tokens at each depth; intervals are 95 %, over seeds. Trained: the language models "
        f"on the prompt {PROMPTS[0]!r}, {settings.points} points within one standard deviation of the last token's "
        "state; intervals are over these points and say nothing about other prompts. Their folders hold all tables.",
        [*_aligned_claims(aligned), *_random_claims(random)],
        {"aligned": [row for row in aligned if row["layers"].bit_count() == 1], "random": random, "trained": trained},
        figures,
        asdict(settings),
    )


def aligned_stack(depth: int, a: float = 0.25) -> list[dict[str, Any]]:
    """The Gauss curvature at the apex after 1, 2, ... layers, next to 4a²L²."""
    axes = torch.eye(3, dtype=torch.float64)
    layer = BilinearAttention(axes[None, :2], axes[None, :2], a * axes[2:])
    profile = depth_profile([lambda x: x + layer(x)] * depth, charts.affine(torch.zeros(3), axes[:2]), torch.zeros(2))
    found = (profile.scalar_curvature[1:] / 2).tolist()
    return [{"layers": i, "Gauss curvature": k, "4a²L²": 4 * a**2 * i**2} for i, k in enumerate(found, 1)]


def _random(settings: Settings) -> Iterator[dict[str, Any]]:
    chosen = product(settings.mlps, settings.gates, settings.widths, settings.scales)
    for kind in (stacks.Kind(gate, mlp, width, scale) for mlp, gate, width, scale in chosen):
        for reading, values in stacks.trajectories(kind, settings.seeds).items():
            ends = {"after 1": values[0].median().item(), f"after {len(values)}": values[-1].median().item()}
            yield asdict(kind) | {"reading": reading} | ends | _law(growth(values))


def _law(law: Growth) -> dict[str, Any]:
    flat = law.trajectories == 0
    return {
        "law": "flat" if flat else law.model,
        "rate": None if flat else law.rate,
        "low": None if flat else law.low,
        "high": None if flat else law.high,
    }


def _aligned_claims(rows: list[dict[str, Any]]) -> list[Claim]:
    off = max(abs(row["Gauss curvature"] / row["4a²L²"] - 1) for row in rows)
    law = growth(torch.tensor([[row["Gauss curvature"]] for row in rows], dtype=torch.float64))
    return [
        Claim(
            GATING,
            "Curvature can accumulate under composition (aligned layers, K = 4a²L²)",
            f"off by at most {off:.1e} for {len(rows)} layers; grows like depth^{law.rate:.6g}",
            verdict(off < 1e-12),
        )
    ]


def _random_claims(rows: list[dict[str, Any]]) -> list[Claim]:
    frozen = [row for row in rows if row["reading"] == PATTERN and row["mlp"] == "none"]
    affine = [row for row in frozen if row["gate"] in ("none", "query", "key")]  # such gates are a part of the pattern
    gated = [row for row in frozen if row not in affine]
    held = [row for row in rows if row["reading"] == HELD]
    live = [row for row in rows if row["reading"] == readings.LIVE]
    grows = [row for row in gated if _grows(row)]
    powers = [row["rate"] for row in grows if row["law"] == "power"]
    exponents = f", exponents {min(powers):.2g} to {max(powers):.2g}" if powers else ""
    return [
        _flat(
            "Stacks of attention without a gate, or one on queries or keys, are flat with their patterns held", affine
        ),
        _flat("What bends the others is their gates: with these held too, every stack is flat", held),
        Claim(
            GATING,
            "Curvature accumulates in random gated stacks of attention with their patterns held",
            f"grows in {len(grows)} of {len(gated)} kinds{exponents}",
            verdict(len(grows) == len(gated) or (None if grows else False)),
        ),
        Claim(
            OWN,
            "Live, the curvature of random stacks grows with depth, gated or not",
            f"in {sum(map(_grows, live))} of {len(live)} kinds",
            verdict(all(map(_grows, live))),
        ),
    ]


def _flat(statement: str, rows: list[dict[str, Any]]) -> Claim:
    flat = sum(row["law"] == "flat" for row in rows)
    return Claim(GATING, statement, f"at every depth in {flat} of {len(rows)} kinds", verdict(flat == len(rows)))


def _grows(row: dict[str, Any]) -> bool:
    """Whether a law holds, that is, the interval of its rate excludes zero, and it is one of growth."""
    return row["law"] in ("power", "exponential") and row["rate"] > 0
