"""The three sentences of an analysis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fisherflat import scale, statistics
from fisherflat.geometry import FLAT_WORDS, Verdict
from fisherflat.parts import readings
from fisherflat.report._analysed import Analysed
from fisherflat.report._analysis_in_words import HELD, NAMES
from fisherflat.report._estimates import PLACE
from fisherflat.report._page import CURVATURE, layers, listed, off, sign, sure, unit_of

if TYPE_CHECKING:
    import pandas as pd


def opening(found: Analysed) -> list[str]:
    """What is flat, what is most curved and how sure that is, and which part makes it."""
    if not found.measured:
        return ["Nothing could be measured: each row of the table says why."]
    estimates = found.estimates
    top = _most_curved(estimates)
    if top is None:
        unknown = (estimates["word"] == Verdict.UNDECIDED).any()
        why = "where it is not flat the numerical error exceeds the value" if unknown else "all of it is flat"
        return [
            _flat(estimates),
            f"Nothing that was measured is known to be curved: {why}.",
            "So nothing makes curvature here.",
        ]
    return [_flat(estimates), _curved(top, unit_of(found.settings.get("family"))), _made(found, estimates, top)]


def scaled(found: Analysed) -> list[str]:
    """What curvature is, and what the one of the second sentence means, in lengths and among other models."""
    if not found.measured or found.settings.get("family") is not None:
        return [CURVATURE]
    if found.settings.get("moves", {}).get("dim") == "full":  # what there is to compare with moved few directions
        return [CURVATURE]
    top = _most_curved(found.estimates)
    if top is None:
        return [CURVATURE]
    k = len(found.decided_of(int(top["layer"]), top["part"])["u"].iloc[0])
    error, part, reading = float(top["mean_error"]), top["part"], top["reading"]
    meant = scale.of(float(top["mean"]), k, error=error, part=part, reading=reading)
    return [CURVATURE, str(meant)]


def _whole(kinds: pd.DataFrame) -> pd.DataFrame:
    """The rows of parts, or where there are none those of heads."""
    parts = kinds[kinds["part"].isin(NAMES)]
    return parts if len(parts) else kinds


def _flat(kinds: pd.DataFrame) -> str:
    """The first sentence: what is flat, and whether that is proved."""
    rows = _whole(kinds)
    count = rows["layer"].nunique()
    said = []
    for word, start in (
        (Verdict.PROVED, "Flat, and proved from the structure of the model alone"),
        (Verdict.FLAT, "flat to its numerical error"),
    ):
        flat = rows[rows["word"] == word]
        names = [
            f"{called(part, reading)} in "
            f"{'every layer' if there['layer'].nunique() == count else layers(there['layer'])}"
            for (part, reading), there in sorted(
                flat.groupby(["part", "reading"], sort=False), key=lambda kind: readings.order(kind[0][1])
            )
        ]
        if names:
            said.append(f"{start}: {listed(names, 3)}")
    if not said:
        return "Nothing that was measured is flat: every part bends what moves, whatever is held."
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}."


def called(part: str, reading: str) -> str:
    """A part in a reading, in the middle of a sentence."""
    name = {"attention": "the attention"}.get(part) or NAMES.get(part, part)
    held = listed(HELD[role] for role in readings.roles(reading))
    return f"{name[0].lower()}{name[1:]}{f' with its {held} held' if held else ''}"


def _most_curved(kinds: pd.DataFrame) -> pd.Series[Any] | None:
    """The layer, part and reading of the largest mean: live, where that was measured."""
    rows = _whole(kinds)
    rows = rows[rows["word"] == Verdict.CURVED]
    live = rows[rows["reading"] == readings.LIVE]
    rows = live if len(live) else rows
    return None if rows.empty else rows.loc[rows["mean"].abs().idxmax()]


def _curved(top: pd.Series[Any], unit: str) -> str:
    """The second sentence: what is most curved, and how sure that is."""
    return (
        f"Most curved is {called(top['part'], top['reading'])} of layer {top['layer']}: its mean scalar curvature is "
        f"{top['mean']:+.3g}{unit} ({sure(top)}; {off(top['mean_error'])}){sign(top)}."
    )


def _made(found: Analysed, kinds: pd.DataFrame, top: pd.Series[Any]) -> str:
    """The third sentence: which part makes it, as far as holding parts tells."""
    rows = found.decided_of(int(top["layer"]), top["part"])
    base = top["reading"]
    tried = {}
    for reading in dict.fromkeys(rows["reading"]):
        more = set(readings.roles(reading)) - set(readings.roles(base))
        if len(more) == 1 and set(readings.roles(base)) <= set(readings.roles(reading)):
            pairs = statistics.differences(rows, base, reading).assign(role=next(iter(more)))
            tried[reading] = statistics.by_group(pairs, ["role"]).iloc[0]
    if not tried:
        return "Which part makes it was not measured: no reading here holds a single one of its parts."
    reading = max(tried, key=lambda name: abs(tried[name]["mean"]))
    change = tried[reading]
    error = sum(
        kinds.loc[(kinds[PLACE] == [top["layer"], top["part"], one]).all(axis=1), "mean_error"].iloc[0]
        for one in (base, reading)
    )
    what, unit = _PARTS[change["role"]], unit_of(found.settings.get("family"))
    left = top["mean"] - change["mean"]
    of_held = kinds.loc[(kinds[PLACE] == [top["layer"], top["part"], reading]).all(axis=1), "word"].iloc[0]
    if math.isnan(left):
        return f"Which part makes it is open: with {what} held nothing is decided."
    said = (
        f"Of its parts {what} matter{'' if what.endswith('s') else 's'} most: held at the values of the prompt, "
        f"{'they leave' if what.endswith('s') else 'it leaves'} "
        f"{'nothing (flat)' if of_held in FLAT_WORDS else f'{left:+.3g}{unit}'}, a difference of {change['mean']:+.3g} "
        f"({sure(change)}; {off(error)})"
    )
    if abs(change["mean"]) <= error:
        return f"No single part makes it: holding {what}, which changes most, changes no more than the numerical error."
    if change["low"] <= 0 <= change["high"]:
        said += ", whose sign is not sure"
    return f"{said}."


_PARTS = {
    "pattern": "the attention pattern (the softmax)",
    "attention_gate": "the attention gate",
    "norm": "the norms",
    "mlp_gate": "the MLP gate",
    "activation": "the activations",
}
