"""The page of the claims says what its tables say, and its tests what the raw table says.

`test_claim_tables.py` makes the tables beside them again.
"""

from __future__ import annotations

import hashlib
import math
import re
from html import escape

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from fisherflat.lab.claims._page import markdown, page, statement
from fisherflat.lab.claims._protocol import Protocol
from fisherflat.lab.claims.page import DATA, MADE, RAW, raw
from fisherflat.pages import html

DOCS = ROOT / "docs"
FOLDER = DOCS / DATA
#: unit on the page -> what the table has
BACK = {" points": lambda x: x / 100, " times": math.log10, "": lambda x: x}


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    paths = {name: FOLDER / f"{name}.parquet" for name in (*RAW, *MADE)}
    return {name: pd.read_parquet(path) for name, path in paths.items() if path.is_file()}


def printed(claim: str) -> list[list[str]]:
    """The rows of the table of tests of a claim."""
    section = re.split(rf"^## {claim}\. ", (DOCS / "claims.md").read_text(), flags=re.MULTILINE)[1].split("\n## ")[0]
    lines = section[section.index("| test | what |") :].split("\n\n")[0].splitlines()[2:]
    return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines]


def test_the_page_is_made_of_the_tables_that_ship(tables) -> None:
    _, about = raw(FOLDER)
    assert (DOCS / "claims.md").read_text() == markdown(tables, Protocol.load().tables, about)
    assert all(
        (DOCS / place).is_file() for place in re.findall(r"\((images/[\w.]+)\)", (DOCS / "claims.md").read_text())
    )


def test_what_ships_is_of_this_protocol_and_small(tables) -> None:
    protocol, (_, about) = Protocol.load(), raw(FOLDER)
    assert about["protocol_sha256"] == protocol.sha256 and set(tables["models"]["protocol_hash"]) == {protocol.sha256}
    for name, digest in about["files"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
        assert digest in (DOCS / "claims.md").read_text()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5e6


@pytest.mark.parametrize("claim", list(Protocol.load()["claims"]))
def test_each_number_of_a_test_is_that_of_the_table(tables, claim: str) -> None:
    rows = tables["tests"][tables["tests"]["claim"] == claim].to_dict("records")
    lines = printed(claim)
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        said = re.fullmatch(r"(\S+?)( points| times|) \((\S+) to (\S+), (\d+) (seeds|tasks)\)", line[4])
        assert said, line[4]
        assert (int(said[5]), said[6]) == (row["units"], row["over"])
        for text, name in ((said[1], "value"), (said[3], "low"), (said[4], "high")):
            found = BACK[said[2]](float(text.replace("−", "-"))) if text != "–" else math.nan
            assert found == pytest.approx(row[name], rel=0.06, abs=0.0051, nan_ok=True), (line, name)
        assert line[0] == row["id"].split(" ")[0] and row["verdict"] in line[7]


def test_verdicts_follow_from_the_intervals_of_the_table(tables) -> None:
    for row in tables["tests"].to_dict("records"):
        if row["kind"] == "equivalence":
            sure = abs(row["low"]) < row["margin"] and abs(row["high"]) < row["margin"]
            sure_not = row["low"] > row["margin"] or row["high"] < -row["margin"]
        else:
            sure, sure_not = row["low"] > row["margin"], row["high"] < row["margin"]
            sure, sure_not = (sure_not, sure) if row["kind"] == "below" else (sure, sure_not)
        word = "holds" if sure else "does not hold" if sure_not else "undecided"
        assert row["verdict"] in (word, "undecided")
        if row["verdict"] != word:
            assert row["p_holm"] > 0.05 or row["missing"] or row["units"] < 5, row
        if row["verdict"] != "undecided":
            assert row["p_holm"] <= 0.05


def test_differences_are_those_of_the_raw_table(tables) -> None:
    """Again from the raw rows, in plain words."""
    models, count = tables["models"], 0
    usual = {name: family["weight_decay"] for name, family in Protocol.load()["families"].items()}
    models = models[
        ~models["pilot"] & ~models["shuffled"] & np.isclose(models["weight_decay"], models["family"].map(usual))
    ]
    for row in tables["tests"].to_dict("records"):
        if row["table"] != "models" or row["kind"] not in ("difference", "equivalence") or row["units"] == 0:
            continue
        means = []
        for task in row["tasks"].split(", "):
            own = models[models["task"] == task]
            for part in row["where"].split(", "):
                name, value = part.rsplit(" ", 1)
                own = own[
                    own[name] == {"True": True, "False": False}.get(value, value if not value.isdigit() else int(value))
                ]
            sides = [own[own["arm"] == row[side]].groupby("seed")[row["column"]].first() for side in ("arm", "against")]
            both = [np.log10(side) if row["transform"] == "log10" else side for side in sides]
            means.append((both[0] - both[1]).replace([np.inf, -np.inf], np.nan).mean())
        assert np.nanmean(means) == pytest.approx(row["value"], rel=1e-9, abs=1e-12), row["id"]
        count += 1
    assert count > 50


def test_the_page_of_one_file_has_every_claim_with_its_figure(tables) -> None:
    protocol, (_, about) = Protocol.load(), raw(FOLDER)
    made = page(tables, protocol.tables, about)
    assert len(made.headline) <= 3
    text = html(made)
    assert all(escape(statement(protocol.tables, claim)) in text for claim in protocol["claims"])
    assert text.count("<figure") >= len(protocol["claims"]) - 1
