"""Commands about figures of results that were saved: plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fisherflat.cli import _options as options
from fisherflat.cli._grammar import command
from fisherflat.cli._output import answer, written


@command(
    "fisherflat analyze python-llama --ids 5,17,3 --layer 0 \\\n    --points 1 --out results",
    "fisherflat plot results",
    "fisherflat plot results --figure layers --format pdf,svg --out figures",
)
def plot(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A folder that analyze, depth, symmetry, compare or demo wrote.", file_okay=False
        ),
    ],
    figure: Annotated[
        list[str] | None,
        typer.Option("--figure", "--figures", help=f"Which figures, by name; all by default; {options.SEVERAL}."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the figures, if not where the results are.", file_okay=False),
    ] = None,
    format: options.Formats = options.PNG,
) -> None:
    """Draw the figures of saved results again, also of results in folders within the folder.

    Nothing is measured, and no other file is changed.
    """
    import fisherflat.lab.demo
    import fisherflat.lab.reproduce  # noqa: F401  (they have results of their own kinds)
    from fisherflat.errors import InputError
    from fisherflat.report import each

    asked = options.words(figure)
    found = each(folder)
    known = {name for result in found.values() for name in result.figures}
    if unknown := [name for name in asked if name not in known]:
        raise InputError(
            f"--figure: there is no {unknown[0]!r} in {folder}; there are {', '.join(sorted(known)) or 'none'}"
        )
    files: list[Path] = []
    for place, result in found.items():
        names = [name for name in result.figures if name in asked or not asked]
        into = place if out is None else out / place.relative_to(folder)
        files += result.plot(*names).save(into, formats=format) if names else []
    written(files)
    answer(
        {"kind": "Figures", "of": [result.model for result in found.values()], "files": [str(file) for file in files]}
    )
