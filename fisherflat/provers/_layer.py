"""Certificates about the layers of a checkpoint, with what it takes to find the layer again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, SupportsIndex

import torch

from fisherflat._arrays import integer
from fisherflat._renamed import renamed
from fisherflat.certificates import CurvatureCertificate, placed
from fisherflat.errors import CovarianceError, InputError
from fisherflat.models import Encoded, Part, as_model
from fisherflat.models.moves import Moves, parse, pool
from fisherflat.parts import freeze, readings
from fisherflat.provers._curvature import certify
from fisherflat.spaces.families import Gaussian


@renamed(dim="k")
def certify_layer(
    model: Any,
    layer: SupportsIndex,
    part: str = "attention",
    *,
    prompt: Any,
    reading: str = "live",
    moves: str | Moves = "principal",
    position: SupportsIndex | str | None = None,
    k: int | None = None,
    covariance: str | float = "words",
    precision: int = 128,
) -> CurvatureCertificate:
    """A certificate about a part of a layer, on a chart of what entered it.

    **Args:** `model`, loaded, or what `fisherflat.load` takes; `layer`, from 0, or negative from the end; `part`, out
    of `attention`, `mlp`, `block`; `prompt`, a text or token ids; `reading`, what is held (`fisherflat.readings`);
    `moves`, along what the token moves (`fisherflat.moves.parse`), in `k` directions; `position` of the token, or
    `"together"` for all words (default: the last word, or the last place where one of the words stands that move);
    `covariance`: `"words"`, as in `fisherflat.analyze` the mean variance of the part's own outputs at the words of the
    prompt, or a number; `precision`. Curvature is proved at the chart's origin, the tokens' own state, which is the
    first point of an analysis.

    **Raises:** `InputError` for a layer, part or position that is not there, a reading or movement that is none;
    `CovarianceError` for a covariance that is none.

    >>> import fisherflat as ff
    >>> model = ff.load("python-llama")
    >>> certificate = ff.certify_layer(model, 0, prompt="def mean(values):", reading="frozen pattern")
    >>> certificate.verdict
    'flat'
    """
    model, layer = as_model(model), integer(layer, "layer")
    moving, encoded = parse(moves, k), model.encode(prompt)
    if encoded.kind != "ids":
        raise InputError(
            "a certificate names its prompt by token ids; give a text or ids, not hidden states or a model's own inputs"
        )
    place = moving.place(model, encoded, position)
    layer = integer(layer, "layer")
    if layer < 0:
        layer += len(model.blocks(encoded))
    subject, operator, chart = placed(model, layer, part, moving, encoded, place)
    held = readings.roles(reading)
    mean = freeze(operator, chart.point, held) if held else operator
    family = _calibrated(operator, encoded) if covariance == "words" else Gaussian(covariance)
    found = certify(mean, chart, family, at=torch.zeros(moving.k), precision=precision)
    return replace(found, subject=subject)


def _calibrated(operator: Part, encoded: Encoded) -> Gaussian:
    """The covariance of the part in an analysis; 1 where its outputs do not vary, as at a single word."""
    with torch.no_grad():
        outputs = pool([operator(operator.input)], [encoded])
    try:
        return Gaussian.calibrated(outputs)
    except CovarianceError:
        return Gaussian()
