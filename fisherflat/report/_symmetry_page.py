"""A study of symmetries as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fisherflat import plot
from fisherflat.pages import Code, Drawing, Facts, Grid, Section
from fisherflat.report._page import command, given, layers, listed, number, second_look, table
from fisherflat.report._writer import Figure

if TYPE_CHECKING:
    import pandas as pd

    from fisherflat.studies.symmetry import Symmetries


def opening(found: Symmetries) -> list[str]:
    """Which symmetries are proved to hold, what is most broken and how far, and what breaks it."""
    if not len(found.table):
        return ["No MLP of this model is gated, as far as it can be read, so there is no symmetry to look for."]
    return [_kept(found.symmetries), _broken(found.table), _because(found)]


def _kept(rows: pd.DataFrame) -> str:
    """The first sentence, from what the certificates say."""
    everywhere = rows.groupby("symmetry", sort=False)["preserved"].all().astype(bool)
    proved = rows.assign(proved=rows["kind"].isin(("identity", "proof", "exact"))).groupby("symmetry", sort=False)[
        "proved"
    ]
    firm = everywhere & proved.all().astype(bool)
    kept, gone = listed(everywhere.index[firm]), listed(everywhere.index[~everywhere])
    open_ones = listed(everywhere.index[everywhere & ~firm])
    said = (
        f"Proved to change no output of any gated MLP: {kept}" if kept else "No symmetry is proved for all gated MLPs"
    )
    said += f"; refuted by a counterexample or a number: {gone}" if gone else ""
    return f"{said}{f'; open: {open_ones}' if open_ones else ''}."


def _broken(units: pd.DataFrame) -> str:
    strength = units.groupby("layer")["strength"]
    median = strength.median()
    if median.isna().all():
        return "How strongly inverse scaling is broken is not known: no token reached a unit."
    top = median.idxmax()
    low, high = strength.quantile(0.25)[top], strength.quantile(0.75)[top]
    return (
        f"Inverse scaling (one factor larger, the other smaller) is most broken in layer {top}: by "
        f"{median[top]:.3g} in the "
        f"median unit, half of its {strength.count()[top]} units lying between {low:.3g} and {high:.3g}, on a "
        f"scale from 0, "
        "kept, to 1.41."
    )


def _because(found: Symmetries) -> str:
    degree = found.table["effective_degree"].median()
    names = listed({certificate.activation for certificate in found.certificates})
    if all(certificate.degree is not None for certificate in found.certificates):
        return f"Nothing breaks it: the activation {names} is homogeneous, which is proved."
    return (
        f"What breaks it is the activation {names}, which is not homogeneous; on these inputs it acts like a power of "
        f"{degree:.3g} in the median unit, where 1 is linear."
    )


def sections(found: Symmetries) -> list[Section]:
    """What is to be read of a study of symmetries."""
    parts = []
    if len(found.table):
        parts = [_layers(found), _evidence(found)]
    return [*parts, *second_look(found.notes)]


def _layers(found: Symmetries) -> Section:
    rows = found.layers
    lines = [
        [
            number(row["layer"]), *([number(row["expert"])] if "expert" in row else []), number(row["units"]),
            *(number(row[name]) for name in ("strength_median", "strength_90", "degree_median", "exchange_median")),
        ]
        for row in rows.to_dict("records")
    ]  # fmt: skip
    heads = [
        "layer", *(["expert"] if "expert" in rows else []), "units", "broken, median", "broken, 90 %",
        "effective degree, median", "exchange defect, median",
    ]  # fmt: skip
    said = f"Medians from {rows['strength_median'].min():.2g} to {rows['strength_median'].max():.2g}."
    strength = Figure.of(lambda ax: plot.broken_strength(found.table, ax=ax), 2.8)
    forms = Figure.of(lambda ax: plot.unit_forms(found.table, ax=ax), 2.8)
    return Section("How strongly symmetry is broken", [
        Drawing("Inverse scaling, by layer", "0 is kept, √2 the most that there is.", said, strength.draw),
        Grid("Gated MLPs", heads, lines, "units.csv"),
        Drawing("The forms of the units", "Eigenvalues of each unit's bilinear form, one positive and one negative.",
                f"{len(found.table)} units in {layers(rows['layer'])}.", forms.draw),
    ])  # fmt: skip


def _evidence(found: Symmetries) -> Section:
    names = ["layer", *(["expert"] if "expert" in found.symmetries else []), "symmetry", "transformation", "preserved",
             "kind", "evidence"]  # fmt: skip
    grid = table("Each symmetry of each MLP", found.symmetries, {name: name for name in names}, "symmetries.csv")
    return Section("Which symmetries hold, and why", [grid])


def methods(found: Symmetries) -> list[Any]:
    """How it was made."""
    prompts = found.settings.get("prompts", [])
    facts = {
        "what moves": "the weights of units, not the inputs: a symmetry changes weights and leaves all outputs "
        "as they are",
        "inputs": "what enters each MLP on the prompts",
        "precision": "numbers in float64; counterexamples in ball arithmetic, rounding included",
        "prompts": "; ".join(f"({index}) {text}" for index, text in enumerate(found.settings.get("texts", []))) or "–",
    }
    options = given(prompts)
    again = (
        [Code(command("symmetry", found.model, **options, out="again"), "To repeat it:")] if options and prompts else []
    )
    return [Facts(facts), *again]
