"""An analysis as arrays with named axes, for xarray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fisherflat.errors import InputError
from fisherflat.report._analysed import Analysed
from fisherflat.report._captions import of_part
from fisherflat.spaces.families import unit

if TYPE_CHECKING:
    import pandas as pd
    import xarray

#: the axes, in order; in front of them `moves`, where there are several
AXES = ("layer", "part", "reading", "prompt", "position", "point")
#: what belongs to some of the axes
_ABOUT = {
    "text": ("prompt",), "roles": ("layer", "part"), "token": ("prompt", "position"),
    "raw_token": ("prompt", "position"), "token_class": ("prompt", "position"),
}  # fmt: skip
#: what is the same in all rows, and stands with the whole
_CONSTANT = ("moves", "covariance", "output", "family", "control")
#: position of what moves all words of a prompt together
TOGETHER = -1
#: column -> how many lengths multiplied it is, as far as it is no curvature
_LENGTHS = {"second_fundamental_form_norm": -1, "mean_curvature_norm": -1, "smallest_stretch": 1, "largest_stretch": 1}
#: column -> its unit where it is of none; what is counted has none
_UNITS = {
    "total_bend": "degree", "effective_rank": "1",
    "condition_number": "1", "uncertainty": "1", "relative_curvature": "1", "directions": "1", "planes": "1",
    "positive_planes": "1", "negative_planes": "1", "variance": "square of the outputs' unit",
}  # fmt: skip


def _unit_of(name: str, family: str | None) -> str:
    """Of a column."""
    if name == "volume_density":
        return "σ^k" if family is None else "1"
    return _UNITS.get(name) or unit(family, _LENGTHS.get(name, -2)) or "1"


def dataset(found: Analysed) -> xarray.Dataset:
    """The table of an analysis by layer, part, reading, prompt, position and point; see `Analysis.to_xarray`."""
    try:
        import xarray
    except ImportError as error:
        raise InputError(
            'xarray is not installed; pip install "fisherflat[xarray]", or take the table as it is: .table'
        ) from error
    table = found.table
    rows = table[table["point"].notna()].assign(position=table["position"].fillna(TOGETHER).astype("int64"))
    rows = rows.assign(point=rows["point"].astype("int64"))
    several = rows["moves"].nunique() > 1
    axes = [*(("moves",) if several else ()), *AXES]
    if rows.duplicated(axes).any():
        raise InputError("two rows have the same layer, part, reading, prompt, position and point; they have no array")
    about = {name: on for name, on in _ABOUT.items() if name in rows}
    constant = [name for name in _CONSTANT if name in rows and name not in axes]
    numbers = [name for name in rows.columns if name not in {*axes, *about, *constant, "u"}]
    indexed = rows.set_index(axes)
    whole = indexed[[*numbers, "u"]]
    order = [list(dict.fromkeys(rows[axis])) for axis in axes]
    wide = xarray.Dataset.from_dataframe(_plain(whole[numbers])).reindex(dict(zip(axes, order, strict=True)))
    wide = wide.assign(_coordinates(xarray, whole["u"], wide, axes))
    wide = wide.assign_coords({name: _by(rows, name, on, wide, xarray) for name, on in about.items()})
    family = found.settings.get("family")
    for name in wide.data_vars:
        if wide[name].dtype.kind == "f":
            wide[name].attrs["units"] = _unit_of(str(name), family)
    wide["position"].attrs["long_name"] = f"index of the token that moves; {TOGETHER}: all words together"
    failed = table[table["point"].isna()]
    wide.attrs = {
        "model": found.model,
        **({"σ²": of_part(found.settings).partition(": ")[2]} if family is None else {}),
        **{name: _one(rows[name]) for name in constant},
        "errors": [f"layer {row['layer']}, {row['part']}: {row['error']}" for row in failed.to_dict("records")],
    }
    return wide


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """With columns that have no value of their own for what is missing as NaN or `None`."""
    kinds = {name: "object" for name in rows if str(rows[name].dtype) not in ("float64", "int64", "bool")}
    plain = rows.astype(kinds)
    for name in kinds:
        plain[name] = plain[name].where(plain[name].notna(), None)
    return plain


def _coordinates(xarray: Any, u: pd.Series[Any], wide: Any, axes: list[str]) -> dict[str, Any]:
    """The coordinates of the points in their charts, on one more axis; none in all directions, where all are zero."""
    known = [list(map(float, one)) for one in u if one is not None and len(one)]
    if not known:
        return {}
    columns = {
        i: [one[i] if one is not None and i < len(one) else float("nan") for one in u]
        for i in range(max(map(len, known)))
    }
    import pandas as pd

    each = [pd.Series(values, index=u.index, name="u").to_xarray().reindex_like(wide) for values in columns.values()]
    joined = xarray.concat(each, pd.Index(list(columns), name="direction")).transpose(*axes, "direction")
    joined.attrs["units"] = "units of the chart"
    return {"u": joined}


def _by(rows: pd.DataFrame, name: str, on: tuple[str, ...], wide: Any, xarray: Any) -> Any:
    """What belongs to some of the axes, an array along these."""
    first = _plain(rows.drop_duplicates(list(on)).set_index(list(on))[[name]])[name]
    return first.to_xarray().reindex({axis: wide[axis] for axis in on})


def _one(values: pd.Series[Any]) -> Any:
    """The value of all rows; several as a list, none as an empty text."""
    found = [value for value in dict.fromkeys(values) if value is not None and value == value]
    return found[0] if len(found) == 1 else found or ""
