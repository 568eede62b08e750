"""Certificates as JSON files.

Reading a file executes nothing, allocates no more than its size warrants, and names the field that is wrong. The file
carries a digest of itself. Its `kind` says which of the two certificates it holds.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from fisherflat._files import whole
from fisherflat.certificates import digests
from fisherflat.certificates._certificate import Certificate
from fisherflat.certificates.fields import DIGEST, Fields
from fisherflat.errors import CertificateError

SCHEMA = "fisherflat-certificate/1"
#: kind -> module with `body` and `read`
KINDS = {name: f"fisherflat.certificates._{name}_file" for name in ("curvature", "symmetry")}
#: bytes of a file
MAX_FILE = 2**28


def save(certificate: Certificate, path: Path) -> None:
    """Write the file, as a whole or not at all."""
    text = json.dumps(document(certificate), indent=1, allow_nan=False) + "\n"
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def document(c: Certificate) -> dict[str, Any]:
    """The certificate as plain JSON values, with its digest."""
    written = {
        "schema": SCHEMA,
        "kind": c.kind,
        "claim": c.claim,
        "reason": c.reason.splitlines(),
        **import_module(KINDS[c.kind]).body(c),
        "versions": dict(c.versions),
        "subject": c.subject,
    }
    return {**written, "digest": digests.of_json(written)}


def load(path: Path) -> Certificate:
    """Read a file that `save` wrote.

    **Raises:** `CertificateError` naming the first field that is wrong, or where there is no file.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise CertificateError(f"{path.name} has more than {MAX_FILE} bytes, so it is no certificate")
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refused)
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"{path.name} is no JSON document: {error}") from error
    return certificate(data)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a field appears twice")
    return dict(pairs)


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no number here")


def certificate(data: Any) -> Certificate:
    """The certificate in a JSON document, checked field by field.

    **Raises:** `CertificateError`.
    """
    f = Fields(data)
    if f.text("schema") != SCHEMA:
        raise CertificateError(f"schema: {data['schema']!r} is not {SCHEMA!r}, which this version of fisherflat reads")
    digest = f.text("digest", DIGEST)
    c: Certificate = import_module(KINDS[f.choice("kind", KINDS)]).read(f)
    written = document(c)
    for name in ("claim", "reason"):  # words follow from the numbers
        if f.given(name) != written[name]:
            raise CertificateError(f"{name}: it does not say what the other fields say")
    f.finished()
    if written != data:
        wrong = next(name for name in written if written[name] != data[name])
        raise CertificateError(
            f"{wrong}: not in the form in which certificates are written" if wrong != "digest" else _EDITED
        )
    if digest != written["digest"]:
        raise CertificateError(_EDITED)
    return c


_EDITED = "digest: it is not that of the file, which was edited or damaged"
