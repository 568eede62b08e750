"""An analysis: the table of a model's layers, its shapes, and its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fisherflat import plot
from fisherflat._display import Card
from fisherflat._files import read_json, regular
from fisherflat._version import __version__
from fisherflat.certificates import versions as made_with
from fisherflat.errors import InputError
from fisherflat.geometry import FLAT_WORDS, Verdict
from fisherflat.pages import Section
from fisherflat.report import (
    _analysis_methods,
    _analysis_opening,
    _analysis_page,
    _estimates,
    _moves_in_words,
    _patterns,
)
from fisherflat.report._analysis_in_words import glance, headline, overview, sentences
from fisherflat.report._captions import caption, intervals, of_part, unit_of
from fisherflat.report._columns import KEYS, columns_of, kinds_of, rows_of
from fisherflat.report._depth_study import DepthStudy
from fisherflat.report._in_depth import depth_studies
from fisherflat.report._result import Result, reading
from fisherflat.report._writer import Content, Figure
from fisherflat.report._xarray import dataset
from fisherflat.studies.comparison import chosen
from fisherflat.studies.layers import CORNERS, QUANTITIES, negligible

if TYPE_CHECKING:
    import pandas as pd
    import xarray
    from rich.table import Table

#: column -> its name in tables of version 0.1.0
_FORMER = {f"{name}_norm": name for name in ("second_fundamental_form", "mean_curvature")}
#: what a verdict was called there, where no error decided on it
_FORMER_WORDS = {"flat to rounding": Verdict.FLAT, "positive": Verdict.CURVED, "negative": Verdict.CURVED}


class Analysis(Result):
    """What `fisherflat.analyze` found.

    **Attributes:** `rows`, a dict each; `model`, its name; `settings`, the arguments; `complete`, false after an
    interrupt; `notes`, sentences about the run; `depth`, by prompt, what a study of the depth said, where asked for,
    and `studies`, these; `versions`, it was made with; `patterns`, how the heads that were measured attended on each
    prompt of at most 64 tokens, a `Pattern` each.
    """

    document = "analysis.json"
    #: opens a folder whose rows stay on disk: `LargeAnalysis.opened`, which only a module above this one can name
    of_parts: ClassVar[Callable[[Path, Mapping[str, Any]], Analysis]]
    kind = "The curvature of a model, layer by layer"

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        model: str,
        settings: dict[str, Any],
        complete: bool,
        notes: Sequence[str] = (),
        depth: Mapping[str, Sequence[str]] | None = None,
        studies: Sequence[DepthStudy] = (),
        versions: Mapping[str, str] | None = None,
        patterns: Sequence[_patterns.Pattern] | None = None,
    ) -> None:
        self.patterns = _patterns.of_rows(rows) if patterns is None else list(patterns)
        self.columns = columns_of(settings)
        self.rows = [{name: row.get(name, row.get(_FORMER.get(name, ""))) for name in self.columns} for row in rows]
        for row in self.rows:
            row["verdict"] = str(_FORMER_WORDS[row["verdict"]]) if row["verdict"] in _FORMER_WORDS else row["verdict"]
        self.model, self.settings, self.complete, self.notes = model, settings, complete, list(notes)
        self.depth = {prompt: list(said) for prompt, said in (depth or {}).items()}
        self.studies, self.versions = list(studies), dict(versions or made_with())

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each layer, part or head, reading, prompt, position and point.

        `roles`: what there is in the part that can be held. `covariance`: what curvatures are in units of one over, as
        it was asked for, by default the part's own mean output variance; `variance`, the mean variance of an output
        under it; `output`: whether all tokens' outputs are the surface, or those of the ones that moved; `moves`: along
        what. There are `scalar_curvature`; `mean_`, `smallest_` and
        `largest_sectional_curvature` over the planes of the chart (see `Geometry.sectional_extremes`).
        `second_fundamental_form_norm` and `mean_curvature_norm` are in one over its root; `volume_density` is
        `sqrt(det g)`, `effective_rank` and `condition_number` are those of `g`, in the coordinates `u` of the chart.
        How much there is that bends: `smallest_` and `largest_stretch` are the semi-axes of the image of the chart's
        unit ball, in standard deviations; `total_bend` is by how many degrees angles are off over the image of its unit
        disc; `negligible_image`: even the longest semi-axis is below a thousandth, and the curvature hardly matters.
        `scalar_curvature_error`: how far off rounding may have put it, estimated or carried over (`errors` of
        `fisherflat.analyze`). `rerouted`: a mixture of experts chooses others at this point than at the prompt itself.
        With a `family`, curvatures are in its own Fisher metric, and there are `uncertainty`, `1 - p` of the likeliest
        outcome, and `relative_curvature`, `4 (1 - p) K` with the mean sectional curvature K.
        With `dim="full"` the scalar curvature is in all `directions` of the part, sampled from `planes`, with its 95 %
        interval from `scalar_curvature_low` to `_high` and the shares of `positive_` and `negative_planes`.
        `verdict` is one of `fisherflat.geometry.Verdict`, `flat (proved)`, `flat to its error`, `undecided` or
        `curved`; `error` says why there are no numbers. `position` is missing where all words of the prompt move
        together.
        """
        import pandas as pd

        return pd.DataFrame(self.rows, columns=self.columns).astype(kinds_of(self.columns))  # also if every row failed

    def to_xarray(self) -> xarray.Dataset:
        """The table as arrays over layer, part, reading, prompt, position (-1: all words) and point, with units.

        **Raises:** `InputError` where xarray is not installed, or two rows stand at one place.
        """
        return dataset(self)

    @property
    def moves(self) -> list[str]:
        """What moved, by name, in the order in which it was asked for."""
        return [name for name in dict.fromkeys(row["moves"] for row in self.rows) if name is not None]

    def along(self, moves: str) -> Analysis:
        """The rows of one of several movements, as an analysis of its own.

        **Raises:** `InputError` for one that is not among `moves`.
        """
        if moves not in self.moves:
            raise InputError(f"nothing moved {moves!r} here; there are {', '.join(map(repr, self.moves))}")
        number = self.moves.index(moves)
        settings = self.settings | {"moves": [self.settings["moves"], *self.settings.get("others", ())][number]}
        return Analysis(
            [row for row in self.rows if row["moves"] == moves], model=self.model,
            settings={name: value for name, value in settings.items() if name != "others"}, complete=self.complete,
            notes=self.notes, depth=self.depth, studies=self.studies, versions=self.versions, patterns=self.patterns,
        )  # fmt: skip

    def each(self) -> Iterator[dict[str, Any]]:
        """The rows, one after the other."""
        return iter(self.rows)

    def to_pair(self, **where: Any) -> Iterable[pd.DataFrame]:
        """The rows in pieces, with all that it takes to pair them with others, of some layers or parts."""
        return [chosen(self.shown.table, where)]

    @property
    def texts(self) -> dict[int, str]:
        """The prompts by their numbers."""
        return {row["prompt"]: row["text"] for row in self.rows}

    @cached_property
    def by_moves(self) -> pd.DataFrame:
        """The estimates along each of several moves, with the column `moves` first."""
        import pandas as pd

        each = [self.along(name).estimates.assign(moves=name) for name in self.moves]
        found = pd.concat(each, ignore_index=True) if each else self.estimates.assign(moves=None)
        return found[["moves", *(name for name in found if name != "moves")]]

    @cached_property
    def shown(self) -> Analysis:
        """What estimates, sentences and figures are about: of several movements the first."""
        return self.along(self.moves[0]) if len(self.moves) > 1 else self

    @cached_property
    def decided(self) -> pd.DataFrame:
        """The rows with numbers, the scalar curvature of undecided ones missing, so that they enter no mean."""
        return _estimates.decided(self.shown.table)

    def decided_of(self, layer: int, part: str) -> pd.DataFrame:
        """Those of one part of one layer."""
        return self.decided[(self.decided["layer"] == layer) & (self.decided["part"] == part)]

    def by_reading(self, quantity: str = "scalar_curvature") -> pd.DataFrame:
        """One quantity, a row for each layer, part, prompt, position and point, and a column for each reading.

        **Raises:** `InputError` for what is no number of the table.
        """
        if quantity not in QUANTITIES:
            raise InputError(f"{quantity!r} is no quantity of the table; there are {', '.join(QUANTITIES)}")
        table = self.decided
        order = list(dict.fromkeys(table["reading"]))
        wide = table.set_index([*KEYS, "reading"])[quantity].unstack("reading", sort=False)
        return wide.reindex(columns=order).reset_index().rename_axis(columns=None)

    def profiles(
        self, quantity: str = "scalar_curvature", *, by: str = "prompt", statistic: str = "mean"
    ) -> pd.DataFrame:
        """A row for each prompt (or position), a column for each layer, part and reading: what is to be compared.

        **Args:** `quantity`, a number of the table; `by`: `"prompt"`, `"text"`, `"position"` or `"token"`; `statistic`
        over what a row and a column share, `"mean"` or `"median"`. Undecided rows of the scalar curvature are left out.

        **Raises:** `InputError` for something else, or where a row lacks a place that others have.
        """
        if quantity not in self.columns or quantity not in (*QUANTITIES, *CORNERS):
            raise InputError(f"{quantity!r} is no quantity of the table; there are {', '.join(QUANTITIES)}")
        if by not in ("prompt", "text", "position", "token"):
            raise InputError(f'profiles are by "prompt", "text", "position" or "token", got {by!r}')
        if statistic not in ("mean", "median"):
            raise InputError(f'statistic must be "mean" or "median", got {statistic!r}')
        places = ["layer", "part", "reading"]
        found = self.decided.groupby([by, *places], sort=False)[quantity].agg(statistic).unstack(places)
        if found.isna().any(axis=None):
            lacking = found.columns[found.isna().any()]
            raise InputError(
                f"no number at layer, part and reading {lacking[0]} for {by} "
                f"{found.index[found[lacking[0]].isna()][0]!r}; choose readings and layers that all have"
            )
        return found

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """The expressivity gap of every gate: curvature with the gate live minus curvature with the gate held.

        The attention pattern, where there is one, is held in both; the difference is taken point by point. A row for
        each layer, part and gate: the two readings, and of the gap in scalar curvature the columns of a
        `fisherflat.statistics.Estimate`: mean, spread, and a bootstrap interval over prompts, positions or points, and
        `mean_error`, how far off rounding may have put the mean.
        """
        table = _estimates.gaps(self.decided)
        table.attrs["family"] = self.settings.get("family")
        return table

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """Mean, spread and interval of the scalar curvature, a row for each layer, part and reading.

        Undecided rows are left out, and counted as `missing`; `mean_error`: how far off rounding may have put the mean;
        `word`: what the verdicts of all rows come to, of which so many are `undecided`; `negligible`: how many of the
        curved ones have a negligible image, and `mean_of_others`, the mean of those that have none.
        """
        return _estimates.estimated(self.decided)

    @property
    def measured(self) -> bool:
        """Whether any row holds numbers."""
        return any(row["verdict"] is not None for row in self.rows)

    def sentences(self) -> list[str]:
        """What the numbers say, in words."""
        depth = [sentence for said in self.depth.values() for sentence in said]
        return [*sentences(self.shown.table, self.gaps), *_moves_in_words.sentences(self), *depth, *self.notes]

    def headline(self) -> str:
        """Which parts are proved flat, and which live one is curved most."""
        return headline(self.shown.table, self.estimates)

    def caveats(self) -> list[str]:
        """What was not measured, or not as it might be expected."""
        return self.notes

    def glance(self) -> list[Table]:
        """The live scalar curvature by layer, a column a part."""
        return glance(self.shown.table, self.estimates)

    def opening(self) -> list[str]:
        """What is flat, what is most curved and how sure that is, and which part makes it."""
        return _analysis_opening.opening(self.shown)

    def scale(self) -> list[str]:
        """What curvature is, and whether that of the opening is large, for who knows no geometry."""
        return _analysis_opening.scaled(self)

    def sections(self) -> list[Section]:
        """The page of an analysis, from what matters most."""
        return [*_analysis_page.sections(self.shown), *_moves_in_words.sections(self)]

    def methods(self) -> list[Any]:
        """How it was made."""
        return _analysis_methods.methods(self)

    def overview(self) -> list[Table]:
        """The scalar curvature by layer, a table a part."""
        return overview(self.shown.table, self.estimates)

    def files(self) -> dict[str, Content]:
        """`table.csv` and `table.parquet` hold the table, `readings.csv` the scalar curvature with a column a reading.

        `estimates.csv` has means and intervals by layer, `gaps.csv` the expressivity gaps, `moves.csv` the
        estimates along each of several moves, `analysis.json` the
        arguments and the sentences; `layers.png`, `gaps.png` and `heads.png` are the figures.
        Of heads `patterns.json` has the attention weights on the prompts, and `patterns.png` those of the most curved.
        """
        files: dict[str, Content] = {
            "table.csv": self.table,
            "table.parquet": self.table,
            self.document: self._document(),
        }
        if self.measured:
            files |= {"readings.csv": self.by_reading(), "estimates.csv": self.estimates, "gaps.csv": self.gaps}
            files |= {"moves.csv": self.by_moves} if len(self.moves) > 1 else {}
        measured = self.shown.table[self.shown.table["verdict"].notna()]
        heads = measured["part"].str.startswith("head ")
        if not heads.all():
            parts = measured.loc[~heads, "part"].nunique()
            files["layers.png"] = Figure.of_panels(
                lambda axes: plot.layers_by_part(measured, axes=axes),
                0.9 + 1.5 * parts,
                parts,
                about=self._about("scalar curvature by layer", measured[~heads], intervals),
                alike=True,
            )
        if len(self.gaps):
            gaps = "what gates add to scal, attention pattern held"
            files["gaps.png"] = Figure.of(
                lambda ax: plot.gaps(self.gaps, ax=ax), 2.4, about=self._about(gaps, measured[~heads], intervals)
            )
        if self.patterns:
            files |= _patterns.files(self.patterns, self.estimates, self.model, self.settings)
        if heads.any():
            files["heads.png"] = self._map_of_heads(measured[heads])
        return files

    def _document(self) -> dict[str, Any]:
        about = {name: getattr(self, name) for name in ("versions", "model", "settings", "complete", "notes", "depth")}
        return {"fisherflat": __version__, **about, "summary": self.sentences()}

    @property
    def folders(self) -> list[str]:
        """Those of the studies of depth, one a prompt, where they were asked for."""
        return [f"depth/prompt-{i}" for i in range(len(self.settings.get("prompts", ())))] if self.depth else []

    def _map_of_heads(self, heads: pd.DataFrame) -> Figure:
        """A panel a reading; a map of nothing but flat heads shows nothing."""
        curved = heads[~heads["verdict"].isin(FLAT_WORDS)]
        found = list(dict.fromkeys((curved if len(curved) else heads)["reading"]))
        shown = heads[heads["reading"].isin(found)]
        height = len(found) * (0.8 + 0.18 * max(2, min(shown["layer"].nunique(), 24)))
        small = bool(negligible(shown).any())
        flat = partial(_of_cells, bool(shown["verdict"].isin(FLAT_WORDS).any()), small)
        about = self._about("scalar curvature by head", shown, flat)
        return Figure.of_panels(
            lambda axes: plot.heads_by_reading(shown, found, axes=axes), height, len(found), about=about
        )

    def _about(self, what: str, rows: pd.DataFrame, statistic: Callable[[str, str, bool], str]) -> tuple[str, ...]:
        """The caption of a figure of these rows."""
        undecided = bool((rows["verdict"] == Verdict.UNDECIDED).any())
        said = statistic("bars", "prompts, positions, points", undecided)
        return caption(
            self.model,
            what,
            [str(text) for text in self.texts.values()],
            said,
            unit_of(self.settings.get("family"), of_part(self.settings)),
        )

    @classmethod
    def load(cls, folder: str | Path) -> Analysis:
        """The analysis that `save` wrote into a folder: a `LargeAnalysis` where that was one.

        **Raises:** `InputError` where its files are not there or not whole.
        """
        import pandas as pd

        with reading(folder, "a saved analysis") as place:
            content = read_json(place / cls.document)
            if "rows" in content:
                return cls.of_parts(place, content)
            rows = rows_of(pd.read_parquet(regular(place / "table.parquet")))
            about = {name: content[name] for name in ("model", "settings", "complete", "notes", "depth")}
            about["versions"] = content.get("versions", {"fisherflat": content["fisherflat"]})
            studies, patterns = depth_studies(place), _patterns.loaded(place)
        return Analysis(rows, studies=studies, patterns=patterns, **about)

    def _card(self) -> Card:
        """The means of the table, a row a layer; without their intervals, which take longer."""
        found = self._means()
        found = found[~found["part"].str.startswith("head ")]
        kinds = found["part"] + ", " + found["reading"]
        means = found.set_index(["layer", kinds])["mean"].unstack(sort=False)
        cells = [[layer, *map(float, row)] for layer, row in zip(means.index, means.to_numpy(), strict=True)]
        about = super()._card().facts
        return Card(f"{self.model}: mean scalar curvature by layer", about, ["layer", *map(str, means.columns)], cells)

    def _means(self) -> pd.DataFrame:
        by = self.decided.groupby(["layer", "part", "reading"], sort=False)
        return by["scalar_curvature"].mean().rename("mean").reset_index()

    def __repr__(self) -> str:
        layers = len({row["layer"] for row in self.rows})
        return (
            f"Analysis({self.model!r}, {len(self.rows)} rows, {layers} layers{'' if self.complete else ', incomplete'})"
        )


def _of_cells(flat: bool, small: bool, drawn: str, over: str, undecided: bool) -> str:
    """What the cells of a map of heads are."""
    marks = ["hatched: flat"] * flat + ["crossed out: undecided"] * undecided
    marks += ["negligible images left out, dotted: nothing else"] * small
    return "; ".join([f"means over {over}", *marks])
