"""What becomes of journals that were damaged: `python tests/studies/journals.py --count 100`.

A journal with known rows is damaged, at random: cut off, bytes changed, lines lost, swapped, taken from elsewhere or
written over, values made deep, long, huge or infinite; or something else takes its place, such as a pipe or a link
to a device. Then it is resumed. What is taken from it must be what was in it, all that is whole must be taken, or an
error of the library must say why not; and what is resumed must be whole again.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cases.odd_files import a_device, a_folder, a_pipe

from fisherflat.errors import FisherflatError
from fisherflat.studies import Journal, begun
from fisherflat.studies._journal import FILE

IDENTITY: dict[str, Any] = {"fisherflat": "1", "weights": "ab" * 32, "prompts": [[1, 2]], "seed": 0}
ROWS = {f"layer {n}/mlp/prompt 0": [{"layer": n, "x": n / 7, "text": "é\x1b", "no": None}] * (n % 3) for n in range(9)}

Damage = Callable[[random.Random, bytes, bytes], bytes]


def _somewhere(rng: random.Random, content: bytes) -> int:
    return rng.randrange(len(content))


def cut(rng: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: _somewhere(rng, content)]


def begun_late(rng: random.Random, content: bytes, other: bytes) -> bytes:
    return content[_somewhere(rng, content) :]


def flipped(rng: random.Random, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 30])):
        changed[_somewhere(rng, content)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def another_number(rng: random.Random, content: bytes, other: bytes) -> bytes:
    at = [n for n, byte in enumerate(content) if chr(byte).isdigit()]
    place = rng.choice(at)
    return content[:place] + str(rng.randrange(10)).encode() + content[place + 1 :]


def zeroed(rng: random.Random, content: bytes, other: bytes) -> bytes:
    place, length = _somewhere(rng, content), rng.randrange(1, 300)
    return content[:place] + bytes(len(content[place : place + length])) + content[place + length :]


def _lines(change: Callable[[random.Random, list[bytes], list[bytes]], list[bytes]]) -> Damage:
    return lambda rng, content, other: b"".join(
        change(rng, content.splitlines(keepends=True), other.splitlines(keepends=True))
    )


def _inserted(rng: random.Random, lines: list[bytes], new: bytes) -> list[bytes]:
    place = rng.randrange(len(lines) + 1)
    return [*lines[:place], new, *lines[place:]]


ODD_LINES = [
    b'{"task": ' + b"[" * 10**5 + b"\n",
    b'{"task": "a", "rows": [{"x": 1e999}], "seal": ""}\n',
    b'{"task": "a", "rows": ' + b"9" * 10**5 + b', "seal": 3}\n',
    b'{"task": "a", "rows": [], "seal": null}\n',
    b'{"identity": 3}\n',
    b"\xff\xfe\x00\n",
    b"null\n",
    b"\n",
    b"[]\n",
]
DAMAGES: dict[str, Damage] = {
    "cut off": cut,
    "begun late": begun_late,
    "bits changed": flipped,
    "a digit changed": another_number,
    "zeros": zeroed,
    "a line lost": _lines(lambda rng, lines, other: [x for n, x in enumerate(lines) if n != rng.randrange(len(lines))]),
    "lines in another order": _lines(lambda rng, lines, other: rng.sample(lines, len(lines))),
    "lines twice": _lines(lambda rng, lines, other: [*lines, *rng.choices(lines, k=3)]),
    "a line of another analysis": _lines(lambda rng, lines, other: _inserted(rng, lines, rng.choice(other))),
    "an odd line": _lines(lambda rng, lines, other: _inserted(rng, lines, rng.choice(ODD_LINES))),
    "no head": _lines(lambda rng, lines, other: lines[1:]),
    "the head of another": _lines(lambda rng, lines, other: [other[0], *lines[1:]]),
    "another analysis": lambda rng, content, other: other,
    "nothing": lambda rng, content, other: b"",
    "noise": lambda rng, content, other: rng.randbytes(len(content)),
}


def a_hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


PLACES = {"a pipe": a_pipe, "a device": a_device, "a folder": a_folder, "a hole of 1 TiB": a_hole}


def written(folder: Path, identity: dict[str, Any], rows: dict[str, Any], finished: bool) -> bytes:
    with begun(folder, overwrite=True):
        journal = Journal(folder, identity, overwrite=True)
        for key, done in rows.items():
            journal.write(key, done)
        journal.close(finished)
    return (folder / FILE).read_bytes()


def resumed(folder: Path) -> dict[str, Any]:
    with begun(folder, resume=True):
        journal = Journal(folder, IDENTITY, resume=True)
        done = dict(journal.done)
        for key, rows in ROWS.items():
            if key not in done:
                journal.write(key, rows)
        journal.close(True)
    return done


def damaged(count: int, seed: int, folder: Path) -> dict[str, int]:
    """Damage and resume, so many times. **Raises:** `AssertionError` where something wrong is taken, or lost."""
    rng, found = random.Random(seed), collections.Counter[str]()
    found.update(dict.fromkeys(("wrong rows", "whole lines lost", "foreign errors", "above 5 s"), 0))
    other = written(folder / "other", {**IDENTITY, "seed": 1}, {"a": [{"x": 0.5}], **ROWS}, True)
    for number in range(count):
        place = folder / str(number)
        content = written(place, IDENTITY, ROWS, rng.random() < 0.5)
        kind = rng.choice([*DAMAGES, *PLACES])
        path = place / FILE
        if kind in PLACES:
            path.unlink()
            PLACES[kind](path)
            expected: set[bytes] = set()
        else:
            path.write_bytes(DAMAGES[kind](rng, content, other))
            expected = set(content.splitlines()) & set(path.read_bytes().splitlines())
        whole = {said["task"] for said in map(json.loads, expected) if "task" in said}
        start = time.perf_counter()
        try:
            done = resumed(place)
        except FisherflatError:
            found["refused"] += 1
            found["whole lines lost"] += len(whole) if kind not in PLACES else 0
        except Exception as error:
            found["foreign errors"] += 1
            print(kind, repr(error))
        else:
            found["resumed"] += 1
            found["tasks taken"] += len(done)
            found["tasks redone"] += len(ROWS) - len(done)
            found["wrong rows"] += sum(rows != ROWS.get(key) for key, rows in done.items())
            found["whole lines lost"] += len(whole - set(done))
            assert resumed(place) == ROWS, kind
        found["above 5 s"] += time.perf_counter() - start > 5
    assert not found["wrong rows"] and not found["whole lines lost"], found
    assert not found["foreign errors"] and not found["above 5 s"], found
    return dict(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(damaged(chosen.count, chosen.seed, Path(temporary)), indent=1))
