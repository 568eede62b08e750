"""Analyses that outgrow a table: their rows lie in parts on disk, and come into memory as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat._files import Scratch, made, regular, whole
from fisherflat.errors import InputError
from fisherflat.pages import Points, Section
from fisherflat.report import _analysis_page, _estimates
from fisherflat.report._analysis import Analysis
from fisherflat.report._columns import columns_of, kinds_of, rows_of
from fisherflat.report._in_depth import depth_studies
from fisherflat.studies.comparison import PAIRED

if TYPE_CHECKING:
    import pandas as pd

#: the folder of the parts
PARTS = "table"
#: rows of a part, and of what is read at a time
OF_PART, AT_A_TIME = 2**20, 2**14


class LargeAnalysis(Analysis):
    """An analysis of millions of rows, which `fisherflat.analyze` returns where there are as many.

    Its table lies in parts (Parquet) in the folder. `scan` goes through it piece by piece, `where` takes some of its
    rows as an `Analysis` with all that one has; `estimates` are made a layer and part at a time.

    **Attributes:** `count`, how many rows there are; the others as in `Analysis`, but for those that need all rows.
    """

    def __init__(self, parts: Path, count: int, *, scratch: Scratch | None = None, **about: Any) -> None:
        super().__init__([], **about)
        del self.rows  # which they are not
        self.parts, self.count, self._scratch = parts, count, scratch

    @classmethod
    def written(cls, rows: Iterable[Mapping[str, Any]], folder: str | Path | Scratch, **about: Any) -> LargeAnalysis:
        """From rows that come one after the other, by layer and part; in a `Scratch`, which stays as long as this."""
        place, scratch = (folder.path, folder) if isinstance(folder, Scratch) else (Path(folder), None)
        parts = made(place / PARTS)
        columns, count = columns_of(about["settings"]), 0
        for old in parts.glob("part-*.parquet"):
            old.unlink()
        for number, own in enumerate(_pieces(rows, OF_PART)):
            with whole(parts / f"part-{number:05d}.parquet") as file:
                count += _write(own, columns, file)
        return cls(parts, count, scratch=scratch, **about)

    @classmethod
    def opened(cls, place: Path, content: Mapping[str, Any]) -> LargeAnalysis:
        """From a folder and what its document says; no row is read.

        **Raises:** `InputError` where its parts do not have as many.
        """
        import pyarrow.parquet as parquet

        found = sum(parquet.read_metadata(regular(part)).num_rows for part in _parts_in(place / PARTS))
        if found != content["rows"]:
            raise InputError(f"{PARTS} has {found} of {content['rows']} rows; resume the analysis to write them again")
        about = {name: content[name] for name in ("model", "settings", "complete", "notes", "depth", "versions")}
        return cls(place / PARTS, content["rows"], studies=depth_studies(place), **about)

    def scan(self, columns: Sequence[str] | None = None, **where: Any) -> Iterator[pd.DataFrame]:
        """The table in pieces of some ten thousand rows, in its order.

        **Args:** `columns`, some of them (default: all); `where`, values of columns, one or a list of each:
        `layer=[0, 1], reading="live"`.

        **Raises:** `InputError` for a column that is not there.
        """
        if unknown := sorted({*(columns or ()), *where} - set(self.columns)):
            raise InputError(f"there is no column {unknown[0]!r}; there are {', '.join(self.columns)}")
        import pyarrow.compute as compute
        import pyarrow.parquet as parquet

        condition = None
        for name, value in where.items():
            values = list(value) if isinstance(value, (list, tuple, range, set)) else [value]
            one = compute.field(name).isin(values)
            condition = one if condition is None else condition & one
        wanted = list(columns or self.columns)
        files = _parts_in(self.parts)
        if self.count and not files:
            raise InputError(f"the rows of this analysis were in {self.parts}, and are there no more; load it again")
        for path in files:
            with parquet.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    if _without(file.metadata.row_group(group), where):
                        continue
                    read = file.read_row_group(group, columns=[*dict.fromkeys((*wanted, *where))])
                    found = read if condition is None else read.filter(condition)
                    if len(found):
                        yield found.select(wanted).to_pandas()

    def where(self, **where: Any) -> Analysis:
        """Some rows as an `Analysis`, such as `where(layer=3, part="mlp")`: they have to fit into memory.

        **Raises:** `InputError` as `scan`, and where there are no such rows.
        """
        rows = [row for piece in self.scan(**where) for row in rows_of(piece)]
        if not rows:
            raise InputError(f"no row has {', '.join(f'{name} {value!r}' for name, value in where.items())}")
        return Analysis(
            rows, model=self.model, settings=self.settings, complete=self.complete, notes=self.notes,
            versions=self.versions,
        )  # fmt: skip

    @property
    def table(self) -> pd.DataFrame:
        """**Raises:** `InputError`: the rows do not go into one table."""
        raise self._too_many()

    @cached_property
    def rows(self) -> list[dict[str, Any]]:  # type: ignore[override]  # none can be set
        """**Raises:** `InputError` as `table`."""
        raise self._too_many()

    def each(self) -> Iterator[dict[str, Any]]:
        """The rows, one after the other."""
        return (row for piece in self.scan() for row in rows_of(piece))

    def to_pair(self, **where: Any) -> Iterable[pd.DataFrame]:
        """As of `Analysis`, with no column more."""
        return self.scan(PAIRED, **self._first, **where)

    def _too_many(self) -> InputError:
        return InputError(
            f"the {self.count:,} rows of this analysis are too many for one table; take some of them "
            '(.where(layer=0, part="mlp")), go through them (.scan(["layer", "verdict"])), or look at .estimates'
        )

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """As of `Analysis`."""
        return self._part_by_part(_estimates.estimated)

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """As of `Analysis`."""
        table = self._part_by_part(_estimates.gaps)
        table.attrs["family"] = self.settings.get("family")
        return table

    def _part_by_part(self, of: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
        import pandas as pd

        nothing = of(_estimates.decided(pd.DataFrame(columns=self._needed)))
        return _estimates.joined([of(rows) for rows in self._parts()], list(nothing))

    @property
    def _needed(self) -> list[str]:
        return [name for name in _estimates.NEEDED if name in self.columns]

    def _parts(self) -> Iterator[pd.DataFrame]:
        """The decided rows of one part of one layer after the other, with what estimates are made of."""
        import pandas as pd

        held, place = list[pd.DataFrame](), None
        for piece in self.scan(self._needed, **self._first):
            for here, rows in piece.groupby(["layer", "part"], sort=False):
                if here != place and held:
                    yield _estimates.decided(pd.concat(held))
                    held = []
                place = here
                held.append(rows)
        if held:
            yield _estimates.decided(pd.concat(held))

    @property
    def _first(self) -> dict[str, str]:
        """What selects the rows that estimates are of: of several movements the first."""
        return {"moves": self.moves[0]} if len(self.moves) > 1 else {}

    def decided_of(self, layer: int, part: str) -> pd.DataFrame:
        """As of `Analysis`."""
        import pandas as pd

        return _estimates.decided(pd.concat(self.scan([*self._needed, "u"], layer=layer, part=part, **self._first)))

    @property
    def measured(self) -> bool:
        """Whether any row holds numbers."""
        return len(self.estimates) > 0

    @cached_property
    def moves(self) -> list[str]:
        """What moved, by name, in the order in which it was asked for."""
        return list(dict.fromkeys(name for piece in self.scan(["moves"]) for name in piece["moves"].dropna().unique()))

    @cached_property
    def texts(self) -> dict[int, str]:
        """The prompts by their numbers."""
        pieces = (piece.drop_duplicates() for piece in self.scan(["prompt", "text"]))
        return {prompt: text for piece in pieces for prompt, text in piece.itertuples(index=False)}

    @property
    def shown(self) -> Analysis:
        return self

    def sentences(self) -> list[str]:
        """What the estimates say, and the notes."""
        depth = [sentence for said in self.depth.values() for sentence in said]
        return [f"{self.count:,} rows, in parts on disk.", *self.opening(), *depth, *self.notes]

    def headline(self) -> str:
        """What is most curved."""
        return " ".join(self.opening())

    def sections(self) -> list[Section]:
        """The estimates, layer by layer, what gates add, and the studies of depth."""
        return [
            *_analysis_page.of_estimates(self),
            *_analysis_page.through_depth(self.studies),
            Section("All of it in sentences", [Points(self.sentences())]),
        ]

    def overview(self) -> list[Any]:
        """No table for the terminal: `estimates.csv` holds what there is."""
        return []

    glance = overview

    def files(self) -> dict[str, Any]:
        """`analysis.json`, `estimates.csv`, `gaps.csv`, and the parts of the table."""
        about = {**self._document(), "rows": self.count}
        parts = {f"{PARTS}/{path.name}": path for path in _parts_in(self.parts)}
        return {self.document: about, "estimates.csv": self.estimates, "gaps.csv": self.gaps, **parts}

    def _means(self) -> pd.DataFrame:
        return self.estimates

    def __repr__(self) -> str:
        return f"LargeAnalysis({self.model!r}, {self.count:,} rows{'' if self.complete else ', incomplete'})"


def _parts_in(folder: Path) -> list[Path]:
    """The parts of a table, in order."""
    return sorted(folder.glob("part-*.parquet"))


def _without(group: Any, where: Mapping[str, Any]) -> bool:
    """Whether a group of rows has none of some layers or parts, as its own statistics say."""
    for number in range(group.num_columns):
        column = group.column(number)
        name, known = column.path_in_schema, column.statistics
        if name in ("layer", "part") and name in where and known is not None and known.has_min_max:
            wanted = where[name]
            values = wanted if isinstance(wanted, (list, tuple, range, set)) else [wanted]
            if all(value is not None and not known.min <= value <= known.max for value in values):
                return True
    return False


def _pieces(rows: Iterable[Mapping[str, Any]], count: int) -> Iterator[Iterator[Mapping[str, Any]]]:
    """Stretches of so many rows, each to be gone through before the next."""
    left = iter(rows)
    for first in left:
        yield chain([first], islice(left, count - 1))


def _write(rows: Iterator[Mapping[str, Any]], columns: Sequence[str], file: Path) -> int:
    """A part, in groups of rows, and how many there are."""
    import pyarrow
    import pyarrow.parquet as parquet

    schema = pyarrow.schema([(name, _kind(name, pyarrow)) for name in columns])
    count = 0
    with parquet.ParquetWriter(file, schema) as writer:
        for piece in _pieces(rows, AT_A_TIME):
            table = pyarrow.Table.from_pylist(list(piece), schema)
            writer.write_table(table)
            count += len(table)
    return count


def _kind(name: str, arrow: Any) -> Any:
    """The type of a column."""
    known = {"float64": arrow.float64(), "Int64": arrow.int64(), "boolean": arrow.bool_()}
    if name in ("layer", "prompt"):
        return arrow.int64()
    return arrow.list_(arrow.float64()) if name == "u" else known.get(kinds_of([name]).get(name, ""), arrow.string())


Analysis.of_parts = LargeAnalysis.opened
