"""Raw tables of claims as a run would write them, with effects that are known since they were put in."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from fisherflat.lab.claims._selection import PLAIN

#: of the measures that the protocol's tests name, and some of the others
MEASURES = tuple(
    f"{quantity}:{reading}:{metric}"
    for quantity, reading, metric in itertools.product(
        ("scalar_median", "scalar_mean", "total_absolute_gauss", "second_fundamental_norm", "image_size", "log_volume"),
        ("live", "held"),
        ("unit", "calibrated", "whitened"),
    )
) + tuple(f"proxy_{h}:live:unit" for h in ("0.01", "0.1", "0.5"))


def simulated(
    protocol: Any,
    seed: int,
    *,
    groups: tuple[str, ...] = ("main", "linear", "sequences", "depth", "causes", "two heads"),
    gain: float = 0.0,
    bent: float = 0.0,
    along: float = 0.0,
    deeper: float = 0.0,
    spread: float = 0.005,
    seeds: int | None = None,
    measures: tuple[str, ...] = MEASURES,
) -> pd.DataFrame:
    """A table of models for some groups of a protocol.

    **Args:** `gain`, how much more accurate gated arms are where the boundary is nonlinear; `bent`, how much larger the
    log10 of their measures is; `along`, the correlation of accuracy and measures within each task; `deeper`, the slope
    of log10 of the measures on log10 of depth; `spread`, the standard deviation of accuracies over seeds; `seeds`, at
    most so many a cell; `measures`, the columns of them.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for group in protocol["groups"]:
        if group["name"] not in groups:
            continue
        axes = [group.get(name, value) for name, value in PLAIN.items()]
        for task, arm in itertools.product(group["tasks"], group["arms"]):
            about = protocol["tasks"][task]
            for shape in itertools.product(*axes):
                rows += [
                    {
                        "task": task, "family": about["family"], "boundary": about["boundary"], "arm": arm,
                        **dict(zip(PLAIN, shape, strict=True)), "width": 16,
                        "weight_decay": protocol["families"][about["family"]]["weight_decay"], "shuffled": False,
                        "seed": number, "pilot": False, "parameters": 1500, "steps": 1000, "loss": 0.3,
                    }
                    for number in range(min(group["seeds"], seeds or group["seeds"]))
                ]  # fmt: skip
    table = pd.DataFrame(rows).drop_duplicates(["task", "arm", *PLAIN, "seed"]).reset_index(drop=True)
    gated = table["arm"].str.startswith("gated").to_numpy()
    own = rng.normal(size=len(table))
    table["test_accuracy"] = 0.85 + spread * own + gain * (gated & (table["boundary"] == "nonlinear"))
    table["train_accuracy"] = table["test_accuracy"] + 0.01
    for column in measures:
        shared = along * own + (1 - along**2) ** 0.5 * rng.normal(size=len(table))
        table[column] = 10.0 ** (0.3 * shared + bent * gated + deeper * np.log10(table["depth"]))
    return table
