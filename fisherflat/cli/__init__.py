"""The command line: it reads arguments and calls what does the work.

An option means the same in every command: `--layer`, `--part`, `--reading`, `--position` and `--prompt` may be given
several times or hold several values between commas, and indices may be ranges, such as `0-3,-1`.

Exit codes: 0, all went well; 1, it failed; 2, wrong usage; 3, `verify` refused a certificate; 4, a certificate or a
checkpoint cannot be read; 130, interrupted by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import warnings
from typing import Any

import typer

from fisherflat._files import visible
from fisherflat.cli._lab import bench, demo, reproduce
from fisherflat.cli._measuring import analyze, depth, inspect, symmetry
from fisherflat.cli._output import INTERRUPTED
from fisherflat.cli._proving import certify, verify
from fisherflat.errors import CertificateError, CheckpointError, FisherflatError

__all__ = ["app", "main"]

app = typer.Typer(
    help="The Fisher-Rao geometry of transformer layers, measured and proved.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, inspect, analyze, depth, symmetry, certify, verify, reproduce, bench):
    app.command()(command)


#: what could not be read, so that nothing was found out
UNREADABLE = 4


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
