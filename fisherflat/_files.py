"""Writing files that are there as a whole or not at all, and text that is safe to show."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

#: characters that steer a terminal or turn the direction of writing: all control characters but the line feed and the
#: tabulator, and the marks of bidirectional text
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: what makes a spreadsheet take a cell for a formula, in narrow and in full width (OWASP, *CSV Injection*)
_FORMULA = re.compile(r"\s*[=+\-@\t\r＝＋－＠]")


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


def write_all(folder: str | Path, writers: Mapping[str, Callable[[Path], Any]]) -> list[Path]:
    """Write files by name into a folder, made if it is not there, each whole or not at all; the files.

    **Args:** `writers`, by name, which may begin with folders, such as `certificates/layer-000.json`.

    **Raises:** `InputError` where the folder cannot be made or written to.
    """
    paths = [made(folder) / name for name in writers]
    for path, write in zip(paths, writers.values(), strict=True):
        made(path.parent)
        with whole(path) as part:
            write(part)
    return paths


def as_json(value: Any, indent: int | None = 1) -> str:
    """JSON, which has no NaN: a number that is not finite becomes null. `indent=None` writes a single line."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    separators = (",", ":") if indent is None else None
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False, separators=separators) + "\n"


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
