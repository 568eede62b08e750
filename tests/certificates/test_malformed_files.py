"""Files that are no certificates, and fields that are not what they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cases.proved import signed, subject

import fisherflat as ff
from fisherflat.certificates import CurvatureCertificate, files
from fisherflat.errors import CertificateError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "fisherflat-certificate/99"),
        ("verdict", "very flat"),
        ("verdict", None),
        ("argument", "affine"),
        ("precision", 128.5),
        ("precision", 10**9),
        ("precision", True),
        ("enclosure", {"low": "2", "high": "1"}),
        ("enclosure", {"low": "nan", "high": "1"}),
        ("enclosure", {"low": "1E99999", "high": "1"}),
        ("enclosure", {"low": "1" * 3000, "high": "1"}),
        ("enclosure", {"low": "1"}),
        ("enclosure", None),
        ("point", ["0x1.0000000000000p+0"]),
        ("point", ["inf", "0x1.0000000000000p+0"]),
        ("point", "0x1.0000000000000p+0"),
        ("radius", "-0x1.0000000000000p+0"),
        ("cells", ["2"]),
        ("cells", ["0" * 100]),
        ("cells", [""] * 70000),
        ("frozen", ["everything"]),
        ("weights", [{"name": "w", "shape": [2**60, 2**60], "sha256": "0" * 64}]),
        ("weights", [{"name": "w", "shape": [-1], "sha256": "0" * 64}]),
        ("graph", "0" * 63),
        ("chart", {"kind": "affine", "point": {"shape": [2**40], "sha256": "0" * 64, "base64": ""}, "basis": {}}),
        ("chart", {"kind": "affine", "point": {"shape": [65], "sha256": "0" * 64, "base64": "!" * 696}, "basis": {}}),
        ("covariance", {"shape": [], "sha256": "0" * 64, "hex": ["0x1.0000000000000p+0"]}),
        ("versions", {"torch": 2}),
        ("subject", []),
        ("digest", "0" * 64),
        ("claim", "The manifold is flat."),
        ("reading", "weights"),
        ("extra", 1),
    ],
)  # fmt: skip
def test_malformed_fields_are_named(field: str, value: Any) -> None:
    document = {**files.document(subject("curved").certificate), field: value}
    with pytest.raises(CertificateError, match=rf"^(.*, )?{field}\b"):
        files.certificate(document if field == "digest" else signed(document))


@pytest.mark.parametrize("field", ["verdict", "chart", "weights", "digest", "steps", "claim"])
def test_missing_fields_are_named(field: str) -> None:
    document = files.document(subject("curved").certificate)
    del document[field]
    with pytest.raises(CertificateError, match=f"^{field}: missing"):
        files.certificate(document)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'"x"', b"\xff\xfe\x00", b"[" * 100000, b'{"a": NaN}', b'{"a": 1, "a": 2}',
     b'{"a": ' + b"9" * 5000 + b"}", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."],
)  # fmt: skip
def test_files_that_are_no_certificates(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(CertificateError):
        CurvatureCertificate.load(tmp_path / "c.json")


def test_files_beyond_all_size_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE", 1000)
    subject("curved").certificate.save(tmp_path / "c.json")
    with pytest.raises(CertificateError, match="bytes"):
        CurvatureCertificate.load(tmp_path / "c.json")


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ff.errors.FisherflatError):
        subject("curved").certificate.save(tmp_path / "missing" / "c.json")
    assert list(tmp_path.iterdir()) == []
