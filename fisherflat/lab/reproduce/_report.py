"""A reproduction as one file for people and one for programs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fisherflat._files import as_json
from fisherflat.lab.reproduce._section import GATING, OWN, SYMMETRY, Section

_SOURCES = {
    GATING: "*Gating Enables Curvature: A Geometric Expressivity Gap in Attention*",
    SYMMETRY: "*Gated MLPs as Symmetry-Broken Rank-1 Bilinear Attention*",
    OWN: "this project",
}


def results(sections: Mapping[str, Section]) -> str:
    """All sections as JSON."""
    return as_json({name: asdict(section) for name, section in sections.items()})


def text(sections: Mapping[str, Section]) -> str:
    """The report, as Markdown: all claims, then each section with its tables and figures."""
    claims = [
        {"statement": claim.statement, "source": claim.source, "measured": claim.measured, "verdict": claim.verdict}
        for section in sections.values()
        for claim in section.claims
    ]
    parts = [
        "# What was measured, and what is said",
        "Written by `fisherflat reproduce`. Sources: "
        + "; ".join(f"{source}, {title}" for source, title in _SOURCES.items())
        + ". The verdict compares the statement with these measurements alone.",
        table(claims),
        _machine(sections),
    ]
    for name, section in sections.items():
        parts += [f"## {section.title}", section.about]
        for caption, rows in section.tables.items():
            parts += [f"`{name}/{caption}.csv`:", table(rows)] if rows else []
        parts += [f"![{figure.removesuffix('.png')}]({name}/{figure})" for figure in section.figures]
        said = ", ".join(f"{key} {value}" for key, value in section.settings.items())
        parts.append(f"Settings: {said}. It took {section.seconds:.0f} s.")
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; numbers to three digits."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(name)) for name in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return " to ".join(_cell(item) for item in value)
    return str(value).replace("|", "\\|")


def _machine(sections: Mapping[str, Section]) -> str:
    seconds = sum(section.seconds for section in sections.values())
    found = {f"{name} {version}" for section in sections.values() for name, version in section.versions.items()}
    return f"{', '.join(sorted(found))}; {os.cpu_count()} cores; {seconds:.0f} s in all."
