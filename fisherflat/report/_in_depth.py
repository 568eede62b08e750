"""How curvature accumulates over the layers, as a section of an analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fisherflat.errors import FisherflatError
from fisherflat.models import Model
from fisherflat.report._depth_study import study_depth
from fisherflat.studies.layers import Settings


def in_depth(model: Model, prompt: Any, settings: Settings, folder: Path, progress: bool) -> list[dict[str, Any]]:
    """Study the depth of a model on a prompt, write tables and figures, and return the sentences, one a row.

    What moves is what moves in the analysis, where it enters the first block, at the last word. No maps: this is one
    section of several. Where it fails, the sentence says why.

    **Raises:** `KeyboardInterrupt` after an interrupt, which the study keeps to itself.
    """
    try:
        found = study_depth(
            model,
            prompt,
            moves=settings.moves,
            resolution=0,
            seed=settings.seed,
            family=settings.family,
            progress=progress,
        )
    except FisherflatError as error:
        return [{"sentence": f"The depth could not be studied: {error}"}]
    found.save(folder)
    if not found.complete:
        raise KeyboardInterrupt
    return [{"sentence": sentence} for sentence in found.sentences()]
