"""The demonstration: the models that ship with the package, analysed.

How a gated and an ungated attention layer bend the plane that they classify, and the attention of two language models,
layer by layer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fisherflat import plot, report
from fisherflat._typing import Tensor
from fisherflat._version import __version__
from fisherflat.certificates import versions as made_with
from fisherflat.errors import InputError
from fisherflat.geometry import CurvatureField, StatisticalManifold, Verdict, curvature_field
from fisherflat.lab.experiments.ring import INNER_RADIUS, OUTER_RADIUS, SQUARE, ring_data
from fisherflat.pages import Code, Drawing, Facts, Grid, Item, Link, Points, Section, Value
from fisherflat.parts.readings import LIVE, held, roles
from fisherflat.spaces import charts
from fisherflat.spaces.families import Gaussian
from fisherflat.zoo import CHECKPOINTS, PointClassifier, ring_pair, ring_provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table


#: of the classifiers; what is held is held at the origin of the plane
READINGS = (LIVE, "frozen pattern", "frozen gate")
#: the readings that the figure shows, one a row
SHOWN = {"live": "live: nothing held", "frozen pattern": "frozen pattern: held as at the origin"}
#: how many of the training points are drawn
DRAWN_POINTS = 120
#: of a map, what is kept
_TENSORS = tuple(part.name for part in dataclasses.fields(CurvatureField) if part.name not in ("extent", "family"))
#: what the language models read
PROMPT = "def mean(values):\n    return sum(values) / len(values)\n"


@dataclass(eq=False)
class Demo(report.Result):
    """What the demonstration found.

    **Attributes:** `models`, name -> trained classifier; `accuracy`, name -> region -> fraction of test points that are
    classified right; `fields`, (name, reading) -> curvature over the plane; `versions`, it was made with; `language`,
    the analyses of the language models by name, where they were made; `model` and `complete`, as in all results.
    """

    document = "curvature_maps.json"
    kind = "A demonstration on the models that ship with fisherflat"
    models: dict[str, PointClassifier]
    accuracy: dict[str, dict[str, float]]
    fields: dict[tuple[str, str], CurvatureField]
    versions: dict[str, str] = dataclasses.field(default_factory=made_with)
    language: dict[str, report.Analysis] = dataclasses.field(default_factory=dict)
    model: str = "Two classifiers of points and two language models"
    complete: bool = True

    def figure(self) -> Figure:
        """The maps side by side: a column for each model, a row for each reading, one colour scale."""
        figure = report.blank(7.2, 6.3)
        axes = figure.subplots(len(SHOWN), len(self.models), sharex=True, sharey=True)
        panels = {(name, reading): axes[i, j] for i, reading in enumerate(SHOWN) for j, name in enumerate(self.models)}
        plot.fields([self.fields[key] for key in panels], list(panels.values()), scale="symlog", ellipses=7)
        points, labels = ring_data(DRAWN_POINTS, ring_provenance()["shipped_seed"])
        for (name, reading), ax in panels.items():
            _overlay(ax, points, labels)
            if reading == LIVE:  # with a part held it is another classifier
                _boundary(ax, self.models[name], self.fields[name, reading].u)
            ax.label_outer()
        for ax, name in zip(axes[0], self.models, strict=True):
            ax.set_title(f"{name}: {self.accuracy[name]['all']:.1%} of new points right", fontsize=10)
        for ax, words in zip(axes[:, 0], SHOWN.values(), strict=True):
            ax.set_ylabel(f"{words}\n\n$u_2$")
        figure.legend(handles=axes[0, 0].get_lines(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        about = (
            "ring classifiers: scalar curvature of the representation over the plane of their inputs, point by point",
            "σ²: mean variance of a model's own representations of the training points; boundary: of the live model",
        )
        plot.caption(figure, about)
        return figure

    def numbers(self) -> dict[str, Any]:
        """The summary as plain numbers, for JSON."""
        provenance = ring_provenance()
        return {
            "fisherflat": __version__,
            "versions": self.versions,
            "models": {
                name: {
                    "parameters": sum(p.numel() for p in model.parameters()),
                    "test_accuracy": self.accuracy[name],
                    "readings": {r: _describe(field) for (n, r), field in self.fields.items() if n == name},
                }
                for name, model in self.models.items()
            },
            "comparison_over_seeds": provenance["comparison"],
        }

    def files(self) -> dict[str, Any]:
        """curvature_maps.png, curvature_maps.csv (every grid point) and curvature_maps.json (the summary).

        curvature_maps.npz holds the maps with all digits, for `load`.
        """
        return {
            "curvature_maps.png": report.Figure(self.figure, dpi=110),
            "curvature_maps.csv": self._write_csv,
            "curvature_maps.json": self.numbers(),
            "curvature_maps.npz": self._write_fields,
        }

    @classmethod
    def load(cls, folder: str | Path) -> Demo:
        """The result that `save` wrote into a folder; its models are those that ship with the package.

        **Raises:** `InputError` where its files are not there or not whole.
        """
        with report.reading(folder, "a demonstration") as place:
            content = report.read_json(place / "curvature_maps.json")
            found, versions = content["models"], content.get("versions", {"fisherflat": content["fisherflat"]})
            language = {
                name: report.Analysis.load(place / name)
                for name in CHECKPOINTS
                if (place / name / report.Analysis.document).is_file()
            }
            with np.load(place / "curvature_maps.npz", allow_pickle=False) as maps:
                fields = {
                    (name, reading): CurvatureField(
                        extent=SQUARE,
                        family=None,
                        **{what: torch.from_numpy(maps[f"{name}/{reading}/{what}"]) for what in _TENSORS},
                    )
                    for name, model in found.items()
                    for reading in model["readings"]
                }
        accuracy = {name: model["test_accuracy"] for name, model in found.items()}
        return cls(ring_pair(), accuracy, fields, versions, language)

    def _write_fields(self, path: Path) -> None:
        maps = {
            f"{name}/{reading}/{what}": getattr(field, what).numpy()
            for (name, reading), field in self.fields.items()
            for what in _TENSORS
        }
        with path.open("wb") as file:
            np.savez_compressed(file, **maps)

    def _write_csv(self, path: Path) -> None:
        with path.open("w") as file:
            file.write("model,reading,u1,u2,logit,scalar_curvature,volume_density\n")
            for (name, reading), field in self.fields.items():
                density = field.metric.det().clamp_min(0).sqrt()
                columns = [field.u, self.models[name](field.u), field.scalar_curvature, density]
                rows = torch.cat([column.reshape(field.scalar_curvature.numel(), -1) for column in columns], 1)
                np.savetxt(file, rows.numpy(), fmt=f"{name},{reading},%.5g,%.5g,%.5g,%.7g,%.5g")

    def opening(self) -> list[str]:
        """What is flat, what is most curved, and which part makes it."""
        flat = [f"the {name} classifier, {reading}" for (name, reading), field in self.fields.items()
                if field.verdict is Verdict.PROVED]  # fmt: skip
        curved = {key: _describe(field) for key, field in self.fields.items() if not field.is_flat}
        said = [
            f"Flat, and proved so, over the whole plane: {report.listed(flat)}."
            if flat
            else "None of the maps is proved to be flat."
        ]
        if curved:
            top = max(curved, key=lambda key: max(-curved[key]["low"], curved[key]["high"]))
            found = curved[top]
            error = self.fields[top].scalar_curvature_error
            off = "" if error is None else f"; numerical error in the median {error.nanmedian().item():.1g}"
            said.append(
                f"Most curved is the {top[0]} classifier, {top[1]}: over the plane its scalar curvature has median "
                f"{found['median']:+.3g}/σ² and lies at nine points of ten between {found['low']:+.3g} and "
                f"{found['high']:+.3g}"
                f"{off}."
            )
        made = [f"the {name} classifier, {reading}, is {self._words(name, reading)}" for name, reading in curved]
        return [*said, f"What makes it: {'; '.join(made)}." if made else "So nothing makes curvature here."]

    def scale(self) -> list[str]:
        """What curvature is, for who knows no geometry."""
        return [report.CURVATURE]

    def sections(self) -> list[Section]:
        """The maps, their table, and the pages of the language models."""
        rows: list[list[str | Value]] = []
        for (name, reading), field in self.fields.items():
            found = _describe(field)
            numbers = [report.number(found[key], digits=3, sign="+") for key in ("low", "median", "high")]
            rows.append([name, reading, *numbers, self._words(name, reading)])
        maps = Drawing(
            "Curvature over the plane that the classifiers divide",
            "Orange bulges like a sphere, purple bends like a saddle; σ is the spread of each model's own "
            "representation.",
            " ".join(self.opening()), self.figure,
        )  # fmt: skip
        heads = ["classifier", "reading", "5 %", "median", "95 %", "in words"]
        grid = Grid("Quantiles of the scalar curvature [1/σ²] over the plane", heads, rows, "curvature_maps.csv")
        models = [
            Section(name, [Points(analysis.opening()), Link(f"{name}/{report.PAGE}", f"All of {name}")])
            for name, analysis in self.language.items()
        ]
        return [
            Section("Two classifiers of points", [maps, grid, Points(self.sentences())]),
            *([Section("Two language models of Python code", models)] if models else []),
        ]

    def methods(self) -> list[Item]:
        """How it was made."""
        points = next(iter(self.fields.values())).scalar_curvature.shape[0]
        about = {
            "chart": "the plane of inputs itself: both coordinates of a point move",
            "covariance": "σ² is the mean variance of a model's own representation over the training points",
            "readings": ", ".join(dict.fromkeys(reading for _, reading in self.fields)),
            "resolution": f"{points} points a side",
        }
        return [Facts(about), Code(f"fisherflat demo --resolution {points} --out again", "To repeat it:")]

    def overview(self) -> list[Table]:
        """A table of what is seen."""
        from rich.table import Table

        table = Table(
            title="scalar curvature [1/σ²] of the representation",
            caption="quantiles over the plane; σ² is the mean variance of the model's own representations",
        )
        for heading in ("model", "reading"):
            table.add_column(heading)
        for heading in ("5 %", "median", "95 %"):
            table.add_column(heading, justify="right")
        table.add_column("in words")
        for (name, reading), field in self.fields.items():
            found = _describe(field)
            cells = [f"{found[key]:+.2g}" if not field.is_flat else "0" for key in ("low", "median", "high")]
            table.add_row(name, reading, *cells, self._words(name, reading))
        return [table]

    def _words(self, name: str, reading: str) -> str:
        """Whether the map is curved, and by which of the parts that are not held: all else in the model is affine."""
        if self.fields[name, reading].is_flat:
            return str(self.fields[name, reading].verdict)
        parts = {"pattern": "softmax"}
        if self.models[name].representation.attention.gate is not None:
            parts["attention_gate"] = "gate"
        return "curved by " + " and ".join(what for role, what in parts.items() if role not in roles(reading))

    def sentences(self) -> list[str]:
        """How well the classifiers do, and what training them anew with other seeds gives."""
        said = []
        for name, right in self.accuracy.items():
            regions = ", ".join(f"{value:.0%} {region}" for region, value in right.items() if region != "all")
            said.append(f"The {name} model is right on {right['all']:.1%} of new points: {regions}.")
        for found in ring_provenance()["comparison"]:
            gain, sizes = found["test_accuracy_gated_minus_ungated"], found["sizes"]
            low, high = (100 * bound for bound in gain["interval_95"])
            heads = f"{sizes['heads']} head{'s' if sizes['heads'] > 1 else ''}"
            said.append(
                f"Over {len(gain['values'])} seeds, at width {sizes['dim']} with {heads}, the gate adds "
                f"{100 * gain['mean']:.1f} points of accuracy (95 % interval {low:.1f} to {high:.1f}); "
                f"the live total curvature ∫|K| dA has median {found['gated']['live_total_curvature']['median']:.2g} "
                f"with it and {found['ungated']['live_total_curvature']['median']:.2g} without."
            )
        return said


def demo(resolution: int = 121) -> Demo:
    """Map the curvature of the shipped ring classifiers over the plane, in each reading.

    σ is the spread of a model's own representations over the training points (`Gaussian.calibrated`).

    **Args:** `resolution`, grid points a side. **Raises:** `InputError` where it is below 2.
    """
    if resolution < 2:
        raise InputError(f"a map needs a resolution of at least 2 points a side, got {resolution}")
    provenance, models = ring_provenance(), ring_pair()
    training, _ = ring_data(provenance["recipe"]["train_points"], provenance["shipped_seed"])
    points, labels = ring_data(provenance["recipe"]["test_points"], provenance["task"]["test_seed"])
    fields = {}
    for name, model in models.items():
        family = Gaussian.calibrated(model.representation(training))
        for reading in READINGS:
            if reading == "frozen gate" and model.representation.attention.gate is None:
                continue
            mean = held(model.representation, torch.zeros(2, dtype=torch.float64), reading)
            manifold = StatisticalManifold(mean, charts.identity(2), family)
            fields[name, reading] = curvature_field(manifold, SQUARE, resolution=resolution)
    return Demo(models, {name: _accuracy(model, points, labels) for name, model in models.items()}, fields)


def language_models(*, progress: bool = True) -> dict[str, report.Analysis]:
    """The attention of the shipped language models, layer by layer: live, with its pattern held, and its gate as well.

    Five words of one prompt move, one after the other, along two principal directions; see `fisherflat.analyze`.
    """
    readings = (LIVE, "frozen pattern", "frozen pattern+gate")
    return {
        name: report.analyze(name, PROMPT, parts=["attention"], readings=readings, points=4, progress=progress)
        for name in CHECKPOINTS
    }


def _accuracy(model: PointClassifier, points: Tensor, labels: Tensor) -> dict[str, float]:
    right = ((model(points) > 0) == (labels > 0.5)).double()
    radius = points.norm(dim=-1)
    regions = {
        "in the hole": radius <= INNER_RADIUS,
        "in the ring": labels > 0.5,
        "outside": radius >= OUTER_RADIUS,
        "all": radius >= 0,
    }
    return {region: right[chosen].mean().item() for region, chosen in regions.items()}


def _describe(field: CurvatureField) -> dict[str, Any]:
    """Quantiles of the scalar curvature, in 1/σ², and the shares of the plane with either sign."""
    values = field.scalar_curvature[field.scalar_curvature.isfinite()]
    low, median, high = torch.quantile(values, torch.tensor([0.05, 0.5, 0.95], dtype=values.dtype)).tolist()
    return {
        "verdict": str(field.verdict),
        "low": low,
        "median": median,
        "high": high,
        "positive_share": (values > 0).double().mean().item(),
        "negative_share": (values < 0).double().mean().item(),
        "degenerate_points": field.scalar_curvature.numel() - values.numel(),
    }


def _overlay(ax: Axes, points: Tensor, labels: Tensor) -> None:
    """Data points on a map, as labelled lines."""
    inside, outside = points[labels > 0.5], points[labels < 0.5]
    ax.plot(*inside.T, "o", mfc="#56B4E9", mec="black", ms=3, mew=0.4, zorder=4, label="data: in the ring")
    ax.plot(*outside.T, "X", mfc="white", mec="black", ms=3, mew=0.4, zorder=4, label="data: not in it")


def _boundary(ax: Axes, model: PointClassifier, u: Tensor) -> None:
    """The decision boundary on a map, as a labelled line."""
    logits = model(u).numpy()
    for colour, width in (("white", 3.5), ("black", 1.8)):  # a halo, to be seen on dark and light
        ax.contour(u[..., 0], u[..., 1], logits, levels=[0], colors=colour, linewidths=width)
    ax.plot([], [], color="black", linewidth=1.8, label="decision boundary")
