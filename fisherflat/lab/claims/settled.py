"""Verdicts and their figures, which need more than training does: the other half of this room's face."""

from __future__ import annotations

from fisherflat.lab.claims._figures import figures
from fisherflat.lab.claims._page import summary
from fisherflat.lab.claims._verdicts import settle, verdicts

__all__ = ["figures", "settle", "summary", "verdicts"]
