"""`verify_layer`: find the layer of a checkpoint that a certificate is about, and check it there."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from fisherflat.certificates import Certificate, CurvatureCertificate, expert, operator
from fisherflat.errors import CertificateError
from fisherflat.models import Model, as_model
from fisherflat.parts import freeze
from fisherflat.verifier._verify import Verification, verify

#: how far the hidden states of a model may be from the chart of a certificate, relative to the largest
AGREEMENT = 1e-6


def verify_layer(certificate: Certificate, model: Model | nn.Module | str | Path) -> Verification:
    """Check a certificate of `certify_layer`, or one about the symmetries of an MLP, against a model.

    The layer is found and traced again; for curvature, on the same chart.

    **Raises:** `CertificateError` where the certificate does not say which layer it is about.

    >>> import fisherflat as ff
    >>> model = ff.load("python-llama")
    >>> certificate = ff.certify_layer(model, 0, prompt="def mean(values):", reading="frozen pattern")
    >>> ff.verify_layer(certificate, model).ok
    True
    """
    if certificate.subject is None:
        raise CertificateError("subject: the certificate does not name a layer; check it with fisherflat.verify")
    part = operator(as_model(model), certificate.subject)
    if not isinstance(certificate, CurvatureCertificate):
        mlp = expert(part, certificate.subject["expert"]) if "expert" in certificate.subject else part
        return verify(certificate, mlp)
    chart = certificate.chart
    if part.input.shape != chart.point.shape:
        return Verification(False, (f"subject: the layer takes {list(part.input.shape)}, the chart has another shape",))
    if (part.input - chart.point).abs().max() > AGREEMENT * part.input.abs().max():
        return Verification(False, ("subject: what enters the layer on this prompt is not the chart's point",))
    mean = freeze(part, chart.point, certificate.frozen) if certificate.frozen else part
    return verify(certificate, mean, chart)
