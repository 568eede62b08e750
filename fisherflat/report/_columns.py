"""The columns of the table of an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fisherflat.studies.layers import CORNERS, QUANTITIES, SAMPLED

if TYPE_CHECKING:
    import pandas as pd

#: what tells rows apart, but for the reading
KEYS = ("layer", "part", "prompt", "text", "position", "token", "point")
#: the columns of the table, in order
COLUMNS = (
    "layer", "part", "roles", "reading", *KEYS[2:-1], "raw_token", "token_class", "point", "u", *QUANTITIES,
    "scalar_curvature_error", "negligible_image", "rerouted", "moves", "covariance", "variance", "output",
    "verdict", "error", "control",
)  # fmt: skip


def columns_of(settings: Mapping[str, Any]) -> list[str]:
    """The columns of the table, in order."""
    own = ("family", *CORNERS) if settings.get("family") is not None else ()
    every = (settings.get("moves", {}), *settings.get("others", ()))
    sampled = SAMPLED if any(moves.get("dim") == "full" for moves in every) else ()
    return [*COLUMNS[:4], *own[:1], *COLUMNS[4:-8], *own[1:], *sampled, *COLUMNS[-8:]]


def kinds_of(columns: Sequence[str]) -> dict[str, Any]:
    """The types of columns that are no texts, as pandas calls them."""
    numbers = (*QUANTITIES, *CORNERS, *SAMPLED, "scalar_curvature_error", "variance")
    kinds = dict.fromkeys(numbers, "float64") | dict.fromkeys(("point", "position"), "Int64")
    kinds |= dict.fromkeys(("rerouted", "negligible_image"), "boolean")
    return {name: kind for name, kind in kinds.items() if name in columns}


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table that was read from a file, as they were before."""
    return [{str(name): _given(value) for name, value in row.items()} for row in table.to_dict("records")]


def _given(value: Any) -> Any:
    """A cell as it was in its row: no value is `None`, whatever the file made of it."""
    import pandas as pd

    if hasattr(value, "tolist"):  # an array or a number of NumPy
        value = value.tolist()
    return value if isinstance(value, list) or not pd.isna(value) else None
