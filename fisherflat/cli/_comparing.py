"""Commands about several models: compare, track."""

from __future__ import annotations

import typer

from fisherflat.cli import _options as options
from fisherflat.cli._grammar import command
from fisherflat.cli._output import ended, progress, report
from fisherflat.cli._planning import planned, tell


@command(
    "fisherflat compare python-llama python-qwen3-next --layer 0-1 \\\n"
    '    --part attention --prompt "def mean(values):" --points 4 --out compared',
    then="the same command with --resume goes on from what is done",
)
def compare(
    paths: options.ModelPaths,
    out: options.OutFolder,
    prompts: options.Prompts,
    measuring: options.Measuring,
    running: options.Running,
    loading: options.Loading,
    format: options.Formats = options.PNG,
    plan: options.Plan = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """How the curvature of models differs, by layer, part and reading: paired differences with intervals.

    Beside each difference stands the noise floor, how much two halves of one analysis differ. What is done is kept as
    it comes. Ctrl-C ends early with exit code 130; the same command with --resume goes on.
    """
    from fisherflat.report import Comparison, compare, is_saved, room_for

    texts, what = prompts.given(), measuring.arguments()
    if plan:
        planned([path for path in paths if not is_saved(path)], texts, loading, what, running.jobs)
        return
    with room_for(Comparison, out, overwrite=overwrite or resume):
        found = compare(
            *paths,
            prompts=texts,
            load=loading.arguments(),
            folder=out,
            resume=resume,
            overwrite=overwrite,
            progress=progress(),
            runner=running.runner_or_none(),
            **what,
        )
        report(found, out, format)
    ended(found)
    if found.pairs is None:
        raise typer.Exit(1)


@command(
    "fisherflat track python-llama python-qwen3-next --layer 0 --part mlp \\\n    --points 4 --out tracked",
    then="the same command with --resume goes on from what is done",
)
def track(
    runs: options.Runs,
    out: options.OutFolder,
    prompts: options.Prompts,
    measuring: options.Measuring,
    running: options.Running,
    loading: options.Loading,
    format: options.Formats = options.PNG,
    plan: options.Plan = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """The curvature of a model through its training: trajectories by layer, part and reading, with intervals.

    The folder of a run holds checkpoints with a step in the name of each, such as checkpoint-100, step_000200 or
    epoch3; a model by itself is a run of one. Several runs stand side by side. With --resume only new checkpoints are
    measured, also as training goes on.
    """
    from fisherflat.report import Track, room_for, to_measure, track
    from fisherflat.report import plan as plan_of

    texts, what = prompts.given(), measuring.arguments()
    if plan:
        left = to_measure(runs, out if resume else None)
        first = [plan_of(loading.load(str(paths[0])), texts, **what).times(len(paths)) for paths in left]
        tell(sum(first[1:], first[0]) if first else None, running.jobs)
        return
    with room_for(Track, out, overwrite=overwrite or resume):
        found = track(
            runs,
            texts,
            load=loading.arguments(),
            folder=out,
            resume=resume,
            overwrite=overwrite,
            progress=progress(),
            runner=running.runner_or_none(),
            **what,
        )
        report(found, out, format)
    ended(found)
    if not found.measured:
        raise typer.Exit(1)
