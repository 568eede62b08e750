"""What was measured, in words: measures, arms, and effects with their units."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from fisherflat.lab.claims._statistics import detectable as smallest
from fisherflat.zoo import checkpoint_provenance

#: quantity -> how it is called
QUANTITIES = {
    "scalar_mean": "mean scal",
    "scalar_median": "median |scal|",
    "scalar_positive_share": "share of points with scal > 0",
    "total_absolute_gauss": "∫|K| dA",
    "second_fundamental_norm": "median |II|",
    "mean_second_fundamental_norm": "mean |II|",
    "log_volume": "√det g (geometric mean)",
    "image_size": "size of the image",
}
_COLUMNS = {
    "test_accuracy": "accuracy on test examples", "exchange_defect": "change of the outputs under exchange",
    "inverse_scaling_defect": "change of the outputs under inverse scaling by 2",
    "charge_drift": "drift of |g|² − |u|² in training", "test_loss": "test loss, relative",
}  # fmt: skip


def measure(column: str) -> str:
    """A column as it is called on the page.

    >>> from fisherflat.lab.claims._words import measure
    >>> measure("scalar_median:live:calibrated"), measure("proxy_0.1:live:unit")
    ('median |scal|, live, calibrated', "the paper's proxy at h = 0.1, live, unit")
    """
    if column in _COLUMNS:
        return _COLUMNS[column]
    quantity, *rest = column.split(":")
    name = QUANTITIES.get(quantity, quantity.replace("_", " "))
    for prefix, words in (("proxy_median_", "median of the proxy at h = "), ("proxy_", "the paper's proxy at h = ")):
        if quantity.startswith(prefix):
            name = words + quantity.removeprefix(prefix)
            break
    return ", ".join([name, *rest])


def kind_of(row: Mapping[str, Any]) -> str:
    """What the numbers of a test are: `points`, `times`, `correlation`, `exponent`, `defect` or `plain`."""
    if row["kind"] in ("slope", "slope difference"):
        return "exponent"
    if row["kind"] == "correlation":
        return "correlation"
    if row["transform"] == "log10":
        return "times"
    if row["kind"] in ("above", "below"):
        return "defect"
    return "points" if row["column"] == "test_accuracy" else "plain"


def printed(kind: str, value: float) -> str:
    """A number of a test as it is printed, in its own unit."""
    if not math.isfinite(value):
        return "–"
    if kind == "times":
        return f"{10**value:.3g}"
    if kind == "points":
        return signed(100 * value)
    if kind in ("correlation", "exponent"):
        return signed(value)
    return ("−" if value < 0 else "") + f"{abs(value):.2g}"


def signed(value: float) -> str:
    """With its sign and two decimals.

    >>> from fisherflat.lab.claims._words import signed
    >>> signed(0.123), signed(-1.0), signed(0.0)
    ('+0.12', '−1.00', '0.00')
    """
    text = f"{value:+.2f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def effect(row: Mapping[str, Any]) -> str:
    """The effect of a test with its interval and what that is over."""
    kind = kind_of(row)
    if row["units"] == 0:
        return "not measured"
    unit = {"points": " points", "times": " times"}.get(kind, "")
    ends = f"{printed(kind, row['low'])} to {printed(kind, row['high'])}"
    return f"{printed(kind, row['value'])}{unit} ({ends}, {row['units']} {row['over']})"


def detectable(row: Mapping[str, Any]) -> str:
    """The smallest effect, from the margin, that a test with so many units would have shown four times in five."""
    kind, size = kind_of(row), row["detectable"]
    if row["units"] == 0 or not math.isfinite(size):
        return "–"
    if kind == "times":
        return f"{10**size:.3g} times"
    return f"{100 * size:.2f} points" if kind == "points" else f"{size:.2g}"


def asked(row: Mapping[str, Any]) -> str:
    """What would have to be so for the test to hold."""
    kind = kind_of(row)
    at = "0" if row["margin"] == 0 and kind != "times" else printed(kind, row["margin"]).lstrip("+")
    unit = {"points": " points", "times": " times"}.get(kind, "")
    if row["kind"] == "equivalence":
        return f"within ±{at}{unit}"
    return f"{'below' if row['kind'] == 'below' else 'above'} {at}{unit}"


def subject(row: Mapping[str, Any]) -> str:
    """What a test is about: the measure, which models, and where."""
    what = measure(row["column"])
    if row["kind"] == "correlation":
        return f"{what}, with accuracy, {row['level']}"
    if row["kind"] in ("above", "below"):
        return what
    arms = _arm(row["arm"]) if not row["against"] else f"{_arm(row['arm'])} against {_arm(row['against'])}"
    arms += f" ({form(row['where'])})" if form(row["where"]) else ""
    grown = {"slope": "exponent of depth of ", "slope difference": "exponent of depth of "}.get(row["kind"], "")
    return f"{grown}{what}: {arms}"


def form(where: str) -> str:
    """What models have beyond one layer with one head, no residual and no norm, from the `where` of a test.

    >>> from fisherflat.lab.claims._words import form
    >>> form("depth 2, heads 1, residual True, norm True"), form("depth 1, heads 2, residual False, norm False")
    ('2 layers, residual, norm', '2 heads')
    """
    given = dict(part.rsplit(" ", 1) for part in where.split(", ") if part)
    said = [
        f"{given[name]} {word}"
        for name, word in (("depth", "layers"), ("heads", "heads"))
        if given.get(name, "1") != "1"
    ]
    return ", ".join([*said, *(name for name in ("residual", "norm") if given.get(name) == "True")])


def where(row: Mapping[str, Any]) -> str:
    """The tasks of a test."""
    tasks = [task for task in str(row["tasks"]).split(", ") if task]
    if not tasks:
        return _values(row["where"]) if row["kind"] in ("above", "below") else f"{row['units']} {row['over']}"
    return tasks[0].replace("_", " ") if len(tasks) == 1 else f"all {len(tasks)}"


def language() -> str:
    """What the language models that ship say of gates, which have fewer seeds than the protocol asks for."""
    gate, constant = "python-qwen3-next", "python-qwen3-next-constant-gate"
    found = checkpoint_provenance()["summary"]["held_out_bits_per_byte"][f"{gate} minus {constant}"]
    values, (low, high) = found["values"], found["interval_95"]
    size = smallest(statistics.stdev(values), len(values))
    return (
        f"On language there are {len(values)} seeds, fewer than the protocol asks for, and so no verdict. On files "
        f"that they have not seen, the gated model that ships differs by {found['mean']:+.3f} bits per byte "
        f"({low:.3f} to {high:.3f}, {len(values)} seeds, Student's t) from the same model with its gates held at one "
        f"half. An effect of {size:.2g} bits per byte would have shown in four experiments of five; a smaller one may "
        "be there (`python -m fisherflat.lab.experiments.train_language`)."
    ).replace("(-", "(−")


def _arm(name: str) -> str:
    return _values(name) if ", " in str(name) else str(name).replace("_", " ")


def _values(pairs: str) -> str:
    """Of names with their values, the values alone."""
    return ", ".join(pair.partition(" ")[2] for pair in str(pairs).split(", "))
