"""Commands about results that were saved: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fisherflat.cli._grammar import command
from fisherflat.cli._output import answer, written


@command(
    "fisherflat analyze python-llama --layer 0 --part mlp --out results",
    "fisherflat report results",
)
def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A folder that analyze, depth, symmetry, certify, reproduce or demo wrote.",
            file_okay=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the page, if not report.html in that folder.", dir_okay=False)
    ] = None,
) -> None:
    """Write the page of a saved result anew: one HTML file that needs nothing else."""
    import fisherflat.lab.demo
    import fisherflat.lab.reproduce  # noqa: F401  (they have results of their own kinds)
    from fisherflat.report import PAGE, load

    found = load(folder)
    page = found.report(folder / PAGE if out is None else out)
    written([page])
    answer({"kind": type(found).__name__, "model": found.model, "headline": found.opening(), "files": [str(page)]})
