"""Journals that were damaged, analyses that were killed, and two that want one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from fisherflat.errors import InputError
from fisherflat.studies import Journal, _journal, begun
from fisherflat.studies._journal import FILE

sys.path.insert(0, str(Path(__file__).parent))
from journals import IDENTITY, ROWS, damaged, resumed, written


def test_damaged_journals_are_redone_or_refused(tmp_path: Path) -> None:
    found = damaged(60, 1, tmp_path)
    assert found["resumed"] > 20 and found["refused"] > 0


@pytest.mark.parametrize("finished", [True, False])
def test_what_is_there_is_not_begun_anew(finished: bool, tmp_path: Path) -> None:
    before = written(tmp_path, IDENTITY, ROWS, finished)
    for identity in (IDENTITY, {**IDENTITY, "seed": 1}):
        with pytest.raises(InputError, match=r"finished.*overwrite"), begun(tmp_path):
            pass
        with pytest.raises(InputError, match=r"finished.*overwrite"):
            Journal(tmp_path, identity)
    with pytest.raises(InputError, match="another analysis: seed was 0, is 1"):
        Journal(tmp_path, {**IDENTITY, "seed": 1}, resume=True)
    with pytest.raises(InputError, match="choose one of them"), begun(tmp_path, resume=True, overwrite=True):
        pass
    assert (tmp_path / FILE).read_bytes() == before
    assert resumed(tmp_path) == ROWS
    assert written(tmp_path, {**IDENTITY, "seed": 1}, {}, False) != before


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    content = written(tmp_path, IDENTITY, {"a": [{"x": 1.25}], "b": [{"x": 2.5}]}, False)
    (tmp_path / FILE).write_bytes(content.replace(b"1.25", b"1.26"))
    journal = Journal(tmp_path, IDENTITY, resume=True)
    journal.close(False)
    assert journal.done == {"b": [{"x": 2.5}]} and journal.lost == 1
    assert [json.loads(line).get("task") for line in (tmp_path / FILE).read_bytes().splitlines()] == [None, "b"]


def test_what_is_too_long_to_be_read_again_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_journal, "MAX_LINE", 2000)
    journal = Journal(tmp_path, IDENTITY)
    journal.write("short", [{"x": 0.5}])
    with pytest.raises(InputError, match=r"the rows of long take \d+ bytes, more than the 2000 .* fewer positions"):
        journal.write("long", [{"x": 0.5}] * 500)
    journal.close(False)
    journal = Journal(tmp_path, IDENTITY, resume=True)
    journal.close(False)
    assert journal.done == {"short": [{"x": 0.5}]} and not journal.lost
    with pytest.raises(InputError, match=r"the prompts and settings take .* fewer prompts at a time"):
        Journal(tmp_path / "other", {**IDENTITY, "prompts": [list(range(1000))]})


def test_a_whole_journal_is_opened_as_it_is(tmp_path: Path) -> None:
    """The file that was there is added to; one with a damaged line is written anew."""
    content = written(tmp_path, IDENTITY, ROWS, False)
    path = tmp_path / FILE
    before = path.stat().st_ino
    link = tmp_path / "held"
    os.link(path, link)  # so that the number is not given again
    assert resumed(tmp_path) == ROWS
    assert path.stat().st_ino == before and path.read_bytes().startswith(content)
    path.write_bytes(content[:-1])  # a last line without its end
    for _ in range(2):
        assert resumed(tmp_path) == ROWS
    path.write_bytes(content.replace(b"layer 0", b"layer 9"))
    assert len(resumed(tmp_path)) == len(ROWS) - 1 and path.stat().st_ino != before


def test_a_few_kills_lose_nothing(tmp_path: Path) -> None:
    """In a process of its own, which can fork; `kills.py` does a hundred."""
    script = f"from pathlib import Path; import kills; print(kills.kills(4, 3, Path({str(tmp_path)!r})))"
    folder = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'kills': 4" in done.stdout
