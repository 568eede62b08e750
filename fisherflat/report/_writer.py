"""The one writer of results: what is in a file is given as it is, and the suffix of the name says how to write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat._files import as_json, write_all, write_csv
from fisherflat.plot import COLUMN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: what is in a file: a table (.csv, .parquet), what is fit for JSON (.json), lines (.txt), a `Figure` (.png), or a
#: function that writes to the path that it is given
Content = Any


@dataclass(frozen=True)
class Figure:
    """A figure as a recipe: nothing is drawn before it is asked for.

    **Attributes:** `draw`, which makes a figure of matplotlib, not of pyplot, so that it is neither shown nor kept;
    `dpi`, of the file.
    """

    draw: Callable[[], Canvas]
    dpi: int = 200

    @classmethod
    def of_panels(cls, onto: Callable[[list[Axes]], Any], height: float, count: int = 1) -> Figure:
        """Some axes, one above the other in one column, and what draws into them; `height` in inches."""

        def draw() -> Canvas:
            canvas = blank(COLUMN, height)
            onto(list(canvas.subplots(count, sharex=True, squeeze=False)[:, 0]))
            return canvas

        return cls(draw)

    @classmethod
    def of(cls, onto: Callable[[Axes], Any], height: float) -> Figure:
        """A single panel, and what draws into it; `height` in inches."""
        return cls.of_panels(lambda axes: onto(axes[0]), height)


def blank(width: float, height: float) -> Canvas:
    """An empty figure of so many inches, of matplotlib and not of pyplot."""
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), layout="constrained")


def write(files: Mapping[str, Content], folder: str | Path) -> list[Path]:
    """Write files into a folder, made if it is not there, each whole or not at all.

    **Args:** `files`, what is in each, by name, which may begin with folders.

    **Returns:** the files. **Raises:** `InputError` where the folder cannot be made or written to.
    """
    return write_all(folder, {name: _writing(name, content) for name, content in files.items()})


def _writing(name: str, content: Content) -> Callable[[Path], Any]:
    return content if callable(content) else partial(_BY_SUFFIX[Path(name).suffix], content)


def _text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


_BY_SUFFIX: dict[str, Callable[[Any, Path], Any]] = {
    ".csv": write_csv,
    ".json": lambda value, path: _text(as_json(value), path),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
    ".png": lambda figure, path: figure.draw().savefig(path, dpi=figure.dpi, format="png"),
    ".txt": lambda lines, path: _text("\n".join(lines) + "\n", path),
}
