"""What all certificates have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from fisherflat._display import Card, displayed
from fisherflat._versions import versions as installed
from fisherflat.certificates import files
from fisherflat.certificates._weight import Weight
from fisherflat.errors import CertificateError


@displayed
class Certificate:
    """A proved statement about a map, in a file that anyone can check.

    There are two kinds: about curvature (`fisherflat.certify` makes `CurvatureCertificate`) and about the symmetries of
    a gated MLP (`fisherflat.symmetry.certify` makes `SymmetryCertificate`). Both are read by `Certificate.load` and
    checked by `fisherflat.verify`.

    **Attributes:** `kind`; `claim`, the statement in one sentence; `reason`, what it rests on; `weights`, what it is
    about; `precision`, of the arithmetic, in bits; `versions` it was made with; `schema`, of its file; `subject`, where
    it came from, for the command line.
    """

    kind: ClassVar[str]
    weights: tuple[Weight, ...]
    precision: int
    versions: dict[str, str]
    schema: int
    subject: dict[str, Any] | None

    @property
    def claim(self) -> str:
        """The statement in one sentence."""
        raise NotImplementedError

    @property
    def reason(self) -> str:
        """What the claim rests on, a line each."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        """Write the certificate as JSON; it reads back to the same certificate, number for number.

        **Raises:** `InputError` where the file cannot be written.
        """
        files.save(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> Certificate:
        """Read a certificate of any kind. Nothing in it is executed, and nothing is proved: see `fisherflat.verify`.

        **Raises:** `CertificateError` where the file is malformed or was edited; the message names the field.
        """
        if not isinstance(path, (str, Path)):
            raise CertificateError(f"a certificate is read from a path, got {type(path).__name__}")
        certificate: Certificate = files.load(Path(path))
        return certificate

    def _card(self) -> Card:
        about = {name: getattr(self, name) for name in ("kind", "verdict", "reading") if hasattr(self, name)}
        return Card(self.claim, {**about, "precision": f"{self.precision} bits", "made with": self.versions})


def versions() -> dict[str, str]:
    """What a certificate was made with: what computes, and what the code of layers is from."""
    return installed("torch", "python-flint", "numpy", "transformers")
