"""Which rows of several tables of curvature belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


def paired(tables: Mapping[str, pd.DataFrame]) -> Pairs:
    """The rows of the first table with those of each other.

    Rows belong together where layer, part, reading and prompt are the same, and position and point, as far as one
    table has all those of the other: what two tokenizers divide differently is compared by the means of whole prompts.

    **Args:** `tables`, by name, as `table` of an `Analysis`; at least two.

    **Returns:** the pairs. The curvature of flat rows is zero, and of undecided ones missing.

    **Raises:** `InputError` where the prompts or the numbers of directions differ.
    """
    import pandas as pd

    (first, own), *others = {name: _ready(table) for name, table in tables.items()}.items()
    found, unpaired, notes = [], [], []
    for name, other in others:
        _check_same(first, own, name, other)
        own_rows, other_rows = (table[table["verdict"].notna()] for table in (own, other))
        level = next(level for level, keys in LEVELS.items() if _alike(own_rows, other_rows, keys))
        if level != "point":
            notes.append(
                f"{first} and {name} do not have the same {_finer(level)}, so the means of {_SPOKEN[level]} are "
                "compared."
            )
        halves = [_means(table, level) for table in (own_rows, other_rows)]
        keys = [*PLACE, *LEVELS[level]]
        joined = halves[0].merge(halves[1], on=keys, suffixes=("", "_after"))
        joined = joined.rename(columns={"scalar_curvature": "before", "scalar_curvature_after": "after"})
        joined["difference"] = joined["after"] - joined["before"]
        joined["error"] = joined.pop("scalar_curvature_error") + joined.pop("scalar_curvature_error_after")
        found.append(joined.assign(model=name))
        for whose, table, rest in ((first, own_rows, other_rows), (name, other_rows, own_rows)):
            places = table[PLACE].drop_duplicates()
            lone = places.merge(rest[PLACE].drop_duplicates(), on=PLACE, how="left", indicator=True)
            unpaired.append(lone.loc[lone["_merge"] == "left_only", PLACE].assign(model=whose))
    texts = own.drop_duplicates("prompt").set_index("prompt")["text"]
    table = pd.concat(found, ignore_index=True)
    table["text"] = table["prompt"].map(texts)
    for name in ("position", "point"):
        numbers = table[name] if name in table else pd.Series(-1, index=table.index)
        table[name] = numbers.astype("Int64").mask(numbers.isna() | (numbers == -1))
    columns = ["model", *PLACE, "prompt", "text", "position", "point", "before", "after", "difference", "error"]
    lone = pd.concat(unpaired, ignore_index=True).drop_duplicates()[["model", *PLACE]]
    return Pairs(first, table[columns], lone, notes)


def _ready(table: pd.DataFrame) -> pd.DataFrame:
    """The rows; prompts by their text, where one comes again by the number of its coming, too."""
    rows = table.copy()
    rows["scalar_curvature"] = rows["scalar_curvature"].where(rows["verdict"] != Verdict.UNDECIDED)
    rows.loc[rows["verdict"].isin(FLAT_WORDS), "scalar_curvature"] = 0.0
    names: dict[Any, Any] = {}
    seen: dict[str, int] = {}
    for number, text in rows[["prompt", "text"]].drop_duplicates().sort_values("prompt").itertuples(index=False):
        seen[text] = seen.get(text, 0) + 1
        names[number] = text if seen[text] == 1 else f"{text} ({seen[text]})"
    rows["prompt"] = rows["prompt"].map(names)
    rows["u"] = rows["u"].map(lambda u: tuple(u) if isinstance(u, (list, tuple, np.ndarray)) else ())
    rows["position"] = rows["position"].astype("Int64").fillna(-1).astype(int)  # -1: all words together
    rows["token"] = rows["token"].fillna("")
    return rows


def _check_same(first: str, own: pd.DataFrame, name: str, other: pd.DataFrame) -> None:
    """**Raises:** `InputError` where two tables cannot be compared."""
    here, there = (list(dict.fromkeys(table["prompt"])) for table in (own, other))
    alone = {first: [p for p in here if p not in there], name: [p for p in there if p not in here]}
    if any(alone.values()):
        which = "; ".join(f"only {who} was measured on {_some(texts)}" for who, texts in alone.items() if texts)
        raise InputError(f"prompts differ: {which}; measure all on the same prompts")
    sizes = [{len(u) for u in table.loc[table["verdict"].notna(), "u"]} for table in (own, other)]
    if sizes[0] != sizes[1]:
        of = " and ".join(f"{min(size)} in {who}" for who, size in zip((first, name), sizes, strict=True))
        raise InputError(f"numbers of directions that move differ, {of}: curvature grows with them; choose one for all")


def _some(texts: Sequence[str]) -> str:
    said = ", ".join(repr(text if len(text) <= 60 else f"{text[:57]}...") for text in texts[:3])
    return said + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _finer(level: str) -> str:
    return {"position": "points of the charts", "prompt": "tokens and positions"}[level]


def _alike(own: pd.DataFrame, other: pd.DataFrame, names: Sequence[str]) -> bool:
    """Whether one has all that the other has, of the prompts that were measured in both: some may have failed."""
    both = set(own["prompt"]) & set(other["prompt"])
    keys = [
        set(table.loc[table["prompt"].isin(both), list(names)].itertuples(index=False, name=None))
        for table in (own, other)
    ]
    return keys[0] <= keys[1] or keys[0] >= keys[1]


def _means(table: pd.DataFrame, level: str) -> pd.DataFrame:
    """The mean curvature and error of what is one measurement at a level."""
    groups = table.groupby([*PLACE, *LEVELS[level]], sort=False, dropna=False)
    return groups[["scalar_curvature", "scalar_curvature_error"]].mean().reset_index()
