"""Accuracy and curvature of gated and ungated attention classifiers, trained again over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fisherflat.lab.demo import demo
from fisherflat.lab.experiments import train
from fisherflat.lab.reproduce._section import GATING, OWN, Claim, Section, verdict


@dataclass(frozen=True)
class Settings:
    """`seeds` of each model; `steps` of training; `resolution` of the maps, points a side; `heads` compared."""

    seeds: int = 5
    steps: int = train.Recipe.steps
    resolution: int = 121
    heads: tuple[int, ...] = (1, 2)


#: points of accuracy below which a gain is none
WORTH = 1.0
QUICK = Settings(seeds=2, steps=300, resolution=31)


def measure(settings: Settings, folder: Path) -> Section:
    """Train, measure and compare; the maps are those of the shipped pair."""
    recipe = replace(train.Recipe(), steps=settings.steps)
    runs = {
        (task, heads): train.compare(
            train.SHIPPED | {"heads": heads}, range(settings.seeds), recipe, settings.resolution, task
        )
        for task, counts in (("ring", settings.heads), ("half plane", settings.heads[:1]))
        for heads in counts
    }
    demo(settings.resolution).save(folder)
    claims = [_gain(task, heads, found) for (task, heads), found in runs.items()]
    return Section(
        "The ring: does a gate help, and does it bend?",
        f"Attention classifiers of points in the plane (width {train.SHIPPED['dim']}) are trained from "
        f"{settings.seeds} seeds with and without a gate, on a ring and, as a control, on a half plane. Differences "
        "are between models of one seed; intervals are 95 %, Student's t over seeds. Curvature is that of the "
        f"representation over the square, on {settings.resolution}² points. The maps are those of the shipped pair.",
        [*claims, *_bending(runs["ring", settings.heads[0]])],
        {"accuracy": [row for key, found in runs.items() for row in _rows(*key, found)]},
        ("curvature_maps.png",),
        asdict(settings),
    )


def _gain(task: str, heads: int, found: Mapping[str, Any]) -> Claim:
    gain = found["test_accuracy_gated_minus_ungated"]
    low, high = (100 * bound for bound in gain["interval_95"])
    words = f"{100 * gain['mean']:+.1f} points of accuracy ({low:.1f} to {high:.1f}, {len(gain['values'])} seeds)"
    many = f"{heads} head{'s' if heads > 1 else ''}"
    if task == "ring":
        better = True if low > 0 else False if high < WORTH else None
        statement = f"Gated attention does better where the decision boundary is not linear (ring, {many})"
        return Claim(GATING, statement, words, verdict(better))
    return Claim(GATING, f"and not where it is linear (half plane, {many})", words, verdict(low <= 0))


def _bending(found: Mapping[str, Any]) -> list[Claim]:
    flat, bent = (found[name]["frozen_pattern_total_curvature"]["range"] for name in ("ungated", "gated"))
    live = found["ungated"]["live_total_curvature"]["range"]
    total = "∫|K| dA from {0:.3g} to {1:.3g} over seeds"
    return [
        Claim(
            GATING, "With its pattern held, ungated attention is flat", total.format(*flat), verdict(flat == [0.0, 0.0])
        ),
        Claim(GATING, "and a gate bends it", total.format(*bent), verdict(bent[0] > 0)),
        Claim(OWN, "With nothing held, ungated attention is curved too", total.format(*live), verdict(live[0] > 0)),
    ]


def _rows(task: str, heads: int, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Accuracies with means and intervals; curvatures, which are skewed, with medians; all with their range."""
    rows = []
    for name in ("ungated", "gated"):
        for quantity, values in found[name].items():
            if isinstance(values, dict):
                about = {"task": task, "heads": heads, "model": name, "quantity": quantity.replace("_", " ")}
                mean = {"mean": values["mean"], "interval": values["interval_95"]} if "accuracy" in quantity else {}
                rows.append({**about, "median": values["median"], "range": values["range"], **mean})
    return rows
