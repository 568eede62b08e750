"""Writing files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fisherflat.errors import InputError


def made(folder: str | Path) -> Path:
    """The folder, made if it is not there.

    **Raises:** `InputError` where that cannot be done, or something else has its name.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made ({error.strerror}); choose another") from error
    return folder


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when all went well and is removed otherwise.

    **Raises:** `InputError` where the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another folder") from error
    finally:
        part.unlink(missing_ok=True)


def write_all(folder: str | Path, writers: Mapping[str, Callable[[Path], None]]) -> list[Path]:
    """Write files by name into a folder, made if it is not there, each whole or not at all; the files.

    **Raises:** `InputError` where the folder cannot be made or written to.
    """
    folder = made(folder)
    for name, write in writers.items():
        with whole(folder / name) as part:
            write(part)
    return [folder / name for name in writers]
