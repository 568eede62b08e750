"""Curvature pushed where the protocol did not: on XOR of counts, and with patterns held.

Run `python -m fisherflat.lab.claims.pushed --out DIR --docs docs`. What follows was written before the runs.

Tasks, models and recipes are the protocol's, with ten seeds. A term `WEIGHT · mean h(log(|II|² Var / target²))` is
added to the loss every `EVERY` steps, with so many times the weight, at the first `POINTS` examples of the batch; h
is Huber's function, Var the variance of the representation there. |II| is that of the plane of inputs; for sequences,
of a plane through an example and two others. It is pushed *live*, or *held*: with the attention pattern of the
example itself, held at what the live weights make of it. Without a gate, one layer with its pattern held is affine:
there is nothing to push. Nor is there live, on XOR of counts: what such a layer reads there are mixtures of tokens
with two features, so its representation fills a plane, which is flat. (That was seen when the first run stopped
there, with the models pushed live and held done. They were kept; ungated ones are trained free.) Targets are four
times, and a quarter of, what three pilots without the term have, with seeds that count for nothing.

The rule. "Pushed up it raises accuracy" holds where the 95 % interval (BCa, over seeds) of the mean paired difference
in test accuracy, pushed up less free, lies above one point; "pushed down it lowers accuracy" where that of free less
pushed down does. It does not hold where the interval lies below one point, and is undecided otherwise. It is *not
pushed* where the interval of the mean ratio of |II|, pushed to free, reaches 1. The eight intervals are each for
itself.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from fisherflat._typing import Tensor
from fisherflat._version import __version__
from fisherflat.errors import DegenerateImmersionWarning, PrecisionWarning, without
from fisherflat.geometry import Geometry
from fisherflat.jets import Jet
from fisherflat.jets.engines import TensorAlgebra, evaluated, packed
from fisherflat.jets.graph import Graph
from fisherflat.jets.rules import Series
from fisherflat.lab.claims._figures import plain
from fisherflat.lab.claims._measures import Held
from fisherflat.lab.claims._models import Classifier
from fisherflat.lab.claims._protocol import Cell, Protocol, Unit
from fisherflat.lab.claims._push import Term
from fisherflat.lab.claims._statistics import over_units
from fisherflat.lab.claims._training import Trained, data, train
from fisherflat.parts import trace
from fisherflat.plot import OKABE_ITO

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: task, arm and reading of what is pushed
PUSHED = (
    ("xor_of_counts", "gated", "live"),
    ("xor_of_counts", "gated", "held"),
    ("ring", "gated", "held"),
    ("spirals", "gated", "held"),
)
#: what is trained without being pushed alone, for it has no curvature
FLAT = (("xor_of_counts", "ungated", "live"),)
FACTORS = {"up": 4.0, "down": 0.25}
SEEDS, PILOTS = 10, 3
WEIGHT, EVERY, POINTS = 0.02, 5, 16
#: test examples at which |II| is measured
MEASURED = 200
#: how many points of accuracy matter
MARGIN = 1.0


class Bend:
    """|II| of a representation at inputs, in units of its own spread over them, live or held.

    **Args:** `encoder`, in double precision, whose weights are read anew in each call; `example`, an input.
    """

    def __init__(self, encoder: nn.Module, reading: str, example: Tensor) -> None:
        self._encoder, self._held = encoder, reading == "held"
        given = torch.stack([example, example]) if self._held else example
        self._graph: Graph = trace(Held(encoder) if self._held else encoder, given, differentiable=True)

    def __call__(self, x: Tensor) -> Tensor:
        """The logarithm of `|II|² Var`, at those of the inputs `x` `[P, *shape]` that have a geometry, with a tape."""
        if x.dim() == 2:
            directions = torch.eye(2, dtype=x.dtype).expand(len(x), 2, 2)
        else:
            directions = torch.stack([x.roll(1, 0) - x, x.roll(2, 0) - x], 1)
        with torch.no_grad():
            good = ~self._geometry(x, directions).degenerate
        variance = self._encoder(x).var(0).mean()
        form = self._geometry(x[good], directions[good]).second_fundamental_form_norm
        return (form.square() * variance).log()

    def _geometry(self, x: Tensor, directions: Tensor) -> Geometry:
        if self._held:
            x, directions = torch.stack([x, x], 1), torch.stack([directions, torch.zeros_like(directions)], 2)
        program = self._graph.program
        assert program is not None
        algebra = TensorAlgebra(constants=program.constants(), tape=True)
        rows = torch.cat([x[None], directions.transpose(0, 1)])
        jet = Jet(packed(algebra, evaluated(algebra, self._graph, Series(rows, 2))), 2)
        with without(DegenerateImmersionWarning, PrecisionWarning):
            return Geometry(jet, "nan")


class Further(Term):
    """The term of these runs: a representation live or held, of points or of sequences."""

    def __init__(
        self, models: Sequence[Classifier], names: Sequence[str], reading: str, target: float, example: Tensor
    ) -> None:
        super().__init__(models, names, target, {"weight": WEIGHT, "every": EVERY, "points": POINTS})
        self._bends = [Bend(model.representation, reading, example) for model in self.models]

    def bend(self, index: int, x: Tensor) -> Tensor:
        """As of every term."""
        return self._bends[index](x)


@torch.no_grad()
def bend_of(found: Trained, reading: str) -> float:
    """The median over test examples of `|II|`, in units of the spread."""
    x = found.test.inputs[:MEASURED]
    return (Bend(found.model.representation, reading, x[0])(x).median() / 2).exp().item()


def trained(
    protocol: Protocol, task: str, arm: str, seeds: Sequence[int], push: tuple[str, float] | None = None,
    steps: int | None = None,
) -> list[Trained]:  # fmt: skip
    """Models of a cell; `push`, a reading and a target of |II|."""
    cell = Cell("pushed", task, arm, weight_decay=protocol.family(task)["weight_decay"])
    example = data(protocol, task, seeds[0])[0].inputs[0]
    term = None if push is None else lambda models, names: Further(models, names, *push, example)
    return train(protocol, Unit(cell, tuple(seeds)), steps, term)


def measure(out: Path, protocol: Protocol | None = None, seeds: int = SEEDS, steps: int | None = None) -> pd.DataFrame:
    """Train and measure all of it; what is in the folder `out` already is not done again.

    **Returns:** a row a model and reading: `task`, `arm`, `push` (`free`, `up` or `down`), `reading`, `seed`, `target`,
    `bend`, `accuracy` and `train_accuracy` (shares) and `loss`.
    """
    import pandas as pd

    protocol = protocol or Protocol.load()
    out.mkdir(parents=True, exist_ok=True)
    tables = []
    for task, arm, reading, push in _cells():
        path = out / f"{task}-{arm}-{reading}-{push}.parquet"
        if not path.is_file():
            target = math.nan
            if push != "free":
                pilots = pd.read_parquet(out / f"{task}-{arm}-{reading}-free.parquet")["pilot"].iloc[0]
                target = FACTORS[push] * pilots
            models = trained(protocol, task, arm, range(seeds), None if push == "free" else (reading, target), steps)
            rows = pd.DataFrame(
                {
                    "task": task, "arm": arm, "push": push, "reading": reading, "seed": model.seed, "target": target,
                    "bend": bend_of(model, reading), "accuracy": model.test_accuracy,
                    "train_accuracy": model.train_accuracy, "loss": model.loss,
                }
                for model in models
            )  # fmt: skip
            if push == "free":
                first = protocol["pilot"]
                pilots = trained(protocol, task, arm, range(first, first + PILOTS), None, steps)
                rows["pilot"] = pd.Series([bend_of(model, reading) for model in pilots]).median()
            rows.to_parquet(path, index=False)
            print(f"{path.stem}: accuracy {rows['accuracy'].mean():.3f}, |II| {rows['bend'].median():.3g}", flush=True)
        tables.append(pd.read_parquet(path))
    return pd.concat(tables, ignore_index=True)


def _cells() -> Iterator[tuple[str, str, str, str]]:
    for task, arm, reading in PUSHED:
        yield from ((task, arm, reading, push) for push in ("free", *FACTORS))
    yield from ((*cell, "free") for cell in FLAT)


def verdict(low: float, high: float, ratio: tuple[float, float]) -> str:
    """By the rule, from the interval of a loss or gain in points and that of the ratio of |II|, pushed to free."""
    if ratio[0] <= 1 <= ratio[1]:
        return "not pushed"
    return "holds" if low > MARGIN else "does not hold" if high < MARGIN else "undecided"


def settled(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each thing pushed and direction: the mean effect on accuracy in points, its interval, the verdict."""
    import numpy as np
    import pandas as pd

    rows = []
    for task, arm, reading in PUSHED:
        own = found[(found["task"] == task) & (found["arm"] == arm) & (found["reading"] == reading)]
        wide = own.pivot(index="seed", columns="push", values=["accuracy", "bend"])
        for push, sign in (("up", 1), ("down", -1)):
            effect = over_units(100 * sign * (wide["accuracy", push] - wide["accuracy", "free"]))
            turned = over_units(np.log(wide["bend", push] / wide["bend", "free"]))
            ratio, least, most = (math.exp(value) for value in (turned.value, turned.low, turned.high))
            rows.append(
                {
                    "task": task, "arm": arm, "reading": reading, "push": push, "effect": effect.value,
                    "low": effect.low, "high": effect.high, "ratio": ratio, "ratio_low": least,
                    "ratio_high": most, "free": wide["accuracy", "free"].mean(), "seeds": effect.units,
                    "verdict": verdict(effect.low, effect.high, (least, most)),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame) -> str:
    """The verdicts in Markdown."""
    lines = [
        "| task | model | pushed | \\|II\\| over that of free | free, % | effect on accuracy, points | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows.itertuples():
        ratio = f"{row.ratio:.3g} ({row.ratio_low:.3g} to {row.ratio_high:.3g})"
        word = "gain" if row.push == "up" else "loss"
        effect = f"{word} {row.effect:+.2f} ({row.low:+.2f} to {row.high:+.2f})".replace("-", "−")
        task, free = row.task.replace("_", " ").replace("xor", "XOR"), f"{100 * row.free:.1f}"
        lines.append(
            f"| {task} | {row.arm} | {row.push}, {row.reading} | {ratio} | {free} | {effect} | {row.verdict} |"
        )
    return "\n".join(lines)


def draw(rows: pd.DataFrame) -> Figure:
    """What pushing does to accuracy, with intervals, against the margin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    ax = figure.subplots()
    for index, row in enumerate(rows.itertuples()):
        change = [value if row.push == "up" else -value for value in (row.effect, row.low, row.high)]
        colour = OKABE_ITO[1 if row.push == "up" else 0]
        ax.plot(sorted(change[1:]), [index, index], color=colour, lw=1.6)
        ax.plot(change[0], index, "o", ms=4, color=colour)
    names = [f"{row.task.replace('_', ' ')}, {row.arm}, {row.push} ({row.reading})" for row in rows.itertuples()]
    ax.set_yticks(range(len(rows)), names, fontsize=7)
    ax.invert_yaxis()
    ax.axvspan(-MARGIN, MARGIN, color="0.92", zorder=0)
    ax.axvline(0, color="0.6", lw=0.7)
    ax.set_xlabel("change of test accuracy against free models, points", fontsize=8)
    plain(ax)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, train, and write table and figure."""
    parser = argparse.ArgumentParser(prog="python -m fisherflat.lab.claims.pushed", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for what is done, from which a run goes on")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the documentation (default: docs)")
    given = parser.parse_args(arguments)
    found = measure(given.out)
    (given.docs / "data").mkdir(parents=True, exist_ok=True)
    (given.docs / "images").mkdir(exist_ok=True)
    found.to_parquet(given.docs / "data" / "pushed.parquet", index=False)
    rows = settled(found)
    draw(rows).savefig(
        given.docs / "images" / "pushed.png", dpi=110, metadata={"Software": f"fisherflat {__version__}"}
    )
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
