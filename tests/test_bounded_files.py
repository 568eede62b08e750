"""Files: held folders, whole files, bounds of what is read, and text that does nothing where it is shown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases.odd_files import a_device, a_folder, a_pipe

from fisherflat import _files
from fisherflat.errors import CertificateError, CheckpointError, InputError

HOLD = """
import sys, time
from fisherflat._files import claimed
with claimed(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_held_by_one_run_and_a_kill_ends_that(tmp_path: Path) -> None:
    process = holder(tmp_path / "out")
    try:
        with (
            pytest.raises(InputError, match=f"process {process.pid}, works in .*; wait for it"),
            _files.claimed(tmp_path / "out"),
        ):
            pass
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (tmp_path / "out" / "mine").touch()
    with _files.claimed(tmp_path / "out"):
        pass
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_who_holds_a_folder_may_claim_it_again_and_another_thread_may_not(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "out", target_is_directory=True)
    (tmp_path / "out").mkdir()
    said: list[Exception] = []

    def other() -> None:
        try:
            with _files.claimed(tmp_path / "out"):
                pass
        except InputError as error:
            said.append(error)

    with _files.claimed(tmp_path / "out"), _files.claimed(link), _files.claimed(tmp_path / "out" / "within"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(said) == 1 and "works in" in str(said[0])
    other()
    assert len(said) == 1


def test_many_that_want_one_folder_get_it_one_at_a_time(tmp_path: Path) -> None:
    inside, most, got = [0], [0], [0]

    def want() -> None:
        for _ in range(60):
            try:
                with _files.claimed(tmp_path / "new" / "out"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(1e-4)
                    inside[0] -= 1
                    got[0] += 1
            except InputError:
                continue

    threads = [threading.Thread(target=want) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and got[0] > 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_a_killed_run_left_half_written_is_swept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / "depth" / f".profile.csv.{ended.pid}.0123abcd.part"
    others = [tmp_path / ".mine.part", tmp_path / f".table.csv.{os.getppid()}.0123abcd.part"]
    left.parent.mkdir()
    for path in (left, *others, tmp_path / f".table.csv.{ended.pid}.part", tmp_path / f".c.json.{ended.pid}.ab.part"):
        path.touch()
    with _files.whole(tmp_path / "c.json") as part:
        part.write_text("x")
    assert not (tmp_path / f".c.json.{ended.pid}.ab.part").exists() and left.exists()
    with _files.claimed(tmp_path):
        assert sorted(path for path in tmp_path.iterdir() if path.suffix == ".part") == sorted(others)
        assert list(left.parent.iterdir()) == []


def test_a_file_is_tried_before_work_is_done_for_it(tmp_path: Path) -> None:
    _files.tried(tmp_path / "c.json")
    assert list(tmp_path.iterdir()) == []
    for wrong in (tmp_path, tmp_path / "missing" / "c.json", tmp_path / ("x" * 300)):
        with pytest.raises(InputError):
            _files.tried(wrong)


def a_circle(path: Path) -> None:
    path.symlink_to(path)


def a_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: no byte of it is on disk


def holding(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


ODD = {
    "a pipe": a_pipe,
    "a device": a_device,
    "a folder": a_folder,
    "a circle": a_circle,
    "a large file": a_large_file,
    "nothing": holding(b""),
    "deep": holding(b'{"a":' * 10**6 + b"1" + b"}" * 10**6),
    "deep lists": holding(b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "beyond floats": holding(b'{"a": 1e999}'),
    "NaN": holding(b'{"a": NaN}'),
    "a long integer": holding(b'{"a": ' + b"9" * 10**5 + b"}"),
    "twice": holding(b'{"a": 1, "a": 2}'),
    "not UTF-8": holding(b'{"a": "\xff"}'),
    "no object": holding(b"[1]"),
    "cut off": holding(b'{"a": [1, 2'),
}


@pytest.mark.parametrize("error", [InputError, CertificateError, CheckpointError])
@pytest.mark.parametrize("kind", ODD)
def test_files_of_any_kind_are_read_or_refused_at_once(kind: str, error: Any, tmp_path: Path) -> None:
    ODD[kind](tmp_path / "file.json")
    start = time.perf_counter()
    with pytest.raises(error, match=r"file\.json"):
        _files.read_json(tmp_path / "file.json", error)
    assert time.perf_counter() - start < 10


def test_what_is_written_is_read_again_and_steers_nothing(tmp_path: Path) -> None:
    text = "a\x1b[31m\x9b\u202e\u2028\udcff\x7f\x00'\"\\ é 漢"
    value = {"text": text, text: [1.5, None, {"x": 1e-300}]}
    written = _files.as_json(value)
    assert not set(written) & set("\x1b\x9b\u202e\u2028\udcff\x7f\x00")
    (tmp_path / "file.json").write_text(written, encoding="utf-8")
    assert _files.read_json(tmp_path / "file.json") == value == json.loads(written)
    assert not set(_files.visible(text)) & set("\x1b\x9b\u202e\u2028\udcff\x7f\x00")
