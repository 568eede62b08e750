"""Certificates as JSON files.

Numbers that matter are exact: floats are written in hexadecimal, large arrays as their bytes, bounds as decimals. The
file carries a digest of itself. Reading executes nothing, allocates no more than the file's size warrants, and names
the field that is wrong.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherflat._files import whole
from fisherflat.certificates import digests
from fisherflat.certificates.certificate import ARGUMENTS, VERDICTS, Analytic, Bound, Certificate, Step, Weight
from fisherflat.charts import Chart
from fisherflat.errors import CertificateError, InputError
from fisherflat.family import Gaussian
from fisherflat.readings import WORDS

SCHEMA = "fisherflat-certificate/1"
#: bytes of a file, characters of a text, entries of a list, numbers of an array that are written one by one
MAX_FILE, MAX_TEXT, MAX_LIST, MAX_HEX = 2**28, 2**20, 2**16, 64

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DECIMAL = re.compile(r"-?\d{1,2000}(\.\d{1,2000})?(E[+-]?\d{1,4})?")
_PATH = re.compile(r"[01]{0,64}")


# -- writing -----------------------------------------------------------------------------------------------------------


def save(certificate: Certificate, path: Path) -> None:
    """Write the file, as a whole or not at all."""
    text = json.dumps(document(certificate), indent=1, allow_nan=False) + "\n"
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def document(c: Certificate) -> dict[str, Any]:
    """The certificate as plain JSON values, with its digest."""
    body: dict[str, Any] = {
        "schema": SCHEMA,
        "verdict": c.verdict,
        "claim": c.claim,
        "reason": c.reason.splitlines(),
        "reading": c.reading,
        "argument": c.argument,
        "frozen": list(c.frozen),
        "enclosure": _between(c.enclosure),
        "determinant": _between(c.determinant),
        "point": _hex(c.point),
        "radius": float(c.radius).hex(),
        "plane": None if c.plane is None else [_hex(vector) for vector in c.plane],
        "cells": list(c.cells),
        "precision": c.precision,
        "rank": None if c.rank is None else {"at_least": c.rank[0], "exact": c.rank[1]},
        "witness": _step(c.witness),
        "unsupported": _step(c.unsupported),
        "steps": [_step(step) for step in c.steps],
        "analytic": None
        if c.analytic is None
        else {"ops": list(c.analytic.ops), "restricted": list(c.analytic.restricted)},
        "weights": [{"name": w.name, "shape": list(w.shape), "sha256": w.sha256} for w in c.weights],
        "graph": c.graph,
        "outputs": c.outputs,
        "covariance": _array(c.family.covariance),
        "chart": {"kind": c.chart.kind, "point": _array(c.chart.point), "basis": _array(c.chart.basis)},
        "versions": dict(c.versions),
        "subject": c.subject,
    }
    return {**body, "digest": digests.of_json(body)}


def _hex(numbers: Any) -> list[str]:
    return [float(number).hex() for number in numbers]


def _between(bounds: tuple[Bound, Bound] | None) -> dict[str, str] | None:
    return None if bounds is None else {"low": str(bounds[0]), "high": str(bounds[1])}


def _step(step: Step | None) -> dict[str, Any] | None:
    return None if step is None else dict(vars(step))


def _array(tensor: Tensor) -> dict[str, Any]:
    array = {"shape": list(tensor.shape), "sha256": digests.of_tensor(tensor)}
    if tensor.numel() <= MAX_HEX:
        return {**array, "hex": _hex(tensor.reshape(-1).tolist())}
    return {**array, "base64": base64.b64encode(digests.raw(tensor)).decode()}


# -- reading -----------------------------------------------------------------------------------------------------------


def load(path: Path) -> Certificate:
    """Read a file that `save` wrote.

    **Raises:** `CertificateError` naming the first field that is wrong, `OSError` where there is no file.
    """
    if path.stat().st_size > MAX_FILE:
        raise CertificateError(f"{path.name} has more than {MAX_FILE} bytes, so it is no certificate")
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refused)
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
    f = _Fields(data)
    if f.text("schema") != SCHEMA:
        raise CertificateError(f"schema: {data['schema']!r} is not {SCHEMA!r}, which this version of fisherflat reads")
    digest = f.text("digest", _DIGEST)
    verdict, argument = f.choice("verdict", VERDICTS), f.choice("argument", ARGUMENTS)
    if ARGUMENTS[argument][0] != verdict:
        raise CertificateError(
            f"argument: {argument!r} supports the verdict {ARGUMENTS[argument][0]!r}, not {verdict!r}"
        )
    chart = f.of("chart", _chart)
    k = chart.dim
    point = f.of("point", lambda value: _floats(value, k))
    c = Certificate(
        verdict=verdict,
        argument=argument,
        chart=chart,
        family=f.of("covariance", lambda value: Gaussian(_tensor(value))),
        frozen=tuple(f.of("frozen", lambda value: [_chosen(role, WORDS) for role in _list(value)])),
        precision=f.integer("precision", 2, 2**16),
        point=point,
        radius=f.of("radius", lambda value: _nonnegative(_float(value))),
        plane=f.optional("plane", lambda value: _plane(value, k)),
        cells=tuple(f.of("cells", lambda value: [_text(cell, _PATH) for cell in _list(value)])),
        enclosure=f.optional("enclosure", _bounds),
        determinant=f.optional("determinant", _bounds),
        rank=f.optional("rank", lambda value: _rank(value, k)),
        witness=f.optional("witness", _read_step),
        unsupported=f.optional("unsupported", _read_step),
        steps=tuple(f.of("steps", lambda value: [_read_step(step) for step in _list(value)])),
        analytic=f.optional("analytic", _analytic),
        weights=tuple(f.of("weights", lambda value: [_weight(weight) for weight in _list(value)])),
        graph=f.text("graph", _DIGEST),
        outputs=f.integer("outputs", 1, 2**40),
        versions=f.of("versions", _versions),
        subject=f.optional("subject", _subject),
    )
    if verdict == "curved" and (c.enclosure is None or c.determinant is None):
        raise CertificateError("enclosure, determinant: missing, but a proof of curvature has them")
    if argument == "affine" and (c.rank is None or not c.steps):
        raise CertificateError("rank, steps: missing, but an affine map has them")
    written = document(c)
    for name in ("claim", "reason", "reading"):  # words follow from the numbers
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


class _Fields:
    """The fields of a JSON object, each read once; errors name the field."""

    def __init__(self, data: Any) -> None:
        if not isinstance(data, dict):
            raise CertificateError("the document is not a JSON object")
        self._data, self._left = data, set(data)

    def given(self, name: str) -> Any:
        if name not in self._data:
            raise CertificateError(f"{name}: missing")
        self._left.discard(name)
        return self._data[name]

    def of(self, name: str, read: Callable[[Any], Any]) -> Any:
        value = self.given(name)
        try:
            return read(value)
        except (ValueError, TypeError, OverflowError, InputError) as error:
            raise CertificateError(f"{name}: {error}") from error

    def optional(self, name: str, read: Callable[[Any], Any]) -> Any:
        return self.of(name, lambda value: None if value is None else read(value))

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        return self.of(name, lambda value: _text(value, pattern))

    def choice(self, name: str, known: Any) -> str:
        return self.of(name, lambda value: _chosen(value, known))

    def integer(self, name: str, low: int, high: int) -> int:
        return self.of(name, lambda value: _integer(value, low, high))

    def finished(self) -> None:
        if self._left:
            raise CertificateError(f"{min(self._left)}: no such field")


def _text(value: Any, pattern: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"a text of at most {MAX_TEXT} characters is needed")
    if pattern is not None and pattern.fullmatch(value) is None:
        raise ValueError(f"{value[:80]!r} has not the right form")
    return value


def _chosen(value: Any, known: Any) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{str(value)[:80]!r} is none of {', '.join(known)}")
    return value


def _integer(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"an integer from {low} to {high} is needed")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_LIST:
        raise ValueError(f"a list of at most {MAX_LIST} entries is needed")
    return value


def _object(value: Any, *names: str) -> list[Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        raise ValueError(f"an object with the fields {', '.join(names)} is needed")
    return [value[name] for name in names]


def _float(value: Any) -> float:
    number = float.fromhex(_text(value))
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


def _nonnegative(number: float) -> float:
    if number < 0:
        raise ValueError("it is negative")
    return number


def _floats(value: Any, count: int) -> tuple[float, ...]:
    if len(_list(value)) != count:
        raise ValueError(f"{count} numbers are needed")
    return tuple(_float(number) for number in value)


def _plane(value: Any, k: int) -> tuple[tuple[float, ...], ...]:
    if len(_list(value)) != 2:
        raise ValueError("two vectors are needed")
    return tuple(_floats(vector, k) for vector in value)


def _bounds(value: Any) -> tuple[Bound, Bound]:
    low, high = (Bound(_text(bound, _DECIMAL)) for bound in _object(value, "low", "high"))
    if low > high:
        raise ValueError("the lower bound is above the upper one")
    return low, high


def _rank(value: Any, k: int) -> tuple[int, bool]:
    least, exact = _object(value, "at_least", "exact")
    if type(exact) is not bool:
        raise ValueError("exact is true or false")
    return _integer(least, 0, k), exact


def _read_step(value: Any) -> Step:
    node, *texts = _object(value, "node", "op", "order", "role", "module", "source")
    return Step(_integer(node, 0, MAX_LIST), *(_text(text) for text in texts))


def _analytic(value: Any) -> Analytic:
    ops, restricted = _object(value, "ops", "restricted")
    return Analytic(tuple(map(_text, _list(ops))), tuple(map(_text, _list(restricted))))


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(_integer(length, 0, MAX_FILE) for length in _list(value))
    if len(shape) > 32 or math.prod(shape) > MAX_FILE:
        raise ValueError(f"the shape {list(shape)[:8]} is too large")
    return shape


def _weight(value: Any) -> Weight:
    name, shape, sha256 = _object(value, "name", "shape", "sha256")
    return Weight(_text(name), _shape(shape), _text(sha256, _DIGEST))


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, dict):
        raise ValueError("an array is needed")
    form = "hex" if "hex" in value else "base64"
    shape, sha256, entries = _object(value, "shape", "sha256", form)
    shape = _shape(shape)
    if form == "hex":
        numbers = np.array(_floats(entries, math.prod(shape)), dtype="<f8")
    else:
        if not isinstance(entries, str) or len(entries) != 4 * ((8 * math.prod(shape) + 2) // 3):
            raise ValueError(f"the entries are not those of an array of shape {list(shape)}")
        try:
            numbers = np.frombuffer(base64.b64decode(entries, validate=True), dtype="<f8")
        except binascii.Error as error:
            raise ValueError(f"base64: {error}") from error
    tensor = torch.from_numpy(numbers.astype(np.float64).reshape(shape))
    if digests.of_tensor(tensor) != _text(sha256, _DIGEST):
        raise ValueError("sha256: it is not that of the entries")
    return tensor


def _chart(value: Any) -> Chart:
    kind, point, basis = _object(value, "kind", "point", "basis")
    return Chart(_tensor(point), _tensor(basis), _text(kind))


def _versions(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 32:
        raise ValueError("an object of at most 32 versions is needed")
    return {_text(name): _text(version) for name, version in value.items()}


def _subject(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(json.dumps(value)) > MAX_TEXT:
        raise ValueError(f"an object of at most {MAX_TEXT} characters is needed")
    return value
