"""Certificates about the layers of a checkpoint, with what it takes to find the layer again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, SupportsIndex

import torch

from fisherflat._arrays import integer
from fisherflat._renamed import renamed
from fisherflat.certificates import CurvatureCertificate, gaussian, given_prompt, outputs, placed, read_by_head
from fisherflat.errors import CovarianceError, InputError
from fisherflat.models import Encoded, Model, as_model, as_prompts
from fisherflat.models.covariances import Covariance, called
from fisherflat.models.covariances import covariance as covariance_of
from fisherflat.models.covariances import output as output_of
from fisherflat.models.moves import Moves, few
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
    covariance: Covariance = "words",
    output: str = "all",
    among: Any = None,
    family: Any = None,
    precision: int = 128,
) -> CurvatureCertificate:
    """A certificate about a part of a layer, on a chart of what entered it.

    **Args:** `model`, loaded, or what `fisherflat.load` takes; `layer`, from 0, or negative from the end; `part`, out
    of `attention`, `mlp`, `block`, or a head such as `"head 2"`, up to the output projection; `prompt`, anything that
    `Model.encode` takes: token ids stand in the certificate, of hidden states and other inputs a digest; `reading`,
    what is held (`fisherflat.readings`); `moves`, along what the token moves (`fisherflat.moves.parse`), in `k`
    directions; `position` of the token, or `"together"` for all words (default: the last word, or the last place where
    one of the words stands that move); `covariance` and `output`, as in `fisherflat.analyze`, so that the number is
    that of its table: `"words"`, `"all"`, `"diagonal"`, `"full"`, a number or a `Gaussian`; the outputs of `"all"`
    tokens, or of those that `"moved"`; `among`, a list of the prompts of that analysis, to which directions and
    covariance are fitted (default: the prompt alone); `family`, for `part="block"`, as what the model's own head reads
    the states after it: `"next-token"`, `"class"`, or one of the families that `fisherflat.certify` knows;
    `precision`. Curvature is proved at the chart's origin, the tokens' own state, which is the first point of an
    analysis.

    **Raises:** `InputError` for a layer, part or position that is not there, a reading or movement that is none, and a
    family in which nothing can be proved; `CovarianceError` for a covariance that is none; `CheckpointError` where the
    model has no head for the family.

    >>> import fisherflat as ff
    >>> model = ff.load("python-llama")
    >>> certificate = ff.certify_layer(model, 0, prompt="def mean(values):", reading="frozen pattern")
    >>> certificate.verdict
    'flat'
    """
    model, layer = as_model(model), integer(layer, "layer")
    moving, encoded = few(moves, k), model.encode(prompt)
    place = moving.place(model, encoded, position)
    if layer < 0:
        layer += len(model.blocks(encoded))
    others = [] if among is None else [model.encode(one) for one in as_prompts(among)]
    subject, operator, chart = placed(model, layer, part, moving, encoded, place, others)
    mean: Any
    here = given_prompt(model, subject, encoded)
    if family is None:
        subject |= {"output": output_of(output)}
        mean = outputs(operator, subject, here)
        measured: Any = _measured_in(model, subject, covariance_of(covariance), here, others)
    else:
        if called(covariance) != "words" or output != "all":
            raise InputError("a family has its own metric, and reads the tokens that move: no covariance, no output")
        mean, measured = read_by_head(model, operator, subject, here, family)
        subject["family"] = family if isinstance(family, str) else "given"
    held = readings.roles(reading)
    mean = freeze(mean, chart.point, held) if held else mean
    if family is not None and held and any(one.module_path.startswith("lens") for one in mean.held):
        raise InputError(
            f"{reading!r} would hold something in the model's head, too, which analyze leaves live: prove it live, or "
            "with what only blocks have held"
        )
    found = certify(mean, chart, measured, at=torch.zeros(moving.k), precision=precision)
    return replace(found, subject=subject)


def _measured_in(
    model: Model, subject: dict[str, Any], what: Covariance, here: Encoded, among: Sequence[Encoded]
) -> Gaussian:
    """The covariance, and its name in the subject; 1 where outputs do not vary, as at a single word."""
    subject["covariance"] = "given" if isinstance(what, Gaussian) else called(what)
    try:
        return gaussian(model, subject, what, here, among)
    except CovarianceError:
        if what not in ("words", "all"):
            raise
    subject["covariance"] = 1.0
    return Gaussian()
