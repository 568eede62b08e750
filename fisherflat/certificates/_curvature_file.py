"""Certificates about curvature as the fields of a JSON document."""

from __future__ import annotations

import re
from typing import Any

from fisherflat.certificates import fields, files
from fisherflat.certificates._bounds import Bound
from fisherflat.certificates._curvature import CERTIFIED, CurvatureCertificate
from fisherflat.certificates._curvature_words import ARGUMENTS, VERDICTS
from fisherflat.certificates._steps import Analytic, HeldNode, Numbers, Step
from fisherflat.certificates.fields import Fields
from fisherflat.errors import CertificateError
from fisherflat.parts.readings import WORDS
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian, ParametricFamily

#: bits of the arithmetic, more than any prover takes; pieces of a box, likewise
MAX_PRECISION, MAX_CELLS = 2**14, 2**9
_PATH = re.compile(r"[01]{0,64}")


def body(c: CurvatureCertificate) -> dict[str, Any]:
    """What the file says beyond what all certificates say."""
    return {
        "verdict": c.verdict,
        **({"scope": c.scope} if c.schema > 1 else {}),
        "reading": c.reading,
        "argument": c.argument,
        "frozen": list(c.frozen),
        "enclosure": fields.bounds(c.enclosure),
        "determinant": fields.bounds(c.determinant),
        "point": fields.numbers(c.point),
        "radius": float(c.radius).hex(),
        "plane": None if c.plane is None else [fields.numbers(vector) for vector in c.plane],
        "cells": list(c.cells),
        "precision": c.precision,
        "rank": None if c.rank is None else {"at_least": c.rank[0], "exact": c.rank[1]},
        "witness": _step(c.witness),
        "unsupported": _step(c.unsupported),
        "steps": [_step(step) for step in c.steps],
        "analytic": None
        if c.analytic is None
        else {"ops": list(c.analytic.ops), "restricted": list(c.analytic.restricted)},
        "weights": [fields.weight(w) for w in c.weights],
        "graph": c.graph,
        **(_second(c) if c.schema > 1 else {}),
        "outputs": c.outputs,
        **(
            {"covariance": fields.tensor(c.family.covariance)}
            if isinstance(c.family, Gaussian)
            else {"family": type(c.family).__name__}
        ),
        "chart": {"kind": c.chart.kind, "point": fields.tensor(c.chart.point), "basis": fields.tensor(c.chart.basis)},
    }


def _second(c: CurvatureCertificate) -> dict[str, Any]:
    """What the second schema has beyond the first."""
    return {
        "kinks": [_step(step) for step in c.kinks],
        "held": [node._asdict() for node in c.held_nodes],
        "base": None if c.base is None else fields.tensor(c.base),
        "live": c.live or None,
        "constants": [
            {"name": n.name, "values": fields.tensor(n.values), "within": str(n.within)} for n in c.constants
        ],
    }


def _step(step: Step | None) -> dict[str, Any] | None:
    return None if step is None else dict(vars(step))


def read(f: Fields, schema: int) -> CurvatureCertificate:
    """The certificate in the fields.

    **Raises:** `CertificateError`.
    """
    verdict, argument = f.choice("verdict", VERDICTS), f.choice("argument", ARGUMENTS)
    if ARGUMENTS[argument][0] != verdict:
        raise CertificateError(
            f"argument: {argument!r} supports the verdict {ARGUMENTS[argument][0]!r}, not {verdict!r}"
        )
    chart = f.of("chart", _as_chart)
    k = chart.k
    point = f.of("point", lambda value: fields.as_numbers(value, k))
    c = CurvatureCertificate(
        verdict=verdict,
        argument=argument,
        chart=chart,
        family=_family(f),
        frozen=tuple(f.of("frozen", lambda value: [fields.as_choice(role, WORDS) for role in fields.as_list(value)])),
        precision=f.integer("precision", 2, MAX_PRECISION),
        point=point,
        radius=f.of("radius", lambda value: fields.as_nonnegative(fields.as_number(value))),
        plane=f.optional("plane", lambda value: _as_plane(value, k)),
        cells=tuple(
            f.of("cells", lambda value: [fields.as_text(cell, _PATH) for cell in fields.as_list(value, MAX_CELLS)])
        ),
        enclosure=f.optional("enclosure", fields.as_bounds),
        determinant=f.optional("determinant", fields.as_bounds),
        rank=f.optional("rank", lambda value: _as_rank(value, k)),
        witness=f.optional("witness", _as_step),
        unsupported=f.optional("unsupported", _as_step),
        steps=tuple(f.of("steps", lambda value: [_as_step(step) for step in fields.as_list(value)])),
        analytic=f.optional("analytic", _as_analytic),
        weights=tuple(f.of("weights", lambda value: [fields.as_weight(weight) for weight in fields.as_list(value)])),
        graph=f.text("graph", fields.DIGEST),
        outputs=f.integer("outputs", 1, 2**40),
        versions=f.of("versions", fields.as_versions),
        subject=f.optional("subject", fields.as_subject),
        **(_read_second(f) if schema > 1 else {}),
        schema=schema,
    )
    if schema > 1:
        if f.given("scope") != c.scope:
            raise CertificateError(f"scope: the argument {argument!r} has the scope {c.scope!r}")
        if set(c.frozen) != {node.role for node in c.held_nodes}:
            raise CertificateError("frozen: it does not name the roles of what is held")
        if bool(c.held_nodes) != bool(c.live) or (c.base is not None and not c.held_nodes):
            raise CertificateError("live, base: they say of what something is held, and where")
    elif c.argument == "affine by pieces":
        raise CertificateError("argument: the first schema knows no maps that are affine by pieces")
    if not isinstance(c.family, Gaussian) and (schema == 1 or argument in ("affine", "affine by pieces")):
        raise CertificateError(f"family: the argument {argument!r} is about Gaussians of one covariance")
    if f.given("reading") != c.reading:
        raise CertificateError("reading: it does not say what the other fields say")
    if verdict == "curved" and (c.enclosure is None or c.determinant is None):
        raise CertificateError("enclosure, determinant: missing, but a proof of curvature has them")
    if argument == "affine by pieces" and not (c.kinks and c.steps):
        raise CertificateError("kinks, steps: missing, but a map that is affine by pieces has them")
    if argument == "affine" and (c.rank is None or not c.steps):
        raise CertificateError("rank, steps: missing, but an affine map has them")
    return c


def _family(f: Fields) -> Gaussian | ParametricFamily:
    """A Gaussian by its covariance, another family by its name."""
    if not f.has("family"):
        return f.of("covariance", lambda value: Gaussian(fields.as_tensor(value)))
    known = {family.__name__: family for family in CERTIFIED}
    return known[f.choice("family", known)]()


def _read_second(f: Fields) -> dict[str, Any]:
    return {
        "kinks": tuple(f.of("kinks", lambda value: [_as_step(step) for step in fields.as_list(value)])),
        "held_nodes": tuple(f.of("held", lambda value: [_as_held(node) for node in fields.as_list(value)])),
        "base": f.optional("base", fields.as_tensor),
        "live": f.optional("live", lambda value: fields.as_text(value, fields.DIGEST)) or "",
        "constants": tuple(f.of("constants", lambda value: [_as_numbers(item) for item in fields.as_list(value)])),
    }


def _as_held(value: Any) -> HeldNode:
    role, node, *texts = fields.as_parts(value, "role", "node", "op", "module", "source")
    return HeldNode(
        fields.as_choice(role, WORDS),
        fields.as_integer(node, 0, fields.MAX_LIST),
        *(fields.as_text(text) for text in texts),
    )


def _as_numbers(value: Any) -> Numbers:
    name, values, within = fields.as_parts(value, "name", "values", "within")
    bound = Bound(fields.as_text(within, fields.DECIMAL))
    if bound < 0:
        raise ValueError("a distance is not negative")
    return Numbers(fields.as_text(name), fields.as_tensor(values, finite=False), bound)


def _as_cells(value: Any) -> list[str]:
    return [fields.as_text(cell, _PATH) for cell in fields.as_list(value, MAX_CELLS)]


def _as_plane(value: Any, k: int) -> tuple[tuple[float, ...], ...]:
    if len(fields.as_list(value)) != 2:
        raise ValueError("two vectors are needed")
    return tuple(fields.as_numbers(vector, k) for vector in value)


def _as_rank(value: Any, k: int) -> tuple[int, bool]:
    least, exact = fields.as_parts(value, "at_least", "exact")
    if type(exact) is not bool:
        raise ValueError("exact is true or false")
    return fields.as_integer(least, 0, k), exact


def _as_step(value: Any) -> Step:
    node, *texts = fields.as_parts(value, "node", "op", "order", "role", "module", "source")
    return Step(fields.as_integer(node, 0, fields.MAX_LIST), *(fields.as_text(text) for text in texts))


def _as_analytic(value: Any) -> Analytic:
    ops, restricted = fields.as_parts(value, "ops", "restricted")
    return Analytic(*(tuple(map(fields.as_text, fields.as_list(value))) for value in (ops, restricted)))


def _as_chart(value: Any) -> Chart:
    kind, point, basis = fields.as_parts(value, "kind", "point", "basis")
    return Chart(fields.as_tensor(point), fields.as_tensor(basis), fields.as_text(kind))


files.FORMS[CurvatureCertificate.kind] = files.Form(body, read)
