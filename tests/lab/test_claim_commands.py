"""The commands of the claims: what they write, what they refuse, and that they go on."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from fisherflat.errors import InputError
from fisherflat.lab.claims import __main__ as training
from fisherflat.lab.claims import page
from fisherflat.lab.claims._protocol import Protocol
from fisherflat.lab.claims._verdicts import verdicts
from fisherflat.lab.claims.others import OTHERS, random_depth
from fisherflat.lab.claims.others import __main__ as others

SHIPPED = ROOT / "docs" / page.DATA


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[..., int]]:
    """`command(main)("--out", ...)` as the shell would call it."""

    def of(main: Callable[[], int]) -> Callable[..., int]:
        def call(*words: object) -> int:
            monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
            return main()

        return call

    return of


# -- training ----------------------------------------------------------------------------------------------------------

#: a few models, at once
QUICK = ("--task", "ring", "--group", "main", "--seeds", 1, "--pilot", "--steps", 2)


def test_a_plan_trains_nothing(command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(training.main)("--out", tmp_path / "runs", "--plan", "--group", "main", "--seeds", 2) == 0
    group = next(group for group in Protocol.load()["groups"] if group["name"] == "main")
    assert f"{2 * len(group['tasks']) * len(group['arms'])} models" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert command(training.main)("--group", "main") == 0  # nor does it without a folder
    with pytest.raises(InputError, match="no 'mian'; it has main, "):
        command(training.main)("--out", tmp_path / "runs", "--group", "mian")
    with pytest.raises(SystemExit):
        command(training.main)("--out", tmp_path / "runs", "--seeds", "many")
    assert not (tmp_path / "runs").exists()


def test_what_is_done_is_not_trained_again(command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "protocol.toml"
    main = 'name = "main"'
    before, after = Protocol.load().text.split(main, 1)
    small.write_text(before + main + re.sub(r"arms = .*", 'arms = ["ungated", "gated"]', after, count=1))
    digest = hashlib.sha256(small.read_bytes()).hexdigest()
    one = ("--out", tmp_path / "runs", "--protocol", small, *QUICK)
    assert command(training.main)(*one) == 0
    table = pd.read_parquet(tmp_path / "runs" / "models.parquet")
    assert f"2 of 2 blocks are done, 0 failed; protocol {digest[:12]}" in capsys.readouterr().out
    assert list(table["arm"]) == ["ungated", "gated"] and set(table["task"]) == {"ring"} and table["pilot"].all()
    assert set(table["protocol_hash"]) == {digest}
    gone, kept = sorted((tmp_path / "runs" / "parts").iterdir())
    before = kept.stat().st_mtime_ns
    gone.unlink()
    assert command(training.main)(*one) == 0
    assert kept.stat().st_mtime_ns == before and gone.exists()
    assert pd.read_parquet(tmp_path / "runs" / "models.parquet").equals(table)
    # those of other steps are others, and what a limit leaves undone is no success
    assert command(training.main)(*one[:-1], 3, "--limit-seconds", 0) == 1
    with pytest.raises(OSError, match=r"none\.toml"):
        command(training.main)("--plan", "--protocol", tmp_path / "none.toml")


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documentation with the raw tables; what is made of them, which takes a minute, is what ships."""
    shipped = {name: SHIPPED / f"{name}.parquet" for name in (*page.RAW, *page.MADE)}
    tables = {name: pd.read_parquet(path) for name, path in shipped.items()}
    monkeypatch.setattr(page, "made", lambda found, protocol: {**tables, **found})
    monkeypatch.setattr(page, "figures", lambda tables, protocol: {})
    folder = tmp_path / "docs"
    (folder / page.DATA).mkdir(parents=True)
    for name in page.RAW:
        shutil.copy(shipped[name], folder / page.DATA)
    return folder


def test_the_page_is_that_which_ships(command, docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(SHIPPED / page.MACHINE, docs / page.DATA)
    assert command(page.main)("--docs", docs, "--report", docs / "one.html") == 0
    assert (docs / "claims.md").read_bytes() == (ROOT / "docs" / "claims.md").read_bytes()
    for name in page.MADE:
        assert pd.read_parquet(docs / page.DATA / f"{name}.parquet").equals(
            pd.read_parquet(SHIPPED / f"{name}.parquet")
        )
    said = capsys.readouterr()
    assert json.loads(said.out) == verdicts(pd.read_parquet(SHIPPED / "tests.parquet")) and not said.err
    assert (docs / "one.html").read_text().lower().startswith("<!doctype html>")


def test_tables_of_a_run_take_the_place_of_those_that_were_there(
    command, docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And with them goes the machine on which these were made; tables of another protocol are said to be."""
    runs = tmp_path / "runs"
    runs.mkdir()
    found, about = page.load(SHIPPED / "models.parquet")
    page.save(found.head(1000), {**about, "protocol_sha256": "of another"}, runs / "models.parquet")
    shutil.copy(SHIPPED / page.MACHINE, docs / page.DATA)
    assert command(page.main)("--docs", docs, "--runs", runs) == 0
    assert "the tables are of protocol of another, and this is" in capsys.readouterr().err
    assert len(pd.read_parquet(docs / page.DATA / "models.parquet")) == 1000
    assert not (docs / page.DATA / page.MACHINE).exists()
    assert command(page.main)("--docs", docs, "--runs", runs, "--machine", "an abacus") == 0
    assert json.loads((docs / page.DATA / page.MACHINE).read_text()) == {"machine": "an abacus"}
    assert "an abacus" in (docs / "claims.md").read_text()


def test_a_folder_without_tables_is_refused(command, docs: Path, tmp_path: Path) -> None:
    for words in (("--runs", tmp_path / "nowhere"), ("--docs", tmp_path / "nowhere")):
        with pytest.raises(InputError, match=r"no models\.parquet; run `python -m fisherflat\.lab\.claims --out"):
            command(page.main)("--docs", docs, *words)
    assert not (docs / "claims.md").exists()


# -- figures of others -------------------------------------------------------------------------------------------------


def test_some_figures_of_others_are_made_again_and_the_page_keeps_the_rest(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docs, source = tmp_path / "docs", ROOT / "docs" / "data" / "others"
    (docs / "data" / "others").mkdir(parents=True)
    for name in ("gap", "bilinear"):
        shutil.copy(source / f"{name}.parquet", docs / "data" / "others")
    table = pd.read_parquet(source / "random_depth.parquet")
    monkeypatch.setattr(random_depth, "measure", lambda: table)  # which takes seconds
    assert command(others.main)("--docs", docs, "--only", "random_depth") == 0
    assert pd.read_parquet(docs / "data" / "others" / "random_depth.parquet").equals(table)
    assert [path.name for path in (docs / "images").iterdir()] == ["others_random_depth.png"]
    text = (docs / "others.md").read_text()
    places = [text.index(OTHERS[name].TITLE) for name in ("random_depth", "gap", "bilinear")]
    assert places == sorted(places) and OTHERS["boundaries"].TITLE not in text
    assert random_depth.said(table) in text and random_depth.said(table) in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command(others.main)("--docs", docs, "--only", "nothing")
