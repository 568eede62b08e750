"""`verify_layer`: find the layer of a checkpoint that a certificate is about, and check it there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from fisherflat.certificates import (
    FIELDS,
    PROMPTS,
    SINCE,
    Certificate,
    CurvatureCertificate,
    digests,
    expert,
    gaussian,
    given_prompt,
    movement,
    operator,
    outputs,
    placed,
    read_by_head,
)
from fisherflat.errors import CertificateError, FisherflatError, InputError
from fisherflat.models import READOUTS, Encoded, Head, Model, Part, as_model, as_prompts
from fisherflat.models.covariances import OUTPUTS, covariance
from fisherflat.models.moves import tokens
from fisherflat.parts import freeze
from fisherflat.spaces.families import Gaussian, ParametricFamily
from fisherflat.verifier._verify import Verification, verify

#: how far the hidden states and directions of a model may be from those of a certificate, relative to the largest
AGREEMENT = 1e-6


def verify_layer(certificate: Certificate, model: Any, *, prompt: Any = None, among: Any = None) -> Verification:
    """Check a certificate of `certify_layer`, or one about the symmetries of an MLP, against a model.

    The layer is found and traced again; for curvature on the same chart, which has to be that of what moves, at the
    position and on the prompt that the certificate names, to within the rounding of hidden states.

    **Args:** `certificate`; `model`, loaded, or what `fisherflat.load` takes; `prompt`, what the model was given, where
    that was hidden states or inputs of its own: a certificate holds token ids, and of other prompts digests; `among`,
    likewise the list of prompts to which directions and covariance were fitted.

    **Raises:** `CertificateError` where the certificate does not say which layer it is about, it takes a `prompt` that
    was not given, or an `among` that was not given.

    >>> import fisherflat as ff
    >>> model = ff.load("python-llama")
    >>> certificate = ff.certify_layer(model, 0, prompt="def mean(values):", reading="frozen pattern")
    >>> ff.verify_layer(certificate, model).ok
    True
    """
    if not isinstance(certificate, Certificate):
        raise CertificateError(f"a certificate is one of ff.Certificate.load, got {type(certificate).__name__}")
    subject = certificate.subject
    if subject is None:
        raise CertificateError("subject: the certificate does not name a layer; check it with fisherflat.verify")
    for name, given, needed in (
        ("prompt", prompt, "inputs" in subject),
        ("among", among, any(isinstance(one, dict) for one in _among(subject))),
    ):
        if needed and given is None:
            raise CertificateError(
                "subject: the certificate is about hidden states, or other inputs, of which it holds digests alone; "
                f"give them: fisherflat.verify_layer(certificate, model, {name}=...)"
            )
    loaded = as_model(model)
    try:
        if not isinstance(certificate, CurvatureCertificate):
            part: Any = operator(loaded, subject, prompt)
            checked = verify(certificate, expert(part, subject["expert"]) if "expert" in subject else part)
            return _without_note(checked)
        here = given_prompt(loaded, subject, prompt)
        part, reasons = _placed(certificate, loaded, subject, here, among)
    except FisherflatError as error:
        return Verification(False, (f"subject: {str(error).removeprefix('subject: ')}",))
    if reasons:
        return Verification(False, tuple(f"subject: {reason}" for reason in reasons))
    chart = certificate.chart
    base = chart.point if certificate.base is None else certificate.base
    try:
        mean = _read(certificate, loaded, part, subject, here)
        mean = freeze(mean, base, certificate.frozen) if certificate.frozen else mean
    except FisherflatError as error:
        return Verification(False, (f"graph: the part could not be traced: {error}",))
    return _without_note(verify(certificate, mean, chart))


def _among(subject: dict[str, Any]) -> list[Any]:
    """The names of the prompts that directions and covariance are fitted to, where they are others."""
    named = subject.get("among", [])
    return named if isinstance(named, list) else []


def _read(c: CurvatureCertificate, model: Model, part: Part | Head, subject: dict[str, Any], encoded: Encoded) -> Any:
    """The map that the subject is about.

    **Raises:** `FisherflatError` where there is none such, or it makes parameters of another family.
    """
    if "family" not in subject:
        return outputs(part, subject, encoded)
    asked = subject["family"]
    if asked != "given" and asked not in READOUTS:
        raise CertificateError(f"subject: family is one of {', '.join(READOUTS)}, or 'given', not {asked!r}")
    if asked == "given" and not isinstance(c.family, ParametricFamily):
        raise CertificateError(f"subject: it is about a family, and the certificate about {c.family!r}")
    mean, family = read_by_head(model, part, subject, encoded, c.family if asked == "given" else asked)
    if type(family) is not type(c.family):
        raise CertificateError(f"subject: the model reads its states as {family!r}, not as {c.family!r}")
    return mean


def _without_note(checked: Verification) -> Verification:
    return replace(checked, notes=tuple(note for note in checked.notes if not note.startswith("subject:")))


def _placed(
    c: CurvatureCertificate, model: Model, subject: dict[str, Any], encoded: Encoded, given: Any
) -> tuple[Part | Head, list[str]]:
    """The part, and what is not as the subject says about the chart on it; `given`, prompts known by digests alone."""
    part = operator(model, subject, encoded)
    if set(subject) - SINCE - PROMPTS != FIELDS or len(PROMPTS & set(subject)) != 1:
        return part, ["its fields are not layer, part, position, moves, and token_ids or inputs"]
    if subject.get("output", "all") not in OUTPUTS:
        return part, [f"output is 'all' or 'moved', not {subject['output']!r}"]
    if type(subject["layer"]) is not int or not isinstance(subject["part"], str):
        raise CertificateError("subject: a layer is an integer, and a part a text")
    moving, place = movement(subject["moves"]), subject["position"]
    if place is not None and not (type(place) is int and 0 <= place < len(encoded.ids)):
        return part, [f"there is no position {place!r} in the prompt"]
    among = _fitted_to(model, subject, given)
    if moving is None:
        vectors = _same_vectors(c, tokens(encoded, place), subject["moves"])
        return part, [*_same_point(c, part), *_same_covariance(c, model, subject, encoded, among), *vectors]
    named, part, chart = placed(model, subject["layer"], subject["part"], moving, encoded, place, among)
    reasons = [*_same_point(c, part), *_same_covariance(c, model, subject, encoded, among)]
    if named != {name: value for name, value in subject.items() if name not in ("covariance", "output", "family")}:
        reasons.append("the prompt is not the one that is moved on")
    if c.chart.kind != chart.kind:
        reasons.append(f"the chart is called {c.chart.kind!r}, and what moves makes {chart.kind!r}")
    if c.chart.basis.shape != chart.basis.shape or not all(map(_along, c.chart.basis, chart.basis.cpu())):
        reasons.append("the chart's basis is not what moves in this layer, at this position")
    return part, reasons


def _fitted_to(model: Model, subject: dict[str, Any], given: Any) -> list[Encoded]:
    """The prompts that directions and covariance are fitted to, where they are others."""
    names = _among(subject)
    prompts = [None] * len(names) if given is None else as_prompts(given)
    if len(prompts) != len(names):
        raise InputError(f"among has {len(prompts)} prompts, and the certificate names {len(names)}")
    named = [name if isinstance(name, dict) else {"token_ids": name} for name in names]
    return [given_prompt(model, name, prompt) for name, prompt in zip(named, prompts, strict=True)]


def _same_point(c: CurvatureCertificate, part: Part | Head) -> Iterator[str]:
    point, here = c.chart.point, part.input.cpu()
    if here.shape != point.shape:
        yield f"the layer takes {list(here.shape)}, the chart has another shape"
    elif (here - point).abs().max() > AGREEMENT * here.abs().max():
        yield "what enters the layer on this prompt is not the chart's point"


def _same_covariance(
    c: CurvatureCertificate, model: Model, subject: dict[str, Any], encoded: Encoded, among: Sequence[Encoded]
) -> Iterator[str]:
    """Whether the covariance is the one that its name says; one that was given stands in the certificate alone."""
    what = subject.get("covariance", "given")
    if what == "given":
        return
    try:
        here = gaussian(model, subject, covariance(what), encoded, among).covariance.cpu()
    except FisherflatError as error:
        yield f"covariance: {error}"
        return
    if not isinstance(c.family, Gaussian):
        yield f"the subject names the covariance {what!r}, and {c.family!r} has none"
        return
    stated = c.family.covariance
    if stated.shape != here.shape or (stated - here).abs().max() > AGREEMENT * here.abs().max():
        yield f"the covariance is not {what!r} of this layer on these prompts"


def _same_vectors(c: CurvatureCertificate, places: list[int], settings: dict[str, Any]) -> Iterator[str]:
    """Whether the vectors that move are those of the digest, and move at these places alone."""
    basis = c.chart.basis
    still = [i for i in range(basis.shape[1]) if i not in places] if basis.dim() == 3 else []
    rows = basis[:, places] if basis.dim() == 3 else basis
    moves = basis.dim() == 3 and not basis[:, still].any() and bool((rows == rows[:, :1]).all())
    if c.chart.kind != "vectors" or not moves or settings["dim"] != len(basis):
        yield "the chart's basis does not move the tokens of the position by vectors"
    elif digests.of_bytes(digests.raw(rows[:, 0])) != settings["sha256"]:
        yield "the chart's vectors are not those of the digest"


def _along(stated: Tensor, here: Tensor) -> bool:
    """Whether two directions are the same, or opposite, to rounding."""
    small = AGREEMENT * here.abs().max()
    return bool(min((stated - here).abs().max(), (stated + here).abs().max()) <= small)
