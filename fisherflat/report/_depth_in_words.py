"""A study of depth in words."""

from __future__ import annotations

import math

from fisherflat._typing import Tensor
from fisherflat.parts.readings import GATES, LIVE, name, roles
from fisherflat.report._digits import shown
from fisherflat.studies.depth import Depth, DepthProfile

#: how a sentence names a role
_NAMES = {
    "pattern": "the attention pattern",
    "attention_gate": "the attention gate",
    "norm": "the norm",
    "mlp_gate": "the MLP gate",
    "activation": "the activation function",
    "other": "the rest",
}
#: covariance -> the unit in which growth is stated
_UNITS = {"calibrated": "in units of each depth's own spread", "fixed": "in one unit for all depths"}


def sentences(found: Depth) -> list[str]:
    """Where curvature is made, by which parts, how it grows, and how much of it is attributed to gates."""
    said = [f"Token {found.token!r} of {found.text!r} moves {found.settings['moves']['in words']}."]
    if found.profiles:
        said += [*_about_budgets(found), *_about_growth(found), *_about_readings(found)]
        lost = int(next(iter(found.profiles.values())).scalar_curvature.isnan().any(0).sum())
        said += [f"{lost} of {found.settings['points']} points are degenerate and left out."] if lost else []
        said += _about_undecided(found)
    return said if found.complete else [*said, "Interrupted: this is all that was measured until then."]


def _about_budgets(found: Depth) -> list[str]:
    if not found.budgets:
        return []
    total = found.budgets["role"].scalar_curvature.nanmean().item()
    if total == 0:
        return ["The scalar curvature after the last block is zero, so there is nothing to attribute."]
    of_roles = dict(zip(found.budgets["role"].labels, _shares(found, "role").tolist(), strict=True))
    shares = " and ".join(f"{of_roles[gate]:.0%} to {_NAMES[gate]}" for gate in found.gates)
    said = [
        f"After the last block the mean scalar curvature over {found.settings['budget_points']} points is "
        f"{total:.3g}/σ².",
        f"Attributed to layers: {_largest(found, 'layer')}.",
        *_about_transport(found),
        f"Attributed to parts: {_largest(found, 'role')}.",
        f"Attributed to gates: {shares}." if shares else "Gates: this model has none.",
    ]
    if max(map(abs, of_roles.values())) > 1:
        said.append("Shares above 100% are offset by negative ones: these parts contribute with opposite signs.")
    return said


def _shares(found: Depth, by: str) -> Tensor:
    """What of the mean scalar curvature is attributed to each part; sums to 1."""
    attributed = found.budgets[by].attributed.nanmean(0)
    return attributed / attributed.sum()


def _largest(found: Depth, by: str) -> str:
    """The largest shares; of halves also those of each kind together."""
    labels, shares = found.budgets[by].labels, _shares(found, by).tolist()
    first = sorted(zip(shares, labels, strict=True), key=lambda pair: -abs(pair[0]))[:4]
    said = ", ".join(f"{share:.0%} to {_called(label)}" for share, label in first if share)
    kinds = {
        kind: sum(share for share, label in zip(shares, labels, strict=True) if label.endswith(kind))
        for kind in (" attention", " mlp")
    }
    if by == "layer" and any(label.endswith(" mlp") for label in labels):
        said += f"; {kinds[' attention']:.0%} to all attention together and {kinds[' mlp']:.0%} to all MLPs"
    return said


def _about_transport(found: Depth) -> list[str]:
    table = found.transport_table.set_index("layer")
    ratio = (table.surviving / table.created)[:-1][table.created[:-1] > 0]  # behind the last there is nothing
    if not len(ratio):
        return []
    least, most = ratio.idxmin(), ratio.idxmax()
    said = f"Transport: the |II| that {_called(most)} creates reaches the output {ratio[most]:.2g} times as large"
    return [f"{said}, that of {_called(least)} {ratio[least]:.2g} times." if least != most else f"{said}."]


def _about_growth(found: Depth) -> list[str]:
    laws = found.growth()
    if not laws:
        depth = next(iter(found.profiles.values())).blocks.depth
        few = "1 block is too few" if depth == 1 else f"{depth} blocks are too few"
        return [f"Growth: {few} for a law."]
    return [
        f"Growth, {curve.reading}, {_UNITS[curve.covariance]}: {'' if law.model == 'none' else '|scal| '}{law}."
        for curve, law in laws.items()
        if curve.covariance == "calibrated" or curve.reading == LIVE
    ]


def _about_readings(found: Depth) -> list[str]:
    """What holding parts changes, and the gap between gates live and held where the patterns are held in both."""
    size = {reading: _median(p.decided[-1].abs(), p, -1) for reading, p in found.profiles.items()}
    said = []
    for reading, value in size.items():
        held = roles(reading)
        before = name(role for role in held if role == "pattern") if set(held) & set(GATES) else LIVE
        if not held or before not in size:
            continue
        what = " and ".join(f"{_NAMES[role].removeprefix('the ')}s" for role in held if role not in roles(before))
        start = "Holding" if before == LIVE else "With the attention patterns held, holding"
        said.append(
            f"{start} all {what} at the token's own state{'' if before == LIVE else ' as well'} takes the median "
            f"|scal| after the last block from {size[before]} to {value} /σ²."
        )
    return said


def _median(values: Tensor, profile: DepthProfile, depth: int, sign: str = "") -> str:
    """The median over points after a map, as far as its digits are right; of words, where there is none."""
    median = values.nanquantile(0.5).item()
    if median == 0:
        return "0"
    if math.isnan(median):
        return "undecided" if profile.scalar_curvature[depth].isfinite().any() else "nan"
    errors = profile.scalar_curvature_error
    return shown(median, math.nan if errors is None else errors[depth].nanquantile(0.5).item(), 3, sign)


def printed_medians(profile: DepthProfile) -> list[str]:
    """The median scalar curvature at each depth."""
    return [_median(values, profile, depth, "+") for depth, values in enumerate(profile.decided)]


def _about_undecided(found: Depth) -> list[str]:
    """Where errors exceed values."""
    said = []
    for reading, profile in found.profiles.items():
        unknown = profile.decided.isnan() & profile.scalar_curvature.isfinite()
        if unknown.any():
            after = profile.passed[unknown.any(1)].tolist()
            said.append(
                f"Undecided, {reading}: at {int(unknown.sum())} of {unknown.numel()} points, after {after[0]:g} blocks "
                "first, the error of the scalar curvature exceeds its value; these are in no median and no law."
            )
    return said


def _called(label: str) -> str:
    """A layer, a half of one, or a role, in a sentence."""
    layer, _, half = label.partition(" ")
    halves = {"attention": f"the attention of layer {layer}", "mlp": f"the MLP of layer {layer}"}
    return _NAMES.get(label, halves.get(half, label))
