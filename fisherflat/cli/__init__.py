"""The command line: it reads arguments and calls what does the work.

An option means the same in every command: `--layer`, `--part`, `--reading`, `--position` and `--prompt` may be given
several times or hold several values between commas, and indices may be ranges, such as `0-3,-1`.
"""

from __future__ import annotations

import sys

import typer

from fisherflat._files import visible
from fisherflat.cli._lab import bench, demo, reproduce
from fisherflat.cli._measuring import analyze, depth, inspect, symmetry
from fisherflat.cli._proving import certify, verify
from fisherflat.errors import FisherflatError

__all__ = ["app", "main"]

app = typer.Typer(
    help="The Fisher-Rao geometry of transformer layers, measured and proved.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, inspect, analyze, depth, symmetry, certify, verify, reproduce, bench):
    app.command()(command)


def main() -> None:
    """Run the command line. An error of ours is one message and exit code 1; wrong usage is exit code 2."""
    try:
        app()
    except FisherflatError as error:
        print(f"fisherflat: {visible(str(error))}", file=sys.stderr)
        sys.exit(1)
