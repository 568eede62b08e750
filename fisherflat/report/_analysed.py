"""What the words and the pages of an analysis start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from fisherflat.geometry import Verdict
from fisherflat.report._page import joint

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from fisherflat.report._patterns import Pattern
    from fisherflat.studies.depth import Depth

#: what tells the estimates apart
KEYS = ["layer", "part", "reading"]


class Analysed(Protocol):
    """What the page of an analysis is made of; see `fisherflat.report.Analysis`."""

    model: str
    settings: dict[str, Any]
    notes: list[str]
    depth: dict[str, list[str]]
    patterns: list[Pattern]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of the table."""

    @property
    def studies(self) -> Sequence[Depth]:
        """Of the depth, a prompt each, where asked for."""

    @property
    def texts(self) -> dict[int, str]:
        """The prompts by their numbers."""

    @property
    def measured(self) -> bool:
        """Whether any row holds numbers."""

    @property
    def table(self) -> pd.DataFrame:
        """A row for each layer, part, reading, prompt, position and point."""

    @property
    def decided(self) -> pd.DataFrame:
        """Those with numbers, undecided ones missing."""

    @property
    def estimates(self) -> pd.DataFrame:
        """Means by layer, part and reading."""

    @property
    def gaps(self) -> pd.DataFrame:
        """What gates add."""

    def sentences(self) -> list[str]:
        """What the numbers say, in words."""


def kinds(found: Analysed) -> pd.DataFrame:
    """The estimates, and for each layer, part and reading one word for all of its rows."""
    if "word" in found.estimates:
        return found.estimates
    measured = found.table[found.table["verdict"].notna()]
    word = measured.groupby(KEYS, sort=False)["verdict"].agg(joint).rename("word").reset_index()
    unknown = (measured["verdict"] == Verdict.UNDECIDED).groupby([measured[name] for name in KEYS], sort=False).sum()
    return found.estimates.merge(word, on=KEYS).merge(unknown.rename("undecided").reset_index(), on=KEYS)
