"""Commands about this project itself: demo, reproduce, bench."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fisherflat._files import tried
from fisherflat.cli import _options as options
from fisherflat.cli._output import interruptible, report, say, written

_Only = Annotated[list[str] | None, typer.Option("--only", help=f"This section; {options.SEVERAL}.")]


@interruptible("the same command begins anew")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the tables and the figures.")] = Path(
        "fisherflat-demo"
    ),
    resolution: Annotated[int, typer.Option(help="Grid points a side.", min=2)] = 121,
    overwrite: options.Overwrite = False,
) -> None:
    """Analyse the models that ship with the package: two attention classifiers of points, two small language models.

    Of the classifiers, the curvature over the plane that they classify; of the language models, that of each layer's
    attention. In both pairs one model has gated attention.
    """
    from rich import print

    from fisherflat.lab.demo import demo, language_models
    from fisherflat.report import Analysis, room_for
    from fisherflat.zoo import CHECKPOINTS

    with ExitStack() as held:
        for place in (out, *(out / name for name in CHECKPOINTS)):
            held.enter_context(room_for(Analysis, place, overwrite=overwrite))
        found = demo(resolution)
        files = found.save(out)
        print(found.summary())
        for name, analysis in language_models().items():
            files += report(analysis, out / name)
    written(files)


@interruptible("the same command goes on with the sections that are left")
def reproduce(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the report, the numbers and the figures.", file_okay=False)
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds, coarser grids: a minute or two.")] = False,
    only: _Only = None,
) -> None:
    """Measure again what this project says about gates, curvature and symmetry, next to what the papers say.

    Finished sections are kept and not measured again. Ctrl-C ends early with exit code 130; the same command goes on.
    """
    from fisherflat.lab.reproduce import reproduce

    if not reproduce(out, quick=quick, only=options.words(only)):
        raise KeyboardInterrupt
    say(f"written: {out / 'report.md'}")


@interruptible("the same command begins anew")
def bench(
    out: Annotated[Path | None, typer.Option("--out", help="File for the results, as JSON.", dir_okay=False)] = None,
    only: _Only = None,
    map: Annotated[list[str] | None, typer.Option(help=f"Measure this map; {options.SEVERAL}.")] = None,
    k: Annotated[list[int] | None, typer.Option(help="Dimension of the chart; may be given several times.")] = None,
    points: Annotated[int | None, typer.Option(help="Points; by default as many as fill the machine.")] = None,
    repeats: Annotated[int, typer.Option(help="Repeats, taken in turns.")] = 5,
    threads: Annotated[int | None, typer.Option(help="Threads of torch on the CPU.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small run, half a minute.")] = False,
    device: options.Device = "cpu",
) -> None:
    """Time the engines next to other ways to the same numbers, and next to plain forward passes.

    On a GPU in float64 and in float32. `python -m fisherflat.lab.bench` is the same with torch and numpy alone
    installed.
    """
    from fisherflat.lab.bench import Plan, bench

    if out is not None:
        tried(out)
    chosen = Plan(
        device, tuple(options.words(only)), tuple(options.words(map)), tuple(k or ()), points=points, repeats=repeats,
        quick=quick,
    )  # fmt: skip
    bench(chosen if threads is None else replace(chosen, threads=threads), out)
