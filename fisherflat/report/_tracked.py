"""Training runs, followed: trajectories, their sentences, figures and files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat import plot
from fisherflat._display import displayed
from fisherflat._files import read_json
from fisherflat._version import __version__
from fisherflat.certificates import versions as made_with
from fisherflat.errors import InputError
from fisherflat.pages import Item, Section
from fisherflat.report import _tracked_page as page
from fisherflat.report._analysis import Analysis
from fisherflat.report._captions import caption, of_part
from fisherflat.report._result import Result, reading
from fisherflat.report._tracked_in_words import headline, overview, sentences
from fisherflat.report._writer import Content, Figure, blank
from fisherflat.studies.comparison import DIFFERENCES, differences, paired

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas
    from rich.table import Table


@displayed
@dataclass
class Stage:
    """A checkpoint of a training run.

    **Attributes:** `run`, its name; `step`; `path`; `left_out`, why it was, if it was; `analysis`, once it is there;
    `place`, the folder in which that is saved already.
    """

    run: str
    step: int
    path: Path
    left_out: str | None = None
    analysis: Analysis | None = field(default=None, repr=False)
    place: Path | None = None

    @property
    def folder(self) -> str:
        """Where its analysis lies."""
        return f"{self.run}/step-{self.step:09}"


class Track(Result):
    """What `fisherflat.track` found.

    **Attributes:** `stages`, the checkpoints of all runs by step, also those that were left out; `runs`, the names;
    `complete`, false after an interrupt.
    """

    document = "track.json"
    kind = "Curvature through training"

    def __init__(self, stages: Sequence[Stage], *, complete: bool = True) -> None:
        self.stages, self.complete = list(stages), complete
        self.runs = list(dict.fromkeys(stage.run for stage in self.stages))
        self.model, self.versions = ", ".join(self.runs), made_with()

    @property
    def measured(self) -> list[Stage]:
        """The checkpoints with numbers."""
        return [stage for stage in self.stages if stage.analysis is not None and stage.analysis.measured]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The trajectories: a row for each run, step, layer, part and reading.

        The columns are those of `estimates` of an `Analysis`: mean, spread and interval of the scalar curvature.
        """
        import pandas as pd

        found = [
            stage.analysis.estimates.assign(run=stage.run, step=stage.step)
            for stage in self.measured
            if stage.analysis is not None
        ]
        if not found:
            return pd.DataFrame(columns=["run", "step", "layer", "part", "reading", "mean", "low", "high"])
        table = pd.concat(found, ignore_index=True)
        return table[["run", "step", *(name for name in table if name not in ("run", "step"))]]

    @cached_property
    def changes(self) -> pd.DataFrame:
        """The paired difference of the last to the first step of each run, a row for each layer, part and reading.

        `from` and `to` are the steps, the other columns those of the table of a `Comparison`.
        """
        import pandas as pd

        by, found = ["layer", "part", "reading"], []
        for run in self.runs:
            stages = [s for s in self.measured if s.run == run and s.analysis is not None and s.analysis.complete]
            if len(stages) > 1:
                ends = {
                    f"step {s.step}": pd.concat(s.analysis.to_pair()) for s in (stages[0], stages[-1]) if s.analysis
                }
                changed = differences(paired(ends).table, by)
                found.append(changed.assign(run=run, **{"from": stages[0].step, "to": stages[-1].step}))
        columns = ["run", "from", "to", *by, *DIFFERENCES]
        return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)

    @cached_property
    def checkpoints(self) -> pd.DataFrame:
        """The checkpoints: run, step, path, and why one was left out."""
        import pandas as pd

        rows = [(stage.run, stage.step, str(stage.path), stage.left_out) for stage in self.stages]
        return pd.DataFrame(rows, columns=["run", "step", "path", "left_out"])

    @property
    def notes(self) -> list[str]:
        """What was left out, and what limits the analyses, in sentences."""
        said = [
            f"Step {stage.step} of {stage.run} is left out: {stage.left_out}" for stage in self.stages if stage.left_out
        ]
        for stage in self.stages:
            if stage.analysis is not None and not stage.analysis.measured and stage.analysis.complete:
                said.append(f"At step {stage.step} of {stage.run} nothing could be measured: {_first_error(stage)}")
        said += _notes(self.measured)
        if not self.complete:
            usable = sum(stage.left_out is None for stage in self.stages)
            done = sum(stage.analysis is not None and stage.analysis.complete for stage in self.stages)
            said.append(f"Interrupted: {done} of {usable} checkpoints are done.")
        return said

    def sentences(self) -> list[str]:
        """How curvature changes from the first to the last step, by part and reading, and what was left out."""
        return [*sentences(self), *self.notes]

    def opening(self) -> list[str]:
        """How the curvature changes, where most, and what was left out."""
        return page.opening(self)

    def sections(self) -> list[Section]:
        """The trajectories, the changes, and the checkpoints."""
        return page.sections(self, self.files())

    def methods(self) -> list[Item]:
        """What was measured of each checkpoint."""
        return page.methods(self)

    def headline(self) -> str:
        """The live change of each part."""
        return headline(self)

    def caveats(self) -> list[str]:
        """What was left out, and what limits the rest."""
        return self.notes

    def overview(self) -> list[Table]:
        """The scalar curvature by step, live, over all layers; and the changes by layer."""
        return overview(self)

    def files(self) -> dict[str, Content]:
        """`track.csv` holds the trajectories, `changes.csv` the changes, `checkpoints.csv` what was found.

        `track_live.png` and so on show the trajectories, a figure a reading. Each checkpoint has a folder of its own
        with its analysis, by run and step.
        """
        files: dict[str, Content] = {
            "track.csv": self.table,
            "changes.csv": self.changes,
            "checkpoints.csv": self.checkpoints,
            self.document: {
                "fisherflat": __version__,
                "model": self.model,
                "complete": self.complete,
                "summary": self.sentences(),
                "notes": self.notes,
                "stages": [
                    {
                        "run": stage.run,
                        "step": stage.step,
                        "path": str(stage.path),
                        "left_out": stage.left_out,
                        "analysis": None if stage.analysis is None else stage.folder,
                    }
                    for stage in self.stages
                ],
            },
        }
        for held in dict.fromkeys(self.table["reading"]):
            rows = self.table[self.table["reading"] == held]
            if (rows["mean"].fillna(0) != 0).any() and not rows["part"].str.startswith("head ").all():
                files[f"track_{held.replace(' ', '-').replace('+', '-and-')}.png"] = Figure(partial(self._draw, held))
        return files

    def _draw(self, held: str) -> Canvas:
        rows = self.table[(self.table["reading"] == held) & ~self.table["part"].str.startswith("head ")]
        rows.attrs["family"] = next(one.analysis.settings.get("family") for one in self.measured if one.analysis)
        parts, runs = rows["part"].nunique(), rows["run"].nunique()
        canvas = blank(0.4 + plot.COLUMN * runs, 1.1 + 1.6 * parts)
        axes = canvas.subplots(parts, runs, sharex="col", sharey="row", squeeze=False)
        plot.tracks(rows, axes=axes)
        analyses = [stage.analysis for stage in self.measured if stage.analysis is not None]
        found = [text for one in analyses for text in one.texts.values()]
        said = "means over prompts, positions, points; bands: 95 % intervals"
        what, unit = f"scalar curvature by training step, {held}", of_part(analyses[0].settings)
        about = caption(", ".join(self.runs), what, [str(text) for text in dict.fromkeys(found)], said, unit)
        plot.caption(canvas, about)
        return canvas

    @property
    def folders(self) -> list[str]:
        """Those of the analyses."""
        return [stage.folder for stage in self.stages if stage.analysis is not None]

    def save(self, folder: str | Path, *, formats: Any = ("png",)) -> list[Path]:
        """Write the tables, the sentences and the figures, and the analysis of each checkpoint that is not there yet.

        **Args:** `formats`, of figures, as in `Analysis.save`.

        **Returns:** the files. **Raises:** `InputError` where a folder cannot be made or written to.
        """
        each = [
            file
            for stage in self.stages
            if stage.analysis is not None and stage.place != Path(folder) / stage.folder
            for file in stage.analysis.save(Path(folder) / stage.folder, formats=formats)
        ]
        return [*each, *super().save(folder, formats=formats)]

    @classmethod
    def load(cls, folder: str | Path) -> Track:
        """The track that `save` wrote into a folder.

        **Raises:** `InputError` where its files are not there or not whole.
        """
        with reading(folder, "a saved track") as place:
            content = read_json(place / cls.document)
            stages = [_stage(place, row) for row in content["stages"]]
            return cls(stages, complete=bool(content["complete"]))

    def __repr__(self) -> str:
        count = len(self.measured)
        return f"Track({self.runs}, {count} checkpoints{'' if self.complete else ', incomplete'})"


def _notes(stages: Sequence[Stage]) -> list[str]:
    """What limits the analyses: where steps of a run differ but in numbers, the first of them, and at how many more."""
    alike: dict[tuple[str, str], list[str]] = {}
    for stage in stages:
        assert stage.analysis is not None
        for note in stage.analysis.notes:
            key = re.sub(r"[0-9][0-9.e+-]*", "#", note.replace(stage.analysis.model, ""))
            alike.setdefault((stage.run, key), []).append(note)
    more = {1: "", 2: " The same is so at another step."}
    return [
        f"{run}: {notes[0]}{more.get(len(notes), f' The same is so at {len(notes) - 1} more steps.')}"
        for (run, _), notes in alike.items()
    ]


def _first_error(stage: Stage) -> str:
    rows = () if stage.analysis is None else stage.analysis.each()
    return next((str(row["error"]) for row in rows if row["error"]), "there are no rows")


def _stage(place: Path, row: Any) -> Stage:
    stage = Stage(row["run"], row["step"], Path(row["path"]), row["left_out"])
    if row["analysis"] is not None:
        if row["analysis"] != stage.folder or "/" in stage.run or ".." in stage.run:
            raise InputError(f"the analysis of step {stage.step} lies elsewhere")
        stage.place = place / stage.folder
        stage.analysis = Analysis.load(stage.place)
    return stage
