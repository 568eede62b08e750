"""Statements as JSON files, whatever their kind.

Reading a file executes nothing, allocates no more than its size warrants, and names the field that is wrong. The file
carries a digest of itself. Its `kind` says what it holds: each kind of certificate enters its form here, so that this
layer knows of none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from fisherflat._files import whole
from fisherflat.certificates import digests
from fisherflat.certificates.fields import DIGEST, Fields
from fisherflat.errors import CertificateError

SCHEMA = "fisherflat-certificate/1"
#: bytes of a file
MAX_FILE = 2**28


class Statement(Protocol):
    """What all kinds of statements say."""

    kind: ClassVar[str]
    versions: dict[str, str]
    subject: dict[str, Any] | None

    @property
    def claim(self) -> str:
        """The statement in one sentence."""
        ...

    @property
    def reason(self) -> str:
        """What it rests on, a line each."""
        ...


class Form(NamedTuple):
    """How statements of one kind are written and read: `body`, the fields that only they have; `read`, the reverse."""

    body: Callable[[Any], dict[str, Any]]
    read: Callable[[Fields], Any]


#: kind -> its form
FORMS: dict[str, Form] = {}


def save(certificate: Statement, path: Path) -> None:
    """Write the file, as a whole or not at all."""
    text = json.dumps(document(certificate), indent=1, allow_nan=False) + "\n"
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def document(c: Statement) -> dict[str, Any]:
    """The certificate as plain JSON values, with its digest."""
    written = {
        "schema": SCHEMA,
        "kind": c.kind,
        "claim": c.claim,
        "reason": c.reason.splitlines(),
        **FORMS[c.kind].body(c),
        "versions": dict(c.versions),
        "subject": c.subject,
    }
    return {**written, "digest": digests.of_json(written)}


def load(path: Path) -> Any:
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


def certificate(data: Any) -> Any:
    """The certificate in a JSON document, checked field by field.

    **Raises:** `CertificateError`.
    """
    f = Fields(data)
    if f.text("schema") != SCHEMA:
        raise CertificateError(f"schema: {data['schema']!r} is not {SCHEMA!r}, which this version of fisherflat reads")
    digest = f.text("digest", DIGEST)
    c: Statement = FORMS[f.choice("kind", FORMS)].read(f)
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
