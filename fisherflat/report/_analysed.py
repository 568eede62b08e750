"""What the words and the pages of an analysis start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from fisherflat.report._patterns import Pattern
    from fisherflat.studies.depth import Depth


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

    def decided_of(self, layer: int, part: str) -> pd.DataFrame:
        """Those of one part of one layer."""

    @property
    def gaps(self) -> pd.DataFrame:
        """What gates add."""

    def sentences(self) -> list[str]:
        """What the numbers say, in words."""
