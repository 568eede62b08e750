"""Things that stand where a file is expected, and never end or are none."""

from __future__ import annotations

import os
from pathlib import Path


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_folder(path: Path) -> None:
    path.mkdir()
