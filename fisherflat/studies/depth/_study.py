"""A trained model's depth in one go: profiles in several readings, budgets, growth and maps of one prompt's token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from fisherflat._arrays import choice, integer
from fisherflat._progress import progress as bar
from fisherflat.errors import DegenerateImmersionError, InputError
from fisherflat.geometry import ERRORS, PRECISIONS, CurvatureField, Verdict
from fisherflat.models import Model
from fisherflat.models.covariances import COVARIANCES, Covariance
from fisherflat.models.covariances import called as measured_as
from fisherflat.models.covariances import covariance as covariance_of
from fisherflat.models.covariances import output as output_of
from fisherflat.models.moves import Moves, Whole, label, tokens
from fisherflat.parts import readings as named
from fisherflat.statistics import by_group
from fisherflat.studies._lens import Asked, asked, own_metric
from fisherflat.studies._lens import named as called
from fisherflat.studies._prompts import plain_prompt
from fisherflat.studies._tables import about_tables
from fisherflat.studies.depth._attribution import budget, sampled_budget
from fisherflat.studies.depth._budget import CurvatureBudget
from fisherflat.studies.depth._full import sampled_profile
from fisherflat.studies.depth._growth import Growth, growth
from fisherflat.studies.depth._maps import fields_after_blocks
from fisherflat.studies.depth._profile import CORNERS, QUANTITIES, SAMPLED, DepthProfile, profile
from fisherflat.studies.depth._stack import Stack
from fisherflat.studies.depth._subject import in_memory, measured_in, on_prompt, seen

if TYPE_CHECKING:
    import pandas as pd


#: of a budget in all directions
PLANES = 256


@dataclass(frozen=True)
class Settings:
    """What is measured, besides the model and the prompt; the attributes are those of `fisherflat.study_depth`.

    **Raises:** `InputError` for what cannot be used, as far as that can be told without the model.
    """

    moves: Moves
    position: Any = None
    points: int = 16
    readings: Sequence[str] | None = None
    halves: bool = True
    budget_points: int = 16
    resolution: int = 15
    seed: int = 0
    errors: str = "sample"
    family: Asked = None
    precision: str = "working"
    covariance: Covariance = "words"
    output: str = "all"

    def __post_init__(self) -> None:
        if self.full and (self.family is not None or self.precision != "working"):
            asked_for = "a family" if self.family is not None else f"precision={self.precision!r}"
            raise InputError(
                f"in all directions states are sampled as the means of Gaussians; {asked_for} needs a few directions, "
                "k=2"
            )
        if not self.full and self.moves.k < 2:
            raise InputError(
                f"k must be at least 2, got {self.moves.k} ({self.moves}): a curve has no curvature of its own"
            )
        for name in ("points", "budget_points", "resolution", "seed"):
            object.__setattr__(self, name, integer(getattr(self, name), name))
        if isinstance(self.readings, str):
            raise InputError(f"readings must be a list, got {self.readings!r}")
        if self.points < 1 or self.budget_points < 0 or self.resolution < 0 or self.resolution == 1:
            raise InputError("points must be at least 1, budget_points at least 0, resolution 0 or at least 2")
        choice(self.errors, "errors", ERRORS)
        choice(self.precision, "precision", PRECISIONS)
        own_metric(asked(self.family), self.covariance, self.output)
        object.__setattr__(self, "covariance", covariance_of(self.covariance))
        output_of(self.output)
        for reading in self.readings or ():
            named.canonical(reading)

    @property
    def full(self) -> bool:
        """Whether all directions move."""
        return isinstance(self.moves, Whole)


def made_with() -> dict[str, str]:
    """The versions of now."""
    from fisherflat.certificates import versions

    return versions()


@dataclass(eq=False)
class Depth:
    """The depth of a model on a prompt.

    **Attributes:** `model`, `text`, `token`, what was studied; `settings`, fit for JSON; `roles`, those of the model
    that can be held; `profiles`, by reading, each with the covariance of every depth; `budgets`, by `role`,
    `layer` and `layer-role`, with that of the last depth; `maps`, after each map of the stack; `complete`,
    false after an interrupt; `versions`, it was made with.
    """

    model: str
    text: str
    token: str
    settings: dict[str, Any]
    roles: tuple[str, ...] = ()
    profiles: dict[str, DepthProfile] = field(default_factory=dict)
    budgets: dict[str, CurvatureBudget] = field(default_factory=dict)
    maps: dict[str, CurvatureField] = field(default_factory=dict)
    complete: bool = False
    versions: dict[str, str] = field(default_factory=made_with)

    @property
    def gates(self) -> tuple[str, ...]:
        """The roles that are gates."""
        return tuple(role for role in named.GATES if role in self.roles)

    @property
    def family(self) -> str | None:
        """As what the states are read, `None` for the mean of a Gaussian."""
        return self.settings.get("family")

    @property
    def full(self) -> bool:
        """Whether all directions moved, and random planes were measured."""
        return bool(self.settings.get("moves", {}).get("dim") == "full")

    @property
    def drawn(self) -> str:
        """What the means of profiles are over."""
        points = self.settings["points"]
        return "random planes" if self.full else f"{points} point{'' if points == 1 else 's'}"

    @property
    def over(self) -> str:
        """What the means of budgets are over."""
        return f"{self.settings['planes']} random planes" if self.full else f"{self.settings['budget_points']} points"

    @property
    def fixed_profiles(self) -> dict[str, DepthProfile]:
        """The profiles with one covariance for all depths: as given, or that of what entered the first block.

        None for families other than the Gaussian, whose unit is the same everywhere, and for a covariance that is
        fitted and no number.
        """
        if self.family is not None:
            return {}
        if self.covariance not in COVARIANCES:
            return self.profiles
        if self.covariance in ("diagonal", "full"):
            return {}
        return {name: p.with_covariance(p.covariance[0].item()) for name, p in self.profiles.items()}

    @property
    def covariance(self) -> str:
        """In what a token's states are measured, as it was asked for; of the family where there is one."""
        return str(self.settings.get("covariance", "all"))

    @property
    def output(self) -> str:
        """Whose states are the surface: those of `all` tokens, or of the ones that `moved`."""
        return str(self.settings.get("output", "all"))

    @property
    def kinds(self) -> list[tuple[str, dict[str, DepthProfile]]]:
        """The profiles by their unit: `calibrated` at each depth, `fixed` for all of them, or the family."""
        if self.family is not None:
            return [(self.family, self.profiles)]
        fitted = [("calibrated", self.profiles)] if self.covariance in COVARIANCES else []
        return [*fitted, *([("fixed", fixed)] if (fixed := self.fixed_profiles) else [])]

    @property
    def _unit(self) -> str:
        """The column of that."""
        return "unit" if self.family is None else "family"

    @property
    def table(self) -> pd.DataFrame:
        """A row for each unit (or the family), reading, depth and point.

        `unit`: `calibrated`, with the covariance of each depth's own states, or `fixed`, the same for all depths;
        `moves`, `covariance`, `variance`, `output` and `control` as in the table of `fisherflat.analyze`.
        """
        import pandas as pd

        about = {"moves": self.settings["moves"].get("name"), "control": self.settings.get("control")}
        about |= {"covariance": self.covariance} if self.family is None else {}
        parts = [
            profile.table.assign(**{self._unit: kind, "reading": reading}, **about)
            for kind, profiles in self.kinds
            for reading, profile in profiles.items()
        ]
        corners = SAMPLED if self.full else () if self.family is None else CORNERS
        columns = [self._unit, "reading", "depth", "after", "point", *QUANTITIES, *corners]
        columns += ["scalar_curvature_error", "moves"]
        columns += [*(["covariance", "variance", "output"] if self.family is None else []), "verdict", "control"]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    @property
    def estimates(self) -> pd.DataFrame:
        """Mean, spread and interval of the scalar curvature over points, for each unit, reading and depth.

        Undecided points are left out, and counted as `missing`.
        """
        table = self.table
        known = table["scalar_curvature"].where(table["verdict"] != str(Verdict.UNDECIDED))
        return by_group(table.assign(scalar_curvature=known), [self._unit, "reading", "depth", "after"])

    @property
    def maps_table(self) -> pd.DataFrame:
        """A row for each point of the maps."""
        import pandas as pd

        parts = [
            pd.DataFrame(
                {
                    "after": after,
                    "u1": sampled.u[..., 0].flatten().tolist(),
                    "u2": sampled.u[..., 1].flatten().tolist(),
                    "scalar_curvature": sampled.scalar_curvature.flatten().tolist(),
                }
            )
            for after, sampled in self.maps.items()
        ]
        columns = ["after", "u1", "u2", "scalar_curvature"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    @property
    def attributed_table(self) -> pd.DataFrame:
        """A row for each role in each layer, means over points: what of three quantities is attributed to it.

        `scalar_curvature` is the difference of `trace_squared`, `|tr II|²`, and `norm_squared`, `|II|²`, which do not
        cancel; `scalar_curvature_error`, how far off rounding may have put it.
        """
        import pandas as pd

        columns = ["layer", "role", "scalar_curvature", "trace_squared", "norm_squared", "scalar_curvature_error"]
        if "layer-role" not in self.budgets:
            return pd.DataFrame(columns=columns)
        budget = self.budgets["layer-role"]
        amounts = (budget.mean("attributed"), budget.mean("traces").sum(-1), budget.mean("products").sum(-1))
        means = [amount.tolist() for amount in (*amounts, budget.mean_error("attributed"))]
        places = [(part.layer, part.role) for part in budget.parts]
        return pd.DataFrame([(*place, *row) for place, row in zip(places, zip(*means, strict=True), strict=True)],
                            columns=columns)  # fmt: skip

    @property
    def transport_table(self) -> pd.DataFrame:
        """A row for each layer, means over points.

        `created`, the |II| of its own sources where they are born; `surviving`, at the output; `own` and `interaction`,
        what of the scalar curvature is attributed to it, and the errors of these two.
        """
        import pandas as pd

        columns = ["created", "surviving", "own", "interaction"]
        if "layer" not in self.budgets or self.full:  # planes say of lengths no more than their squares
            return pd.DataFrame(columns=["layer", *columns])
        budget = self.budgets["layer"]
        means = {name: budget.mean(name).cpu().numpy() for name in columns}
        if budget.again is not None:
            means |= {f"{name}_error": budget.mean_error(name).cpu().numpy() for name in columns[2:]}
        return pd.DataFrame({"layer": budget.labels, **means})

    def growth(self) -> dict[Curve, Growth]:
        """The law of growth of |scal| over whole blocks for each unit and reading; empty for fewer than three."""
        return {
            Curve(kind, reading): growth(profile.decided[1:, profile.decided.isfinite().all(0)])
            for kind, profiles in self.kinds
            for reading, profile in ((reading, profile.blocks) for reading, profile in profiles.items())
            if profile.depth >= 3 and (profile.decided.isfinite().all(0) & (profile.decided != 0).any(0)).any()
        }


class Curve(NamedTuple):
    """Which curve of curvature against depth.

    **Attributes:** `unit`, `"calibrated"` or `"fixed"`, or the family in its place; `reading`.
    """

    unit: str
    reading: str


def study(model: Model, prompt: Any, settings: Settings, *, progress: bool = True) -> Depth:
    """Where a model's blocks make curvature, by what, and how it grows.

    A model whose weights stay on disk is traced block by block, anew in each pass.

    **Args:** `model`; `prompt`, a text, token ids or hidden states; `settings`, what is measured; `progress`: show a
    bar with the time left, on the error stream.

    **Returns:** what was measured. Ctrl-C ends it early: `.complete` is false and what was done is there.

    **Raises:** `InputError`, `CheckpointError` for a prompt or arguments that cannot be used, `TraceError` for blocks
    that cannot be read.
    """
    moving, points, budget_points = settings.moves, settings.points, settings.budget_points
    encoded = model.encode(prompt)
    where = label(encoded, moving.place(model, encoded, settings.position))
    about = {**moving.settings, "in words": str(moving), "unit": moving.unit, "name": moving.name}
    points = 1 if settings.full else points
    plain = {"moves": about, "points": points, "budget_points": min(points, budget_points)}
    plain |= {"seed": settings.seed, "errors": settings.errors, "precision": settings.precision}
    plain |= {"prompt": plain_prompt(encoded)}
    plain |= {"position": settings.position, "halves": settings.halves, "resolution": settings.resolution}
    plain_readings = None if settings.readings is None else list(settings.readings)
    plain |= {"readings": plain_readings}
    if settings.full:
        plain["planes"] = PLANES
    plain |= (
        {"covariance": str(measured_as(settings.covariance)), "output": settings.output}
        if settings.family is None
        else {"family": called(settings.family)}
    )
    plain["control"] = model.control
    found = Depth(model.name, encoded.text, where, plain)
    try:
        with bar(progress) as step:
            step("reading the blocks", 0, None)
            given = on_prompt(model, encoded, moving, settings.position)
            moved = tokens(given.prompt, given.position) if settings.output == "moved" else None
            fit = measured_in(settings.covariance, given.prompt, moved)
            stack = Stack(given.blocks, given.chart, fit, halves=settings.halves, keep=in_memory(model), moved=moved)
            if settings.family is not None:
                stack = seen(stack, settings.family, model, encoded)
            u = moving.points(points, settings.seed)
            found.roles = stack.roles
            asked = settings.readings if settings.readings is not None else usual(stack.roles)
            chosen = [named.canonical(reading) for reading in asked]
            maps = moving.k == 2 and settings.resolution > 0
            prefix = "all directions, " if settings.full else ""
            total = len(chosen) + (budget_points > 0) + maps
            for done, reading in enumerate(chosen):
                step(f"{prefix}profile, {reading}", done, total)
                read = stack.read(reading)  # without roles that no block has
                found.profiles[read.reading] = (
                    sampled_profile(read, settings.seed)
                    if settings.full
                    else profile(read, u, degenerate="nan", errors=settings.errors, precision=settings.precision)
                )
            if budget_points:
                step("budget", len(chosen), total)
                end = stack.at_the_end()
                finest = (
                    _of_planes(end, settings.seed)
                    if settings.full
                    else budget(end, u[:budget_points], degenerate="nan")
                )
                if finest is not None:
                    found.budgets = {"role": finest.by("role"), "layer": finest.by("layer"), "layer-role": finest}
            if maps:
                step("maps", total - 1, total)
                found.maps = fields_after_blocks(stack, (-1.0, 1.0, -1.0, 1.0), settings.resolution)
            step("tables", total, total)
            found.settings |= {"readings": list(found.profiles), "position": given.position}
            found.settings["asked"] = {"readings": plain_readings, "position": settings.position}
            del stack, given
            found.settings["notes"] = [*model.notes, *about_tables(model, encoded)]
        found.complete = True
    except KeyboardInterrupt:
        pass
    return found


def _of_planes(stack: Stack, seed: int) -> CurvatureBudget | None:
    """The budget from random planes; none where the image is degenerate, which the profile says."""
    try:
        return sampled_budget(stack, torch.zeros(stack.chart.k), planes=PLANES, seed=seed)
    except DegenerateImmersionError:
        return None


def usual(roles: Sequence[str]) -> list[str]:
    """The readings that tell most of a model with these roles, for their price: of patterns and gates."""
    pattern, gates = [role for role in roles if role == "pattern"], [role for role in roles if role in named.GATES]
    return list(dict.fromkeys(named.name(held) for held in ((), pattern, gates, (*pattern, *gates))))
