"""`verify` believes nothing: edited files, edited certificates, other weights and a prover that is wrong."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.proved import BASIS, CURVED, HIDDEN, KINDS, Document, layer, signed, subject

import fisherflat as ff
from fisherflat.certificates import Bound, CurvatureCertificate, Weight, files
from fisherflat.errors import CertificateError
from fisherflat.jets.ops import OPS
from fisherflat.verifier import _moves

aten = torch.ops.aten


@pytest.mark.parametrize("name", KINDS)
def test_what_was_proved_is_verified_also_from_its_file(name: str, tmp_path: Path) -> None:
    certificate, mean, chart = subject(name)
    certificate.save(tmp_path / "c.json")
    loaded = CurvatureCertificate.load(tmp_path / "c.json")
    assert files.document(loaded) == files.document(certificate)
    verification = ff.verify(loaded, mean, chart)
    assert verification.ok
    assert verification.reasons == ()
    assert list(tmp_path.iterdir()) == [tmp_path / "c.json"]


def test_a_deep_copy_of_the_module_verifies_and_no_machine_is_named() -> None:
    certificate, mean, chart = subject("curved")
    assert ff.verify(certificate, copy.deepcopy(mean), chart).ok
    text = json.dumps(files.document(certificate))
    assert str(Path(torch.__file__).parents[2]) not in text
    assert str(Path(__file__).parent) not in text


# -- edited files ------------------------------------------------------------------------------------------------------


def leaves(thing: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(thing, dict):
        return [leaf for key, value in thing.items() for leaf in leaves(value, (*path, key))]
    if isinstance(thing, list):
        return [leaf for i, value in enumerate(thing) for leaf in leaves(value, (*path, i))]
    return [path]


#: what no proof speaks about; and bounds, which may be moved as long as they stay true, see below
UNPROVED = {"versions", "precision", "enclosure", "determinant"}


def edited(document: Document, rng: random.Random) -> Document:
    """The document with one leaf changed or removed."""
    document = copy.deepcopy(document)
    unproved = UNPROVED | {"digest"}
    if document["verdict"] == "undecided":  # which claims nothing: another point may be as undecided
        unproved |= {"point", "radius"}
    path = rng.choice([leaf for leaf in leaves(document) if leaf[0] not in unproved])
    holder: Any = document
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    if rng.random() < 0.15:
        del holder[path[-1]]
    elif isinstance(old, str) and old:
        place = rng.randrange(len(old))
        holder[path[-1]] = (
            old[:place] + rng.choice([c for c in "0123456789abcdefxp.+- " if c != old[place]]) + old[place + 1 :]
        )
    elif isinstance(old, bool):
        holder[path[-1]] = not old
    elif isinstance(old, int):
        holder[path[-1]] = old + rng.choice([-1, 1])
    else:
        holder[path[-1]] = rng.choice([0, "x", [], {}, ["0x1.0000000000000p+0"]])
    return document


def refused(document: Document, mean: Any, chart: ff.charts.Chart) -> bool:
    try:
        return not ff.verify(files.certificate(document), mean, chart).ok
    except CertificateError as error:
        assert ":" in str(error)
        return True


@pytest.mark.parametrize("name", KINDS)
def test_random_edits_of_files_are_refused(name: str) -> None:
    certificate, mean, chart = subject(name)
    document, rng = files.document(certificate), random.Random(name)
    for _ in range(25):
        changed = edited(document, rng)
        assert refused(changed, mean, chart)
        assert refused(signed(changed), mean, chart)


def test_edits_that_no_proof_speaks_about_are_still_caught_by_the_digest() -> None:
    certificate, mean, chart = subject("curved")
    for name in sorted(UNPROVED):
        document = copy.deepcopy(files.document(certificate))
        value = document[name]
        if isinstance(value, dict):
            value[next(iter(value))] = "1.0"
        else:
            document[name] = value + 1
        assert refused(document, mean, chart)


# -- edited certificates, whose digest and words fit -------------------------------------------------------------------


def moved(bounds: tuple[Bound, Bound], low: float, high: float) -> tuple[Bound, Bound]:
    """Each bound moved by multiples of its size."""
    return Bound(bounds[0] * Bound(1 + low)), Bound(bounds[1] * Bound(1 + high))


def replaced(c: CurvatureCertificate, rng: random.Random) -> CurvatureCertificate:
    """The certificate with one statement changed to a false one."""
    tiny = rng.choice([-1, 1]) * 2.0 ** rng.randrange(-40, -1)
    changes: list[dict[str, Any]] = [
        {"graph": c.graph[::-1]},
        {"outputs": c.outputs + 1},
        {"frozen": ("norm",) if c.frozen != ("norm",) else ()},
        {"frozen": () if c.frozen else ("pattern",)},
        {"weights": (*c.weights[1:], Weight("w", (1,), "0" * 64))},
        {"chart": ff.charts.Chart(c.chart.point + tiny, c.chart.basis, c.chart.kind)},
        {"chart": ff.charts.Chart(c.chart.point, c.chart.basis * (1 + tiny), c.chart.kind)},
        {"chart": ff.charts.Chart(c.chart.point, c.chart.basis, "attention weights")},
        {
            "verdict": "undecided",
            "argument": "degenerate immersion",
            "cells": (),
            "analytic": None,
            "rank": None,
            "steps": (),
            "enclosure": None,
            "determinant": None,
            "plane": None,
        },
        {"verdict": "undecided", "argument": "unsupported op"},
    ]
    if c.verdict == "flat":
        changes += [
            {"argument": "full dimension", "rank": None, "steps": ()},
            {"verdict": "curved", "argument": "enclosure", "cells": ("",), "rank": None, "steps": (),
             "enclosure": (Bound("0.1"), Bound("0.2")), "determinant": (Bound("0.1"), Bound("0.2"))},
        ]  # fmt: skip
    if c.rank is not None:
        changes += [{"rank": (c.rank[0] - 1, c.rank[1])}, {"rank": (c.rank[0] % 2 + 1, False)}]
        changes += [{"steps": c.steps[:-1]}, {"steps": (*c.steps[1:], c.steps[0])}]
        changes += [{"steps": (dataclasses.replace(c.steps[0], role="norm"), *c.steps[1:])}]
    if c.witness is not None:
        changes += [{"witness": None}, {"witness": dataclasses.replace(c.witness, node=c.witness.node + 1)}]
        changes += [{"verdict": "flat", "argument": "affine", "rank": (2, True), "steps": (c.witness,), "cells": (),
                     "enclosure": None, "determinant": None, "plane": None, "analytic": None,
                     "radius": 0.0}]  # fmt: skip
    if c.verdict == "curved":
        assert c.enclosure is not None and c.determinant is not None
        sign = 1 if c.enclosure[0] > 0 else -1
        far = 2.0 ** rng.randrange(-20, 3)
        width = float((c.enclosure[1] - c.enclosure[0]) / abs(c.enclosure[0]))
        changes += [
            {"enclosure": moved(c.enclosure, sign * (far + 2 * width), sign * (far + 2 * width))},
            {"enclosure": (Bound(-c.enclosure[1]), Bound(-c.enclosure[0]))},
            {"determinant": moved(c.determinant, 4, 4)},
            {"determinant": (Bound(0), c.determinant[1])},
            {"point": (c.point[0] + 0.125, *c.point[1:])},
            {"radius": c.radius + 0.5},
            {"cells": ("0", "10")},
            {"cells": (*c.cells, "1")},
            {"analytic": None},
            {"analytic": dataclasses.replace(c.analytic, ops=c.analytic.ops[1:])},
            {"analytic": dataclasses.replace(c.analytic, restricted=("aten.log at here.py:1",))},
            {"family": ff.Gaussian(c.family.covariance * (1.5 + abs(tiny)))},
            {"plane": ((1.0, 0.0), (0.0, 1.0)) if c.plane is None else (c.plane[0], (0.3, 0.1, -0.7))},
        ]
    return dataclasses.replace(c, **rng.choice(changes))


@pytest.mark.parametrize("name", KINDS)
def test_random_false_certificates_are_refused(name: str) -> None:
    certificate, mean, chart = subject(name)
    rng = random.Random(name)
    for _ in range(25):
        false = replaced(certificate, rng)
        try:
            files.certificate(files.document(false))
        except CertificateError:
            continue  # not even a certificate
        verification = ff.verify(false, mean, chart)
        assert not verification.ok, false
        assert all(":" in reason for reason in verification.reasons)


@pytest.mark.parametrize("name", CURVED)
def test_a_bound_moved_past_the_truth_is_refused_and_a_looser_one_is_true(name: str) -> None:
    certificate, mean, chart = subject(name)
    low, high = certificate.enclosure
    width = high - low
    if certificate.radius == 0:  # over a box the enclosure is wider than the curvature varies
        for false in ((high, high + width), (low - width, low), (low + width * 3 / 4, high + width)):
            changed = dataclasses.replace(certificate, enclosure=(Bound(false[0]), Bound(false[1])))
            reasons = ff.verify(changed, mean, chart).reasons
            assert [reason.split(":")[0] for reason in reasons] == ["enclosure"]
    room = min(width, abs(low), abs(high)) / 4
    looser = dataclasses.replace(certificate, enclosure=(Bound(low - room), Bound(high + room)))
    assert ff.verify(looser, mean, chart).ok


# -- another map -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["curved", "flat"])
def test_any_weight_that_differs_in_its_last_bit_is_found_and_named(name: str) -> None:
    certificate, _, chart = subject(name)
    original = layer(ff.layers.Gate("silu") if name == "curved" else None)
    rng = random.Random(0)
    for weight, parameter in original.named_parameters():
        module = copy.deepcopy(original)
        entry = rng.randrange(parameter.numel())
        with torch.no_grad():
            flat = module.get_parameter(weight).view(-1)
            flat[entry] = torch.nextafter(flat[entry], flat.new_tensor(torch.inf))
        mean = module if name == "curved" else ff.freeze(module, HIDDEN)
        verification = ff.verify(certificate, mean, chart)
        if name == "flat" and weight.split(".")[0] in ("query", "key"):
            # the pattern is frozen: these weights are not in the map, their rounded product may be
            continue
        assert not verification.ok
        assert any(weight in reason for reason in verification.reasons)


def test_another_chart_another_reading_and_another_map_are_named() -> None:
    certificate, mean, chart = subject("frozen")

    def named(mean: Any, chart: ff.charts.Chart) -> set[str]:
        return {reason.split(":")[0] for reason in ff.verify(certificate, mean, chart).reasons}

    assert named(mean, ff.charts.token(HIDDEN, 0, BASIS[:2])) == {"chart"}
    assert named(mean, ff.charts.token(HIDDEN, 1, BASIS)) == {"chart"}
    assert "frozen" in named(layer(ff.layers.Gate("silu")), chart)
    assert "graph" in named(ff.freeze(layer(ff.layers.Gate("sigmoid")), HIDDEN), chart)
    assert "graph" in named(lambda x: x.reshape(-1)[: int(x.sum() > 0) + 1], chart)


def test_an_op_taken_for_affine_by_both_is_found_by_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        OPS, torch.ops.aten.neg, dataclasses.replace(OPS[torch.ops.aten.neg], rule=OPS[torch.ops.aten.sum].rule)
    )
    monkeypatch.setitem(_moves.LINEAR, "neg", lambda x: -x * x)
    mean, chart = lambda u: torch.cat([u, -u]), ff.charts.identity(2)
    (reason,) = ff.verify(ff.certify(mean, chart), mean, chart).reasons
    assert reason.startswith("flatness")
