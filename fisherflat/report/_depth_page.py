"""A study of depth as a page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fisherflat.geometry import Verdict
from fisherflat.models.covariances import COVARIANCES
from fisherflat.pages import Code, Facts, Grid, Pick, Points, Section, Value, bars, ranges, raster
from fisherflat.parts import readings
from fisherflat.plot import few, of_role
from fisherflat.report._depth_in_words import NAMES, called, cancels, sentences
from fisherflat.report._page import (
    TONES,
    VERDICTS,
    along,
    as_asked,
    asked_in,
    axis,
    command,
    estimated_at,
    given,
    interval,
    joint,
    listed,
    measured_at,
    moved,
    number,
    off,
    sign,
    sure,
    table,
    unit_of,
)
from fisherflat.spaces.families import labelled
from fisherflat.statistics import Estimate, estimate
from fisherflat.studies import in_words

if TYPE_CHECKING:
    import pandas as pd

    from fisherflat.studies.depth import Depth

#: of another family than the Gaussian
_OWN_UNIT = ("Depth by depth", "Curvature is in the family's own metric, the same at every depth.")
_OF_POINTS = "Means over points; the bars are their intervals."
_OF_PLANES = "At the token's own state; the bars are 95 % intervals of sampling, over random planes."
#: unit -> its heading, and what it means
_UNITS = {
    "calibrated": (
        "Depth by depth",
        "At each depth σ is the spread of the states there, so that depths can be compared.",
    ),
    "fixed": ("The same in one unit", "σ is the spread of the states that entered the first block, at every depth."),
    "given": ("In one unit", "The covariance is as it was given, the same at every depth."),
}


def opening(found: Depth) -> list[str]:
    """What is flat, after which block it is most curved and how sure that is, and which part makes it."""
    if not found.profiles:
        return ["Nothing was measured before the study was interrupted."]
    means = _means(found, found.kinds[0][0])
    judged = means if found.family is not None else means[means["depth"] > 0]  # a plane in a Gaussian's space is flat
    live = judged[judged["reading"] == readings.LIVE]
    live = live if len(live) else judged
    curved = live[live["word"] == Verdict.CURVED]
    said, what = [_flat(judged, found)], "manifold" if found.full else "surface"
    if curved.empty:
        said.append(f"Nowhere behind it is the {what} known to be curved.")
    else:
        top = curved.loc[curved["mean"].abs().idxmax()]
        place = f"after {called(top['after'])}" if top["depth"] > 0 else "where it enters the first block"
        said.append(
            f"The {what} is most curved {place}, {top['reading']}: its mean scalar curvature there is "
            f"{top['mean']:+.3g}{unit_of(found.family)} ({sure(top)}; {off(top['mean_error'])})"
            f"{sign(top)}."
        )
    return [*said, _made(found)]


def _flat(judged: pd.DataFrame, found: Depth) -> str:
    """What is flat behind the chart, which is a plane, or all states, by construction."""
    said, family = [], found.family
    moving = "the space of all states" if found.full else "the plane of states"
    for word, how in ((Verdict.PROVED, "proved"), (Verdict.FLAT, "to its numerical error")):
        rows = judged[judged["word"] == word]
        places = [
            f"{reading} after {listed(map(called, there['after']), 2)}" for reading, there in rows.groupby("reading")
        ]
        said += [f"flat ({how}) it stays {listed(places, 3)}"] if places else []
    if said:
        return (
            f"{'The space of all' if found.full else 'A plane of'} states enters the first block, and "
            f"{'; '.join(said)}."
        )
    if family is not None:
        return (
            f"Nothing is flat: in the metric of {in_words(family)} a plane of states is curved from the first block on."
        )
    return f"Flat is only {moving} that enters the first block; behind its first map, nothing is."


def _made(found: Depth) -> str:
    if not found.budgets:
        return "Which part makes the curvature was not asked: there are no budgets."
    budget, unit, of = found.budgets["role"], unit_of(found.family), "random planes" if found.full else None
    total = estimate(budget.decided.scalar_curvature.flatten().tolist())
    if not total.count:
        return "After the last block the curvature is undecided, so that there is nothing to attribute."
    if total.mean == 0:
        return "After the last block the image is flat, so that there is nothing to attribute."
    parts = sorted(_attributed(found, "role"), key=lambda part: -abs(part[1].mean) if part[1].count else 0.0)
    (first, own, error), (second, other, _) = parts[0], parts[min(1, len(parts) - 1)]
    said = (
        f"{called(first).capitalize()} make{'' if called(first).endswith('s') else 's'} most of what there is after "
        f"the last block: {own.mean:+.3g}{unit} ({sure(own, of)}; {off(error)})"
    )
    if second != first and other.mean:
        said += f", followed by {called(second)}"
    of_total = budget.mean_error("scalar_curvature").item()
    all_of_it = f"{total.mean:+.3g}{unit} ({sure(total, of)}; {off(of_total)})"
    return f"{said}; {'contributions cancel, and all is' if cancels(found) else 'all together it is'} {all_of_it}."


def _attributed(found: Depth, split: str) -> list[tuple[str, Estimate, float]]:
    """What is attributed to each part: its label, the estimate over points, and its numerical error."""
    budget = found.budgets[split]
    amounts = budget.decided.attributed.reshape(-1, len(budget.labels))
    errors = budget.mean_error("attributed").tolist()
    return [(label, estimate(amounts[:, index].tolist()), errors[index]) for index, label in enumerate(budget.labels)]


def _means(found: Depth, unit: str) -> pd.DataFrame:
    """The estimates with one covariance or in the family's unit, the word for each, and their numerical errors."""
    column = "unit" if found.family is None else "family"
    table = found.table
    rows = table[table[column] == unit]
    keys = ["reading", "depth", "after"]
    groups = rows[rows["verdict"].notna()].groupby(keys, sort=False)
    words = groups["verdict"].agg(joint).rename("word").reset_index()
    errors = groups["scalar_curvature_error"].mean().rename("mean_error").reset_index()
    estimates = found.estimates
    estimates = estimates[estimates[column] == unit]
    return estimates.merge(words, on=keys).merge(errors, on=keys)


def measured(found: Depth) -> list[Any]:
    """The profile, the attribution and the maps."""
    if not found.profiles:
        return ["Nothing was measured before the study was interrupted."]
    items: list[Any] = [_profiles(found)]
    if found.budgets:
        items.append(_attribution(found))
    if found.maps:
        items.append(_maps(found))
    return items


def sections(found: Depth) -> list[Section]:
    """What is to be read of a study of depth."""
    return [
        *(item for item in measured(found) if isinstance(item, Section)),
        _second_look(found),
        Section("All of it in sentences", [Points(sentences(found))]),
    ]


def _profiles(found: Depth) -> Section:
    import pandas as pd

    items: list[Any] = []
    order = sorted(found.profiles, key=readings.order)
    first = pd.DataFrame()
    for kind, _ in found.kinds:
        given_one = kind == "fixed" and found.covariance not in COVARIANCES
        title, about = _UNITS.get("given" if given_one else kind, _OWN_UNIT)
        means = _means(found, kind)
        first = means if first.empty else first
        rows = [
            {
                "blocks passed": row["depth"], "reading": row["reading"], "mean": row["mean"], "low": row["low"],
                "high": row["high"], "shown": number(row["mean"], row["mean_error"], 3, "+").text,
                "interval": interval(row["low"], row["high"]), "word": row["word"],
            }
            for row in means.to_dict("records")
        ]  # fmt: skip
        said = "; ".join(
            f"{reading}: from {there['mean'].iloc[0]:.2g} at the start to {there['mean'].iloc[-1]:+.2g} after "
            f"the last block"
            for reading, there in means.groupby("reading", sort=False)
        )
        items.append(ranges(
            title, rows, x="blocks passed", series="reading", order=order,
            about=f"{about} {_OF_PLANES if found.full else _OF_POINTS}", said=f"{said}.",
            table="estimates.csv", y=axis(found.family),
        ))  # fmt: skip
    items.append(_depths(first, found.family))
    return Section("How curvature grows with depth", items)


def _depths(means: pd.DataFrame, family: str | None) -> Grid:
    rows = [
        [
            number(row["depth"]), called(row["after"]), row["reading"],
            number(row["mean"], row["mean_error"], 3, "+", TONES[row["word"]]), number(row["low"], digits=2),
            number(row["high"], digits=2), number(row["mean_error"], digits=1), row["word"],
        ]
        for row in means.to_dict("records")
    ]  # fmt: skip
    heads = ["blocks passed", "after", "reading", axis(family, "mean"), "low", "high", "numerical error", "verdict"]
    return Grid("Mean scalar curvature by depth", heads, rows, "estimates.csv")


def _attribution(found: Depth) -> Section:
    attributed = found.attributed_table
    rows = [
        {"where": _where(row["layer"]), "role": _plain(row["role"]), "amount": row["scalar_curvature"],
         "shown": number(row["scalar_curvature"], digits=3, sign="+").text}
        for row in attributed.to_dict("records")
    ]  # fmt: skip
    colours = {_plain(role): of_role(role).colour for role in NAMES}
    biggest = attributed.loc[attributed["scalar_curvature"].abs().idxmax()]
    items: list[Any] = [
        "The curvature after the last block is an exact sum over the places where second-order terms are born: "
        "nothing is "
        "ablated. Contributions below zero take curvature away.",
        bars(
            "Which part of which layer makes it", rows, y="where", series="role", colours=colours,
            about="Bars add up to the curvature after the last block.", x=axis(found.family),
            said=f"The largest contribution is {biggest['scalar_curvature']:+.2g}, of {_plain(biggest['role'])} in "
            f"{_where(biggest['layer'])}.", table="attributed.csv",
        ),
        _by("role", "part", found),
        _by("layer", "layer", found),
    ]  # fmt: skip
    transport = found.transport_table
    if len(transport):
        names = {"layer": "layer", "created": "|II| where it is born", "surviving": "|II| at the output"}
        names |= {name: labelled(names[name], found.family, -1) for name in ("created", "surviving")}
        transport = transport.assign(layer=transport["layer"].map(called))
        items.append(table("What becomes of the bending that each layer makes", transport, names, "transport.csv"))
    return Section("What makes it", items)


def _where(layer: Any) -> str:
    """Where a part is; what a family adds is in no layer."""
    return called(layer) if isinstance(layer, str) else "the family"


def _plain(role: str) -> str:
    return NAMES[role].removeprefix("the ")


def _by(split: str, name: str, found: Depth) -> Grid:
    rows: list[list[str | Value]] = [
        [
            called(label), number(mean.mean, error, 3, "+"), number(mean.low, digits=2), number(mean.high, digits=2),
            number(error, digits=1),
        ]
        for label, mean, error in _attributed(found, split)
    ]  # fmt: skip
    heads = [name, axis(found.family, "amount"), "low", "high", "numerical error"]
    return Grid(
        f"Attributed to each {name}, mean over {'random planes' if found.full else 'points'}",
        heads,
        rows,
        f"budget_{split}.csv",
    )


def _maps(found: Depth) -> Section:
    chosen = few(found.maps, most=12)
    rows = {
        after: [
            {
                "u1": round(u1, 3) + 0.0,
                "u2": round(u2, 3) + 0.0,
                "value": value,
                "shown": number(value, digits=3, sign="+").text,
            }
            for (u1, u2), value in zip(
                field.u.reshape(-1, 2).tolist(), field.scalar_curvature.flatten().tolist(), strict=True
            )
        ]
        for after, field in chosen.items()
    }
    maps = {}
    for after, here in rows.items():
        values = [row["value"] for row in here if math.isfinite(row["value"])]
        said = f"From {min(values):+.2g} to {max(values):+.2g}." if values else "No point has a curvature."
        maps[f"after {called(after)}"] = raster(
            f"After {called(after)}", here, x="u1", y="u2", said=said, table="maps.csv",
            about="Scalar curvature over the two directions that move; (0, 0) is the token's own state, "
            "colours are those of this map alone.", of=axis(found.family),
        )  # fmt: skip
    return Section("Maps of curvature", [Pick("Look at the map", maps, list(maps)[-1])])


def _second_look(found: Depth) -> Section:
    said = [] if found.complete else ["The study was interrupted, and is not whole."]
    if found.profiles:
        lost = int(next(iter(found.profiles.values())).scalar_curvature.isnan().any(0).sum())
        if lost and found.full:
            said.append(
                "Degenerate: behind some block the outputs do not tell all directions apart, see the sentences."
            )
        elif lost:
            said.append(
                f"Degenerate: at {lost} of {found.settings['points']} points the directions do not differ behind some "
                "block; these points are left out."
            )
        unknown = found.table[found.table["verdict"] == Verdict.UNDECIDED]
        unknown = unknown[unknown.iloc[:, 0] == found.kinds[0][0]]
        if len(unknown):
            places = listed(f"{reading} after {called(after)}" for reading, after in zip(
                unknown["reading"], unknown["after"], strict=True))  # fmt: skip
            said.append(f"Undecided: {len(unknown)} values whose numerical error exceeds them ({places}).")
    if found.budgets and cancels(found):
        said.append(
            "Cancellation: contributions of both signs nearly cancel in the total, so that shares of it would "
            "say nothing."
        )
    return Section(
        "Worth a second look", [Points(said)] if said else ["Nothing: all points were measured and decided."]
    )


def _covariance(found: Depth) -> str:
    """In what curvature is measured."""
    whose = "; the surface is that of the states of the tokens that move alone" if found.output == "moved" else ""
    if found.covariance not in COVARIANCES:
        return f"the covariance is {found.covariance}, the same at every depth{whose}"
    what = COVARIANCES[found.covariance].replace("outputs", "states")
    return f"the covariance is {what}, fitted at each depth; the attribution uses that of the last depth{whose}"


def methods(found: Depth) -> list[Any]:
    """How a study of depth was made."""
    settings = found.settings
    planes = f", and {settings['planes']} for the attribution" if found.full else ""
    facts = {
        "chart": f"token {found.token!r} moves {along(settings['moves'])} where it enters the first block; "
        f"{measured_at(settings)}{planes}",
        "unit": _covariance(found) if found.family is None else f"the metric of {in_words(found.family)}",
        "readings": ", ".join(found.profiles) or "none",
        "precision": f"float64; numerical errors are estimated {estimated_at(settings)}"
        f"{'; points of profiles with few right digits in more bits' if settings.get('precision') == 'auto' else ''}",
        "prompt": found.text,
    }
    return [Facts(facts | {"verdicts": VERDICTS}), *settings.get("notes", ()), *_repeat(found)]


def _repeat(found: Depth) -> list[Any]:
    settings = as_asked(found.settings)
    if "prompt" not in settings:
        return []  # of an older release, which did not keep it
    prompts = given([settings["prompt"]])
    if prompts is None:
        return ["Hidden states or other inputs were given from Python, so that no command repeats this."]
    chosen = settings["readings"]
    numbers = {} if found.full else {name: settings[name] for name in ("points", "budget_points", "resolution")}
    unit, only = asked_in(settings, "all")
    return [Code(command(
        "depth", found.model, **prompts, **moved(settings["moves"]), position=settings["position"],
        reading=None if chosen is None else ",".join(chosen), no_halves=True if not settings["halves"] else None,
        **numbers, seed=settings["seed"] or None,
        errors=None if settings["errors"] == "sample" else settings["errors"], family=found.family,
        more_bits=settings.get("precision") == "auto" or None, **unit, out="again",
    ), "To repeat it:"), *only]  # fmt: skip
