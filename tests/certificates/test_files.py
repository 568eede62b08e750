"""Reading a file is bounded, whatever is in it, and says what is wrong."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import certified

import fisherflat as ff
from fisherflat.certificates import Certificate, digests, files
from fisherflat.errors import CertificateError


@cache
def document() -> dict[str, Any]:
    return files.document(ff.certify(certified.Attention("silu"), certified.CHART, at=[0.5, -0.25]))


def nested(levels: int) -> Any:
    thing: Any = 0
    for _ in range(levels):
        thing = [thing]
    return thing


@pytest.mark.parametrize(
    "text",
    ["[" * 10**6, "{" * 10**5, '{"a":' * 10**5, "1e999", "NaN", '{"schema": 1e999}', '"\\ud800"', "[]", "null", "",
     "\x00", '{"schema": "fisherflat-certificate/1", "schema": "fisherflat-certificate/1"}', "9" * 10**5],
)  # fmt: skip
def test_what_is_no_certificate_is_said_to_be_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    start = time.perf_counter()
    with pytest.raises(CertificateError):
        Certificate.load(tmp_path / "c.json")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", list(document()))
@pytest.mark.parametrize(
    "value",
    [None, True, -1, 10**300, 1e300, "\ud800", "x" * 2**21, nested(40), {"": nested(20)}, ["0"] * 2**17, [""] * 2**16],
    ids=["none", "true", "negative", "huge", "float", "surrogate", "long text", "deep", "object", "long", "cells"],
)
def test_any_field_may_hold_anything(name: str, value: Any) -> None:
    changed = {**document(), name: value}
    if name != "digest":
        with suppress(ValueError):  # of what is no text
            changed["digest"] = digests.of_json({k: v for k, v in changed.items() if k != "digest"})
    start = time.perf_counter()
    try:
        certificate = files.certificate(changed)
    except CertificateError as error:
        assert ":" in str(error) or "nested" in str(error)
    else:
        same = changed[name] == document()[name]
        assert ff.verify(certificate, certified.Attention("silu"), certified.CHART).ok == (same or name == "subject")
    assert time.perf_counter() - start < 20


def bent(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[0], x[1], x[0] * x[1] * (x * x).sum()])


def test_words_follow_from_numbers_with_all_their_digits(tmp_path: Path) -> None:
    certificate = ff.certify(bent, ff.charts.identity(2), ff.Gaussian(0.3), at=[0.123456789012, 0.2])
    assert "u = (0.123456789012, 0.2)" in certificate.claim
    assert "under the covariance 0.3" in certificate.claim
    written = files.document(certificate)
    (tmp_path / "c.json").write_text(json.dumps({**written, "claim": written["claim"].replace("0.2)", "0.3)")}))
    with pytest.raises(CertificateError, match="claim"):
        Certificate.load(tmp_path / "c.json")
