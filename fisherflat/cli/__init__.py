"""The command line: it reads arguments and calls what does the work.

An option means the same in every command: `--layer`, `--part`, `--reading`, `--position` and `--prompt` may be given
several times or hold several values between commas, and indices may be ranges, such as `0-3,-1`. docs/shell.md says
more, and what the exit codes mean.
"""

from __future__ import annotations

import signal
import sys
import warnings
from typing import Annotated, Any

import typer

from fisherflat._files import visible
from fisherflat._version import __version__
from fisherflat.cli._comparing import compare, track
from fisherflat.cli._figures import plot
from fisherflat.cli._grammar import CODES, codes, epilogue
from fisherflat.cli._lab import bench, demo, reproduce
from fisherflat.cli._measuring import analyze, depth, inspect, symmetry
from fisherflat.cli._output import INTERRUPTED
from fisherflat.cli._proving import certify, verify
from fisherflat.cli._reporting import report
from fisherflat.errors import CertificateError, CheckpointError, FisherflatError

__all__ = ["CODES", "app", "main"]

app = typer.Typer(
    help="The Fisher-Rao geometry of transformer layers, measured and proved.",
    epilog=codes(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for _command in (
    demo, inspect, analyze, depth, symmetry, compare, track, certify, verify, report, plot, reproduce, bench,
):  # fmt: skip
    app.command(epilog=epilogue(_command.examples))(_command)  # type: ignore[attr-defined]


#: what could not be read, so that nothing was found out
UNREADABLE = 4


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"fisherflat {__version__}")
        raise typer.Exit()
    return asked


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version, and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. An error of ours is one message and an exit code; SIGTERM ends it as Ctrl-C does.

    Python itself ends with 1 where it fails, so no answer has that code.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    warnings.showwarning = _show
    try:
        app()
    except FisherflatError as error:
        print(f"fisherflat: {visible(str(error))}", file=sys.stderr)
        sys.exit(UNREADABLE if isinstance(error, (CertificateError, CheckpointError)) else 1)
    except KeyboardInterrupt:  # before a command began, or after it ended
        sys.exit(INTERRUPTED)


def _interrupt(*signalled: Any) -> None:
    raise KeyboardInterrupt


def _show(message: Warning | str, *about: Any, **more: Any) -> None:
    """A warning as one line, in which nothing steers the terminal: there is no line of the user's to point at."""
    print(f"fisherflat: warning: {visible(str(message))}", file=sys.stderr)
