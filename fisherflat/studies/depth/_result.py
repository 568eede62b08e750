"""What a study of depth found: tables, sentences, figures, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat._files import write_all
from fisherflat._version import __version__
from fisherflat.geometry import CurvatureField
from fisherflat.parts.readings import GATES, LIVE, name, roles
from fisherflat.studies.depth._budget import CurvatureBudget
from fisherflat.studies.depth._growth import Growth, growth
from fisherflat.studies.depth._profile import DepthProfile

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from rich.console import RenderableType

    from fisherflat._typing import Tensor

#: how a sentence names a role
_NAMES = {
    "pattern": "the attention pattern",
    "attention_gate": "the attention gate",
    "norm": "the norm",
    "mlp_gate": "the MLP gate",
    "activation": "the activation function",
    "other": "the rest",
}


class DepthStudy:
    """What `fisherflat.studies.depth` found.

    **Attributes:** `model`, `text`, `token`, what was studied; `settings`; `roles`, those of the model that can be
    held; `profiles`, by reading, each with the covariance calibrated at every depth; `budgets`, by `role`, `layer`
    and `layer-role`, with the covariance of the last depth; `maps`, after each map of the stack; `complete`, false
    after an interrupt.
    """

    def __init__(self, model: str, text: str, token: str, settings: dict[str, Any]) -> None:
        self.model, self.text, self.token, self.settings = model, text, token, settings
        self.roles: tuple[str, ...] = ()
        self.profiles: dict[str, DepthProfile] = {}
        self.budgets: dict[str, CurvatureBudget] = {}
        self.maps: dict[str, CurvatureField] = {}
        self.complete = False

    @property
    def gates(self) -> tuple[str, ...]:
        """The roles that are gates."""
        return tuple(role for role in GATES if role in self.roles)

    @property
    def fixed_profiles(self) -> dict[str, DepthProfile]:
        """The profiles with one covariance for all depths: that of the states that entered the first block."""
        return {name: p.with_covariance(p.covariance[0].item()) for name, p in self.profiles.items()}

    @property
    def table(self) -> pd.DataFrame:
        """A row for each covariance, reading, depth and point."""
        import pandas as pd

        parts = [
            profile.table.assign(covariance=kind, reading=reading)
            for kind, profiles in (("calibrated", self.profiles), ("fixed", self.fixed_profiles))
            for reading, profile in profiles.items()
        ]
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["covariance", "reading"])
        return table[["covariance", "reading", *(c for c in table.columns if c not in ("covariance", "reading"))]]

    @property
    def transport_table(self) -> pd.DataFrame:
        """A row for each layer, means over points: the |II| it creates, what arrives at the output, what it pays."""
        import pandas as pd

        budget = self.budgets["layer"]
        columns = {
            "created": budget.created,
            "surviving": budget.surviving,
            "own": budget.own,
            "interaction": budget.interaction,
        }
        means = {name: values.nanmean(0).cpu().numpy() for name, values in columns.items()}
        return pd.DataFrame({"layer": budget.labels, **means})

    def growth(self) -> dict[tuple[str, str], Growth]:
        """The law of growth of |scal| over whole blocks for each covariance and reading; empty for fewer than three."""
        return {
            (kind, reading): growth(profile.scalar_curvature[1:, profile.scalar_curvature.isfinite().all(0)])
            for kind, profiles in (("calibrated", self.profiles), ("fixed", self.fixed_profiles))
            for reading, profile in ((reading, profile.blocks) for reading, profile in profiles.items())
            if profile.depth >= 3 and profile.scalar_curvature.isfinite().all(0).any()
        }

    def sentences(self) -> list[str]:
        """Where curvature is made, by what, how it grows, and how much of it is the gates'."""
        said = [f"Token {self.token!r} of {self.text!r} moves {self.settings['moves']['in words']}."]
        if self.profiles:
            said += self._about_budgets() + self._about_growth() + self._about_readings()
            lost = int(self._first.scalar_curvature.isnan().any(0).sum())
            said += [f"{lost} of {self.settings['points']} points are degenerate and left out."] if lost else []
        return said if self.complete else [*said, "Interrupted: what is said above is all that was measured."]

    @property
    def _first(self) -> DepthProfile:
        return next(iter(self.profiles.values()))

    def _about_budgets(self) -> list[str]:
        if not self.budgets:
            return []
        total = self.budgets["role"].scalar_curvature.nanmean().item()
        if total == 0:
            return ["The scalar curvature after the last block is zero: there is nothing to share."]
        said = [
            f"After the last block the mean scalar curvature, over {self.settings['budget_points']} points, is "
            f"{total:.3g}/σ².",
            f"Where: {self._payers('layer')}.",
            *self._about_transport(),
            f"By what: {self._payers('role')}.",
        ]
        paid = dict(zip(self.budgets["role"].labels, self._shares("role").tolist(), strict=True))
        shares = [f"{_NAMES[gate]} {paid[gate]:.0%}" for gate in self.gates]
        said.append(f"Gates: {' and '.join(shares)} of it, with sign." if shares else "Gates: this model has none.")
        if max(map(abs, paid.values())) > 1:
            said.append("Shares above 100 % stand against negative ones: the parts bend against each other.")
        return said

    def _shares(self, by: str) -> Tensor:
        """What each part pays of the mean scalar curvature; sums to 1."""
        paid = self.budgets[by].paid.nanmean(0)
        return paid / paid.sum()

    def _payers(self, by: str) -> str:
        """The largest payers; of halves also what all of a kind pay together."""
        labels, shares = self.budgets[by].labels, self._shares(by).tolist()
        first = sorted(zip(shares, labels, strict=True), key=lambda pair: -abs(pair[0]))[:4]
        said = ", ".join(f"{_called(label)} pays {share:.0%}" for share, label in first if share)
        kinds = {
            kind: sum(share for share, label in zip(shares, labels, strict=True) if label.endswith(kind))
            for kind in (" attention", " mlp")
        }
        if by == "layer" and any(label.endswith(" mlp") for label in labels):
            said += f"; all attention together {kinds[' attention']:.0%}, all MLPs {kinds[' mlp']:.0%}"
        return said

    def _about_transport(self) -> list[str]:
        table = self.transport_table.set_index("layer")
        ratio = (table.surviving / table.created)[:-1][table.created[:-1] > 0]  # behind the last there is nothing
        if not len(ratio):
            return []
        least, most = ratio.idxmin(), ratio.idxmax()
        said = f"Transport: what {_called(most)} creates (|II|) arrives at the output {ratio[most]:.2g} times as large"
        return [said + (f", what {_called(least)} creates {ratio[least]:.2g} times." if least != most else ".")]

    def _about_growth(self) -> list[str]:
        laws = self.growth()
        if not laws:
            depth = self._first.blocks.depth
            return [f"Growth: {depth} block{'s' if depth > 1 else ''} are too few for a law."]
        units = {"calibrated": "in units of each depth's own spread", "fixed": "in one unit for all depths"}
        return [
            f"Growth, {reading}, {units[kind]}: {'' if law.model == 'none' else '|scal| '}{law}."
            for (kind, reading), law in laws.items()
            if kind == "calibrated" or reading == LIVE
        ]

    def _about_readings(self) -> list[str]:
        """What holding parts changes, and the gap between gates live and held where the patterns are held in both."""
        size = {reading: p.scalar_curvature[-1].abs().nanquantile(0.5).item() for reading, p in self.profiles.items()}
        said = []
        for reading, value in size.items():
            held = roles(reading)
            before = name(role for role in held if role == "pattern") if set(held) & set(GATES) else LIVE
            if not held or before not in size:
                continue
            what = " and ".join(f"{_NAMES[role].removeprefix('the ')}s" for role in held if role not in roles(before))
            under = f", {before}" if before != LIVE else ""
            said.append(
                f"Holding all {what} at the token's own state takes the median |scal| after the last block from "
                f"{size[before]:.3g} to {value:.3g} /σ²{under}."
            )
        return said

    def summary(self) -> RenderableType:
        """A table with the median scalar curvature by depth and reading, and the sentences; for `rich.print`."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        table = Table(title="scalar curvature by depth", caption="medians over points, per σ² calibrated at each depth")
        table.add_column("blocks passed", justify="right")
        for reading in self.profiles:
            table.add_column(reading, justify="right")
        if not self.profiles:
            return Group(self.model, *map(escape, self.sentences()))
        medians = [profile.scalar_curvature.nanquantile(0.5, 1).tolist() for profile in self.profiles.values()]
        for passed, row in zip(self._first.passed.tolist(), zip(*medians, strict=True), strict=True):
            table.add_row(f"{passed:g}", *(f"{value:+.3g}" if value else "0" for value in row))
        return Group(self.model, table, *map(escape, self.sentences()))

    def save(self, folder: str | Path) -> list[Path]:
        """Write the tables (csv), depth.json, and the figures (png) of what was measured; each whole or not at all.

        **Returns:** the files. **Raises:** `InputError` where the folder cannot be made or written to.
        """
        return write_all(folder, self._writers())

    def _writers(self) -> dict[str, Callable[[Path], None]]:
        from fisherflat import plot

        files: dict[str, Callable[[Path], None]] = {"depth.json": self._write_json}
        if self.profiles:
            files["profile.csv"] = lambda path: self.table.to_csv(path, index=False)
            for kind, profiles in (("calibrated", self.profiles), ("fixed", self.fixed_profiles)):
                files[f"profile_{kind}.png"] = partial(_figure, partial(plot.profiles, profiles), (3.4, 2.6))
        for by, budget in self.budgets.items():
            files[f"budget_{by}.csv"] = partial(_matrix, budget)
            files[f"budget_{by}.png"] = partial(_figure, partial(plot.budget, budget), (3.4, 3.0))
        if "layer" in self.budgets:
            files["transport.csv"] = lambda path: self.transport_table.to_csv(path, index=False)
            files["transport.png"] = partial(_figure, partial(plot.transport, self.budgets["layer"]), (3.4, 2.4))
        if "layer-role" in self.budgets:
            bars = partial(plot.budget_by_layer, self.budgets["layer-role"])
            files["budget_by_layer.png"] = partial(_figure, bars, (3.4, 2.6))
        if self.maps:
            files["maps.png"] = self._write_maps
        return files

    def _write_json(self, path: Path) -> None:
        laws = [
            {"covariance": kind, "reading": reading, "law": law.model, "rate": _jsonable(law.rate),
             "interval_95": [_jsonable(law.low), _jsonable(law.high)], "trajectories": law.trajectories}
            for (kind, reading), law in self.growth().items()
        ]  # fmt: skip
        content = {
            "fisherflat": __version__,
            "model": self.model,
            "prompt": self.text,
            "token": self.token,
            "settings": self.settings,
            "roles": list(self.roles),
            "complete": self.complete,
            "summary": self.sentences(),
            "growth": laws,
            "covariance": {reading: profile.covariance.tolist() for reading, profile in self.profiles.items()},
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")

    def _write_maps(self, path: Path) -> None:
        from matplotlib.figure import Figure

        from fisherflat import plot
        from fisherflat.plot import few, strip_axes

        figure = Figure(layout="constrained")
        chosen = few(self.maps)
        plot.field_strip(chosen, strip_axes(len(chosen), figure))
        figure.savefig(path, dpi=200, format="png")

    def __repr__(self) -> str:
        return f"DepthStudy({self.model!r}, {list(self.profiles)}{'' if self.complete else ', incomplete'})"


def _called(label: str) -> str:
    """A layer, a half of one, or a role, in a sentence."""
    layer, _, half = label.partition(" ")
    halves = {"attention": f"the attention of layer {layer}", "mlp": f"the MLP of layer {layer}"}
    return _NAMES.get(label, halves.get(half, label))


def _figure(draw: Callable[[Axes], Any], size: tuple[float, float], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")  # not of pyplot: nothing is shown or kept
    draw(figure.subplots())
    figure.savefig(path, dpi=200, format="png")


def _matrix(budget: CurvatureBudget, path: Path) -> None:
    budget.table.to_csv(path)


def _jsonable(value: float) -> float | None:
    """JSON has no NaN."""
    return value if value == value else None
