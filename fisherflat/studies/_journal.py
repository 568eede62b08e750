"""Results on disk, so that work can go on after an interrupt or a kill: what is there is not done again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fisherflat._files import as_json, made
from fisherflat.errors import InputError

#: one row of a table
Row = dict[str, Any]

#: the file, a line of JSON each: first what is measured and on what, then the rows of each task that is done
FILE = "journal.jsonl"


class Journal:
    """The tasks of an analysis that are done, in a file that only grows.

    **Args:** `folder`, made if it is not there; `identity`, all that determines the results, fit for JSON; `resume`:
    take what is done from the file, if there is one, rather than begin it anew.

    **Attributes:** `done`, the rows of the tasks that are, by key.

    Each task is one line, written at once. A last line that was cut off by a kill is dropped.

    **Raises:** `InputError` where the folder holds other results: on `resume` those of another model, other arguments
    or another version; otherwise those of an analysis that was not finished, which would be lost.
    """

    def __init__(self, folder: str | Path, identity: dict[str, Any], resume: bool = False) -> None:
        self.path = made(folder) / FILE
        self.done: dict[str, list[Row]] = {}
        head, lines, size = _read(self.path)
        if resume and head is not None:
            if changed := _changed(head["identity"], identity):
                raise InputError(
                    f"{self.path} holds results of another analysis: {changed}; resume with the same model and "
                    "arguments, or choose another folder"
                )
            self.done = {line["task"]: line["rows"] for line in lines if "task" in line}
        elif any("task" in line for line in lines) and "finished" not in lines[-1]:
            raise InputError(
                f"{self.path} holds the results of an analysis that was not finished; resume it, choose another "
                "folder, or remove that file"
            )
        try:
            self._file = self.path.open("r+b" if self.done else "wb", buffering=0)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}); choose another folder") from error
        if self.done:
            self._file.seek(size)
            self._file.truncate()
        else:
            self._append({"identity": identity})

    def write(self, key: str, rows: Sequence[Row]) -> None:
        """Add a task that is done."""
        self.done[key] = list(rows)
        self._append({"task": key, "rows": self.done[key]})

    def close(self, finished: bool) -> None:
        """Close the file; `finished`: all tasks are done, so that the file may be begun anew."""
        if finished:
            self._append({"finished": True})
        self._file.close()

    def _append(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(as_json(line, indent=None).encode())
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}); make room and resume: what was done before is kept"
            ) from error


def kept(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a JSON file holds, if it is there and was made of the same: its entries of these names are equal.

    **Args:** `identity`, all that determines the rest, by name.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before = {name: content[name] for name in identity}
    except (OSError, ValueError, TypeError, KeyError):  # not there, or of another release
        return None
    return None if _changed(before, json.loads(as_json(identity))) else content


def _read(path: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]], int]:
    """The first line, the others, and how many bytes they take; what is after the last whole line is not counted."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, [], 0
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); choose another folder") from error
    whole = content[: content.rfind(b"\n") + 1]
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        if lines and not isinstance(lines[0]["identity"], dict):
            raise ValueError("its first line says nothing about what was measured")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it or choose another folder") from error
    return (lines[0], lines[1:], len(whole)) if lines else (None, [], 0)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, what differs; empty where nothing does."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} was {_short(before.get(name))}, is {_short(now.get(name))}" for name in names)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
