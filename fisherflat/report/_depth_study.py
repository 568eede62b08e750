"""A study of depth: its sentences, its figures, and its files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat import plot
from fisherflat._display import Card
from fisherflat._files import read_json, regular
from fisherflat._version import __version__
from fisherflat.models import as_model
from fisherflat.models.covariances import Covariance
from fisherflat.models.moves import Moves, parse
from fisherflat.pages import Section
from fisherflat.report import _depth_page as page
from fisherflat.report._captions import caption, intervals, of_depth, of_end, unit_of
from fisherflat.report._depth_in_words import headline, printed_means, sentences
from fisherflat.report._depth_tensors import packed, unpacked
from fisherflat.report._page import CURVATURE
from fisherflat.report._result import Result, reading
from fisherflat.report._writer import Content, Figure, blank
from fisherflat.spaces.families import ParametricFamily
from fisherflat.studies import in_words
from fisherflat.studies.depth import Depth, Settings, study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from rich.table import Table


class DepthStudy(Depth, Result):
    """How curvature accumulates over the blocks of a model on a prompt: what `fisherflat.study_depth` returns.

    **Attributes:** `model`, `text`, `token`, what was studied; `settings`, fit for JSON; `roles`, those of the model
    that can be held; `profiles`, by reading, each with the covariance of every depth; `budgets`, by `role`,
    `layer` and `layer-role`, with that of the last depth; `maps`, after each map of the stack; `complete`,
    false after an interrupt.
    """

    document = "depth.json"
    kind = "Curvature along the depth of a model"

    def sentences(self) -> list[str]:
        """Where curvature is made, by which parts, how it grows, and how much of it is attributed to gates."""
        return sentences(self)

    def headline(self) -> str:
        """What moves, how curved what comes out is, and which layers and gates make it."""
        return headline(self)

    def caveats(self) -> list[str]:
        """That it was interrupted, where it was."""
        return [] if self.complete else self.sentences()[-1:]

    def opening(self) -> list[str]:
        """What is flat, where it is most curved and how sure that is, and which part makes it."""
        return page.opening(self)

    def scale(self) -> list[str]:
        """What curvature is, for who knows no geometry."""
        return [CURVATURE]

    def sections(self) -> list[Section]:
        """The page of a study of depth, from what matters most."""
        return page.sections(self)

    def methods(self) -> list[Any]:
        """How it was made."""
        return page.methods(self)

    def overview(self) -> list[Table]:
        """The mean scalar curvature, a row a depth and a column a reading."""
        from rich.table import Table

        if not self.profiles:
            return []
        kind = self.kinds[0][0]
        unit = f"of {in_words(self.family)}" if self.family is not None else of_depth(self.settings, kind)
        table = Table(title="scalar curvature by depth", caption=f"means over {self.drawn}, {unit}")
        table.add_column("blocks passed", justify="right")
        for name in self.profiles:
            table.add_column(name, justify="right")
        means = [printed_means(profile) for profile in self.profiles.values()]
        passed = next(iter(self.profiles.values())).passed.tolist()
        for depth, row in zip(passed, zip(*means, strict=True), strict=True):
            table.add_row(f"{depth:g}", *row)
        return [table]

    def files(self) -> dict[str, Content]:
        """Tables, figures, `depth.json` with the sentences, and `depth.safetensors` with all numbers, point by point.

        `profile.csv` holds the profiles, `estimates.csv` their means over points with intervals; `budget_role.csv` and
        so on the means of the budgets over points, and `budget_role_error.csv` how far off rounding may have put these,
        `attributed.csv` the sums of their rows; `transport.csv` what each layer creates and what of it survives;
        `maps.csv` the maps. Each has its figure.
        """
        files: dict[str, Content] = {self.document: self._document(), "depth.safetensors": packed(self)}
        if self.profiles:
            files |= {"profile.csv": self.table, "estimates.csv": self.estimates}
            for kind, profiles in self.kinds:
                undecided = any(
                    bool((p.decided.isnan() & ~p.scalar_curvature.isnan()).any()) for p in profiles.values()
                )
                said = intervals("bands", self.drawn, undecided)
                unit = unit_of(self.family, of_depth(self.settings, kind))
                about = self._about("scalar curvature along the depth", said, unit)
                files[f"profile_{kind if self.family is None else 'family'}.png"] = Figure.of(
                    partial(_onto, plot.profiles, profiles), 2.6, about=about
                )
        over, end = f"means over {self.over}", unit_of(self.family, of_end(self.settings))
        for by, budget in self.budgets.items():
            about = self._about(f"scal at the end, attributed {_BY[by]}", over, end)
            files[f"budget_{by}.csv"] = budget.table.rename_axis("").reset_index()
            files[f"budget_{by}_error.csv"] = budget.error_table.rename_axis("").reset_index()
            height = 3.0 if len(budget.parts) <= 14 else 3.4
            files[f"budget_{by}.png"] = Figure.of(partial(_onto, plot.budget, budget), height, about=about)
        if len(self.transport_table):
            about = self._about("how much layers bend, and what of it reaches the end", over, end)
            files["transport.csv"] = self.transport_table
            files["transport.png"] = Figure.of(partial(_onto, plot.transport, self.budgets["layer"]), 2.4, about=about)
        if "layer-role" in self.budgets:
            about = self._about("scal at the end, attributed to layers and parts", over, end)
            bars = partial(_onto, plot.budget_by_layer, self.budgets["layer-role"])
            files["attributed.csv"] = self.attributed_table
            files["budget_by_layer.png"] = Figure.of(bars, 2.6, about=about)
        if self.maps:
            files |= {"maps.csv": self.maps_table, "maps.png": Figure(self._draw_maps)}
        return files

    @classmethod
    def load(cls, folder: str | Path) -> DepthStudy:
        """The study that `save` wrote into a folder.

        **Raises:** `InputError` where its files are not there or not whole.
        """
        with reading(folder, "a saved study of depth") as place:
            content = read_json(place / cls.document)
            about: dict[str, Any] = {name: content[name] for name in ("model", "token", "settings", "complete")}
            about["versions"] = content.get("versions", {"fisherflat": content["fisherflat"]})
            about |= {"text": content["prompt"], "roles": tuple(content["roles"])}
            about |= unpacked(regular(place / "depth.safetensors"))
        return cls(**about)

    def _document(self) -> dict[str, Any]:
        laws = [
            {"unit": curve.unit, "reading": curve.reading, "law": law.model, "rate": law.rate,
             "interval_95": [law.low, law.high], "trajectories": law.trajectories}
            for curve, law in self.growth().items()
        ]  # fmt: skip
        return {
            "fisherflat": __version__,
            "versions": self.versions,
            "model": self.model,
            "prompt": self.text,
            "token": self.token,
            "settings": self.settings,
            "roles": list(self.roles),
            "complete": self.complete,
            "summary": self.sentences(),
            "growth": laws,
            "covariance": {name: profile.covariance.tolist() for name, profile in self.profiles.items()},
        }

    def _about(self, what: str, *more: str) -> tuple[str, ...]:
        """The caption of a figure."""
        along = self.settings["moves"].get("in words", "")
        return caption(self.model, what, [self.text], f"what moves: “{self.token}”, {along}", *more)

    def _draw_maps(self) -> Canvas:
        canvas, chosen = blank(plot.COLUMN, plot.COLUMN), plot.few(self.maps)
        plot.depth_maps(chosen, axes=plot.strip_axes(len(chosen), figure=canvas))
        said = "grey: no geometry; crossed out: undecided"
        unit = unit_of(self.family, of_depth(self.settings, "calibrated"))
        plot.caption(canvas, self._about("scalar curvature over the chart", said, unit))
        return canvas

    def _card(self) -> Card:
        """The means of the profiles, a row a depth."""
        means = [profile.decided.reshape(len(profile.passed), -1).nanmean(1) for profile in self.profiles.values()]
        passed = next(iter(self.profiles.values())).passed.tolist() if self.profiles else []
        rows = list(zip(passed, *(mean.tolist() for mean in means), strict=True))
        about = {"prompt": self.text, "what moves": self.token, **super()._card().facts}
        columns = ["blocks passed", *self.profiles]
        return Card(f"{self.model}: mean scalar curvature along the depth", about, columns, rows)

    def __repr__(self) -> str:
        return f"DepthStudy({self.model!r}, {list(self.profiles)}{'' if self.complete else ', incomplete'})"


#: by what a budget is split -> in words
_BY = {"role": "to kinds of parts", "layer": "to layers", "layer-role": "to layers and parts"}


def _onto(draw: Callable[..., Any], content: Any, ax: Axes) -> None:
    draw(content, ax=ax)


def study_depth(
    model: Any,
    prompt: Any,
    *,
    k: int | str | None = None,
    moves: str | Moves = "principal",
    position: Any = None,
    points: int = 16,
    readings: Sequence[str] | None = None,
    halves: bool = True,
    budget_points: int = 16,
    resolution: int = 15,
    seed: int = 0,
    errors: str = "sample",
    family: str | ParametricFamily | None = None,
    precision: str = "working",
    covariance: Covariance = "words",
    output: str = "all",
    progress: bool = True,
) -> DepthStudy:
    """Where a model's blocks make curvature, by which parts, how it grows, and how much of it is attributed to gates.

    **Args:**

    - `model`, loaded, a module, or what `fisherflat.load` takes; `prompt`: a text, token ids, or hidden states
      `[n, d]`.
    - `k`: how many directions move, from 2, or `"full"`: all of the hidden space, at the token's own state alone,
      sampled to 5 % (docs/full_width.md); budgets are then from 256 random planes, and there are no maps. `moves`,
      along what a token moves where it enters the first block, see `fisherflat.moves.parse`.
    - `position`, which token, or `"together"` for all words (default: the last word, or the last place where one of the
      words stands that move).
    - `points`, of the profiles, the first the token's own state, the others drawn with `seed` from within one unit.
    - `readings`: names as in `fisherflat.readings`. Default: live; the attention patterns frozen; and, where there are
      gates, those frozen, with and without the patterns. Parts are held where the chart's point arrives at them.
    - `halves`: look within blocks too, behind the attention.
    - `budget_points`, for the budgets, the first of the points; 0 for no budgets.
    - `resolution`, of the maps (for `k` 2), points a side; 0 for no maps.
    - `errors`: estimate those of the profiles at a `"sample"` of the points and carry them over to the others, or at
      `"all"`, see docs/precision.md.
    - `family`: what the states are read as at every depth: `"next-token"`, `"class"` or `"direction"`, what the model's
      own final norm and head make of those of the tokens that move (`Model.readout`), or one of `fisherflat.families`,
      whose parameters they are behind the final norm. Default: the mean of a Gaussian.
    - `precision`: `"auto"` computes points of the profiles of whose scalar curvature fewer than six digits are right in
      more bits, as `StatisticalManifold.measure` does; it needs a few directions.
    - `covariance` of one token's states, at each depth fitted to those on the prompt, or given, and `output`, whether
      the states of `"all"` tokens are the surface or of those that `"moved"`, as in `fisherflat.analyze`.
    - `progress`: show a bar with the time left, on the error stream.

    A model whose weights stay on disk is traced block by block, anew in each pass.

    **Returns:** a `DepthStudy`. Ctrl-C ends it early: `.complete` is false and what was done is there.

    **Raises:** `CheckpointError` for a model that cannot be read; `InputError` for a prompt or arguments that cannot be
    used; `CovarianceError` for a covariance that is none, or fits no states; `TraceError` for blocks that cannot be
    traced.

    >>> import fisherflat as ff
    >>> found = ff.study_depth("python-llama", [1, 2, 3, 4], points=1, budget_points=0, resolution=0, progress=False)
    >>> list(found.profiles)
    ['live', 'frozen pattern', 'frozen mlp gate', 'frozen pattern+mlp gate']
    """
    settings = Settings(
        parse(moves, k), position, points, readings, halves, budget_points, resolution, seed, errors, family, precision,
        covariance, output,
    )  # fmt: skip
    return DepthStudy(**vars(study(as_model(model), prompt, settings, progress=progress)))
