"""An analysis as arrays with named axes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import fisherflat as ff
from fisherflat.errors import InputError

AXES = ["layer", "part", "reading", "prompt", "position", "point"]
SMALL: dict[str, Any] = {"layers": [2, 0], "points": 2, "parts": ["attention", "block"], "progress": False}


@pytest.fixture(scope="module")
def found() -> ff.Analysis:
    return ff.analyze("python-llama", [[1, 2, 3], [5, 6, 7, 8]], positions=[[1], [0, 2]], **SMALL)


def test_each_row_is_where_its_keys_say(found: ff.Analysis) -> None:
    data = found.to_xarray()
    assert list(data.sizes) == [*AXES, "direction"] and data.sizes["layer"] == data.sizes["prompt"] == 2
    assert list(data.layer.values) == [2, 0]  # in the order of the table
    for row in found.rows:
        here = data.sel({axis: row[axis] for axis in AXES})
        for name in ("scalar_curvature", "total_bend", "variance", "scalar_curvature_error"):
            assert here[name].item() == row[name]
        assert here.verdict.item() == row["verdict"] and here.u.values.tolist() == row["u"]
        assert (here.token.item(), here.text.item(), here.roles.item()) == (row["token"], row["text"], row["roles"])
    # and nowhere else is anything: places of one prompt are not those of the other
    assert int(data.scalar_curvature.notnull().sum()) == len(found.rows)
    assert np.isnan(data.scalar_curvature.sel(prompt=0, position=2)).all()


def test_units_and_what_is_the_same_everywhere(found: ff.Analysis) -> None:
    data = found.to_xarray()
    assert data.scalar_curvature.attrs["units"] == data.scalar_curvature_error.attrs["units"] == "1/σ²"
    assert data.mean_curvature_norm.attrs["units"] == "1/σ" and data.total_bend.attrs["units"] == "degree"
    assert all("units" in data[name].attrs for name in data.data_vars if data[name].dtype.kind == "f")
    assert data.attrs["model"] == "python-llama" and data.attrs["covariance"] == "words" and data.attrs["σ²"]


def test_means_along_axes_are_those_of_the_table(found: ff.Analysis) -> None:
    mean = found.to_xarray().scalar_curvature.mean(["prompt", "position", "point"])
    table = found.table.groupby(["layer", "part", "reading"]).scalar_curvature.mean()
    for place, value in table.items():
        assert mean.sel(dict(zip(AXES[:3], place, strict=True))).item() == pytest.approx(value)


def test_all_words_together_several_moves_and_what_failed() -> None:
    data = ff.analyze("python-llama", [1, 2, 3], positions="together", **SMALL | {"layers": [0]}).to_xarray()
    assert data.position.values.tolist() == [-1]
    both = ff.analyze("python-llama", [1, 2, 3], moves=["principal", "random:0"], **SMALL | {"layers": [0]})
    data = both.to_xarray()
    assert next(iter(data.sizes)) == "moves" and list(data.moves.values) == both.moves
    rows = [{**row, "point": None, "verdict": None, "error": "on purpose"} for row in both.rows[:1]]
    broken = ff.Analysis([*rows, *both.rows[1:]], model="m", settings=both.settings, complete=True)
    assert "on purpose" in broken.to_xarray().attrs["errors"][0]


def test_all_directions_have_their_interval() -> None:
    full = {"dim": "full", "parts": ["block"], "readings": ["live"], "positions": [1]}
    data = ff.analyze("python-llama", [1, 2, 3], **SMALL | full | {"layers": [0]}).to_xarray()
    assert data.scalar_curvature_low.item() < data.scalar_curvature.item() < data.scalar_curvature_high.item()
    assert data.scalar_curvature_low.attrs["units"] == "1/σ²" and data.planes.attrs["units"] == "1"


def test_two_rows_at_one_place_are_refused(found: ff.Analysis) -> None:
    twice = ff.Analysis([*found.rows, found.rows[0]], model="m", settings=found.settings, complete=True)
    with pytest.raises(InputError, match="two rows have the same layer"):
        twice.to_xarray()


def test_without_xarray(found: ff.Analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match=r'pip install "fisherflat\[xarray\]"'):
        found.to_xarray()
