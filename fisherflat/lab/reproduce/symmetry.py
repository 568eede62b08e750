"""Gated MLPs as bilinear attention: the rewriting, their symmetries, and the null directions that follow."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fisherflat.gated_mlp import NullDirections, gated_units, null_directions
from fisherflat.lab.experiments.language import PROMPTS
from fisherflat.lab.reproduce._section import OWN, SYMMETRY, Claim, Section, verdict
from fisherflat.layers import MLP_ACTIVATIONS, GatedMLP
from fisherflat.models import Block, load
from fisherflat.parts import trace
from fisherflat.provers import symmetries
from fisherflat.report import study_symmetry
from fisherflat.zoo import CHECKPOINTS, checkpoint

#: the symmetries that activations break
BREAKABLE = ("inverse scaling", "exchange")


@dataclass(frozen=True)
class Settings:
    """`seeds` of random MLPs with `units` of `width`, on `inputs` standard normal inputs; the trained `models`."""

    seeds: int = 3
    width: int = 8
    units: int = 12
    inputs: int = 600
    models: tuple[str, ...] = CHECKPOINTS


QUICK = Settings(seeds=1, width=5, units=4, inputs=80)


def measure(settings: Settings, folder: Path) -> Section:
    """Random MLPs with every activation, and the MLPs of the language models."""
    null, table = [], []
    for activation in MLP_ACTIVATIONS:
        for seed in range(settings.seeds):
            mlp, x = _random(activation, seed, settings)
            null.append({"activation": activation, "seed": seed, **_null(null_directions(mlp, x))})
        table.append({"activation": activation, **_symmetries(symmetries(mlp).to_dict("records"))})
    trained, figures = [], []
    for name in settings.models:
        model = load(checkpoint(name))
        errors = {block.index: _error(block) for block in model.blocks(PROMPTS[0])}
        found = study_symmetry(model, list(PROMPTS), progress=False)
        files = found.save(folder / name)
        figures += [f"{name}/{path.name}" for path in files if path.name == "strength.png"]
        trained += [
            {
                "model": name,
                "layer": layer,
                "units": len(units),
                "rewritten": errors[layer],
                **_quantiles(units.strength),
            }
            for layer, units in found.table.groupby("layer")
        ]
    return Section(
        "Gated MLPs: rank-1 bilinear attention, and what breaks its symmetries",
        f"Random gated MLPs of width {settings.width} with {settings.units} units, {settings.seeds} seeds, "
        f"{settings.inputs} standard normal inputs, for every activation; null directions are those of the Fisher "
        f"metric of the weights. Trained: the MLPs of the language models on {len(PROMPTS)} prompts; rewritten: the "
        "relative error of the MLP read as bilinear attention; the strength is how far inverse scaling is broken, 0 "
        "where it holds (quantiles over units).",
        [_rewritten(trained), *_broken(table), _counted(null), _strength(trained)],
        {"symmetries": table, "null_directions": null, "trained": trained},
        figures,
        asdict(settings),
    )


def _random(activation: str, seed: int, settings: Settings) -> tuple[GatedMLP, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mlp = GatedMLP(settings.width, settings.units, activation).double()
        return mlp, torch.randn(settings.inputs, settings.width, dtype=torch.float64)


@torch.no_grad()
def _error(block: Block) -> float:
    """How far an MLP, read as bilinear attention, is from its own graph on its own inputs, relative."""
    x = block.mlp_input.double()
    expected, found = trace(block.mlp, x)(x), gated_units(block.mlp).as_bilinear_attention()(x)
    return ((found - expected).abs().max() / expected.abs().max()).item()


def _symmetries(rows: list[dict[str, Any]]) -> dict[str, str]:
    """For each symmetry whether it holds, and the kind of evidence."""
    return {row["symmetry"]: f"{'holds' if row['preserved'] else 'broken'} ({row['kind']})" for row in rows}


def _null(found: NullDirections) -> dict[str, Any]:
    return {"null directions": found.dimension, "generators": found.predicted, "residual": found.residual,
            "gap": found.gap}  # fmt: skip


def _quantiles(strength: Any) -> dict[str, float]:
    return {f"{100 * q:.0f} %": float(strength.quantile(q)) for q in (0.05, 0.5, 0.95)}


def _rewritten(rows: list[dict[str, Any]]) -> Claim:
    off = max(row["rewritten"] for row in rows)
    statement = "A gated MLP is bilinear attention over static keys and values, with a query factor and a key factor"
    return Claim(SYMMETRY, statement, f"rewritten to {off:.1e}, {len(rows)} trained MLPs", verdict(off < 1e-12))


def _broken(table: list[dict[str, Any]]) -> list[Claim]:
    holds = {name: [row["activation"] for row in table if row[name].startswith("holds")] for name in BREAKABLE}
    tested = any(row[name].endswith("(test)") for row in table for name in BREAKABLE)
    how = "some by test alone" if tested else "each by identity, proof or counterexample"
    return [
        Claim(
            SYMMETRY,
            "A nonlinearity on one factor breaks the exchange symmetry",
            f"exchange holds for {', '.join(holds['exchange'])} only, {how}",
            verdict(holds["exchange"] == ["identity"]),
        ),
        Claim(
            SYMMETRY,
            "and, if it is not homogeneous, the inverse scaling symmetry as well",
            f"inverse scaling holds for {', '.join(holds['inverse scaling'])} only, {how}",
            verdict(set(holds["inverse scaling"]) == {"identity", "relu", "relu2"}),
        ),
    ]


def _counted(rows: list[dict[str, Any]]) -> Claim:
    right = sum(row["null directions"] == row["generators"] for row in rows)
    return Claim(
        OWN,
        "Each continuous symmetry is a null direction of the Fisher metric of the weights, and there are no others: "
        "2 a unit where the activation is homogeneous, else 1",
        f"so for {right} of {len(rows)} MLPs, smallest gap {min(row['gap'] for row in rows):.1e}",
        verdict(right == len(rows)),
    )


def _strength(rows: list[dict[str, Any]]) -> Claim:
    low, high = min(row["50 %"] for row in rows), max(row["50 %"] for row in rows)
    statement = "Trained SiLU units stay far from the symmetry of a homogeneous activation (broken strength above 0.1)"
    return Claim(OWN, statement, f"medians by layer from {low:.2g} to {high:.2g}", verdict(low > 0.1))
