"""`verify`: check a certificate of either kind against what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fisherflat._display import Card, displayed
from fisherflat.certificates import Certificate, CurvatureCertificate, SymmetryCertificate, files
from fisherflat.errors import CertificateError, InputError
from fisherflat.spaces.charts import Chart


@displayed
@dataclass(frozen=True)
class Verification:
    """Whether a certificate holds; it counts as true if it does.

    **Attributes:** `ok`; `reasons`: the checks that failed, each as `check: what was found`; empty where `ok`; `notes`:
    what the certificate says and nothing has checked, so that it is the prover's word.

    `verify` makes one.
    """

    ok: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.ok

    def _card(self) -> Card:
        return Card("verified" if self.ok else "refused", {}, ("reasons",), [(reason,) for reason in self.reasons])


def verify(certificate: Certificate, mean: Any, chart: Chart | None = None) -> Verification:
    """Check a certificate, by other code than what made it: digests are compared, and what decides is computed anew.

    **Args:** `mean`: the map that the certificate is about: for curvature the one on the `chart`, under the covariance
    that the certificate states; for symmetries the gated MLP (anything that `fisherflat.symmetry.gated_units` takes
    without an input), and no chart.

    **Returns:** a `Verification`; what is wrong with the certificate is among its reasons, never an exception.

    **Raises:** `InputError` where a chart is missing, or is given for symmetries.

    >>> import torch, fisherflat as ff
    >>> bowl, chart = (lambda x: torch.cat([x, (x * x).sum()[None]])), ff.charts.identity(2)
    >>> ff.verify(ff.certify(bowl, chart, at=[0.0, 0.0]), bowl, chart).ok
    True
    """
    if isinstance(certificate, CurvatureCertificate) != (chart is not None):
        needs = "needs the chart that it is about" if chart is None else "is about weights, and needs no chart"
        raise InputError(f"a certificate about {certificate.kind} {needs}")
    try:
        files.certificate(files.document(certificate))
    except CertificateError as error:
        return Verification(False, (f"form: {error}",))
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if isinstance(certificate, CurvatureCertificate) and chart is not None:
        from fisherflat.verifier import _curvature as verify_curvature

        reasons, notes = verify_curvature.check(certificate, mean, chart)
    elif isinstance(certificate, SymmetryCertificate):
        from fisherflat.verifier import _symmetry as verify_symmetry

        reasons = verify_symmetry.failures(certificate, mean)
        notes = verify_symmetry.notes(certificate)
    return Verification(not reasons, reasons, notes)
