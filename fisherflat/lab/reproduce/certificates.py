"""Proofs about the embedded checkpoints: written, and checked by the verifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fisherflat.certificates import CurvatureCertificate
from fisherflat.lab.experiments.language import PROMPTS, QWEN3_NEXT
from fisherflat.lab.reproduce._section import GATING, OWN, Claim, Section, verdict
from fisherflat.models import load
from fisherflat.parts import readings
from fisherflat.provers import certify, certify_layer
from fisherflat.spaces import charts
from fisherflat.spaces.charts import Chart
from fisherflat.verifier import Verification, verify, verify_layer
from fisherflat.zoo import CHECKPOINTS, checkpoint, ring_pair

LIVE, PATTERN = readings.LIVE, readings.name(["pattern"])
BOTH = readings.name(["pattern", "attention_gate"])
#: readings of ungated and of gated attention
READINGS = {False: (LIVE, PATTERN), True: (LIVE, PATTERN, BOTH)}


@dataclass(frozen=True)
class Settings:
    """`layers` of the language `models` that are certified."""

    models: tuple[str, ...] = CHECKPOINTS
    layers: tuple[int, ...] = (0, 1, 2, 3)


QUICK = Settings(layers=(3,))

Proof = tuple[str, str, CurvatureCertificate, Verification]


def measure(settings: Settings, folder: Path) -> Section:
    """Certify, write, read again and verify."""
    rows = []
    proofs = [*_weights(), *_ring(), *_language(settings.models, settings.layers)]
    for subject, reading, certificate, checked in proofs:
        name = f"{subject}-{reading}".replace(" ", "-").replace("+", "-and-")
        certificate.save(folder / f"{name}.json")
        low, high = (float(bound) for bound in certificate.enclosure or (float("nan"),) * 2)
        about = {"subject": subject, "reading": reading, "verdict": certificate.verdict, "from": low, "to": high}
        rows.append(about | {"verified": checked.ok, "certificate": f"{name}.json"})
    return Section(
        "Proofs",
        "Certificates of flatness by structure, and of curvature by enclosure in ball arithmetic (bounds are of a "
        "sectional curvature, at covariance 1), for the embedded classifiers and for the attention of the embedded "
        f"language models on the prompt {PROMPTS[0]!r}. Each is written, read again, and checked by the verifier.",
        _claims(rows),
        {"certificates": rows},
        (),
        asdict(settings),
    )


def _claims(rows: list[dict[str, Any]]) -> list[Claim]:
    def all_of(statement: str, kind: str, chosen: Callable[[dict[str, Any]], bool], source: str = GATING) -> Claim:
        mine = [row for row in rows if chosen(row)]
        right = sum(row["verdict"] == kind and row["verified"] for row in mine)
        return Claim(source, statement, f"proved and verified for {right} of {len(mine)}", verdict(right == len(mine)))

    def gated(row: dict[str, Any]) -> bool:
        return row["subject"].startswith((QWEN3_NEXT, "ring gated"))

    positive = [row for row in rows if gated(row) and row["reading"] == PATTERN and row["from"] > 0 and row["verified"]]
    return [
        all_of(
            "Ungated attention in the coordinates of its weights, values fixed, is flat",
            "flat",
            lambda row: row["reading"] == "weights",
        ),
        all_of(
            "Ungated attention with its pattern held is flat",
            "flat",
            lambda row: row["reading"] == PATTERN and not gated(row),
        ),
        all_of(
            "Gated attention with its pattern held is curved",
            "curved",
            lambda row: row["reading"] == PATTERN and gated(row),
        ),
        all_of("It is the gate that bends it: with both held it is flat", "flat", lambda row: row["reading"] == BOTH),
        Claim(
            GATING,
            "Gated attention reaches positive curvature",
            f"proved and verified at {len(positive)} point{'s' if len(positive) != 1 else ''}"
            + (f", of at least {max(row['from'] for row in positive):.3g}" if positive else ""),
            verdict(True if positive else None),
        ),
        all_of("Live attention is curved, gated or not", "curved", lambda row: row["reading"] == LIVE, OWN),
    ]


def _proved(subject: str, reading: str, mean: Any, chart: Chart) -> Proof:
    certificate = certify(mean, chart, at=torch.zeros(chart.k))
    return subject, reading, certificate, verify(certificate, mean, chart)


def _weights() -> Iterator[Proof]:
    """The attention output of the carrier token of the ungated ring classifier, over all weights on its values."""
    encoder = ring_pair()["ungated"].representation
    values = encoder.attention.value(encoder.tokens(torch.zeros(2, dtype=torch.float64)))
    yield _proved("ring ungated", "weights", encoder.attention.output, charts.attention_weights(values))


def _ring() -> Iterator[Proof]:
    """Both ring classifiers at the origin of the plane, in each reading."""
    origin = torch.zeros(2, dtype=torch.float64)
    for name, model in ring_pair().items():
        for reading in READINGS[name == "gated"]:
            mean = readings.held(model.representation, origin, reading)
            yield _proved(f"ring {name}", reading, mean, charts.identity(2))


def _language(models: tuple[str, ...], layers: tuple[int, ...]) -> Iterator[Proof]:
    for name in models:
        model = load(checkpoint(name))
        for block in model.blocks(PROMPTS[0]):
            if block.index not in layers or not block.sections.softmax:
                continue
            for reading in READINGS[name == QWEN3_NEXT]:
                certificate = certify_layer(model, block.index, prompt=PROMPTS[0], reading=reading)
                yield f"{name} layer {block.index}", reading, certificate, verify_layer(certificate, model)
