"""The table of an analysis: its shapes, and its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat import statistics
from fisherflat._files import write_all
from fisherflat._version import __version__
from fisherflat.errors import InputError
from fisherflat.parts import readings
from fisherflat.studies.layers._measure import COLUMNS as NUMBERS
from fisherflat.studies.layers._measure import FLAT
from fisherflat.studies.layers._summary import sentences, tables
from fisherflat.studies.layers._tasks import Row

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from rich.console import RenderableType

#: what tells rows apart, but for the reading
KEYS = ("layer", "part", "prompt", "text", "position", "token", "point")
#: the columns of the table, in order
COLUMNS = ("layer", "part", "roles", "reading", *KEYS[2:], "u", *NUMBERS, "rerouted", "verdict", "error")


class Analysis:
    """What `fisherflat.analyze` found.

    **Attributes:** `rows`, a dict each; `model`, its name; `settings`, the arguments; `complete`, false after an
    interrupt; `notes`, sentences about the run; `depth`, by prompt, what a study of the depth said, where asked for.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        model: str,
        settings: dict[str, Any],
        complete: bool,
        notes: Sequence[str] = (),
        depth: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.rows = [{name: row.get(name) for name in COLUMNS} for row in rows]
        self.model, self.settings, self.complete, self.notes = model, settings, complete, list(notes)
        self.depth = {prompt: list(said) for prompt, said in (depth or {}).items()}

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each layer, part or head, reading, prompt, position and point.

        `roles`: what there is in the part that can be held. Curvatures are in units of one over the covariance, which
        is the part's own mean output variance: `scalar_curvature`; `mean_`, `smallest_` and
        `largest_sectional_curvature` over the planes of the chart (see `Geometry.sectional_extremes`).
        `second_fundamental_form` and `mean_curvature` are norms, in one over its root; `volume_density` is
        `sqrt(det g)`, `effective_rank` and `condition_number` are those of `g`, in the coordinates `u` of the chart.
        `rerouted`: a mixture of experts chooses others at this point than at the prompt itself.
        `verdict` is `flat to rounding`, `positive` or `negative`; `error` says why there are no numbers. `position` is
        missing where all words of the prompt move together.
        """
        import pandas as pd

        kinds: dict[str, Any] = {"point": "Int64", "position": "Int64", "rerouted": "boolean"} | dict.fromkeys(
            NUMBERS, "float64"
        )
        return pd.DataFrame(self.rows, columns=list(COLUMNS)).astype(kinds)  # also where every row failed

    def by_reading(self, quantity: str = "scalar_curvature") -> pd.DataFrame:
        """One quantity, a row for each layer, part, prompt, position and point, and a column for each reading.

        **Raises:** `InputError` for what is no number of the table.
        """
        if quantity not in NUMBERS:
            raise InputError(f"{quantity!r} is no quantity of the table; there are {', '.join(NUMBERS)}")
        table = self.table[self.table["verdict"].notna()]
        order = list(dict.fromkeys(table["reading"]))
        wide = table.set_index([*KEYS, "reading"])[quantity].unstack("reading", sort=False)
        return wide.reindex(columns=order).reset_index().rename_axis(columns=None)

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """The expressivity gap of every gate: curvature with the gate live minus curvature with the gate held.

        The attention pattern, where there is one, is held in both; the difference is taken point by point. A row for
        each layer, part and gate: the two readings, and of the gap in scalar curvature the columns of a
        `fisherflat.statistics.Estimate`: mean, spread, and a bootstrap interval over prompts, positions or points.
        """
        import pandas as pd

        found = []
        for (layer, part), rows in self.table[self.table["verdict"].notna()].groupby(["layer", "part"], sort=False):
            roles = readings.roles(f"frozen {rows['roles'].iloc[0]}") if rows["roles"].iloc[0] else ()
            for gate in readings.GATES:
                pair = readings.gap(roles, gate)
                if pair is None or not set(pair) <= set(rows["reading"]):
                    continue
                differences = statistics.differences(rows, *pair)
                about = {"layer": layer, "part": part, "gate": readings.WORDS[gate], "live": pair[0], "held": pair[1]}
                found.append(statistics.by_group(differences.assign(**about), list(about)))
        columns = ["layer", "part", "gate", "live", "held", *statistics.Estimate.__dataclass_fields__]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """Mean, spread and interval of the scalar curvature, a row for each layer, part and reading."""
        measured = self.table[self.table["verdict"].notna()]
        return statistics.by_group(measured, ["layer", "part", "reading"])

    @property
    def measured(self) -> bool:
        """Whether any row holds numbers."""
        return any(row["verdict"] is not None for row in self.rows)

    def sentences(self) -> list[str]:
        """What the numbers say, in words."""
        depth = [sentence for said in self.depth.values() for sentence in said]
        return [*sentences(self.table, self.gaps), *depth, *self.notes]

    def summary(self) -> RenderableType:
        """The scalar curvature by layer, a table a part, and the sentences; for `rich.print`."""
        from rich.console import Group
        from rich.markup import escape

        return Group(escape(self.model), *tables(self.table, self.estimates), *map(escape, self.sentences()))

    def save(self, folder: str | Path) -> list[Path]:
        """Write the tables, a summary and the figures, as far as there is something to show.

        `table.csv` and `table.parquet` hold the table, `readings.csv` the scalar curvature with a column a reading,
        `estimates.csv` means and intervals by layer, `gaps.csv` the expressivity gaps, `analysis.json` the arguments
        and the sentences; `layers.png`, `gaps.png` and `heads.png` are the figures. Each is there as a whole or not at
        all.

        **Returns:** the files. **Raises:** `InputError` where the folder cannot be made or written to.
        """
        return write_all(folder, self._writers())

    def _writers(self) -> dict[str, Callable[[Path], None]]:
        files: dict[str, Callable[[Path], None]] = {
            "table.csv": lambda path: self.table.to_csv(path, index=False),
            "table.parquet": lambda path: self.table.to_parquet(path, index=False),
            "analysis.json": self._write_json,
        }
        if self.measured:
            files["readings.csv"] = lambda path: self.by_reading().to_csv(path, index=False)
            files["estimates.csv"] = lambda path: self.estimates.to_csv(path, index=False)
        heads = {_is_head(row["part"]) for row in self.rows if row["verdict"]}
        if False in heads:
            files["layers.png"] = self._draw_layers
        if len(self.gaps):
            files["gaps.csv"] = lambda path: self.gaps.to_csv(path, index=False)
            files["gaps.png"] = self._draw_gaps
        if True in heads:
            files["heads.png"] = self._draw_heads
        return files

    @classmethod
    def load(cls, folder: str | Path) -> Analysis:
        """The analysis that `save` wrote into a folder.

        **Raises:** `InputError` where its files are not there or not whole.
        """
        import pandas as pd

        folder = Path(folder)
        try:
            content = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
            rows = pd.read_parquet(folder / "table.parquet").to_dict("records")
            about = {name: content[name] for name in ("model", "settings", "complete", "notes", "depth")}
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder} does not hold the files of a saved analysis ({error})") from error
        return cls([{name: _given(value) for name, value in row.items()} for row in rows], **about)

    def _write_json(self, path: Path) -> None:
        content = {
            "fisherflat": __version__,
            "model": self.model,
            "settings": self.settings,
            "complete": self.complete,
            "summary": self.sentences(),
            "notes": self.notes,
            "depth": self.depth,
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")

    def _draw_layers(self, path: Path) -> None:
        from fisherflat import plot

        measured = self.table[self.table["verdict"].notna()]
        parts = {part for part in measured["part"] if not part.startswith("head ")}
        with _figure(path, len(parts), 0.8 + 1.5 * len(parts)) as axes:
            plot.layers_by_part(measured, axes)

    def _draw_gaps(self, path: Path) -> None:
        from fisherflat import plot

        with _figure(path, 1, 2.4) as axes:
            plot.gaps(self.gaps, axes[0])

    def _draw_heads(self, path: Path) -> None:
        from fisherflat import plot

        heads = self.table[self.table["part"].str.startswith("head ") & self.table["verdict"].notna()]
        curved = heads[heads["verdict"] != FLAT]  # a map of nothing but flat heads shows nothing
        found = list(dict.fromkeys((curved if len(curved) else heads)["reading"]))
        with _figure(path, len(found), len(found) * (0.9 + 0.16 * heads["layer"].nunique())) as axes:
            for reading, ax in zip(found, axes, strict=True):
                plot.heads(heads, ax, reading)

    def __repr__(self) -> str:
        layers = len({row["layer"] for row in self.rows})
        return (
            f"Analysis({self.model!r}, {len(self.rows)} rows, {layers} layers{'' if self.complete else ', incomplete'})"
        )


@contextmanager
def _figure(path: Path, panels: int, height: float) -> Iterator[list[Axes]]:
    """Panels one above the other, one column wide, written to a file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, height), layout="constrained")  # not of pyplot: nothing is shown or kept
    yield list(figure.subplots(panels, sharex=True, squeeze=False)[:, 0])
    figure.savefig(path, dpi=200, format="png")


def _is_head(part: str | None) -> bool:
    return part is not None and part.startswith("head ")


def _given(value: Any) -> Any:
    """A cell as it was in its row: no value is `None`, whatever the file made of it."""
    if hasattr(value, "tolist"):  # an array or a number of NumPy
        value = value.tolist()
    return value if isinstance(value, list) or value == value else None
