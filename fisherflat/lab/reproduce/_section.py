"""What a section of a reproduction holds, and how it is kept in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fisherflat._versions import versions as installed
from fisherflat.report import write
from fisherflat.studies import kept

#: the papers whose statements are compared with what is measured
GATING = "arXiv 2604.14702"  # Gating Enables Curvature: A Geometric Expressivity Gap in Attention
SYMMETRY = "arXiv 2606.22172"  # Gated MLPs as Symmetry-Broken Rank-1 Bilinear Attention
#: statements of no paper, which belong beside theirs
OWN = "fisherflat"


@dataclass(frozen=True)
class Claim:
    """A statement next to what was measured.

    **Attributes:** `source`, whose statement it is; `statement`; `measured`, in numbers; `verdict`: `"agrees"`,
    `"does not agree"`, or `"open"` where the measurement does not tell.
    """

    source: str
    statement: str
    measured: str
    verdict: str


@dataclass
class Section:
    """A part of a reproduction.

    **Attributes:** `title`; `about`, how it was measured; `claims`; `tables`, name -> rows; `figures`, names of the png
    files in the section's folder; `settings`, what determines it; `seconds` it took; `versions`, under which.
    """

    title: str
    about: str
    claims: Sequence[Claim]
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    figures: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> list[Path]:
        """Write a csv a table, and section.json with everything, which comes last: a folder that has it is done."""
        import pandas as pd

        tables = {f"{name}.csv": pd.DataFrame(list(rows)) for name, rows in self.tables.items()}
        return write({**tables, "section.json": asdict(self)}, folder)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Section | None:
        """The section in a folder, if it was finished with these settings and the versions of now."""
        content = kept(folder / "section.json", {"settings": settings, "versions": versions()})
        if content is None or not all((folder / name).is_file() for name in content["figures"]):
            return None
        return cls(**content | {"claims": [Claim(**claim) for claim in content["claims"]]})


def versions() -> dict[str, str]:
    """What the numbers may depend on."""
    return installed("torch")


def verdict(agrees: bool | None) -> str:
    """The word for it; `None` is open."""
    return "open" if agrees is None else "agrees" if agrees else "does not agree"
