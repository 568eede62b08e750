"""How curvature accumulates over the layers, as a section of an analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fisherflat.errors import FisherflatError
from fisherflat.studies.layers._study import Study

#: of the profiles and of the budgets
POINTS, BUDGET_POINTS = 16, 8


def in_depth(study: Study, prompt: Any, folder: Path, progress: bool) -> list[str] | None:
    """Study the depth of the model on a prompt, write tables and figures, and return the sentences.

    What moves is what moves in the analysis, where it enters the first block, at the last word. Fewer points than
    `fisherflat depth` takes and no maps: this is one section of several. `None` after an interrupt; where it fails, the
    sentence says why.
    """
    from fisherflat.studies import depth

    settings = study.settings
    try:
        found = depth.study(
            study.model,
            prompt,
            points=POINTS,
            moves=settings.moves,
            budget_points=BUDGET_POINTS,
            resolution=0,
            seed=settings.seed,
            progress=progress,
        )
    except FisherflatError as error:
        return [f"The depth could not be studied: {error}"]
    found.save(folder)
    return found.sentences() if found.complete else None
