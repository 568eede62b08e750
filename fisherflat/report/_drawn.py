"""Figures that were drawn, by name: for notebooks, for files, and to work on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat.report._writer import Figure, image, picture, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


class Drawn(Mapping[str, Any]):
    """Some figures by name, each drawn when it is first looked at; in a notebook they show themselves.

    What is changed in a figure is kept: it is in what is displayed and written.

    **Args:** `figures`, as recipes.

    >>> import fisherflat as ff
    >>> found = ff.analyze("python-llama", [1, 2, 3, 4], layers=[-1], parts=["mlp"], points=1, progress=False)
    >>> drawn = found.plot()
    >>> list(drawn), drawn["layers"].get_suptitle().partition(":")[0]
    (['layers', 'gaps'], 'python-llama')
    """

    def __init__(self, figures: Mapping[str, Figure]) -> None:
        self._figures = dict(figures)

    @cached_property
    def _canvases(self) -> dict[str, Canvas]:
        return {}

    def __getitem__(self, name: str) -> Canvas:
        if name not in self._canvases:
            self._canvases[name] = self._figures[name].draw()
        return self._canvases[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def save(self, folder: str | Path, *, formats: Any = ("png",)) -> list[Path]:
        """Write the figures into a folder, each under its name.

        **Args:** `formats`, out of `png`, `pdf` and `svg`, one or several.

        **Returns:** the files. **Raises:** `InputError` where that cannot be done.
        """
        kept = {
            name: Figure(lambda name=name: self[name], figure.dpi)  # type: ignore[misc]
            for name, figure in self._figures.items()
        }
        return write({f"{name}.png": figure for name, figure in kept.items()}, folder, formats)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._figures)})"

    def _repr_html_(self) -> str:
        return "".join(image(name, self[name]) for name in self)

    def _repr_markdown_(self) -> str:
        return "\n\n".join(f"![{escape(name)}]({picture(self[name])})" for name in self)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)
