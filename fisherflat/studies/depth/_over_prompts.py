"""To which parts curvature is attributed, over many prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from fisherflat.errors import InputError
from fisherflat.models import Model, as_model, as_prompts
from fisherflat.models.covariances import Covariance, covariance, fitted, of_tokens
from fisherflat.models.covariances import output as output_of
from fisherflat.models.moves import Moves, few, for_each, tokens
from fisherflat.parts.readings import LIVE, canonical
from fisherflat.statistics import estimate, noise_floor
from fisherflat.studies.depth._attribution import SPLITS, budget
from fisherflat.studies.depth._budget import CurvatureBudget
from fisherflat.studies.depth._stack import Stack
from fisherflat.studies.depth._subject import in_memory

if TYPE_CHECKING:
    import pandas as pd

#: of what there are a mean and an interval over prompts
QUANTITIES = ("attributed", "own", "interaction", "share")


def attribution(
    model: Any,
    prompts: Any,
    *,
    by: str = "role",
    k: int | None = None,
    moves: str | Moves = "principal",
    positions: Any = None,
    reading: str = LIVE,
    covariance: Covariance = "words",
    output: str = "all",
    halves: bool = False,
) -> pd.DataFrame:
    """Who makes the curvature of a model's last states, over many prompts: `curvature_budget` of each, in one table.

    On each prompt a token moves where it enters the first block, along directions that are fitted to all prompts, and
    the curvature at its own state, after the last block, is split exactly.

    **Args:**

    - `model`, loaded, or what `fisherflat.load` takes; `prompts`, a text, token ids, or a sequence of those.
    - `by`: `"role"`, `"layer"` or `"layer-role"`.
    - `k` directions along which the tokens move, as `moves` says; `positions`: which token of each prompt, one choice
      or a list with one a prompt, as in `fisherflat.analyze` (of several the last; default: the last word).
    - `reading`: what is held in every block; `halves`: a layer is half of a block.
    - `covariance` of the last states, fitted to all prompts, and `output`, whose states count, as in
      `fisherflat.analyze`.

    **Returns:** a row for each part and quantity, with the columns of a `fisherflat.statistics.Estimate` over prompts
    and `noise`, the noise floor of split halves: `attributed`, which sums to the scalar curvature, `own` and
    `interaction`, as in a `CurvatureBudget`; and `share`, what is attributed over the sum of absolute values of all
    parts, from -1 to 1, which no cancellation blows up.

    **Raises:** `InputError` for an unknown `by`; what `curvature_budget` raises.

    >>> import fisherflat as ff
    >>> table = ff.attribution("python-llama", ["def mean(values):", "for key in table:"])
    >>> shares = table[table.quantity == "share"].set_index("part")["mean"]
    >>> shares.index.tolist(), bool(shares.abs().sum() <= 1 + 1e-9)
    (['pattern', 'attention_gate', 'norm', 'mlp_gate', 'activation', 'other'], True)
    """
    import pandas as pd

    if by not in SPLITS:
        raise InputError(f'by must be "role", "layer" or "layer-role", got {by!r}')
    loaded, moving, held = as_model(model), few(moves, k), canonical(reading)
    budgets = _budgets(loaded, as_prompts(prompts), moving, positions, held, covariance, output, halves, by)
    labels = [label for label in budgets[0].labels if all(label in one.labels for one in budgets)]
    rows = []
    for label in labels:
        found: dict[str, list[float]] = {quantity: [] for quantity in QUANTITIES}
        for one in budgets:
            at, total = one.labels.index(label), one.attributed.abs().sum()
            for quantity in QUANTITIES[:3]:
                found[quantity].append(getattr(one, quantity)[at].item())
            found["share"].append((one.attributed[at] / total).item() if total > 0 else float("nan"))
        for quantity, values in found.items():
            which = range(len(values))
            about = {"part": label, "quantity": quantity, **asdict(estimate(values, which))}
            rows.append(about | {"noise": noise_floor(values, which)})
    return pd.DataFrame(rows)


def _budgets(
    model: Model,
    prompts: Sequence[Any],
    moving: Moves,
    positions: Any,
    reading: str,
    given: Covariance,
    output: str,
    halves: bool,
    by: str,
) -> list[CurvatureBudget]:
    """The budget of each prompt, at the token's own state."""
    what, alone, encoded = covariance(given), output_of(output) == "moved", [model.encode(prompt) for prompt in prompts]
    places = [
        moving.place(model, prompt, where)
        for prompt, where in zip(encoded, _each(positions, len(encoded)), strict=True)
    ]
    blocks = [model.blocks(prompt) for prompt in encoded]
    with torch.no_grad():
        last = [some[-1](some[-1].hidden_states) for some in blocks]
    one = fitted(what, last, encoded)
    directions = moving.fit([some[0].hidden_states for some in blocks], encoded)
    found = []
    for prompt, place in zip(encoded, places, strict=True):
        variants = moving.variants(model, prompt, place)
        runs = [model.blocks(variant) for variant in variants]
        moved = tokens(variants[0], place)
        chart = directions.chart([run[0].hidden_states for run in runs], moved)
        gaussian = of_tokens(one, last[0].shape[-1], len(moved) if alone else len(variants[0].ids))
        stack = Stack(runs[0], chart, gaussian, halves=halves, keep=in_memory(model), moved=moved if alone else None)
        stack = stack if reading == LIVE else stack.read(reading)
        found.append(budget(stack, torch.zeros(moving.k), by, degenerate="nan"))
    return found


def _each(positions: Any, count: int) -> list[Any]:
    """What is said of each prompt's position."""
    return [None] * count if positions is None else list(for_each(positions, count))
