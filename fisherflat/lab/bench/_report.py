"""What was found: as a JSON file and as tables."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from fisherflat._files import whole
from fisherflat.lab.bench import certificates, families, geodesics, sampled, traces, wide
from fisherflat.lab.bench._measure import figure
from fisherflat.lab.bench._targets import targets


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
            (
                "map",
                "dtype",
                "P",
                "weights",
                "value, s",
                "value anew, s",
                "value and gradient, s",
                "gradient over value",
                "both over value",
                "both over value anew",
            ),
            [
                (
                    *(str(row[key]) for key in ("map", "dtype", "points", "weights")),
                    *(str(row["seconds"][what]) for what in ("value", "value anew", "gradient")),
                    str(row["gradient_over_value"]),
                    str(row["value_and_gradient_over_value"]),
                    str(row["value_and_gradient_over_value_anew"]),
                )
                for row in results["gradient"]
            ],
        )
        yield Table(
            "The same gradient by nested torch.func, over ours with its value",
            ("map", "dtype", "P", "reverse mode over", "over ours", "difference"),
            [
                (
                    row["map"],
                    row["dtype"],
                    str(row["points"]),
                    name,
                    str(found["over_ours"]),
                    f"{found['difference']:.1g}",
                )
                for row in results["gradient"]
                for name, found in row["nested"].items()
            ],
        )
    if results.get("tape"):
        yield Table(
            "Memory of value and gradient, MiB, and over the value's: tape of one point, all but gradients of weights",
            (
                "map",
                "dtype",
                "P",
                "value",
                "with gradient",
                "tape",
                "tape over",
                "all but gradients",
                "all and weights",
            ),
            [
                (
                    *(str(row[key]) for key in ("map", "dtype", "points")),
                    *(
                        f"{row['bytes'][what] / 2**20:.0f}"
                        for what in ("value", "value_and_gradient", "tape_of_one_point")
                    ),
                    *(
                        figure(row[what])
                        for what in ("tape_over_value", "both_over_value", "both_over_value_with_weights")
                    ),
                )
                for row in results["tape"]
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
    yield from _gpu_tables(results.get("gpu") or {})
    yield from _jet_tables(results.get("jets") or [])
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
        fits = [
            (
                what,
                ", ".join(map(str, found["sizes"])),
                ", ".join(f"{one.median:.3g}" for one in found["seconds"]),
                f"{found['exponent']:.2f}",
            )
            for what, found in results["growth"].items()
        ]
        yield Table("Growth of the jets' time", ("in", "sizes", "seconds", "exponent"), fits)
    if results.get("tracing"):
        found = results["tracing"]
        yield Table("Tracing MiniLM", ("blocks", "seconds"), [(str(found["blocks"]), str(found["seconds"]))])
    yield from _depth_tables(results.get("depth") or {})
    for section in (wide, sampled, certificates, families, traces, geodesics):
        if rows := results.get(section.__name__.rpartition(".")[2]):
            yield Table(*section.table(rows))
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


def _jet_tables(rows: list[dict[str, Any]]) -> Iterator[Table]:
    """For each dtype, number of threads and clock: contenders down, maps across."""
    for dtype, threads in dict.fromkeys((row["dtype"], row["threads"]) for row in rows):
        chosen = [row for row in rows if (row["dtype"], row["threads"]) == (dtype, threads)]
        header = tuple(f"{row['map']}, k {row['k']}, P {row['points']}" for row in chosen)
        names = dict.fromkeys(contender["name"] for row in chosen for contender in row["contenders"])
        for clock in chosen[0]["ours_over_floor"]:
            cells = [
                (name, *(_cell(next(c for c in row["contenders"] if c["name"] == name), clock) for row in chosen))
                for name in names
            ]
            cells.append(("ours over S plain passes", *(str(row["ours_over_floor"][clock]) for row in chosen)))
            title = f"Time of all coefficients over ours, {dtype}, threads: {threads}, {clock} time"
            yield Table(title, ("contender", *header), cells)


def _cell(contender: dict[str, Any], clock: str) -> str:
    return str(contender["over_ours"][clock] if "over_ours" in contender else contender["note"])


def _gpu_tables(found: dict[str, Any]) -> Iterator[Table]:
    if not found:
        return
    yield Table(
        f"The GPU against the CPU in float64; TF32 {'on' if found['tf32'] else 'off'}",
        ("what", "dtype", "difference", "bound", "holds", "seconds"),
        [
            (
                row["check"],
                row["dtype"],
                *(f"{row[key]:.1e}" if key in row else "failed" for key in ("difference", "bound")),
                "yes" if row["holds"] else "NO: " + " | ".join(row.get("failed", "too large").split("\n")[-6:]),
                f"{row['seconds']:.2f}",
            )
            for row in found["checks"]
        ],
    )
    yield Table(
        "On the GPU: milliseconds, and jets over S plain passes without and with a CUDA graph",
        ("map", "k", "dtype", "P", "floor", "jets", "graph", "with scalar curvature", "over", "graph over", "MiB"),
        [
            (
                *(str(row[key]) for key in ("map", "k", "dtype", "points")),
                *(_of(row, "seconds", name, 1e3) for name in ("floor", "jets", "graph", "scalar_curvature")),
                *(_of(row, "over_floor", name) for name in ("jets", "graph")),
                f"{row['bytes'] / 2**20:.0f}" if "bytes" in row else "",
            )
            for row in found["timings"]
        ],
    )
    for row in found["timings"]:
        for key in ("failed", "graph_failed"):
            if key in row:
                lines = [(line.strip(),) for line in row[key].strip().split("\n")[-8:]]
                yield Table(f"{key}: {row['map']}, k = {row['k']}, {row['dtype']}", ("traceback",), lines)


def _of(row: dict[str, Any], kind: str, name: str, factor: float = 1.0) -> str:
    return figure(row[kind][name].median * factor) if name in row.get(kind, {}) else "-"


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
