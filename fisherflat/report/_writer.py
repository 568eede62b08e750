"""The one writer of results: what is in a file is given as it is, and the suffix of the name says how to write it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from io import BytesIO
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from fisherflat._files import as_json, write_all, write_csv
from fisherflat.errors import InputError
from fisherflat.plot import COLUMN, caption

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: what figures can be written as, by the suffixes of their files
FORMATS = ("png", "pdf", "svg")
#: what is in a file: a table (.csv, .parquet), what is fit for JSON (.json), lines (.txt), a `Figure` (.png), a
#: function that writes to the path that it is given, or the path of a file that is copied, unless it is this very one
Content = Any


@dataclass(frozen=True)
class Figure:
    """A figure as a recipe: nothing is drawn before it is asked for.

    **Attributes:** `draw`, which makes a figure of matplotlib, not of pyplot, so that it is neither shown nor kept;
    `dpi`, of the file, where it is made of dots.
    """

    draw: Callable[[], Canvas]
    dpi: int = 200

    @classmethod
    def of_panels(
        cls,
        onto: Callable[[list[Axes]], Any],
        height: float,
        count: int = 1,
        *,
        about: Sequence[str] = (),
        alike: bool = False,
    ) -> Figure:
        """Some axes, one above the other in one column, and what draws into them.

        **Args:** `height` in inches; `about`, the lines of a caption; `alike`: axes that show the same range.
        """

        def draw() -> Canvas:
            canvas = blank(COLUMN, height)
            onto(list(canvas.subplots(count, sharex=alike, sharey=alike, squeeze=False)[:, 0]))
            caption(canvas, about)
            return canvas

        return cls(draw)

    @classmethod
    def of(cls, onto: Callable[[Axes], Any], height: float, *, about: Sequence[str] = ()) -> Figure:
        """A single panel, and what draws into it; `height` in inches; `about`, the lines of a caption."""
        return cls.of_panels(lambda axes: onto(axes[0]), height, about=about)

    def write(self, path: Path, kind: str) -> None:
        """Draw it into a file, in one of `FORMATS`."""
        dated = {"pdf": "CreationDate", "svg": "Date"}
        metadata = {dated[kind]: None} if kind in dated else None  # the same figure makes the same file
        self.draw().savefig(path, dpi=self.dpi, format=kind, metadata=metadata)

    def _repr_html_(self) -> str:
        return image("figure", self.draw())

    def _repr_markdown_(self) -> str:
        return f"![figure]({picture(self.draw())})"


def picture(canvas: Canvas) -> str:
    """A figure of matplotlib as an address that holds it, for a page."""
    file = BytesIO()
    canvas.savefig(file, format="png", dpi=2 * 72)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def image(name: str, canvas: Canvas) -> str:
    """A figure of matplotlib as an element of HTML, as wide as it is on paper."""
    width = round(96 * canvas.get_size_inches()[0])
    return f'<img alt="{escape(name)}" width="{width}" src="{picture(canvas)}"/>'


def blank(width: float, height: float) -> Canvas:
    """An empty figure of so many inches, of matplotlib and not of pyplot."""
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), layout="constrained")


def checked_formats(given: Any) -> tuple[str, ...]:
    """What figures are to be written as: one of `FORMATS` or several, also in one text between commas.

    **Raises:** `InputError` for another one, or none.
    """
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, Iterable) else [given]
    names = [str(part).strip().lower().removeprefix(".") for part in parts]
    if wrong := [name for name in names if name not in FORMATS] or ([] if names else ["nothing"]):
        raise InputError(f"figures are written as {', '.join(FORMATS)}, or several of them, not as {wrong[0]!r}")
    return tuple(dict.fromkeys(names))


def in_formats(files: Mapping[str, Content], formats: Any) -> dict[str, Content]:
    """Files by the names that they get: figures once for each format, whatever the suffix of their names.

    **Raises:** `InputError` as `checked_formats`.
    """
    kinds = checked_formats(formats)
    found: dict[str, Content] = {}
    for name, content in files.items():
        if isinstance(content, Figure):
            found |= {f"{name.removesuffix('.png')}.{kind}": partial(content.write, kind=kind) for kind in kinds}
        else:
            found[name] = content
    return found


def write(files: Mapping[str, Content], folder: str | Path, formats: Any = ("png",)) -> list[Path]:
    """Write files into a folder, made if it is not there, each whole or not at all.

    **Args:** `files`, what is in each, by name, which may begin with folders; `formats`, what figures are written as.

    **Returns:** the files. **Raises:** `InputError` where the folder cannot be made or written to, or a format is not
    one of `FORMATS`.
    """
    found = in_formats(files, formats)
    new = {name: content for name, content in found.items() if not _lies_there(content, Path(folder) / name)}
    return write_all(folder, {name: _writing(name, content) for name, content in new.items()})


def _lies_there(content: Content, path: Path) -> bool:
    return isinstance(content, Path) and path.exists() and content.samefile(path)


def _writing(name: str, content: Content) -> Callable[[Path], Any]:
    if isinstance(content, Path):
        return partial(copyfile, content)
    return content if callable(content) else partial(_BY_SUFFIX[Path(name).suffix], content)


def _text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


_BY_SUFFIX: dict[str, Callable[[Any, Path], Any]] = {
    ".csv": write_csv,
    ".json": lambda value, path: _text(as_json(value), path),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
    ".txt": lambda lines, path: _text("\n".join(lines) + "\n", path),
}
