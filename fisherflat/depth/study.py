"""A trained model's depth in one go: profiles in several readings, budgets, growth and maps of one prompt's token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fisherflat import charts
from fisherflat.analysis.analyze import moving_positions
from fisherflat.analysis.measure import sample_points
from fisherflat.checkpoints import Model
from fisherflat.depth.budget import curvature_budget
from fisherflat.depth.maps import curvature_fields
from fisherflat.depth.profile import depth_profile
from fisherflat.depth.stack import Stack, freeze_stack
from fisherflat.depth.study_result import GATES, DepthStudy
from fisherflat.errors import InputError
from fisherflat.family import Gaussian


def study(
    model: Model,
    prompt: Any,
    dim: int = 2,
    points: int = 64,
    *,
    budget_points: int = 16,
    resolution: int = 15,
    seed: int = 0,
    progress: bool = True,
) -> DepthStudy:
    """Where a model's blocks make curvature, by what, how it grows, and how much of it is the gates'.

    The last token that is not special moves in the leading principal directions of the states that entered the first
    block; a unit is one standard deviation. Readings: live; the attention patterns frozen; the gates frozen, where
    there are any. Frozen parts are held where the chart's point arrives at them.

    **Args:** `model`, from `fisherflat.load`; `prompt`, a text or token ids; `dim`, how many directions move, from 2;
    `points`, of the profiles, the first the token's own state, the others drawn with `seed` from within one standard
    deviation; `budget_points`, the first so many of them for the budgets; `resolution`, of the maps (for `dim` 2),
    points a side; `progress`, show a bar.

    **Returns:** a `DepthStudy`. Ctrl-C ends it early: `.complete` is false and what was done is there.

    **Raises:** `InputError`, `CheckpointError` for a prompt or arguments that cannot be used, `TraceError` for blocks
    that cannot be read.
    """
    if dim < 2:
        raise InputError(f"dim must be at least 2, got {dim}: a curve has no intrinsic curvature")
    if points < 1 or budget_points < 1 or resolution < 2:
        raise InputError("points and budget_points must be at least 1, resolution at least 2")
    encoded = model.encode(prompt)
    position = moving_positions(encoded, "last")[0]
    settings = {"dim": dim, "points": points, "budget_points": min(points, budget_points), "seed": seed}
    found = DepthStudy(model.name, encoded.text, encoded.tokens[position], settings)
    try:
        with _progress(progress) as step:
            step("reading the blocks", None)
            blocks = model.blocks(encoded)
            chart = charts.principal(blocks[0].hidden_states, position, dim)
            u = sample_points(points, dim, seed)
            graphs = Stack(blocks, chart, "calibrated").graphs
            found.gates = tuple(
                role for role in GATES if any(node.role == role for graph in graphs for node in graph.nodes)
            )
            readings: dict[str, tuple[str, ...]] = {"live": (), "frozen pattern": ("pattern",)}
            if found.gates:
                readings["frozen gates"] = found.gates
            total = len(readings) + 3 + (dim == 2)
            for reading, roles in readings.items():
                step(f"profile, {reading}", total)
                stack = freeze_stack(graphs, chart.point, roles) if roles else graphs
                found.profiles[reading] = depth_profile(stack, chart, u, "calibrated", degenerate="nan")
            at_the_end = Gaussian(found.profiles["live"].covariance[-1].item())
            for by in ("role", "layer", "layer-role"):
                step(f"budget by {by}", total)
                found.budgets[by] = curvature_budget(graphs, chart, u[:budget_points], by, at_the_end, degenerate="nan")
            if dim == 2:
                step("maps", total)
                found.maps = curvature_fields(graphs, chart, (-1.0, 1.0, -1.0, 1.0), resolution, "calibrated")
        found.complete = True
    except KeyboardInterrupt:
        pass
    return found


@contextmanager
def _progress(show: bool) -> Iterator[Callable[[str, int | None], None]]:
    """A function `(what comes next, number of steps)` that moves a bar on the error stream."""
    if not show:
        yield lambda what, total: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as bar:
        shown = bar.add_task("", total=None)
        done = -2  # the first step is not one of the counted ones, and none is done when it begins

        def step(what: str, total: int | None) -> None:
            nonlocal done
            done += 1
            bar.update(shown, description=what, total=total, completed=max(done, 0))

        yield step
