"""Certificates about the layers of a checkpoint, with what it takes to find the layer again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from fisherflat.certificates import Certificate, CurvatureCertificate
from fisherflat.errors import CertificateError, InputError
from fisherflat.models import Model, Operator
from fisherflat.models.moves import Moves, parse, tokens
from fisherflat.parts import freeze, readings
from fisherflat.provers._curvature import certify
from fisherflat.verifier import Verification, verify

PARTS = ("attention", "mlp", "block")
#: how far the hidden states of a model may be from the chart of a certificate, relative to the largest
AGREEMENT = 1e-6


def certify_layer(
    model: Model,
    layer: int,
    part: str = "attention",
    *,
    prompt: Any,
    reading: str = "live",
    moves: str | Moves = "principal",
    position: int | str | None = None,
    dim: int | None = None,
    precision: int = 128,
) -> CurvatureCertificate:
    """A certificate about a part of a layer, on a chart of what entered it.

    **Args:** `model`, from `fisherflat.load`; `layer`, from 0; `part`, out of `attention`, `mlp`, `block`; `prompt`, a
    text or token ids; `reading`, what is held (`fisherflat.readings`); `moves`, along what the token moves
    (`fisherflat.moves.parse`), in `dim` directions; `position` of the token, or `"together"` for all words (default:
    the last word, or the last place where one of the words stands that move); `precision`. The covariance is 1;
    curvature is proved at the chart's origin, the tokens' own state.

    **Raises:** `InputError` for a layer, part or position that is not there, a reading or movement that is none.
    """
    moving, encoded = parse(moves, dim), model.encode(prompt)
    if encoded.hidden is not None:
        raise InputError("a certificate names its prompt by token ids; give a text or ids, not hidden states")
    place = moving.place(model, encoded, position)
    variants = moving.variants(model, encoded, place)
    about = {"layer": layer, "part": part, "position": place, "moves": moving.settings}
    subjects = [{**about, "token_ids": variant.prompt_ids} for variant in variants]
    operators = [_part(model, subject) for subject in subjects]
    states = [operator.input for operator in operators]
    chart = moving.fit(states, variants).chart(states, tokens(variants[0], place))
    held = readings.roles(reading)
    mean = freeze(operators[0], chart.point, held) if held else operators[0]
    found = certify(mean, chart, at=torch.zeros(moving.dim), precision=precision)
    return replace(found, subject=subjects[0])


def verify_layer(certificate: Certificate, model: Model) -> Verification:
    """Check a certificate of `certify_layer`, or one about the symmetries of an MLP, against a model.

    The layer is found and traced again; for curvature, on the same chart.

    **Raises:** `CertificateError` where the certificate does not say which layer it is about.
    """
    if certificate.subject is None:
        raise CertificateError("subject: the certificate does not name a layer; check it with fisherflat.verify")
    operator = _part(model, certificate.subject)
    if not isinstance(certificate, CurvatureCertificate):
        mlp = _expert(operator, certificate.subject["expert"]) if "expert" in certificate.subject else operator
        return verify(certificate, mlp)
    chart = certificate.chart
    if operator.input.shape != chart.point.shape:
        return Verification(
            False, (f"subject: the layer takes {list(operator.input.shape)}, the chart has another shape",)
        )
    if (operator.input - chart.point).abs().max() > AGREEMENT * operator.input.abs().max():
        return Verification(False, ("subject: what enters the layer on this prompt is not the chart's point",))
    mean = freeze(operator, chart.point, certificate.frozen) if certificate.frozen else operator
    return verify(certificate, mean, chart)


def _part(model: Model, subject: dict[str, Any]) -> Operator:
    try:
        layer, part, ids = subject["layer"], subject["part"], subject["token_ids"]
    except KeyError as error:
        raise CertificateError(f"subject: {error} is missing") from error
    if part not in PARTS:
        raise InputError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    blocks = model.blocks(ids)
    if not isinstance(layer, int) or not 0 <= layer < len(blocks):
        raise InputError(f"the model has layers 0 to {len(blocks) - 1}, there is no layer {layer!r}")
    found = blocks[layer] if part == "block" else getattr(blocks[layer], part)
    if found is None:
        raise InputError(f"layer {layer} has no {part} that could be found")
    return found


def _expert(mlp: Operator, index: Any) -> Any:
    from fisherflat.gated_mlp import experts

    found = experts(mlp)
    if not isinstance(index, int) or not 0 <= index < len(found):
        raise InputError(f"the layer has {len(found)} experts, there is no expert {index!r}")
    return found[index]
