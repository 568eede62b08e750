"""Commands that look at a model and measure it: inspect, analyze, depth, symmetry."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fisherflat._files import made, tried
from fisherflat.cli import _options as options
from fisherflat.cli import _places
from fisherflat.cli._grammar import command
from fisherflat.cli._moves import movement
from fisherflat.cli._output import answer, ended, progress, report, say, show, written
from fisherflat.cli._planning import planned


@command(
    "fisherflat inspect python-qwen3-next",
    "fisherflat inspect python-llama --out llama.json",
)
def inspect(
    path: options.ModelPath,
    loading: options.Loading,
    out: Annotated[Path | None, typer.Option("--out", help="File for all of it, as JSON.", dir_okay=False)] = None,
) -> None:
    """What is in a checkpoint: layers, heads, gates, norms, MLPs, and which readings make sense."""
    from fisherflat.models import inspect

    if out is not None:
        made(out.parent)
        tried(out)
    found = inspect(loading.load(path))
    show(found)
    files = [] if out is None else found.save(out)
    written(files)
    answer({"kind": "Inspection", **asdict(found), "files": [str(file) for file in files]})


@command(
    'fisherflat analyze python-llama --prompt "def mean(values):" --out llama',
    "fisherflat analyze python-qwen3-next --ids 5,17,3,8 --layer 0-1,-1 \\\n"
    "    --part attention --points 4 --out gated",
    then="the same command with --resume goes on from what is done",
)
def analyze(
    path: options.ModelPath,
    out: options.OutFolder,
    prompts: options.Prompts,
    measuring: options.Measuring,
    running: options.Running,
    loading: options.Loading,
    depth: Annotated[
        bool, typer.Option("--depth", help="Study how curvature accumulates over the layers, too.")
    ] = False,
    format: options.Formats = options.PNG,
    plan: options.Plan = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Curvature of every layer of a model on prompts: attention, MLP and whole block, live and with parts frozen.

    What is done is kept as it comes. Ctrl-C ends early with exit code 130; the same command with --resume goes on.
    """
    from fisherflat.report import Analysis, analyze, each, room_for
    from fisherflat.studies import begun

    texts, what = prompts.given(), measuring.arguments()
    if plan:
        planned([path], texts, loading, what, running.jobs)
        return
    with room_for(Analysis, out, overwrite=overwrite or resume), begun(out, resume, overwrite):
        found = analyze(
            loading.load(path),
            texts,
            **what,
            runner=running.runner_or_none(),
            depth=depth,
            folder=out,
            resume=resume,
            overwrite=overwrite,
            progress=progress(),
        )
        report(found, out, format)
        for place, study in each(out / "depth").items() if depth and format != options.PNG else ():
            study.plot().save(place, formats=format)
    ended(found)
    if not found.measured:
        raise typer.Exit(1)


@command(
    'fisherflat depth python-llama --prompt "def mean(values):" --points 4 \\\n'
    "    --budget-points 2 --resolution 5 --out llama-depth",
    then="what was measured is kept; the same command begins anew",
)
def depth(
    path: options.ModelPath,
    out: options.OutFolder,
    prompts: options.Prompts,
    loading: options.Loading,
    reading: options.Readings = None,
    position: options.Positions = None,
    moves: options.Moves = ["principal"],  # noqa: B006
    dim: options.FullDim = None,
    points: options.Points = 16,
    halves: Annotated[
        bool, typer.Option("--halves/--no-halves", help="Look within blocks too, behind the attention.")
    ] = True,
    budget_points: Annotated[
        int, typer.Option("--budget-points", help="Points of the budgets, the first of those; 0: none.", min=0)
    ] = 16,
    resolution: Annotated[int, typer.Option("--resolution", help="Points a side of maps; 0: none.", min=0)] = 15,
    seed: options.Seed = 0,
    errors: options.Errors = "sample",
    more_bits: options.MoreBits = False,
    family: options.Family = None,
    covariance: options.Covariance = "words",
    output: options.Output = "all",
    format: options.Formats = options.PNG,
    overwrite: options.Overwrite = False,
) -> None:
    """Where in a model's depth curvature is made, by which parts, how it grows, and how much of it is due to gates.

    By default the last word moves. With several prompts or positions there is a folder for each. Ctrl-C ends early,
    keeps what was measured, and exits with code 130.
    """
    from fisherflat.report import DepthStudy, room_for, study_depth

    texts, where, k = prompts.given(), options.positions(position), options.directions(dim)
    along = movement(moves)
    with room_for(DepthStudy, out, overwrite=overwrite):
        model = loading.load(path)
        for place in _places.places(model, texts, where, along, k):
            with room_for(DepthStudy, out / place.name, overwrite=overwrite) as folder:
                found = study_depth(
                    model,
                    place.prompt,
                    k=k,
                    moves=along,
                    position=place.position,
                    points=points,
                    readings=options.readings(reading),
                    halves=halves,
                    budget_points=budget_points,
                    resolution=resolution,
                    seed=seed,
                    errors=errors,
                    progress=progress(),
                    family=family,
                    precision=options.precision(more_bits),
                    covariance=options.covariance(covariance),
                    output=output,
                )
                report(found, folder, format)
            ended(found)


@command(
    "fisherflat symmetry python-llama --out llama-symmetry",
    then="what was done is kept; the same command begins anew",
)
def symmetry(
    path: options.ModelPath,
    out: options.OutFolder,
    prompts: options.Prompts,
    loading: options.Loading,
    format: options.Formats = options.PNG,
    overwrite: options.Overwrite = False,
) -> None:
    """Symmetries of every gated MLP of a model: which hold, which are broken, and how strongly, unit by unit.

    What enters the MLPs on the prompts are the inputs. The symmetries of each MLP are proved or refuted in a
    certificate. Ctrl-C ends early, keeps what was done, and exits with code 130.
    """
    from fisherflat.report import SymmetryStudy, room_for, study_symmetry

    texts = prompts.given()
    with room_for(SymmetryStudy, out, overwrite=overwrite):
        found = study_symmetry(loading.load(path), texts, progress=progress())
        report(found, out, format)
    if found.certificates:
        say(f"to check a certificate: fisherflat verify {out / 'certificates' / 'layer-000.json'} {path}")
    ended(found)
