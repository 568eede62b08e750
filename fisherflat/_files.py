"""Files: written as a whole or not at all, in folders that one run holds at a time, and read within bounds.

What is read may be anything: a pipe that never ends, a link to a device, a document that is nested a million deep. What
is written may be cut off at any moment, and its text may come from anywhere.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat.errors import FisherflatError, FisherflatWarning, InputError, warn

if TYPE_CHECKING:
    import pandas as pd

#: bytes of a file that is read into memory, and how deep the values of a document may lie
MAX_FILE, MAX_DEPTH = 2**28, 32
#: in a folder that is held: which process holds it
LOCK = ".lock"

#: characters that steer a terminal or turn the direction of writing: all control characters but the line feed and the
#: tabulator, and the marks of bidirectional text; and halves of characters, which cannot be written
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: what makes a spreadsheet take a cell for a formula, in narrow and in full width (OWASP, *CSV Injection*)
_FORMULA = re.compile(r"\s*[=+\-@\t\r＝＋－＠]")
#: a file that is being written: its name, the process that writes it, and a number of its own
_PART = re.compile(r"\..+\.(\d+)(\.[0-9a-f]+)?\.part")
#: those of this process
_writing: set[Path] = set()
#: the files that were written, while somebody asks
_noted: ContextVar[dict[Path, None] | None] = ContextVar("noted", default=None)
#: the folders that this thread holds
_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())


def made(folder: str | Path) -> Path:
    """The folder, made if it is not there.

    **Raises:** `InputError` where that cannot be done, or something else has its name.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise InputError(f"the folder {folder} cannot be made ({reason}); choose another") from error
    return folder


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when all went well and is removed otherwise.

    **Raises:** `InputError` where the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    _writing.add(part)
    try:
        yield part
        os.replace(part, path)
        note(path)
    except OSError as error:
        if isinstance(error, FisherflatError):
            raise
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another folder") from error
    finally:
        _writing.discard(part)
        with suppress(OSError):
            part.unlink(missing_ok=True)
        _sweep(path.parent, f".{path.name}.")


@contextmanager
def noted() -> Iterator[dict[Path, None]]:
    """The files that this thread writes within, in the order in which they were finished."""
    found: dict[Path, None] = {}
    before = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(before)


def note(path: Path) -> None:
    """Say that a file was written, to whoever asks."""
    if (found := _noted.get()) is not None and path not in _writing:  # a part of a file is none
        found.pop(path, None)  # of a file that was written twice the last time counts
        found[path] = None


class Scratch:
    """A folder among those for temporary files, which goes with this object, or with the process at the latest.

    **Attributes:** `path`. **Raises:** `InputError` where none can be made.
    """

    def __init__(self) -> None:
        try:
            self.path = Path(tempfile.mkdtemp(prefix="fisherflat-"))
        except OSError as error:
            raise InputError(f"no temporary folder can be made ({error.strerror}); choose a folder") from error
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def tried(path: Path) -> None:
    """Try whether a file can be written, before work is done for it; nothing is left behind.

    **Raises:** `InputError` where it cannot.
    """
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; choose the name of a file")
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        part.touch(exist_ok=False)
        part.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise InputError(f"{path} cannot be written ({reason}); choose another folder") from error


@contextmanager
def claimed(folder: str | Path) -> Iterator[Path]:
    """A folder that nobody else writes to meanwhile, made if it is not there, and removed again if it stays empty.

    The lock is one of the operating system, so it ends with the process, however that ends. Who holds a folder may
    claim it again; another thread is somebody else. Files that a killed run left half written are swept away.

    **Raises:** `InputError` where another run holds the folder, or it cannot be made or written to.
    """
    missing = [place for place in (Path(folder), *Path(folder).parents) if not os.path.lexists(place)]
    place = made(folder).resolve()
    if place in _held.get():
        yield Path(folder)
        return
    lock = _locked(place)
    before = _held.set(_held.get() | {place})
    try:
        for under in (place, *(sub for sub in place.iterdir() if sub.is_dir() and not sub.is_symlink())):
            _sweep(under)
        yield Path(folder)
    finally:
        _held.reset(before)
        with suppress(OSError):
            (place / LOCK).unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
        os.close(lock)
        with suppress(OSError):
            for made_here in missing:
                made_here.rmdir()


def _locked(folder: Path) -> int:
    """The open lock of a folder. **Raises:** `InputError` where another run has it."""
    path = folder / LOCK
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _exclude(lock)
                if os.path.samestat(os.fstat(lock), os.stat(path)):
                    os.ftruncate(lock, 0)
                    os.write(lock, str(os.getpid()).encode())
                    return lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
        except FileNotFoundError:  # who held it has just ended, and removed it, with the folder where that was empty
            made(folder)
        except BlockingIOError as error:
            raise InputError(f"{_holder(path)} works in {folder}; wait for it, or choose another folder") from error
        except OSError as error:
            raise InputError(f"{folder} cannot be written to ({error.strerror}); choose another folder") from error


def _holder(lock: Path) -> str:
    with suppress(OSError, ValueError):
        return f"another run, process {int(lock.read_bytes()[:20])},"
    return "another run"


def _exclude(lock: int) -> None:
    """Take a lock on an open file. **Raises:** `OSError` where somebody has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:  # some network file systems know no locks
        warn(
            f"the file system has no locks ({error.strerror}), so two runs in one folder are not noticed",
            FisherflatWarning,
        )


def _sweep(folder: Path, start: str = ".") -> None:
    """Remove the files, of such a name, that a process left half written which runs no more."""
    with suppress(OSError):
        for part in folder.iterdir():
            found = _PART.fullmatch(part.name) if part.name.startswith(start) else None
            if found and part not in _writing and not _runs(int(found[1])):
                part.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether another process has this number."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


def write_all(folder: str | Path, writers: Mapping[str, Callable[[Path], Any]]) -> list[Path]:
    """Write files by name into a folder, made if it is not there, each whole or not at all; the files.

    **Args:** `writers`, by name, which may begin with folders, such as `certificates/layer-000.json`.

    **Raises:** `InputError` where the folder cannot be made or written to, or another run writes to it.
    """
    with claimed(folder):
        paths = [Path(folder) / name for name in writers]
        for path, write in zip(paths, writers.values(), strict=True):
            made(path.parent)
            with whole(path) as part:
                write(part)
    return paths


def regular(path: str | Path, error: type[FisherflatError] = InputError, limit: int | None = None) -> Path:
    """The path of a file that ends, for a reader of somebody else's: no pipe, device or folder, also behind a link.

    **Args:** `error`, what is raised; `limit`, bytes.

    **Raises:** `error` where it is none, is not there, or is too large.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as failure:
        raise error(f"{path} cannot be read ({getattr(failure, 'strerror', failure)})") from failure
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{path} is no file but a {_kind(found.st_mode)}, so it is not read")
    if limit is not None and found.st_size > limit:
        raise error(f"{path} has {found.st_size} bytes, more than the {limit} that are read")
    return Path(path)


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
    return next((name for is_one, name in kinds.items() if is_one(mode)), "device")


def content(path: str | Path, error: type[FisherflatError] = InputError, limit: int = MAX_FILE) -> bytes:
    """All of a file.

    **Raises:** `error` as `regular`, which is what `path` must be.
    """
    regular(path, error, limit)
    try:
        with open(path, "rb") as file:
            found = file.read(limit + 1)
    except OSError as failure:
        raise error(f"{path} cannot be read ({failure.strerror})") from failure
    if len(found) > limit:  # it grew meanwhile
        raise error(f"{path} has more than the {limit} bytes that are read")
    return found


def read_json(path: str | Path, error: type[FisherflatError] = InputError, limit: int = MAX_FILE) -> dict[str, Any]:
    """An object of JSON: all numbers finite, no field twice, at most `MAX_DEPTH` deep.

    **Raises:** `error` where the file cannot be read, or holds something else.
    """
    try:
        found = parsed(content(path, error, limit))
    except ValueError as failure:
        if isinstance(failure, FisherflatError):
            raise
        raise error(f"{path} is no JSON document: {failure}") from failure
    if not isinstance(found, dict):
        raise error(f"{path} must hold a JSON object")
    return found


def parsed(text: bytes) -> Any:
    """A value of JSON: all numbers finite, no field twice, at most `MAX_DEPTH` deep.

    **Raises:** `ValueError` where it is none.
    """
    try:
        found = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refused, parse_float=_finite
        )
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    if too_deep(found):
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return found


def too_deep(document: Any) -> bool:
    """Whether the values of a document lie more than `MAX_DEPTH` deep, so that it cannot be walked."""
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for thing in level
            if isinstance(thing, (dict, list))
            for item in (thing.values() if isinstance(thing, dict) else thing)
        ]
    return bool(level)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a field appears twice")
    return dict(pairs)


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no number here")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is beyond all floats")
    return number


def as_json(value: Any, indent: int | None = 1) -> str:
    """JSON, which has no NaN: a number that is not finite becomes null. `indent=None` writes a single line."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    options: dict[str, Any] = {"indent": indent, "separators": (",", ":") if indent is None else None}
    try:  # which is twice as fast where all is plain
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except (TypeError, ValueError):
        text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, **options)
    # they stand within strings, where else
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def visible(text: str) -> str:
    r"""Text in which characters that would steer a terminal are written as escapes, such as `\x1b`."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def write_csv(table: pd.DataFrame, path: Path, *, index: bool = False) -> None:
    """A table as CSV, in which text is text: nothing steers a terminal, and no cell is a formula to a spreadsheet.

    A cell that a spreadsheet would run is written with an apostrophe before it.
    """
    names = [name for name, kind in table.dtypes.items() if str(kind) in ("object", "str", "string")]
    table.assign(**{name: table[name].map(_cell) for name in names}).to_csv(path, index=index)


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if _FORMULA.match(text) else text
