"""The table of an analysis, on disk and on the terminal."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat import __version__
from fisherflat.analysis.summary import sentences, table_by_layer
from fisherflat.analysis.tasks import Row
from fisherflat.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

NUMBERS = ("scalar_curvature", "second_fundamental_form", "mean_curvature", "volume_density", "condition_number")
#: the columns of the table, in order
COLUMNS = (
    *("layer", "part", "reading", "prompt", "text", "position", "token", "point", "u"),
    *NUMBERS,
    *("verdict", "error"),
)


class Analysis:
    """What `fisherflat.analyze` found.

    **Attributes:** `rows`, a dict each; `model`, its name; `settings`, the arguments; `complete`, false after an
    interrupt; `notes`, sentences about the run.
    """

    def __init__(
        self, rows: Sequence[Row], *, model: str, settings: dict[str, Any], complete: bool, notes: Sequence[str] = ()
    ) -> None:
        self.rows = [{name: row.get(name) for name in COLUMNS} for row in rows]
        self.model, self.settings, self.complete, self.notes = model, settings, complete, list(notes)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each layer, part, reading, prompt, position and point.

        `scalar_curvature` is in units of one over the covariance, which is the part's own mean output variance;
        `second_fundamental_form` and `mean_curvature` are norms, in one over its root; `volume_density` is
        `sqrt(det g)` and `condition_number` that of `g`, in the coordinates `u` of the chart (standard deviations).
        `verdict` is `flat to rounding`, `positive` or `negative`; `error` says why there are no numbers.
        """
        import pandas as pd

        kinds: dict[str, Any] = {"point": "Int64"} | dict.fromkeys(NUMBERS, "float64")  # also where every row failed
        return pd.DataFrame(self.rows, columns=list(COLUMNS)).astype(kinds)

    @property
    def measured(self) -> bool:
        """Whether any row holds numbers."""
        return any(row["verdict"] is not None for row in self.rows)

    def sentences(self) -> list[str]:
        """What the numbers say, in words."""
        return [*sentences(self.rows), *self.notes]

    def summary(self) -> RenderableType:
        """A table with the median scalar curvature by layer, and the sentences; for `rich.print`."""
        from rich.console import Group

        return Group(self.model, table_by_layer(self.rows), *self.sentences())

    def save(self, folder: str | Path) -> list[Path]:
        """Write table.csv, analysis.json and layers.png (where there is a number to draw).

        Each file is written under another name first and then renamed, so that it is there as a whole or not at all.

        **Returns:** the files. **Raises:** `InputError` where the folder cannot be made or written to.
        """
        folder = Path(folder)
        files: dict[str, Callable[[Path], None]] = {"table.csv": self._write_csv, "analysis.json": self._write_json}
        if self.measured:
            files["layers.png"] = self._write_figure
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, write in files.items():
                with _whole(folder / name) as part:
                    write(part)
        except OSError as error:
            raise InputError(f"the results cannot be written to {folder}: {error}") from error
        return [folder / name for name in files]

    def _write_csv(self, path: Path) -> None:
        self.table.to_csv(path, index=False)

    def _write_json(self, path: Path) -> None:
        content = {
            "fisherflat": __version__,
            "model": self.model,
            "settings": self.settings,
            "complete": self.complete,
            "summary": self.sentences(),
            "rows": [{name: _jsonable(value) for name, value in row.items()} for row in self.rows],
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")

    def _write_figure(self, path: Path) -> None:
        from matplotlib.figure import Figure

        from fisherflat import plot

        figure = Figure(figsize=(3.4, 2.8), layout="constrained")  # not of pyplot: nothing is shown or kept
        plot.layers(self.table, ax=figure.subplots())
        figure.savefig(path, dpi=200, format="png")

    def __repr__(self) -> str:
        layers = len({row["layer"] for row in self.rows})
        return (
            f"Analysis({self.model!r}, {len(self.rows)} rows, {layers} layers{'' if self.complete else ', incomplete'})"
        )


def _jsonable(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` when all went well, and is removed otherwise."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
