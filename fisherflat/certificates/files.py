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

from fisherflat._files import MAX_DEPTH, MAX_FILE, read_json, too_deep, whole
from fisherflat.certificates import digests
from fisherflat.certificates.fields import DIGEST, Fields
from fisherflat.errors import CertificateError

#: the form in which certificates are written; older ones are read, and written as they were read
SCHEMA = 2
#: how it stands in a file
_NAMES = {number: f"fisherflat-certificate/{number}" for number in range(1, SCHEMA + 1)}


class Statement(Protocol):
    """What all kinds of statements say."""

    kind: ClassVar[str]
    schema: int
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
    """How statements of one kind are written and read.

    **Attributes:** `body`, the fields that only they have; `read`, the reverse, given the number of the schema.
    """

    body: Callable[[Any], dict[str, Any]]
    read: Callable[[Fields, int], Any]


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
        "schema": _NAMES[c.schema],
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
    return certificate(read_json(path, CertificateError, MAX_FILE))


def certificate(data: Any) -> Any:
    """The certificate in a JSON document, checked field by field.

    **Raises:** `CertificateError`.
    """
    if too_deep(data):
        raise CertificateError(f"the document is nested more than {MAX_DEPTH} deep")
    try:
        return _certificate(data)
    except CertificateError:
        raise
    except (ValueError, TypeError, OverflowError, ArithmeticError) as error:  # whatever the readers of fields let pass
        raise CertificateError(f"the document is malformed: {error}") from error


def _certificate(data: Any) -> Any:
    f = Fields(data)
    named = f.choice("schema", tuple(_NAMES.values()))
    schema = next(number for number, name in _NAMES.items() if name == named)
    digest = f.text("digest", DIGEST)
    c: Statement = FORMS[f.choice("kind", FORMS)].read(f, schema)
    written = document(c)
    for name in ("claim", "reason"):  # words follow from the numbers
        if f.given(name) != written[name]:
            raise CertificateError(f"{name}: it does not say what the other fields say")
    f.finished()
    if not _same(written, data):
        wrong = next(name for name in written if not _same(written[name], data[name]))
        raise CertificateError(
            f"{wrong}: not in the form in which certificates are written" if wrong != "digest" else _EDITED
        )
    if digest != written["digest"]:
        raise CertificateError(_EDITED)
    return c


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON values, in which 1, 1.0 and true are three things."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


_EDITED = "digest: it is not that of the file, which was edited or damaged"
