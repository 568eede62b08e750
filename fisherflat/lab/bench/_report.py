"""What was found: as a JSON file, as tables, and against what the library promises."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from fisherflat._files import whole

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
    return [*_peer_targets(results), *_floor_targets(results), *_growth_targets(results), *_other_targets(results)]


def at_least(what: str, bound: float, measured: float) -> Target:
    """A lower bound."""
    return Target(what, f"at least {bound:g}", measured, measured >= bound)


def at_most(what: str, bound: float, measured: float) -> Target:
    """An upper bound."""
    return Target(what, f"at most {bound:g}", measured, measured <= bound)


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
        ratio = row["value_and_gradient_over_value"].median
        yield at_most(f"value and gradient by all weights over the value, {row['map']}, {row['dtype']}", 2.5, ratio)
        if "nested_over_ours" in row:
            ratio = row["nested_over_ours"].median
            yield at_least(f"nested torch.func over the gradient, {row['map']}", 100, ratio)
    if results.get("tracing"):
        yield at_most("seconds to trace MiniLM's six blocks", 3, results["tracing"]["seconds"].median)
    yield from _depth_targets(results.get("depth") or {})
    if results.get("checkpoint"):
        yield at_most("peak memory of a checkpoint over a block", 3, results["checkpoint"]["peak_over_block"])


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


def plain(results: dict[str, Any]) -> dict[str, Any]:
    """`results` and the promises that they speak to, fit for JSON."""
    found: dict[str, Any] = json.loads(json.dumps({**results, "targets": targets(results)}, default=_plain))
    return found


def save(results: dict[str, Any], path: Path) -> None:
    """Write `results` as JSON, whole or not at all.

    **Raises:** `InputError` where the file cannot be written.
    """
    with whole(path) as part:
        part.write_text(json.dumps(plain(results), indent=1) + "\n")


def _plain(thing: Any) -> Any:
    if is_dataclass(thing) and not isinstance(thing, type):
        return asdict(thing)
    raise TypeError(f"{type(thing).__name__} has no place in a JSON file")


@dataclass(frozen=True)
class Table:
    """Text in rows and columns."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(results: dict[str, Any]) -> Iterator[Table]:
    """The sections of `results` for reading; times as median (minimum to maximum)."""
    if results.get("gradient"):
        yield Table(
            "The gradient of the scalar curvature by all weights",
            ("map", "dtype", "P", "weights", "value, s", "value and gradient, s", "over the value", "nested over it"),
            [
                (
                    *(str(row[key]) for key in ("map", "dtype", "points", "weights")),
                    *(str(row["seconds"][what]) for what in ("value", "gradient")),
                    str(row["value_and_gradient_over_value"]),
                    str(row.get("nested_over_ours", "-")),
                )
                for row in results["gradient"]
            ],
        )
    if results.get("floor"):
        yield Table(
            "Time over the floor of S plain forward passes a point",
            ("map", "k", "dtype", "moving", "P", "batch", "floor GFLOP/s", "jets", "with scalar curvature"),
            [
                (
                    *(str(row[key]) for key in ("map", "k", "dtype", "moving", "points", "floor_batch")),
                    f"{row['floor_gflops']:.0f}",
                    str(row["jet_over_floor"]),
                    str(row["scalar_curvature_over_floor"]),
                )
                for row in results["floor"]
            ],
        )
    for row in results.get("peers", []):
        yield Table(
            f"Scalar curvature, {row['map']}, k = {row['k']}, {row['dtype']}, output: {row['readout']}",
            ("contender", "points", "error", "ms a point", "times the Taylor engine's"),
            [
                (
                    contender["name"],
                    str(contender.get("points", "")),
                    f"{contender['error']:.0e}" if "error" in contender else "",
                    str(contender["seconds_per_point"].scaled(1e3)) if "seconds_per_point" in contender else "",
                    str(contender.get("over_taylor", contender.get("note", ""))),
                )
                for contender in row["contenders"]
            ],
        )
    if results.get("norms"):
        returned = [(name, f"{value:.4g}") for name, value in results["norms"].items()]
        yield Table("LayerNorm of width 4 on a plane: scal = 0.5", ("contender", "scalar curvature"), returned)
    if results.get("memory"):
        yield Table(
            "Peak memory in MiB, and the jets' over the floor's",
            ("map", "k", "P", "jets", "scalar curvature", "floor", "in batches", "over", "over batched"),
            [
                (
                    *(str(row[key]) for key in ("map", "k", "points")),
                    *(f"{count / 2**20:.1f}" for count in row["bytes"].values()),
                    f"{row['jet_over_floor_at_once']:.2f}",
                    f"{row['jet_over_floor_in_batches']:.2f}",
                )
                for row in results["memory"]
            ],
        )
    if results.get("growth"):
        fits = [(what, str(found["sizes"]), f"{found['exponent']:.2f}") for what, found in results["growth"].items()]
        yield Table("Growth of the jets' time", ("in", "sizes", "exponent"), fits)
    if results.get("tracing"):
        found = results["tracing"]
        yield Table("Tracing MiniLM", ("blocks", "seconds"), [(str(found["blocks"]), str(found["seconds"]))])
    yield from _depth_tables(results.get("depth") or {})
    if results.get("checkpoint"):
        found = results["checkpoint"]
        sizes = (
            f"{found['parameters'] / 1e6:.0f}",
            *(f"{found[k] / 2**20:.0f}" for k in ("block_bytes", "peak_bytes")),
        )
        yield Table(
            "Analysis of a checkpoint on disk, four layers (millions; MiB in float64)",
            ("parameters", "block", "peak", "peak over block", "over the model"),
            [(*sizes, f"{found['peak_over_block']:.2f}", f"{found['peak_over_model']:.3f}")],
        )
    kept = [(t.what, t.bound, f"{t.measured:.3g}", "yes" if t.reached else "no") for t in targets(results)]
    if kept:
        yield Table("What is promised", ("what", "bound", "measured", "reached"), kept)


def _depth_tables(depth: dict[str, Any]) -> Iterator[Table]:
    if "minilm" in depth:
        found = depth["minilm"]
        yield Table(
            "MiniLM's depth profile over S plain passes of the encoder, and budgets over its second-order part",
            ("k", "P", "batch", "profile", "by role", "labels", "by layer", "labels"),
            [
                (
                    *(str(found[key]) for key in ("k", "points", "floor_batch")),
                    str(found["profile_over_floor"]),
                    *(
                        cell
                        for by in ("role", "layer")
                        for cell in (str(found["budget_over_second_order"][by]), str(found["labels"][by]))
                    ),
                )
            ],
        )
    if "random" in depth:
        found = depth["random"]
        yield Table(
            f"Profiles of random blocks, width {found['width']}, {found['tokens']} tokens, k = {found['k']}",
            ("blocks", "P", "seconds", "peak MiB of two points"),
            [
                (str(n), str(found["points"]), f"{seconds:.3g}", f"{found['peak_bytes'][n] / 2**20:.0f}")
                for n, seconds in found["seconds"].items()
            ],
        )


def show(results: dict[str, Any]) -> None:
    """Print the tables: by rich on a terminal where it is installed, otherwise as Markdown."""
    about = results["environment"]
    where = about["gpu"] or f"{about['processor']}, {about['threads']} threads"
    print(f"fisherflat {about['fisherflat']}, torch {about['torch']}, {where}, {about['repeats']} repeats")
    for table in tables(results):
        if sys.stdout.isatty() and importlib.util.find_spec("rich"):
            _rich(table)
        else:
            print(f"\n{markdown(table)}")


def _rich(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    drawn = RichTable(title=table.title, title_justify="left")
    for name in table.header:
        drawn.add_column(name)
    for row in table.rows:
        drawn.add_row(*row)
    Console().print(drawn)


def markdown(table: Table) -> str:
    """The table as Markdown, with its title above."""
    widths = [max(len(cell) for cell in column) for column in zip(table.header, *table.rows, strict=True)]
    rule = tuple("-" * width for width in widths)
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (table.header, rule, *table.rows)
    ]
    return "\n".join([f"**{table.title}**", "", *lines])
