"""A trained model's depth in one go: profiles in several readings, budgets, growth and maps of one prompt's token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fisherflat._progress import progress as bar
from fisherflat.errors import InputError
from fisherflat.models import Model
from fisherflat.models.moves import Moves, label, parse
from fisherflat.parts import readings as named
from fisherflat.studies.depth._budget import budget
from fisherflat.studies.depth._maps import curvature_fields
from fisherflat.studies.depth._profile import profile
from fisherflat.studies.depth._result import DepthStudy
from fisherflat.studies.depth._stack import Stack
from fisherflat.studies.depth._subject import in_memory, on_prompt


def study(
    model: Model,
    prompt: Any,
    dim: int | None = None,
    points: int = 64,
    *,
    moves: str | Moves = "principal",
    position: int | str | None = None,
    readings: Sequence[str] | None = None,
    halves: bool = True,
    budget_points: int = 16,
    resolution: int = 15,
    seed: int = 0,
    progress: bool = True,
) -> DepthStudy:
    """Where a model's blocks make curvature, by what, how it grows, and how much of it is the gates'.

    **Args:**

    - `model`, from `fisherflat.load`; `prompt`, a text or token ids.
    - `moves`, along what a token moves where it enters the first block (`fisherflat.moves.parse`), in `dim` directions,
      from 2; `position`, which token, or `"together"` for all words (default: the last word, or the last place where
      one of the words stands that move).
    - `points`, of the profiles, the first the token's own state, the others drawn with `seed` from within one unit.
    - `readings`, names as in `fisherflat.readings`. Default: live; the attention patterns frozen; and, where there are
      gates, those frozen, with and without the patterns. Parts are held where the chart's point arrives at them.
    - `halves`, whether to look within blocks too, behind the attention.
    - `budget_points`, the first so many of the points for the budgets, 0 for none; `resolution`, of the maps (for `dim`
      2), points a side, 0 for none; `progress`, show a bar.

    A model whose weights stay on disk is traced block by block, anew in each pass.

    **Returns:** a `DepthStudy`. Ctrl-C ends it early: `.complete` is false and what was done is there.

    **Raises:** `InputError`, `CheckpointError` for a prompt or arguments that cannot be used, `TraceError` for blocks
    that cannot be read.
    """
    moving = parse(moves, dim)
    if moving.dim < 2:
        raise InputError(f"dim must be at least 2, got {moving.dim} ({moving}): a curve has no curvature of its own")
    if points < 1 or budget_points < 0 or resolution < 0 or resolution == 1:
        raise InputError("points must be at least 1, budget_points at least 0, resolution 0 or at least 2")
    chosen = None if readings is None else [named.canonical(reading) for reading in readings]
    encoded = model.encode(prompt)
    where = label(encoded, moving.place(model, encoded, position))
    about = {**moving.settings, "in words": str(moving), "unit": moving.unit}
    settings = {"moves": about, "points": points, "budget_points": min(points, budget_points), "seed": seed}
    found = DepthStudy(model.name, encoded.text, where, settings)
    try:
        with bar(progress) as step:
            step("reading the blocks", 0, None)
            given = on_prompt(model, encoded, moving, position)
            stack = Stack(given.blocks, given.chart, "calibrated", halves=halves, keep=in_memory(model))
            u = moving.points(points, seed)
            found.roles = stack.roles
            chosen = chosen if chosen is not None else usual(stack.roles)
            maps = moving.dim == 2 and resolution > 0
            total = len(chosen) + (budget_points > 0) + maps
            for done, reading in enumerate(chosen):
                step(f"profile, {reading}", done, total)
                found.profiles[reading] = profile(stack.read(reading), u, degenerate="nan")
            if budget_points:
                step("budget", len(chosen), total)
                finest = budget(stack.at_the_end(), u[:budget_points], degenerate="nan")
                found.budgets = {"role": finest.by("role"), "layer": finest.by("layer"), "layer-role": finest}
            if maps:
                step("maps", total - 1, total)
                found.maps = curvature_fields(stack, (-1.0, 1.0, -1.0, 1.0), resolution)
        found.complete = True
    except KeyboardInterrupt:
        pass
    return found


def usual(roles: Sequence[str]) -> list[str]:
    """The readings that tell most of a model with these roles, for their price: of patterns and gates."""
    pattern, gates = [role for role in roles if role == "pattern"], [role for role in roles if role in named.GATES]
    return list(dict.fromkeys(named.name(held) for held in ((), pattern, gates, (*pattern, *gates))))
