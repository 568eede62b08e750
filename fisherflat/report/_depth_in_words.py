"""A study of depth in words."""

from __future__ import annotations

import math

from fisherflat._display import shown
from fisherflat._typing import Tensor
from fisherflat.parts.readings import GATES, LIVE, name, roles
from fisherflat.report._digits import share
from fisherflat.spaces.families import unit
from fisherflat.statistics import ENOUGH, Estimate, estimate
from fisherflat.studies import in_words
from fisherflat.studies.depth import READOUT, Depth, DepthProfile

#: how many times as large as their sum contributions may be, beside which shares of that sum can still be given
CANCELLING = 1.5

#: how a sentence names a role
NAMES = {
    "pattern": "the attention pattern",
    "attention_gate": "the attention gate",
    "norm": "the norm",
    "mlp_gate": "the MLP gate",
    "activation": "the activation function",
    "other": "the rest",
    "family": "the family's own terms",
    "ambient": "the curvature of the family's space",
    READOUT: "the final norm and head",
}
#: unit -> in words, that in which growth is stated
_UNITS = {"calibrated": "in units of each depth's own spread", "fixed": "in one unit for all depths"}


def sentences(found: Depth) -> list[str]:
    """Where curvature is made, by which parts, how it grows, and how much of it is attributed to gates."""
    said = [f"Token {found.token!r} of {found.text!r} moves {found.settings['moves']['in words']}."]
    if found.family is not None:
        said.append(
            f"The numbers are of {in_words(found.family)} that the model itself makes of the states at each depth."
        )
        said += _about_corners(found)
    if found.profiles:
        said += [f"{reading.capitalize()}, {called_at(after)}: {one}." for reading, profile in found.profiles.items()
                 for after, one in zip(("chart", *profile.labels), profile.said, strict=False)]  # fmt: skip
        said += [*_about_budgets(found), *_about_growth(found), *_about_readings(found)]
        said += [] if found.full else [*_about_degenerate(found), *_about_undecided(found)]  # said at each depth
    return said if found.complete else [*said, "Interrupted: this is all that was measured until then."]


def headline(found: Depth) -> str:
    """What moves; how curved what comes out is, and which part of that is due to which layers and gates."""
    said = sentences(found)
    chosen = (
        "After the last block",
        "The scalar curvature after",
        "Attributed to layers",
        "Attributed to gates",
        "Gates",
    )
    return " ".join([said[0], *(sentence for sentence in said[1:] if sentence.startswith(chosen))])


def _unit(found: Depth) -> str:
    """Of curvature: none where the family has a metric of its own."""
    return unit(found.family).removeprefix("1")


def _about_corners(found: Depth) -> list[str]:
    """How certain predictions are, towards which curvature grows."""
    profile = next(iter(found.profiles.values()), None)
    if profile is None or profile.uncertainty is None or profile.relative_curvature is None:
        return []
    first, last = (profile.uncertainty[depth].nanmedian().item() for depth in (0, -1))
    if math.isnan(last):
        return []
    relative = profile.relative_curvature[-1].nanmedian().item()
    return [
        f"In the median 1 - p of the likeliest outcome goes from {first:.2g} to {last:.2g}; 4 (1 - p) K, with K the "
        "mean sectional curvature, which grows towards certainty like 1 / (1 - p), is "
        f"{relative:.3g} after the last block."
    ]


def _about_budgets(found: Depth) -> list[str]:
    if not found.budgets:
        return []
    total, budget = _total(found), found.budgets["role"]
    error = budget.mean_error("scalar_curvature").item()
    undecided = int(budget.undecided.sum())
    if not total.count:
        return ["The scalar curvature after the last block is undecided, so there is nothing to attribute."]
    if total.mean == 0:
        return ["The scalar curvature after the last block is zero, so there is nothing to attribute."]
    of_roles = dict(zip(found.budgets["role"].labels, _amounts(found, "role"), strict=True))
    to_gates = " and ".join(f"{of_roles[gate]} to {NAMES[gate]}" for gate in found.gates)
    interval = f" (95 % interval {total.low:.3g} to {total.high:.3g})" if total.clusters >= ENOUGH else ""
    left = f", {undecided} of them undecided and left out here and below," if undecided else ""
    said = [
        f"After the last block the mean scalar curvature over {found.over}{left} is "
        f"{shown(total.mean, error)}{_unit(found)}{interval}.",
        f"Attributed to layers: {_largest(found, 'layer')}.",
        *_about_transport(found),
        f"Attributed to parts: {_largest(found, 'role')}.",
        f"Attributed to gates: {to_gates}." if to_gates else "Gates: this model has none.",
    ]
    if cancels(found):
        said.append(
            "This total nearly cancels: its sign is uncertain, or parts contribute with opposite signs, so that shares "
            "of it would say nothing."
        )
    return said


def _total(found: Depth) -> Estimate:
    return estimate(found.budgets["role"].decided.scalar_curvature.flatten().tolist())


def _attributed(found: Depth, by: str) -> Tensor:
    """What of the mean scalar curvature is attributed to each part; sums to it."""
    return found.budgets[by].mean("attributed")


def cancels(found: Depth) -> bool:
    """Whether the mean scalar curvature is no total of which shares can be given.

    It is the small difference of large contributions, or its interval contains zero.
    """
    total = _total(found)
    if total.clusters >= ENOUGH and total.low <= 0 <= total.high:
        return True
    sizes = [_attributed(found, by).abs().sum().item() for by in ("role", "layer")]
    return max(sizes) > CANCELLING * abs(total.mean)


def _amounts(found: Depth, by: str) -> list[str]:
    """What is attributed to each part: a share of the total, or where that cancels the amount itself."""
    return _written(found, _attributed(found, by).tolist(), _errors(found, by))


def _errors(found: Depth, by: str) -> list[float]:
    return found.budgets[by].mean_error("attributed").tolist()


def _written(found: Depth, amounts: list[float], errors: list[float]) -> list[str]:
    if cancels(found):
        return [f"{shown(amount, error, 3, '+')}{_unit(found)}" for amount, error in zip(amounts, errors, strict=True)]
    total, of_total = _total(found).mean, found.budgets["role"].mean_error("scalar_curvature").item()
    return [
        share(amount / total, (error + abs(amount / total) * of_total) / abs(total))
        for amount, error in zip(amounts, errors, strict=True)
    ]


def _largest(found: Depth, by: str) -> str:
    """The largest amounts; of halves also those of each kind together."""
    labels, amounts, errors = found.budgets[by].labels, _attributed(found, by).tolist(), _errors(found, by)
    words = _written(found, amounts, errors)
    first = sorted(zip(amounts, labels, words, strict=True), key=lambda one: -abs(one[0]))[:4]
    said = ", ".join(f"{word} to {called(label)}" for amount, label, word in first if amount)
    if by == "layer" and any(label.endswith(" mlp") for label in labels):
        kinds, errors_of_kinds = (
            [
                sum(number for number, label in zip(numbers, labels, strict=True) if label.endswith(kind))
                for kind in (" attention", " mlp")
            ]
            for numbers in (amounts, errors)
        )
        attention, mlp = _written(found, kinds, errors_of_kinds)
        said += f"; {attention} to all attention together and {mlp} to all MLPs"
    return said


def _about_transport(found: Depth) -> list[str]:
    # without what is the family's, or the head's that reads the states
    table = found.transport_table.set_index("layer")
    table = table.loc[[layer for layer in table.index if layer != READOUT]]
    ratio = (table.surviving / table.created)[:-1][table.created[:-1] > 0]  # behind the last there is nothing
    if not len(ratio):
        return []
    least, most = ratio.idxmin(), ratio.idxmax()
    said = f"Transport: the |II| that {called(most)} creates reaches the output {ratio[most]:.2g} times as large"
    return [f"{said}, that of {called(least)} {ratio[least]:.2g} times." if least != most else f"{said}."]


def _about_growth(found: Depth) -> list[str]:
    laws = found.growth()
    if not laws:
        profile = next(iter(found.profiles.values()))
        depth = profile.blocks.depth
        if depth >= 3:
            return ["Growth: at no point is there a number other than zero at every depth, so there is no law."]
        few = "1 block is too few" if depth == 1 else f"{depth} blocks are too few"
        return [f"Growth: {few} for a law."]
    return [
        f"Growth, {curve.reading}, {_UNITS.get(curve.unit, 'in the metric of the family')}: "
        f"{'' if law.model == 'none' else '|scal| '}{law}."
        for curve, law in laws.items()
        if curve.unit == found.kinds[0][0] or curve.reading == LIVE
    ]


def _about_readings(found: Depth) -> list[str]:
    """What holding parts changes, and the gap between gates live and held where the patterns are held in both."""
    mean = {reading: _mean(p, -1) for reading, p in found.profiles.items()}
    said, unit = [], f" {_unit(found)}".rstrip()
    for reading, value in mean.items():
        held = roles(reading)
        before = name(role for role in held if role == "pattern") if set(held) & set(GATES) else LIVE
        if not held or before not in mean:
            continue
        what = " and ".join(f"{NAMES[role].removeprefix('the ')}s" for role in held if role not in roles(before))
        start = "Holding" if before == LIVE else "With the attention patterns held, holding"
        said.append(
            f"{start} all {what} at the token's own state{'' if before == LIVE else ' as well'} takes the mean "
            f"scalar curvature after the last block from {mean[before]} to {value}{unit}."
        )
    return said


def _mean(profile: DepthProfile, depth: int, sign: str = "") -> str:
    """The mean scalar curvature over points after a map, as far as its digits are right; a word where there is none."""
    mean = profile.decided[depth].nanmean().item()
    if mean == 0:
        return "0"
    if math.isnan(mean):
        return "undecided" if profile.scalar_curvature[depth].isfinite().any() else "nan"
    errors = profile.scalar_curvature_error
    return shown(mean, math.nan if errors is None else errors[depth].nanmean().item(), 3, sign)


def printed_means(profile: DepthProfile) -> list[str]:
    """The mean scalar curvature at each depth."""
    return [_mean(profile, depth, "+") for depth in range(len(profile.passed))]


def _about_degenerate(found: Depth) -> list[str]:
    lost = int(next(iter(found.profiles.values())).scalar_curvature.isnan().any(0).sum())
    return [f"{lost} of {found.settings['points']} points are degenerate and left out."] if lost else []


def _about_undecided(found: Depth) -> list[str]:
    """Where errors exceed values."""
    said = []
    for reading, profile in found.profiles.items():
        unknown = profile.decided.isnan() & profile.scalar_curvature.isfinite()
        if unknown.any():
            after = profile.passed[unknown.any(1)].tolist()
            said.append(
                f"Undecided, {reading}: at {int(unknown.sum())} of {unknown.numel()} points, after {after[0]:g} blocks "
                "first, the error of the scalar curvature exceeds its value; these are in no mean and no law."
            )
    return said


def called_at(after: str) -> str:
    """Where on the way through the model."""
    return "at the chart itself" if after == "chart" else f"after {called(after)}"


def called(label: str) -> str:
    """A layer, a half of one, a role, or where all begins, in a sentence."""
    layer, _, half = label.partition(" ")
    halves = {"attention": f"the attention of layer {layer}", "mlp": f"the MLP of layer {layer}"}
    return NAMES.get(label, halves.get(half, "nothing, the chart itself" if label == "chart" else label))
