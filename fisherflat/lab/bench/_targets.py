"""What the library promises, and what a run says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fisherflat.lab.bench import sampled
from fisherflat.lab.bench.jets import OURS

FASTEST = "fastest correct competitor"


@dataclass(frozen=True)
class Target:
    """A promise: what, in which direction the bound lies, what was measured."""

    what: str
    bound: str
    measured: float
    reached: bool


def targets(results: dict[str, Any]) -> list[Target]:
    """The promises that the rows of `results` speak to; none of a quick run, whose sizes are not those promised."""
    if results["environment"]["quick"]:
        return []
    return [
        *_jet_targets(results),
        *_peer_targets(results),
        *_floor_targets(results),
        *_growth_targets(results),
        *_other_targets(results),
        *_gpu_targets(results.get("gpu") or {}),
    ]


def at_least(what: str, bound: float, measured: float) -> Target:
    """A lower bound."""
    return Target(what, f"at least {bound:g}", measured, measured >= bound)


def at_most(what: str, bound: float, measured: float) -> Target:
    """An upper bound."""
    return Target(what, f"at most {bound:g}", measured, measured <= bound)


def _jet_targets(results: dict[str, Any]) -> Iterator[Target]:
    """By process time with one thread on a CPU, which other processes disturb least; otherwise by wall time."""
    for row in results.get("jets") or []:
        clock = "process" if row["threads"] == 1 and results["environment"]["gpu"] is None else "wall"
        where = f"{row['map']}, k = {row['k']}, P = {row['points']}, {row['dtype']}, threads: {row['threads']}"
        timed = [contender for contender in row["contenders"] if "over_ours" in contender and not contender["traces"]]
        ours = {c["name"]: c["over_ours"][clock].median for c in timed if c["name"].startswith(OURS)}
        others = [contender for contender in timed if contender["name"] not in ours]
        if others:
            first = min(others, key=lambda contender: contender["over_ours"][clock].median)
            for name, taken in ours.items():
                found = first["over_ours"][clock].median / taken
                yield at_least(f"jets of the fastest other over {name}, {where} ({first['name']})", 1.5, found)
        bound = 0.35 if row["map"] == "attention-768" else 0.8
        for name, taken in ours.items():
            yield at_most(f"jets over the floor, {name}, {where}", bound, taken * row["ours_over_floor"][clock].median)


def _peer_targets(results: dict[str, Any]) -> Iterator[Target]:
    rows = [row for row in results.get("peers", []) if row["dtype"] == "float64"]
    for row in rows:
        if (row["map"], row["k"]) == ("attention-64", 8):
            for whose, expert in (("", False), (", experts' included", True)):
                found = fastest_peer(row, expert)
                if found is not None:
                    what = f"{FASTEST}{whose}, {row['map']}, k = {row['k']} ({found['name']})"
                    yield at_least(what, 40, found["over_taylor"].median)
    gauss = [
        contender["over_taylor"].median
        for row in rows
        if row["map"] == "attention-256"
        for contender in row["contenders"]
        if contender["name"].startswith("jacfwd(jacrev)") and "over_taylor" in contender
    ]
    if gauss:
        yield at_least("jacfwd(jacrev) + Gauss, attention-256, the least over k", 15, min(gauss))


def fastest_peer(row: dict[str, Any], expert: bool) -> dict[str, Any] | None:
    """The competitor with the least time among those that are right on this map; with or without experts' own."""
    timed = [
        contender
        for contender in row["contenders"]
        if "over_taylor" in contender
        and contender["name"] not in ("taylor", "autodiff", "floor")
        and (expert or not contender["expert"])
    ]
    return min(timed, key=lambda contender: contender["over_taylor"].median, default=None)


def _floor_targets(results: dict[str, Any]) -> Iterator[Target]:
    gpu = results["environment"]["gpu"] is not None
    for name, k, bound in (("attention-768", 4, 1.5), ("attention-256", 8, 2.0)):
        if gpu and name == "attention-256":
            continue
        for row in results.get("floor", []):
            if (row["map"], row["k"], row["dtype"], row["moving"]) == (name, k, "float64", "all"):
                what = f"over the floor, {name}, k = {k}, P = {row['points']}"
                yield at_most(f"jets {what}", bound, row["jet_over_floor"].median)
                yield at_most(f"scalar curvature {what}", bound, row["scalar_curvature_over_floor"].median)


def _growth_targets(results: dict[str, Any]) -> Iterator[Target]:
    for what in ("points", "depth"):
        if what in results.get("growth", {}):
            exponent = results["growth"][what]["exponent"]
            yield Target(f"exponent of time in {what}", "0.95 to 1.1", exponent, 0.95 <= exponent <= 1.1)


def _other_targets(results: dict[str, Any]) -> Iterator[Target]:
    if results.get("memory"):
        most = max(results["memory"], key=lambda row: row["jet_over_floor_at_once"])
        yield at_most(f"peak memory over the floor, {most['map']}", 1.5, most["jet_over_floor_at_once"])
    for row in results.get("gradient") or []:
        ratio = row["gradient_over_value"].median
        yield at_most(f"gradient by all weights over the value, {row['map']}, {row['dtype']}", 2.5, ratio)
        for name, found in row["nested"].items():
            if name == "jacfwd(jacrev) + Gauss":  # as torch.func documents it: three transforms, one in the other
                yield at_least(f"grad of {name} over value and gradient, {row['map']}", 100, found["over_ours"].median)
    for row in results.get("tape") or []:
        what = f"{row['map']}, {row['dtype']}, P = {row['points']}"
        yield at_most(f"tape of a point over the value's peak, {what}", 4, row["tape_over_value"])
    if results.get("tracing"):
        yield at_most("seconds to trace MiniLM's six blocks", 3, results["tracing"]["seconds"].median)
    yield from _depth_targets(results.get("depth") or {})
    for row in results.get("wide") or []:
        if row["k"] == 64:
            yield at_most("scalar curvature over its jets, k = 64", 1, row["geometry_over_jets"].median)
        yield at_most(f"peak memory of geometry over the Hessians, k = {row['k']}", 4, row["peak_over_hessians"])
    for row in results.get("sampled") or []:
        if row["map"].startswith("minilm") and results["environment"]["threads"] == 2:
            what = f"{row['map']}, moving: {row['moving']}, all k = {row['k']} directions, to 5 %"
            yield at_most(f"seconds for {what}", sampled.MOVING[row["moving"]], row["wall"])
            yield at_most(f"GB of tensors for {what}", sampled.MOST, row["peak_bytes"] / 1e9)
    for row in results.get("certificates") or []:
        if row["width"] == 1024:
            yield at_least("Arb's product over slices, width 1024", 5, row["product"]["arb_over_slices"].median)
        if row["width"] == 4096:
            for what in ("proved", "verified"):
                yield at_most(f"seconds until a certificate of width 4096 is {what}", 20, row[what].median)
    for row in results.get("families") or []:
        what = f"{row['family']} over the Gaussian, {row['map']}, k = {row['k']}, P = {row['points']}"
        yield at_most(what, 1.3, row["family_over_gaussian"].median)
    for row in results.get("geodesics") or []:
        if "geomstats_over_ours" in row:
            what = f"geomstats' solver over ours, {row['pairs']} geodesics, {row['map']}, k = {row['k']}"
            yield at_least(what, 20, row["geomstats_over_ours"].median)
    if results.get("checkpoint"):
        yield at_most("peak memory of a checkpoint over a block", 3, results["checkpoint"]["peak_over_block"])


def _gpu_targets(gpu: dict[str, Any]) -> Iterator[Target]:
    if gpu:
        held = sum(row["holds"] for row in gpu["checks"])
        yield at_least("checks of the GPU against the CPU that hold", len(gpu["checks"]), held)


def _depth_targets(depth: dict[str, Any]) -> Iterator[Target]:
    if "minilm" in depth:
        found = depth["minilm"]
        what = f"MiniLM, k = {found['k']}, P = {found['points']}"
        yield at_most(f"profile over the floor, {what}", 2, found["profile_over_floor"].median)
        for by, ratio in found["budget_over_second_order"].items():
            bound = 1 + found["labels"][by]
            yield at_most(f"budget by {by} over the profile's second-order part, {what}", bound, ratio.median)
    if "random" in depth:
        found = depth["random"]
        deepest = max(found["seconds"])
        what = f"{deepest} blocks of width {found['width']}, k = {found['k']}, P = {found['points']}"
        yield at_most(f"seconds for the profile of {what}", 120, found["seconds"][deepest])
        for what, exponent in found["exponents"].items():
            yield at_most(f"exponent of a profile's {what} in depth", 1.1, exponent)
