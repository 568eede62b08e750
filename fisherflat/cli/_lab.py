"""Commands about this project itself: demo, reproduce, bench."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fisherflat._files import tried
from fisherflat.cli import _options as options
from fisherflat.cli._grammar import command
from fisherflat.cli._output import answer, files_written, progress, report, written


@command("fisherflat demo --resolution 41 --out demo")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the tables and the figures.", file_okay=False)] = Path(
        "fisherflat-demo"
    ),
    resolution: Annotated[int, typer.Option("--resolution", help="Points a side of maps; 0: none.", min=0)] = 121,
    format: options.Formats = options.PNG,
    overwrite: options.Overwrite = False,
) -> None:
    """Analyse the models that ship with the package: two attention classifiers of points, two small language models.

    Of the classifiers, the curvature over the plane that they classify; of the language models, that of each layer's
    attention. In both pairs one model has gated attention.
    """
    from fisherflat.lab.demo import demo, language_models
    from fisherflat.report import PAGE, Analysis, room_for
    from fisherflat.zoo import CHECKPOINTS

    with ExitStack() as held:
        for place in (out, *(out / name for name in CHECKPOINTS)):
            held.enter_context(room_for(Analysis, place, overwrite=overwrite))
        found = demo(resolution) if resolution else None
        if found is not None:
            report(found, out, format)
        for name, analysis in language_models(progress=progress()).items():
            report(analysis, out / name, format)
            if found is not None:
                found.language[name] = analysis
        if found is not None:
            found.report(out / PAGE)


@command(
    "fisherflat reproduce --quick --only certificates --out reproduction",
    then="the same command goes on with the sections that are left",
)
def reproduce(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the report, the numbers and the figures.", file_okay=False)
    ],
    running: options.Running,
    quick: options.Quick = False,
    only: options.Only = None,
) -> None:
    """Measure again what this project says about gates, curvature and symmetry, next to what the papers say.

    Finished sections are kept and not measured again. Ctrl-C ends early with exit code 130; the same command goes on.
    """
    from fisherflat._files import read_json
    from fisherflat.lab.reproduce import reproduce

    runner = running.runner_or_none()
    if not reproduce(out, quick=quick, only=options.words(only), runner=runner, progress=progress()):
        raise KeyboardInterrupt
    written(files := files_written())
    answer({"kind": "Reproduction", **read_json(out / "results.json"), "files": [str(file) for file in files]})


@command("fisherflat bench --quick --only floor --points 100 --out bench.json")
def bench(
    out: Annotated[Path | None, typer.Option("--out", help="File for the results, as JSON.", dir_okay=False)] = None,
    only: options.Only = None,
    map: Annotated[list[str] | None, typer.Option("--map", help=f"Measure this map; {options.SEVERAL}.")] = None,
    k: Annotated[
        list[str] | None,
        typer.Option("--k", help=f"Dimension of the chart, or a range, such as 2-4; {options.SEVERAL}."),
    ] = None,
    points: Annotated[
        int | None, typer.Option("--points", help="Points of each chart.", show_default="as many as fill the machine")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", help="Repeats, taken in turns.")] = 5,
    threads: Annotated[int | None, typer.Option("--threads", help="Threads of torch on the CPU.")] = None,
    quick: options.Quick = False,
    device: options.Device = "cpu",
) -> None:
    """Time the engines next to other ways to the same numbers, and next to plain forward passes.

    On a GPU in float64 and in float32. `python -m fisherflat.lab.bench` is the same with torch and numpy alone
    installed.
    """
    from fisherflat.lab.bench import Plan, bench, plain

    if out is not None:
        tried(out)
    chosen = Plan(
        device, tuple(options.words(only)), tuple(options.words(map)), tuple(options.indices(k, "--k")), points=points,
        repeats=repeats, quick=quick,
    )  # fmt: skip
    found = bench(chosen if threads is None else replace(chosen, threads=threads), out, progress=progress())
    written(files := files_written())
    answer({"kind": "Bench", **plain(found), "files": [str(file) for file in files]})
