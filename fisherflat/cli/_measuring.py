"""Commands that look at a model and measure it: inspect, analyze, depth, symmetry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fisherflat._files import made, tried
from fisherflat.cli import _options as options
from fisherflat.cli._output import ended, interruptible, report, say, written


@interruptible("the same command begins anew")
def inspect(
    path: options.ModelPath,
    out: Annotated[Path | None, typer.Option(help="File for all of it, as JSON.", dir_okay=False)] = None,
    device: options.Device = "cpu",
    side: options.Side = None,
    blocks: options.BlockList = None,
    config: options.Config = None,
) -> None:
    """What is in a checkpoint: layers, heads, gates, norms, MLPs, and which readings make sense."""
    from rich import print

    from fisherflat.models import inspect

    if out is not None:
        made(out.parent)
        tried(out)
    found = inspect(options.load_model(path, device, side, blocks, config))
    print(found)
    if out is not None:
        written(found.save(out))


@interruptible("the same command with --resume goes on from what is done")
def analyze(
    path: options.ModelPath,
    out: options.OutFolder,
    prompt: options.Prompts = options.PROMPT,
    ids: options.Ids = None,
    layer: options.Layers = ["all"],  # noqa: B006
    part: options.Parts = ["attention,mlp,block"],  # noqa: B006
    head: options.Heads = ["none"],  # noqa: B006
    reading: options.Readings = None,
    position: options.Positions = None,
    moves: options.MovesOption = "principal",
    dim: options.Dim = None,
    points: Annotated[int, typer.Option(help="Points of each chart.", min=1)] = 16,
    seed: options.Seed = 0,
    dtype: Annotated[str, typer.Option(help="float64, or float32 for a rougher result.")] = "float64",
    errors: options.Errors = "sample",
    depth: Annotated[bool, typer.Option(help="Study how curvature accumulates over the layers, too.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in the folder.")] = False,
    overwrite: options.Overwrite = False,
    jobs: Annotated[int, typer.Option(help="Processes that measure at a time.", min=1)] = 1,
    device: options.Device = "cpu",
    side: options.Side = None,
    blocks: options.BlockList = None,
    config: options.Config = None,
) -> None:
    """Curvature of every layer of a model on prompts: attention, MLP and whole block, live and with parts frozen.

    What is done is kept as it comes. Ctrl-C ends early with exit code 130; the same command with --resume goes on.
    """
    import torch

    from fisherflat.report import Analysis, analyze, room_for
    from fisherflat.studies import begun

    if dtype not in ("float64", "float32"):
        raise typer.BadParameter(f"{dtype!r} is neither float64 nor float32", param_hint="--dtype")
    layers = options.indices(layer, "--layer", instead=["all"])
    heads = options.indices(head, "--head", instead=["none", "all"])
    positions = options.positions(position)
    with room_for(Analysis, out, overwrite=overwrite or resume), begun(out, resume, overwrite):
        found = analyze(
            options.load_model(path, device, side, blocks, config),
            options.prompts(prompt, ids),
            dim=dim,
            moves=moves,
            layers=None if layers == "all" else layers,
            parts=options.words(part),
            heads=None if heads == "none" else heads,
            readings=options.readings(reading),
            positions="spread" if positions is None else positions,
            points=points,
            seed=seed,
            dtype=getattr(torch, dtype),
            errors=errors,
            depth=depth,
            folder=out,
            resume=resume,
            overwrite=overwrite,
            jobs=jobs,
        )
        written(report(found, out))
    ended(found)
    if not found.measured:
        raise typer.Exit(1)


@interruptible("what was measured is kept; the same command begins anew")
def depth(
    path: options.ModelPath,
    out: options.OutFolder,
    prompt: options.Prompts = options.PROMPT,
    ids: options.Ids = None,
    reading: options.Readings = None,
    position: options.Positions = None,
    moves: options.MovesOption = "principal",
    dim: options.Dim = None,
    points: Annotated[int, typer.Option(help="Points of the profiles.", min=1)] = 16,
    halves: Annotated[bool, typer.Option(help="Look within blocks too, behind the attention.")] = True,
    budget_points: Annotated[int, typer.Option(help="Points of the budgets, the first of those; 0: none.", min=0)] = 16,
    resolution: Annotated[int, typer.Option(help="Points a side of the maps; 0: none.", min=0)] = 15,
    seed: options.Seed = 0,
    errors: options.Errors = "sample",
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    side: options.Side = None,
    blocks: options.BlockList = None,
    config: options.Config = None,
) -> None:
    """Where in a model's depth curvature is made, by which parts, how it grows, and how much of it is due to gates.

    By default the last word moves. With several prompts or positions there is a folder for each. Ctrl-C ends early,
    keeps what was measured, and exits with code 130.
    """
    from fisherflat.report import DepthStudy, room_for, study_depth

    where = options.positions(position)
    with room_for(DepthStudy, out, overwrite=overwrite):
        model = options.load_model(path, device, side, blocks, config)
        for place in options.places(model, options.prompts(prompt, ids), where, moves, dim):
            with room_for(DepthStudy, out / place.name, overwrite=overwrite) as folder:
                found = study_depth(
                    model,
                    place.prompt,
                    k=dim,
                    moves=moves,
                    position=place.position,
                    points=points,
                    readings=options.readings(reading),
                    halves=halves,
                    budget_points=budget_points,
                    resolution=resolution,
                    seed=seed,
                    errors=errors,
                )
                written(report(found, folder))
            ended(found)


@interruptible("what was done is kept; the same command begins anew")
def symmetry(
    path: options.ModelPath,
    out: options.OutFolder,
    prompt: options.Prompts = options.PROMPT,
    ids: options.Ids = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    side: options.Side = None,
    blocks: options.BlockList = None,
    config: options.Config = None,
) -> None:
    """Symmetries of every gated MLP of a model: which hold, which are broken, and how strongly, unit by unit.

    What enters the MLPs on the prompts are the inputs. The symmetries of each MLP are proved or refuted in a
    certificate. Ctrl-C ends early, keeps what was done, and exits with code 130.
    """
    from fisherflat.report import SymmetryStudy, room_for, study_symmetry

    with room_for(SymmetryStudy, out, overwrite=overwrite):
        found = study_symmetry(options.load_model(path, device, side, blocks, config), options.prompts(prompt, ids))
        files = report(found, out)
    written([file for file in files if file.parent == out])
    if proofs := [file for file in files if file.parent != out]:
        say(f"written: {len(proofs)} certificates; to check one: fisherflat verify {proofs[0]} {path}")
    ended(found)
