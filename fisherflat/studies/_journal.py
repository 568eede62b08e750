"""Results on disk, so that work can go on after an interrupt or a kill: what is there is not done again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fisherflat._files import as_json, claimed, made, note, parsed, read_json, regular, whole
from fisherflat.errors import InputError

#: one row of a table
Row = dict[str, Any]

#: the file, a line of JSON each: first what is measured and on what, then the rows of each task that is done
FILE = "journal.jsonl"
#: bytes of a line: the rows of a task
MAX_LINE = 2**27
#: before the digest, which ends a line
_SEAL = b',"seal":"'


class Journal:
    """The tasks of an analysis that are done, in a file that only grows.

    **Args:** `folder`, which the caller holds (`fisherflat._files.claimed`); `identity`, all that determines the
    results, fit for JSON; `resume`: take what is done from the file, if there is one; `overwrite`: begin it anew,
    whatever it holds.

    **Attributes:** `done`, the rows of the tasks that are, by key, read from the file when they are asked for; `lost`,
    how many lines were damaged.

    Each task is one line, written at once, and sealed with a digest of its bytes and of what was measured. A line whose
    seal does not fit is dropped, so that its task is done again. One line at a time is in memory.

    **Raises:** `InputError` where the folder holds other results: on `resume` those of another model, other arguments
    or another version; otherwise any, which would be lost.
    """

    def __init__(
        self, folder: str | Path, identity: dict[str, Any], resume: bool = False, overwrite: bool = False
    ) -> None:
        self.path = made(folder) / FILE
        self.done = Done(self.path)
        check(folder, resume, overwrite)
        text = as_json({"identity": identity}, indent=None)
        self._head = json.loads(text)
        self._of = _digest(self._head)
        head = self._sealed(self._head)
        first, self.lost, end, ended = None, 0, 0, True
        try:
            for line in () if overwrite else _lines(self.path):
                first = line if first is None else first
                said = _opened(line, self._of)
                self.lost += said is None
                if said is not None and _is_task(said):
                    self.done.at(said["task"], end, len(said["rows"]))
                end, ended = end + len(line), line.endswith(b"\n")
            if first is not None and not self.done:
                _check_same(self.path, first, self._head)
            if first != head or self.lost or not ended:
                self._rewrite(head)
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}); choose another folder") from error

    def _rewrite(self, head: bytes) -> None:
        """Leave nothing in the file but the head, and the tasks that are done."""
        before, self.done = self.done, Done(self.path)
        with whole(self.path) as part, part.open("wb") as file:
            file.write(head)
            for key in before:
                self.done.at(key, file.tell(), before.rows(key))
                file.write(before.line(key).rstrip(b"\n") + b"\n")

    def write(self, key: str, rows: Sequence[Row]) -> None:
        """Add a task that is done. **Raises:** `InputError` where its rows are more than a line holds."""
        place = os.fstat(self._file.fileno()).st_size
        self._append({"task": key, "rows": list(rows)})
        self.done.at(key, place, len(rows))

    def close(self, finished: bool) -> None:
        """Close the file; `finished`: all tasks are done."""
        try:
            if finished:
                self._append({"finished": True})
        finally:
            self._file.close()
            note(self.path)

    def _append(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(self._sealed(line))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}); make room and resume: what was done before is kept"
            ) from error

    def _sealed(self, line: dict[str, Any]) -> bytes:
        found = _with_seal(as_json(line, indent=None).encode(), self._of)
        if len(found) > MAX_LINE:  # nobody could read it again
            what = f"the rows of {line['task']}" if "task" in line else "the prompts and settings"
            less = "positions or points" if "task" in line else "prompts"
            raise InputError(
                f"{what} take {len(found)} bytes, more than the {MAX_LINE} that {self.path} holds in a line; ask for "
                f"fewer {less} at a time"
            )
        return found


@contextmanager
def begun(folder: str | Path, resume: bool = False, overwrite: bool = False) -> Iterator[Path]:
    """A folder in which an analysis may begin, as far as that can be told before the model is there; it is held.

    **Raises:** `InputError` where another run holds the folder, or results in it would be lost.
    """
    with claimed(folder) as place:
        check(place, resume, overwrite)
        yield place


def check(folder: str | Path, resume: bool = False, overwrite: bool = False) -> None:
    """**Raises:** `InputError` where a folder holds results of an analysis that would be lost."""
    if resume and overwrite:
        raise InputError("resume takes what is there, overwrite removes it; choose one of them")
    path = Path(folder) / FILE
    if resume or overwrite or not path.exists():
        return
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        return
    head = _opened(first, None)
    if head is None:
        raise InputError(
            f"{path} is damaged at its beginning, or of another version; resume to keep the results that are "
            "whole, overwrite them, or choose another folder"
        )
    of, tasks, last = _digest(head), 0, dict[str, Any]()
    for line in lines:
        if (said := _opened(line, of)) is not None:
            tasks, last = tasks + _is_task(said), said
    if "finished" in last:
        raise InputError(
            f"{folder} holds a finished analysis; resume it to have it again or to extend it, overwrite it, or choose "
            "another folder"
        )
    if tasks:
        raise InputError(
            f"{path} holds the results of an analysis that was not finished; resume it, overwrite it, or choose "
            "another folder"
        )


def kept(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a JSON file holds, if it is there and was made of the same: its entries of these names are equal.

    **Args:** `identity`, all that determines the rest, by name.
    """
    try:
        found = read_json(path)
        before = {name: found[name] for name in identity}
    except (InputError, KeyError):  # not there, damaged, or of another release
        return None
    return None if _changed(before, json.loads(as_json(identity))) else found


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a journal, one at a time. **Raises:** `InputError` for what is none, such as a line without end."""
    if not path.exists():
        return
    regular(path)
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise InputError(f"{path} has a line of more than {MAX_LINE} bytes, so it is no journal; overwrite it")
            yield line


class Done(Mapping[str, list[Row]]):
    """The rows of tasks, by key. In memory is where they stand in the file.

    **Attributes:** `count`, how many rows there are in all.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.count = path, 0
        self._places: dict[str, tuple[int, int]] = {}

    def at(self, key: str, place: int, rows: int) -> None:
        """The line of a task begins at a byte, and has so many rows."""
        self.count += rows - self._places.get(key, (0, 0))[1]
        self._places[key] = (place, rows)

    def __getitem__(self, key: str) -> list[Row]:
        found: list[Row] = parsed(self.line(key))["rows"]
        return found

    def line(self, key: str) -> bytes:
        """The line of a task, as it stands in the file."""
        with self._path.open("rb") as file:
            file.seek(self._places[key][0])
            return file.readline(MAX_LINE)

    def rows(self, key: str) -> int:
        """How many rows a task has."""
        return self._places[key][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places


def _opened(line: bytes, of: str | None) -> dict[str, Any] | None:
    """What a line says, if its seal fits. **Args:** `of`, the digest of the head; `None` for the head itself."""
    try:
        said = parsed(line)
    except ValueError:
        return None
    seal = said.pop("seal", None) if isinstance(said, dict) else None
    if seal is None:
        return None
    of = of or _digest(said)
    fits = line.rstrip(b"\n") + b"\n" == _with_seal(line.rpartition(_SEAL)[0] + b"}", of)
    return said if fits or seal == _digest([of, said]) else None  # once the digest was one of values


def _with_seal(line: bytes, of: str) -> bytes:
    """A line of JSON, an object that is not empty, with one more field: the digest of the rest and of the head's."""
    body = line.rstrip().removesuffix(b"}")
    seal = hashlib.sha256(of.encode() + body).hexdigest()
    return body + _SEAL + seal.encode() + b'"}\n'


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _is_task(line: dict[str, Any]) -> bool:
    return isinstance(line.get("task"), str) and isinstance(line.get("rows"), list)


def _check_same(path: Path, first: bytes, head: dict[str, Any]) -> None:
    """**Raises:** `InputError` where a journal with nothing to resume begins with another head."""
    before = _opened(first, None)
    if before is None:
        raise InputError(
            f"{path} is damaged or of another version, and nothing in it is of this analysis; overwrite it, or choose "
            "another folder"
        )
    if changed := _changed(before.get("identity", {}), head["identity"]):
        raise InputError(
            f"{path} holds results of another analysis: {changed}; resume with the same model and "
            "arguments, or choose another folder"
        )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, what differs; empty where nothing does."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} was {_short(before.get(name))}, is {_short(now.get(name))}" for name in names)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
