"""How much the choice of a chart decides: the measurements behind docs/charts.md.

`python -m fisherflat.lab.experiments.what_moves MODEL TEXT TEXT ...` prints them for a model and some prompts (default:
`PROMPTS`), and the coverage of the intervals. Five minutes on one core for six layers.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fisherflat.models import PARTS, Encoded, Model
from fisherflat.models.moves import median_distances
from fisherflat.spaces.charts import principal_directions

if TYPE_CHECKING:
    import pandas as pd

#: what moves, and where
CHOICES = (("principal", "spread"), ("principal", "together"), ("random:0", "spread"), ("random:1", "spread"))
PROMPTS = [
    "The cat sat on the mat, and the dog barked at the bird.",
    "A quick brown fox jumps over the lazy dog near the river bank.",
    "Stock markets fell sharply on Monday, after the central bank raised its rates.",
    "She opened the window because the room had become too warm.",
    "Water boils at a lower temperature on high mountains.",
    "The committee has not yet decided who will write the report.",
    "Two trains left the station at noon, one of them going north.",
    "My grandmother learned to play the piano when she was seventy.",
]


def spread(model: Model, prompts: Sequence[Encoded], dim: int = 2) -> pd.DataFrame:
    """What special tokens and outliers would do to the principal directions of what enters each part.

    **Returns:** a row a layer and part: the furthest word and the furthest special token, in median distances of words
    from the median word; the share of the spread that the first direction has, of the words and of all tokens; and the
    cosine of the largest angle between the two planes (0 where one of them has a direction that is orthogonal to the
    other).
    """
    import pandas as pd

    runs = [model.blocks(prompt) for prompt in prompts]
    ordinary = torch.cat([torch.tensor([not special for special in prompt.special]) for prompt in prompts])
    rows: list[dict[str, Any]] = []
    for layer in range(len(runs[0])):
        blocks = [run[layer] for run in runs]
        for part in PARTS:
            states = torch.cat([(block if part == "block" else getattr(block, part)).input for block in blocks])
            words = states[ordinary]
            far = median_distances(states, words)
            planes = [principal_directions(some, dim) for some in (words, states)]
            first, second = (torch.linalg.qr(plane.T).Q for plane in planes)
            rows.append(
                {
                    "layer": layer,
                    "part": part,
                    "furthest word": far[ordinary].max().item(),
                    "furthest special": far[~ordinary].max().item() if not ordinary.all() else float("nan"),
                    "first share, words": (planes[0][0].square().sum() / words.var(0).sum()).item(),
                    "first share, all": (planes[1][0].square().sum() / states.var(0).sum()).item(),
                    "cosine": torch.linalg.svdvals(first.T @ second)[-1].item(),
                }
            )
    return pd.DataFrame(rows)


def by_choice(model: Model, texts: Sequence[Any], points: int = 4) -> pd.DataFrame:
    """The live curvature of each layer and part by what moves, a row a layer and part, a column a choice."""
    import pandas as pd

    from fisherflat.report import analyze
    from fisherflat.statistics import by_group

    columns = {}
    for moves, where in CHOICES:
        found = analyze(
            model, texts, moves=moves, positions=where, points=points, parts=PARTS, readings=["live"], progress=False
        )
        groups = by_group(found.table, ["layer", "part"]).set_index(["layer", "part"])
        columns[f"{moves}, {where}"] = [
            f"{row.mean:+.2g} [{row.low:.2g}, {row.high:.2g}]" for row in groups.itertuples()
        ]
        index = groups.index
    return pd.DataFrame(columns, index=index)


def first_token(model: Model, texts: Sequence[Any]) -> pd.DataFrame:
    """The median |scalar curvature| of each attention where the first token of the sequence moves, and elsewhere."""
    import pandas as pd

    from fisherflat.report import analyze

    columns = {}
    for name, where in (("first token", [0]), ("elsewhere", "spread")):
        found = analyze(model, texts, positions=where, points=1, parts=["attention"], readings=["live"], progress=False)
        columns[name] = found.table.scalar_curvature.abs().groupby(found.table.layer).median()
    return pd.DataFrame(columns)


def coverage(sizes: Sequence[int] = (2, 3, 5, 8, 15, 30), runs: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How often the 95 % interval of some clusters covers the mean, where cluster means are normal or log-normal."""
    import pandas as pd

    from fisherflat.statistics import estimate

    rng = np.random.default_rng(seed)
    laws: dict[str, tuple[Callable[[int], Any], float]] = {
        "normal": (rng.standard_normal, 0.0),
        "log-normal": (lambda n: rng.lognormal(size=n), math.exp(0.5)),
    }
    rows = []
    for clusters in sizes:
        row: dict[str, Any] = {"clusters": clusters}
        for law, (draw, truth) in laws.items():
            found = [estimate(draw(clusters), range(clusters), seed=run) for run in range(runs)]
            row[law] = sum(one.low <= truth <= one.high for one in found) / runs
        rows.append(row)
    return pd.DataFrame(rows)


def main(arguments: Sequence[str]) -> None:
    """Print all of it."""
    from fisherflat.models import load

    if not arguments:
        sys.exit("usage: python -m fisherflat.lab.experiments.what_moves MODEL [TEXT ...]")
    model, texts = load(arguments[0]), list(arguments[1:]) or PROMPTS
    warnings.simplefilter("ignore")
    print(spread(model, [model.encode(text) for text in texts]).to_string(index=False, float_format="{:.2f}".format))
    print(by_choice(model, texts).to_string())
    print(first_token(model, texts).to_string())
    print(coverage().to_string(index=False))


if __name__ == "__main__":
    main(sys.argv[1:])
