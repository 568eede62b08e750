"""Which rows of several tables of curvature belong together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from fisherflat._display import displayed
from fisherflat.errors import InputError
from fisherflat.geometry import FLAT_WORDS, Verdict

if TYPE_CHECKING:
    import pandas as pd

#: what tells measurements apart
PLACE = ["layer", "part", "reading"]
#: level -> what must be the same in both tables to pair them there, from the finest on
LEVELS = {
    "point": ["prompt", "position", "token", "point", "u"],
    "position": ["prompt", "position", "token"],
    "prompt": ["prompt"],
}
#: the columns that pairs are made of
PAIRED = [*PLACE, *LEVELS["point"], "text", "scalar_curvature", "scalar_curvature_error", "verdict"]
_SPOKEN = {"point": "points", "position": "positions", "prompt": "prompts"}


@displayed
@dataclass(frozen=True)
class Pairs:
    """Measurements that belong together.

    **Attributes:** `first`, the name of what all others are compared with; `table`, a row for each pair, with the
    columns `model` (the other), `layer`, `part`, `reading`, `prompt`, `text`, `position`, `point`, `before` and `after`
    (the scalar curvatures of the first and of the other), `difference` (after minus before) and `error`, how far off
    rounding may have put that; `unpaired`, the layers, parts and readings that only some have, with the columns
    `model`, `layer`, `part`, `reading`; `notes`, sentences about the pairing.
    """

    first: str
    table: pd.DataFrame
    unpaired: pd.DataFrame
    notes: list[str]


@runtime_checkable
class Rows(Protocol):
    """The rows of an analysis, where they are too many for one table."""

    @property
    def texts(self) -> Mapping[int, str]:
        """The prompts by their numbers."""

    def to_pair(self, **where: Any) -> Iterable[pd.DataFrame]:
        """The rows in pieces, of some layers or parts: `PAIRED`."""


@displayed
class Pairing:
    """How the rows of the first analysis belong to those of each other.

    Rows belong together where layer, part, reading and prompt are the same, and position and point, as far as one
    has all those of the other: what two tokenizers divide differently is compared by the means of whole prompts. The
    curvature of flat rows is zero, and of undecided ones missing.

    **Args:** `tables`, by name, at least two; the rows of each are gone through once, and then those of one layer and
    part after the other.

    **Attributes:** `first`, `unpaired`, `notes`, as in `Pairs`.

    **Raises:** `InputError` where the prompts or the numbers of directions differ.
    """

    def __init__(self, tables: Mapping[str, Rows]) -> None:
        import pandas as pd

        (self.first, self._own), *others = {name: _Side(rows) for name, rows in tables.items()}.items()
        self._others, self._levels, self.notes = dict(others), dict[str, str](), list[str]()
        lone: dict[tuple[Any, ...], None] = {}
        for name, other in others:
            _check_same(self.first, self._own, name, other)
            level = next(level for level in LEVELS if self._own.alike(other, len(LEVELS[level])))
            if level != "point":
                self.notes.append(
                    f"{self.first} and {name} do not have the same {_finer(level)}, so the means of {_SPOKEN[level]} "
                    "are compared."
                )
            self._levels[name] = level
            for whose, side, rest in ((self.first, self._own, other), (name, other, self._own)):
                lone |= {(whose, *place): None for place in side.places if place not in rest.places}
        self.unpaired = pd.DataFrame(list(lone), columns=["model", *PLACE])

    def whole(self) -> pd.DataFrame:
        """All pairs."""
        import pandas as pd

        return pd.concat([self._joined(name, {}) for name in self._others], ignore_index=True)

    def pieces(self) -> Iterator[pd.DataFrame]:
        """The pairs of one part of one layer after the other."""
        for name in self._others:
            for layer, part in self._both(name):
                yield self._joined(name, {"layer": layer, "part": part})

    def over_layers(self) -> Iterator[pd.DataFrame]:
        """The pairs of one part in one reading after the other, over all layers, with what differences are made of."""
        import pandas as pd

        for name in self._others:
            places = self._both(name)
            for part in dict.fromkeys(part for _, part in places):
                found: dict[str, list[pd.DataFrame]] = {}
                for layer in (layer for layer, of in places if of == part):
                    joined = self._joined(name, {"layer": layer, "part": part}).drop(columns=["text", "point"])
                    joined["prompt"] = joined["prompt"].astype(pd.CategoricalDtype(self._own.prompts))
                    for held, rows in joined.groupby("reading", sort=False):
                        found.setdefault(held, []).append(rows)
                while found:
                    yield pd.concat(found.pop(next(iter(found))), ignore_index=True)

    def _both(self, name: str) -> list[tuple[int, str]]:
        """The layers and parts that one of the others has as well, in the order of the first."""
        theirs = {(layer, part) for layer, part, _ in self._others[name].places}
        return [place for place in dict.fromkeys(place[:2] for place in self._own.places) if place in theirs]

    def _joined(self, name: str, where: Mapping[str, Any]) -> pd.DataFrame:
        """The pairs with one of the others, of the rows that are there."""
        import pandas as pd

        level = self._levels[name]
        halves = [_means(side.measured(**where), level) for side in (self._own, self._others[name])]
        table = halves[0].merge(halves[1], on=[*PLACE, *LEVELS[level]], suffixes=("", "_after"))
        table = table.rename(columns={"scalar_curvature": "before", "scalar_curvature_after": "after"})
        table["difference"] = table["after"] - table["before"]
        table["error"] = table.pop("scalar_curvature_error") + table.pop("scalar_curvature_error_after")
        table["text"] = table["prompt"].map(self._own.texts)
        for key in ("position", "point"):
            numbers = table[key] if key in table else pd.Series(-1, index=table.index)
            table[key] = numbers.astype("Int64").mask(numbers.isna() | (numbers == -1))
        columns = ["model", *PLACE, "prompt", "text", "position", "point", "before", "after", "difference", "error"]
        return table.assign(model=name)[columns]


def chosen(table: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """The rows with these values in columns."""
    for name, value in where.items():
        table = table[table[name] == value]
    return table


class _InMemory:
    """The rows of a table."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table
        known = table[["prompt", "text"]].drop_duplicates().sort_values("prompt")
        self.texts: dict[int, str] = dict(known.itertuples(index=False, name=None))

    def to_pair(self, **where: Any) -> Iterable[pd.DataFrame]:
        """Those of some layers or parts, in one piece."""
        return [chosen(self._table, where)]


class _Side:
    """The rows of one analysis, and what is known of them.

    **Attributes:** `prompts`, their names in order; `texts`, by these names; `sizes`, numbers of directions; `places`,
    layers, parts and readings that were measured.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows, self._names = rows, dict[Any, Any]()
        seen: dict[str, int] = {}
        for number, text in sorted(rows.texts.items()):  # one that comes again, by the number of its coming, too
            seen[text] = seen.get(text, 0) + 1
            self._names[number] = text if seen[text] == 1 else f"{text} ({seen[text]})"
        self.texts = {name: rows.texts[number] for number, name in self._names.items()}
        self.sizes, self._keys = set[int](), set[tuple[Any, ...]]()
        prompts: dict[str, None] = {}
        self.places: dict[tuple[Any, ...], None] = {}
        for piece in rows.to_pair():
            prompts |= dict.fromkeys(piece["prompt"].map(self._names))
            measured = self._ready(piece)
            self.sizes |= {len(u) for u in measured["u"]}
            self._keys.update(measured[LEVELS["point"]].itertuples(index=False, name=None))
            self.places |= dict.fromkeys(measured[PLACE].drop_duplicates().itertuples(index=False, name=None))
        self.prompts = list(prompts)

    def measured(self, **where: Any) -> pd.DataFrame:
        """The rows that hold numbers, of some layers or parts."""
        import pandas as pd

        return pd.concat([self._ready(piece) for piece in self._rows.to_pair(**where)], ignore_index=True)

    def alike(self, other: _Side, count: int) -> bool:
        """Whether one has all that the other has, by the first so many of the keys of points.

        Of the prompts that were measured in both: some may have failed.
        """
        both = {key[0] for key in self._keys} & {key[0] for key in other._keys}
        keys = [{key[:count] for key in side._keys if key[0] in both} for side in (self, other)]
        return keys[0] <= keys[1] or keys[0] >= keys[1]

    def _ready(self, table: pd.DataFrame) -> pd.DataFrame:
        """Those of some rows that were measured, with prompts by their names."""
        rows = table[table["verdict"].notna()].copy()
        rows["scalar_curvature"] = rows["scalar_curvature"].where(rows["verdict"] != Verdict.UNDECIDED)
        rows.loc[rows["verdict"].isin(FLAT_WORDS), "scalar_curvature"] = 0.0
        rows["prompt"] = rows["prompt"].map(self._names)
        rows["u"] = rows["u"].map(lambda u: tuple(u) if isinstance(u, (list, tuple, np.ndarray)) else ())
        rows["position"] = rows["position"].astype("Int64").fillna(-1).astype(int)  # -1: all words together
        rows["token"] = rows["token"].fillna("")
        return rows


def paired(tables: Mapping[str, pd.DataFrame]) -> Pairs:
    """The rows of the first table with those of each other; see `Pairing`.

    **Args:** `tables`, by name, as `table` of an `Analysis`; at least two.

    **Raises:** as `Pairing`.
    """
    found = Pairing({name: _InMemory(table) for name, table in tables.items()})
    return Pairs(found.first, found.whole(), found.unpaired, found.notes)


def _check_same(first: str, own: _Side, name: str, other: _Side) -> None:
    """**Raises:** `InputError` where two tables cannot be compared."""
    there, here = set(other.prompts), set(own.prompts)
    alone = {first: [p for p in own.prompts if p not in there], name: [p for p in other.prompts if p not in here]}
    if any(alone.values()):
        which = "; ".join(f"only {who} was measured on {_some(texts)}" for who, texts in alone.items() if texts)
        raise InputError(f"prompts differ: {which}; measure all on the same prompts")
    if own.sizes != other.sizes:
        of = " and ".join(f"{min(side.sizes)} in {who}" for who, side in ((first, own), (name, other)))
        raise InputError(f"numbers of directions that move differ, {of}: curvature grows with them; choose one for all")


def _some(texts: Sequence[str]) -> str:
    said = ", ".join(repr(text if len(text) <= 60 else f"{text[:57]}...") for text in texts[:3])
    return said + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _finer(level: str) -> str:
    return {"position": "points of the charts", "prompt": "tokens and positions"}[level]


def _means(table: pd.DataFrame, level: str) -> pd.DataFrame:
    """The mean curvature and error of what is one measurement at a level."""
    groups = table.groupby([*PLACE, *LEVELS[level]], sort=False, dropna=False)
    return groups[["scalar_curvature", "scalar_curvature_error"]].mean().reset_index()
