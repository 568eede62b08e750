"""How curvature accumulates over the layers, as a section of an analysis."""

from __future__ import annotations

from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from fisherflat.errors import FisherflatError, InputError
from fisherflat.models import Model
from fisherflat.report._depth_study import DepthStudy, study_depth
from fisherflat.studies.layers import Settings

#: the folder of the study of one prompt, in that of an analysis
FOLDER = "depth/prompt-{}"


def depth_studies(folder: Path) -> list[DepthStudy]:
    """The studies of depth in the folder of an analysis, by prompt; what is damaged is left out."""
    places = (folder / FOLDER.format(number) for number in count())
    found = []
    for place in takewhile(lambda place: (place / DepthStudy.document).is_file(), places):
        with suppress(InputError):
            found.append(DepthStudy.load(place))
    return found


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
            errors=settings.errors,
            precision=settings.precision,
            family=settings.family,
            covariance=settings.covariance,
            output=settings.output,
            progress=progress,
        )
    except FisherflatError as error:
        return [{"sentence": f"The depth could not be studied: {error}"}]
    found.save(folder)
    if not found.complete:
        raise KeyboardInterrupt
    return [{"sentence": sentence} for sentence in found.sentences()]
