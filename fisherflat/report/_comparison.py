"""A comparison: what differs between analyses, its sentences, figures and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from fisherflat import plot
from fisherflat._files import read_json
from fisherflat._version import __version__
from fisherflat.certificates import versions as made_with
from fisherflat.errors import InputError
from fisherflat.pages import Item, Section
from fisherflat.report import _comparison_page as page
from fisherflat.report._analysis import Analysis
from fisherflat.report._captions import caption, of_part
from fisherflat.report._comparison_in_words import headline, overview, sentences
from fisherflat.report._estimates import joined
from fisherflat.report._large import LargeAnalysis
from fisherflat.report._page import as_asked
from fisherflat.report._result import Result, reading
from fisherflat.report._writer import Content, Figure, blank
from fisherflat.studies.comparison import AGREEMENT, DIFFERENCES, Pairing, Pairs, agreements, differences, paired

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas
    from rich.table import Table


def folder_of(number: int) -> str:
    """Where an analysis of a comparison lies."""
    return f"analysis-{number}"


class Comparison(Result):
    """What `fisherflat.compare` found.

    **Attributes:** `analyses`, the first of which all others are compared with; `names`, of each; `model`, of all;
    `expected`, how many there should be; `complete`, false after an interrupt.
    """

    document = "comparison.json"
    kind = "How the curvature of models differs"

    def __init__(self, analyses: Sequence[Analysis], *, names: Sequence[str], expected: int | None = None) -> None:
        self.analyses, self.names = list(analyses), list(names)
        self.expected = len(self.analyses) if expected is None else expected
        self.complete = len(self.analyses) == self.expected and all(one.complete for one in self.analyses)
        self.model = " against ".join(reversed(self.names)) if len(self.names) == 2 else ", ".join(self.names)
        self.versions = made_with()
        self.pairs  # noqa: B018  # what cannot be compared is refused now

    @cached_property
    def pairs(self) -> Pairs | Pairing | None:
        """What belongs together; `None` where nothing was measured in some of them.

        Where the rows of an analysis are too many for one table, so are the pairs: then they come piece by piece, from
        `.pieces()`.
        """
        measured = len(self.analyses) > 1 and all(analysis.measured for analysis in self.analyses)
        if not measured or not self.complete:
            return None
        named = dict(zip(self.names, self.analyses, strict=True))
        if any(isinstance(one, LargeAnalysis) for one in self.analyses):
            return Pairing(named)
        return paired({name: one.shown.table for name, one in named.items()})

    @cached_property
    def table(self) -> pd.DataFrame:
        """The paired differences, a row for each model but the first, and layer, part and reading.

        `before` and `after` are the mean scalar curvatures of the first and of the model; `mean`, `low`, `high` and so
        on an `Estimate` of the difference, after minus before; `mean_error`: how far off rounding may have put it;
        `noise_floor`: how much two halves of one of the two analyses differ, in the root mean square, the larger one.
        `word`: `larger` or `smaller`, where the interval of at least five clusters excludes zero by more than rounding;
        `the same`, where rounding explains it; `uncertain`; `too few`; or `not measured`.
        """
        return self._differences(["model", "layer", "part", "reading"])

    @cached_property
    def overall(self) -> pd.DataFrame:
        """The same over all layers that both have, a row for each model, part and reading."""
        return self._differences(["model", "part", "reading"])

    def _differences(self, by: list[str]) -> pd.DataFrame:
        import pandas as pd

        if self.pairs is None:
            return pd.DataFrame(columns=[*by, *DIFFERENCES])
        return joined([differences(pairs, by) for pairs in self._grouped("layer" in by)], [*by, *DIFFERENCES])

    def _grouped(self, layers: bool) -> Iterator[pd.DataFrame]:
        """The pairs, with those of a part in a reading together, of one layer or of all of them."""
        if isinstance(self.pairs, Pairing):
            yield from self.pairs.pieces() if layers else self.pairs.over_layers()
        elif self.pairs is not None:
            yield self.pairs.table

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """How well profiles over the layers agree with those of the first, a row for each model, part and reading.

        The columns are those of `fisherflat.statistics.Agreement`.
        """
        return joined([agreements(pairs) for pairs in self._grouped(False)], ["model", "part", "reading", *AGREEMENT])

    @cached_property
    def gates(self) -> pd.DataFrame:
        """What each gate of each model adds (`gaps` of its `Analysis`), beside whether the others have such a gate.

        `model`; the columns of `gaps`; `not_in`, the models that have no such gate in that part and layer.
        """
        import pandas as pd

        found = [one.gaps.assign(model=name) for name, one in zip(self.names, self.analyses, strict=True)]
        filled = [gaps for gaps in found if len(gaps)]
        rows = pd.concat(filled, ignore_index=True) if filled else found[0]
        keys = ["layer", "part", "gate"]
        has = {name: set(gaps[keys].itertuples(index=False)) for name, gaps in zip(self.names, found, strict=True)}
        lacking = [
            ", ".join(name for name in self.names if key not in has[name]) for key in rows[keys].itertuples(index=False)
        ]
        rows = rows.assign(not_in=pd.Series(lacking, index=rows.index, dtype=object))
        return rows[["model", *(name for name in rows if name != "model")]]

    @property
    def notes(self) -> list[str]:
        """What limits the comparison, in sentences."""
        said = list(self.pairs.notes) if self.pairs is not None else []
        settings = [as_asked(analysis.settings) for analysis in self.analyses]
        for name, value in settings[0].items():
            if name != "prompts" and any(other.get(name) != value for other in settings[1:]):
                each = zip(self.names, settings, strict=True)
                said.append(
                    f"Not all have the same {name}: " + ", ".join(f"{s.get(name)} in {n}" for n, s in each) + "."
                )
        for name, analysis in zip(self.names, self.analyses, strict=True):
            said += [f"{name}: {note}" for note in analysis.notes]
        if not self.complete:
            done = sum(analysis.complete for analysis in self.analyses)
            said.append(f"Interrupted: {done} of {self.expected} are analysed, and nothing is compared yet.")
        elif self.pairs is None:
            said.append("In some of them nothing could be measured, so that nothing is compared.")
        return said

    def sentences(self) -> list[str]:
        """What differs, in which layers, how well profiles agree, and what gates add that the others do not have."""
        return [*sentences(self), *self.notes]

    def opening(self) -> list[str]:
        """What differs over all layers, where most, and how much of it is noise."""
        return page.opening(self)

    def sections(self) -> list[Section]:
        """Differences, agreement and gates."""
        return page.sections(self, self.files())

    def methods(self) -> list[Item]:
        """Pairs and intervals, and how each analysis was made."""
        return page.methods(self)

    def headline(self) -> str:
        """Which parts differ over all layers."""
        return headline(self)

    def caveats(self) -> list[str]:
        """What limits the comparison."""
        return self.notes

    def overview(self) -> list[Table]:
        """The differences over all layers, and those by layer, a table a part."""
        return overview(self)

    @property
    def folders(self) -> list[str]:
        """Those of the analyses."""
        return [folder_of(number) for number in range(len(self.analyses))]

    def files(self) -> dict[str, Content]:
        """`differences.csv` by layer, `overall.csv` over them, `agreement.csv`, `gates.csv` and `pairs.csv`.

        Of analyses that outgrow a table there is no `pairs.csv`. `differences_live.png` and so on show them, a figure a
        reading. Each analysis has a folder of its own, `analysis-0` and so on.
        """
        files: dict[str, Content] = {
            "differences.csv": self.table,
            "overall.csv": self.overall,
            "agreement.csv": self.agreement,
            "gates.csv": self.gates,
            self.document: {
                "fisherflat": __version__,
                "model": self.model,
                "names": self.names,
                "expected": self.expected,
                "complete": self.complete,
                "summary": self.sentences(),
                "notes": self.notes,
            },
        }
        if self.pairs is not None:
            if isinstance(self.pairs, Pairs):
                files["pairs.csv"] = self.pairs.table
            for held in dict.fromkeys(self.table["reading"]):
                rows = self.table[self.table["reading"] == held]
                if (rows["word"] != "not measured").any() and (rows[["before", "after"]] != 0).any(axis=None):
                    name = f"differences_{held.replace(' ', '-').replace('+', '-and-')}.png"
                    files[name] = Figure(partial(self._draw, held))
        return files

    def _draw(self, held: str) -> Canvas:
        rows = self.table[self.table["reading"] == held]
        rows.attrs["family"] = self.analyses[0].settings.get("family")  # which says the unit
        parts = rows["part"].nunique()
        canvas = blank(2 * plot.COLUMN, 1.2 + 1.5 * parts)
        plot.compared(rows, first=self.names[0], axes=canvas.subplots(parts, 2, sharex=True, squeeze=False))
        texts = [str(text) for text in dict.fromkeys(self.analyses[0].texts.values())]
        said = "left: means; right: paired differences, means with intervals; grey: noise floor of halves"
        what = f"scalar curvature by layer, {held}"
        plot.caption(
            canvas, caption(" against ".join(self.names), what, texts, said, of_part(self.analyses[0].settings))
        )
        return canvas

    def save(self, folder: str | Path, *, formats: str | Iterable[str] = ("png",)) -> list[Path]:
        """Write the tables, the sentences and the figures, and each analysis into a folder of its own.

        **Args:** `formats`, of figures, as in `Analysis.save`.

        **Returns:** the files. **Raises:** `InputError` where a folder cannot be made or written to.
        """
        each = [
            file
            for number, analysis in enumerate(self.analyses)
            for file in analysis.save(Path(folder) / folder_of(number), formats=formats)
        ]
        return [*each, *super().save(folder, formats=formats)]

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """The comparison that `save` wrote into a folder.

        **Raises:** `InputError` where its files are not there or not whole.
        """
        with reading(folder, "a saved comparison") as place:
            content = read_json(place / cls.document)
            names, expected = content["names"], content["expected"]
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise InputError("names are no list of words")
            analyses = [Analysis.load(place / folder_of(number)) for number in range(len(names))]
            return cls(analyses, names=names, expected=expected)
