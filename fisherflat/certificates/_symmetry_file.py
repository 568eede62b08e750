"""Certificates about symmetries as the fields of a JSON document."""

from __future__ import annotations

from typing import Any

from fisherflat.certificates import fields, files
from fisherflat.certificates._symmetry import ARGUMENTS, SIDES, SYMMETRIES, Counterexample, Finding, SymmetryCertificate
from fisherflat.certificates.fields import Fields
from fisherflat.errors import CertificateError


def body(c: SymmetryCertificate) -> dict[str, Any]:
    """What the file says beyond what all certificates say."""
    return {
        "activation": c.activation,
        "degree": None if c.degree is None else float(c.degree).hex(),
        "units": c.units,
        "width": c.width,
        "outputs": c.outputs,
        "constant": c.constant,
        "findings": [_finding(finding) for finding in c.findings],
        "precision": c.precision,
        "weights": [fields.weight(weight) for weight in c.weights],
        "graph": c.graph,
    }


def _finding(f: Finding) -> dict[str, Any]:
    c = f.counterexample
    example = None
    if c is not None:
        example = {
            "unit": c.unit,
            "output": c.output,
            "inputs": [fields.numbers(pair) for pair in c.inputs],
            "left": fields.bounds(c.left),
            "right": fields.bounds(c.right),
        }
    return {
        "symmetry": f.symmetry,
        "verdict": f.verdict,
        "argument": f.argument,
        "counterexample": example,
        "note": f.note,
    }


def read(f: Fields, schema: int) -> SymmetryCertificate:
    """The certificate in the fields.

    **Raises:** `CertificateError`.
    """
    units, outputs = f.integer("units", 1, 2**40), f.integer("outputs", 1, 2**40)
    c = SymmetryCertificate(
        activation=f.text("activation"),
        degree=f.optional("degree", _as_degree),
        units=units,
        width=f.integer("width", 1, 2**40),
        outputs=outputs,
        constant=f.of("constant", _as_bool),
        findings=tuple(f.of("findings", lambda v: [_as_finding(x, units, outputs) for x in fields.as_list(v)])),
        precision=f.integer("precision", 2, 2**14),
        weights=tuple(f.of("weights", lambda value: [fields.as_weight(weight) for weight in fields.as_list(value)])),
        graph=f.text("graph", fields.DIGEST),
        versions=f.of("versions", fields.as_versions),
        subject=f.optional("subject", fields.as_subject),
        schema=schema,
    )
    if [finding.symmetry for finding in c.findings] != list(SYMMETRIES):
        raise CertificateError(f"findings: they are to be about {', '.join(SYMMETRIES)}, in this order")
    return c


def _as_degree(value: Any) -> float:
    degree = fields.as_number(value)
    return int(degree) if degree == int(degree) else degree


def _as_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("it is true or false")
    return value


def _as_finding(value: Any, units: int, outputs: int) -> Finding:
    symmetry, verdict, argument, example, note = fields.as_parts(
        value, "symmetry", "verdict", "argument", "counterexample", "note"
    )
    finding = Finding(
        fields.as_choice(symmetry, SYMMETRIES),
        fields.as_choice(argument, ARGUMENTS),
        None if example is None else _as_counterexample(example, units, outputs),
        fields.as_text(note),
    )
    if verdict != finding.verdict:
        raise ValueError(f"the argument {argument!r} of {symmetry} supports the verdict {finding.verdict!r}")
    if (example is not None) != (argument == "enclosures") or (example is not None and symmetry not in SIDES):
        raise ValueError(f"{symmetry}: a counterexample is for the argument 'enclosures', and for what can be broken")
    if note and finding.verdict != "open":
        raise ValueError(f"{symmetry}: a note is for what is open")
    return finding


def _as_counterexample(value: Any, units: int, outputs: int) -> Counterexample:
    unit, output, inputs, left, right = fields.as_parts(value, "unit", "output", "inputs", "left", "right")
    pairs = tuple(fields.as_numbers(pair, 2) for pair in fields.as_list(inputs))
    if not 1 <= len(pairs) <= 2:
        raise ValueError("one input or two are needed")
    return Counterexample(
        fields.as_integer(unit, 0, units - 1),
        fields.as_integer(output, 0, outputs - 1),
        pairs,  # type: ignore[arg-type]
        fields.as_bounds(left),
        fields.as_bounds(right),
    )


files.FORMS[SymmetryCertificate.kind] = files.Form(body, read)
