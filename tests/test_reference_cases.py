"""The copy of the reference cases that lets a lone clone run its tests is the original, byte for byte."""

from __future__ import annotations

import json

from conftest import CASES_COPY, CASES_SHARED


def test_copy_is_the_original():
    original = CASES_SHARED if CASES_SHARED.exists() else CASES_COPY
    assert CASES_COPY.read_bytes() == original.read_bytes()


def test_there_are_33_distinct_cases():
    names = [case["name"] for case in json.loads(CASES_COPY.read_text())]
    assert len(names) == len(set(names)) == 33
