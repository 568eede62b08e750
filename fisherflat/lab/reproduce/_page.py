"""A reproduction as a result, with its page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat.lab.reproduce._report import results, text
from fisherflat.lab.reproduce._section import Claim, Section
from fisherflat.lab.reproduce._sections import SECTIONS
from fisherflat.pages import Code, Facts, Grid, Image, Item, Value
from fisherflat.pages import Section as PageSection
from fisherflat.report import PAGE, Result, cell, command, listed, read_json, reading, write

if TYPE_CHECKING:
    from rich.table import Table

#: verdict on a claim -> its place in a sorted table, and how it stands out
_TONES = {"agrees": (0, "flat"), "does not agree": (1, "undecided"), "open": (2, "")}


class Reproduction(Result):
    """The sections of a reproduction that are done, in their folder.

    **Attributes:** `sections_by_name`; `figures_of`, by section, the figures as bytes; the others as in `Result`.
    """

    document = "results.json"
    kind = "What was measured, and what is said"
    model = "Claims about gates, curvature and symmetry"
    complete = True

    def __init__(self, sections: dict[str, Section], folder: Path) -> None:
        self.sections_by_name = sections
        self.figures_of = {
            name: {figure: (folder / name / figure).read_bytes() for figure in section.figures}
            for name, section in sections.items()
        }
        self.versions = {name: v for section in sections.values() for name, v in section.versions.items()}

    @property
    def claims(self) -> list[Claim]:
        """Those of all sections."""
        return [claim for section in self.sections_by_name.values() for claim in section.claims]

    def opening(self) -> list[str]:
        """How many statements agree with what was measured, which do not, and which are open."""
        of = {verdict: [claim.statement for claim in self.claims if claim.verdict == verdict] for verdict in _TONES}
        said = [f"{len(of['agrees'])} of {len(self.claims)} statements agree with what was measured here."]
        against, left = (listed(of[word], 3) for word in ("does not agree", "open"))
        said.append(f"Not in agreement: {against}." if against else "None disagrees.")
        said.append(f"Open, since the measurement does not tell: {left}." if left else "None is left open.")
        return said

    def sentences(self) -> list[str]:
        """A sentence a claim."""
        return [f"{claim.statement} ({claim.source}): {claim.verdict}; {claim.measured}" for claim in self.claims]

    def sections(self) -> list[PageSection]:
        """All claims, and then each section with its tables and figures."""
        rows: list[list[str | Value]] = [
            [claim.statement, Value(_TONES[claim.verdict][0], claim.verdict, _TONES[claim.verdict][1]), claim.measured,
             claim.source]
            for claim in self.claims
        ]  # fmt: skip
        grid = Grid("Statements next to what was measured", ["statement", "verdict", "measured", "source"], rows)
        return [PageSection("Claims", [grid]), *(self._section(name) for name in self.sections_by_name)]

    def _section(self, name: str) -> PageSection:
        section = self.sections_by_name[name]
        items: list[Item] = [section.about]
        for caption, rows in section.tables.items():
            if rows:
                columns = list(dict.fromkeys(column for row in rows for column in row))
                lines = [[cell(row.get(column)) for column in columns] for row in rows]
                items.append(Grid(f"{name}: {caption}", columns, lines, f"{name}/{caption}.csv"))
        for figure, png in self.figures_of[name].items():
            title = figure.removesuffix(".png").replace("_", " ")
            items.append(Image(title, section.title, f"The figure {title} of the section {section.title}.", png))
        settings = {str(key): _plain(value) for key, value in section.settings.items()}
        return PageSection(section.title, [*items, Facts({**settings, "seconds": f"{section.seconds:.0f}"})])

    def methods(self) -> list[Item]:
        """How it was made."""
        there = self.sections_by_name
        quick = {name: json.dumps(asdict(module.QUICK)) for name, module in SECTIONS.items()}
        short = all(json.dumps(section.settings) == quick.get(name) for name, section in there.items())
        only = list(there) if set(there) != set(SECTIONS) else None
        return [
            Facts({"verdicts": "compare each statement with these measurements alone"}),
            Code(command("reproduce", quick=short, only=only, out="again"), "To repeat it:"),
        ]

    def overview(self) -> list[Table]:
        """No table for the terminal."""
        return []

    def files(self) -> dict[str, Any]:
        """`report.md`, the page as Markdown, and `results.json`, all numbers."""
        return {
            "report.md": lambda path: path.write_text(text(self.sections_by_name), encoding="utf-8"),
            self.document: lambda path: path.write_text(results(self.sections_by_name), encoding="utf-8"),
        }

    def save(self, folder: str | Path, *, formats: str | Iterable[str] = ("png",)) -> list[Path]:
        """Write these and the page, beside the folders of the sections.

        **Args:** `formats`, of figures; there are none here.

        **Returns:** the files. **Raises:** `InputError` where they cannot be written.
        """
        return write({**self.files(), PAGE: self.report}, folder, formats)

    @classmethod
    def load(cls, folder: str | Path) -> Reproduction:
        """The reproduction in a folder, as far as it is done.

        **Raises:** `InputError` where its files are not there or not whole.
        """
        with reading(folder, "a reproduction") as place:
            found = read_json(place / cls.document)
            claims = {name: [Claim(**claim) for claim in section["claims"]] for name, section in found.items()}
            sections = {name: Section(**section | {"claims": claims[name]}) for name, section in found.items()}
            return cls(sections, place)


def _plain(value: Any) -> str:
    """A setting as people write it."""
    return ", ".join(map(_plain, value)) if isinstance(value, (list, tuple)) else str(value)
