"""Certificates that lie in a folder, as a result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat.certificates import Certificate, CurvatureCertificate
from fisherflat.errors import InputError
from fisherflat.pages import Facts, Grid, Item, Section, Value
from fisherflat.report._page import CURVATURE, PAGE, listed, proofs_in
from fisherflat.report._result import Result
from fisherflat.report._writer import Content, write

if TYPE_CHECKING:
    from rich.table import Table


class Proofs(Result):
    """The certificates of a folder.

    **Attributes:** `certificates`, by the names of their files; the others as in `Result`.
    """

    document = ""
    kind = "What is proved"
    complete = True

    def __init__(self, certificates: Mapping[str, Certificate]) -> None:
        self.certificates = dict(certificates)
        self.model = "Certificates"
        self.versions = {name: version for one in self.certificates.values() for name, version in one.versions.items()}

    @property
    def path(self) -> str:
        """Certificates do not name the model."""
        return "MODEL"

    @property
    def proofs(self) -> dict[str, Certificate]:
        """All of them."""
        return self.certificates

    @property
    def _about_curvature(self) -> dict[str, CurvatureCertificate]:
        return {name: one for name, one in self.certificates.items() if isinstance(one, CurvatureCertificate)}

    def opening(self) -> list[str]:
        """What is proved to be flat, what to be curved and how much, and what that rests on."""
        found = self._about_curvature
        if not found:
            return [one.claim for one in list(self.certificates.values())[:3]]
        by_verdict = {
            word: [n for n, one in found.items() if one.verdict == word] for word in ("flat", "curved", "undecided")
        }
        said = [
            f"Proved flat: {listed(map(self._where, by_verdict['flat']))}."
            if by_verdict["flat"]
            else "Nothing here is proved to be flat."
        ]
        curved = [(one, name) for name in by_verdict["curved"] if (one := found[name]).enclosure is not None]
        if curved:
            top, name = max(curved, key=lambda pair: min(abs(float(bound)) for bound in pair[0].enclosure or (0, 0)))
            low, high = (float(bound) for bound in top.enclosure or (0, 0))
            ends = dict.fromkeys((f"{low:.6g}", f"{high:.6g}"))
            value = (
                f"lies between {' and '.join(ends)}" if len(ends) > 1 else f"is {next(iter(ends))}, to these digits,"
            )
            said.append(
                f"Proved curved, most of all {self._where(name)}: its sectional curvature {value} in units of "
                "1 / covariance, rounding included."
            )
        else:
            said.append("Nothing here is proved to be curved.")
        if by_verdict["undecided"]:
            said.append(f"Undecided, so that nothing is claimed: {listed(map(self._where, by_verdict['undecided']))}.")
        else:
            first = next(iter(found.values()))
            said.append(f"The first of these proofs rests on this: {first.reason.splitlines()[0]}.")
        return said

    def _where(self, name: str) -> str:
        """What a certificate is about, in a sentence."""
        one = self.certificates[name]
        subject = one.subject or {}
        if "layer" not in subject:
            return f"what {name} is about"
        reading = f", {one.reading}" if isinstance(one, CurvatureCertificate) else ""
        return f"the {subject.get('part', 'part')} of layer {subject['layer']}{reading}"

    def scale(self) -> list[str]:
        """What curvature is, for who knows no geometry."""
        return [CURVATURE] if self._about_curvature else []

    def sections(self) -> list[Section]:
        """A table of all; the certificates themselves follow."""
        rows: list[list[str | Value]] = []
        for name, one in self.certificates.items():
            verdict = getattr(one, "verdict", one.kind)
            rows.append([name, self._where(name), Value(_ORDER.get(verdict, 3), verdict, verdict)])
        table = Grid("The certificates of this folder", ["file", "about", "verdict"], rows)
        return [Section("All of them", [table])]

    def methods(self) -> list[Item]:
        """How certificates are made and checked."""
        return [
            Facts(
                {
                    "flat": "proved by structure: each node of the recorded graph is constant or affine in what moves",
                    "curved": "proved in ball arithmetic, in which each number is an interval that holds the true one",
                    "checking": "fisherflat verify records the model anew and checks each step with code of its own, "
                    "which shares none with the prover; MODEL stands for the folder or the id of the model",
                }
            )
        ]

    def sentences(self) -> list[str]:
        """The claims."""
        return [one.claim for one in self.certificates.values()]

    def overview(self) -> list[Table]:
        """No table: a claim is a sentence."""
        return []

    def files(self) -> dict[str, Content]:
        """The certificates."""
        return {name: one.save for name, one in self.certificates.items()}

    def save(self, folder: str | Path, *, formats: str | Iterable[str] = ("png",)) -> list[Path]:
        """Write the certificates and the page.

        **Args:** `formats`, of figures; there are none here.

        **Returns:** the files. **Raises:** `InputError` where they cannot be written.
        """
        return write({**self.files(), PAGE: self.report}, folder, formats)

    def content(self) -> dict[str, Any]:
        """The claims, fit for JSON."""
        return {"kind": "Proofs", "claims": {name: one.claim for name, one in self.certificates.items()}}

    @classmethod
    def load(cls, folder: str | Path) -> Proofs:
        """The certificates of a folder.

        **Raises:** `InputError` where there are none.
        """
        found = proofs_in(Path(folder))
        if not found:
            raise InputError(f"{folder} holds no certificates")
        return cls(found)


_ORDER = {"flat": 0, "curved": 1, "undecided": 2}
