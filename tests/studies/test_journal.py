"""Journals that were damaged, analyses that were killed, and two that want one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
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


#: a journal as it was written while a seal was the digest of values, not of bytes
BEFORE = (
    b'{"identity":{"seed":0},"seal":"b5a286d6bc36747a80049d745da13b818bf1a79eaa5fa8adc34113a80e4ea81d"}\n'
    b'{"task":"a","rows":[{"x":0.1,"text":"\xc3\xa9\\u001b","no":null}],'
    b'"seal":"8d32932a4564f30fbcd21b713c7cf0febeb8facb649fcb8ffd5b6287625241c3"}\n'
    b'{"task":"b","rows":[],"seal":"2bb37a19f16a6386337cf81294ae3b75d06d1f6b232955cb798587aa6041e2ac"}\n'
)


def test_a_journal_of_before_is_taken_and_goes_on(tmp_path: Path) -> None:
    rows = {"a": [{"x": 0.1, "text": "é\x1b", "no": None}], "b": []}
    (tmp_path / FILE).write_bytes(BEFORE)
    for more in ({}, {"c": [{"x": 2.0}]}, {}):  # opened, added to, opened again
        journal = Journal(tmp_path, {"seed": 0}, resume=True)
        assert journal.done == rows and not journal.lost
        for key, row in more.items():
            journal.write(key, row)
        journal.close(False)
        rows |= more
    (tmp_path / FILE).write_bytes(BEFORE.replace(b"0.1", b"0.2"))
    journal = Journal(tmp_path, {"seed": 0}, resume=True)
    journal.close(False)
    assert journal.done == {"b": []} and journal.lost == 1


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ('","seal":"00"}\n', '","seal":"00"}\n'),
        ("\x00\x1b\u2028\u202e\r\n\ud800", "\x00\x1b\u2028\u202e\r\n\ud800"),
        ([float("nan"), float("inf"), -float("inf"), -0.0, 5e-324, 1.7976931348623157e308],
         [None, None, None, -0.0, 5e-324, 1.7976931348623157e308]),
        ((1, (2, float("nan"))), [1, [2, None]]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({1: "a", 2: float("nan")}, {"1": "a", "2": None}),
        (np.float64(0.1), 0.1),
        (np.float64("nan"), None),
        ({}, {}),
    ],
)  # fmt: skip
def test_what_was_written_is_read_again(value: object, read: object, tmp_path: Path) -> None:
    journal = Journal(tmp_path, IDENTITY)
    journal.write("a", [{"value": value}])
    journal.close(False)
    assert (tmp_path / FILE).read_bytes().count(b"\n") == 2
    journal = Journal(tmp_path, IDENTITY, resume=True)
    journal.close(False)
    assert journal.done == {"a": [{"value": read}]} and not journal.lost
    assert json.dumps(journal.done["a"]) == json.dumps([{"value": read}])  # also the sign of a zero


@pytest.mark.parametrize("value", [np.float32(0.5), {1}, b"x", 1j])
def test_what_is_no_json_leaves_no_half_a_line(value: object, tmp_path: Path) -> None:
    journal = Journal(tmp_path, IDENTITY)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(TypeError):
        journal.write("a", [{"x": 0.5}, {"value": value}])
    assert (tmp_path / FILE).read_bytes() == before and not journal.done
    journal.close(False)


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
