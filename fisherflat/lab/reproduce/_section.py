"""What a section of a reproduction holds, and how it is kept in its folder."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from fisherflat._files import made, whole
from fisherflat._version import __version__

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

    def save(self, folder: Path) -> None:
        """Write a csv a table, and section.json with everything, which comes last: a folder that has it is done."""
        import pandas as pd

        made(folder)
        for name, rows in self.tables.items():
            with whole(folder / f"{name}.csv") as part:
                pd.DataFrame(list(rows)).to_csv(part, index=False)
        with whole(folder / "section.json") as part:
            part.write_text(as_json(asdict(self)), encoding="utf-8")


def read(folder: Path, settings: Mapping[str, Any]) -> Section | None:
    """The section in a folder, if it was finished with these settings and the versions of now."""
    try:
        content = json.loads((folder / "section.json").read_text(encoding="utf-8"))
        content["claims"] = [Claim(**claim) for claim in content["claims"]]
        section = Section(**content)
    except (OSError, ValueError, TypeError, KeyError):  # not there, or of another release
        return None
    same = section.settings == json.loads(as_json(settings)) and section.versions == versions()
    return section if same and all((folder / name).is_file() for name in section.figures) else None


def versions() -> dict[str, str]:
    """What the numbers may depend on."""
    return {"fisherflat": __version__, "torch": torch.__version__, "python": platform.python_version()}


def as_json(value: Any) -> str:
    """JSON, which has no NaN: a number that is not finite becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def verdict(agrees: bool | None) -> str:
    """The word for it; `None` is open."""
    return "open" if agrees is None else "agrees" if agrees else "does not agree"
