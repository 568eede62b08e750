"""The table of operators in the docs: what the engines make of torch's own database, judged by differences of values.

`python tests/cases/operators.py --out docs/operators.md` writes it. What has been measured is kept in a file beside the
page until the page is written, one line an operator, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from cases.operator_maps import differentiable, maps, operators
from cases.operator_verdicts import ENGINES, VERDICTS, Found, verdicts
from fisherflat._files import whole

COMMAND = "python tests/cases/operators.py --out docs/operators.md --jobs 2"


@dataclass
class Row:
    """An operator: how many maps have which verdict, and some of what is not right."""

    name: str
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {engine: Counter() for engine in ENGINES})
    notes: list[tuple[str, str, str, str]] = field(default_factory=list)  # engine, verdict, map, detail
    seconds: float = 0.0

    def add(self, map_: str, engine: str, found: Found) -> None:
        self.counts[engine][found.verdict] += 1
        alike = sum(note[:2] == (engine, found.verdict) for note in self.notes)
        if found.verdict not in ("rules", "fallback", "undefined", "constant") and alike < 8:
            self.notes.append((engine, found.verdict, map_, found.detail[:400]))


def measured(name: str, chosen: Callable[[int], list[int]]) -> Iterator[tuple[str, str, Found]]:
    """`(map, engine, verdict)` for the maps of an operator."""
    for map_ in maps(name, chosen):
        for engine, found in verdicts(map_).items():
            yield map_.name, engine, found


# -- the whole database ------------------------------------------------------------------------------------------------


def spread(most: int | None) -> Callable[[int], list[int]]:
    """At most so many samples of an operator, evenly spread."""

    def chosen(count: int) -> list[int]:
        some = count if most is None else min(count, most)
        return [i * count // some for i in range(some)]

    return chosen


def _child(name: str, most: int | None, pipe: Any) -> None:
    torch.set_num_threads(1)
    torch._C._functorch._set_vmap_fallback_warning_enabled(False)  # one line for each op and point
    for found in measured(name, spread(most)):
        pipe.send(found)
    pipe.send(None)


def row(name: str, most: int | None, limit: float) -> Row:
    """An operator in a process of its own: some crash, or never end."""
    started, made = time.monotonic(), Row(name)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(name, most, theirs))
    child.start()
    theirs.close()
    try:
        while ours.poll(max(0.0, started + limit - time.monotonic())):
            found = ours.recv()
            if found is None:
                break
            made.add(*found)
        else:
            made.add(name, "taylor", Found("foreign", f"not done after {limit:.0f} s"))
    except EOFError:
        child.join()
        made.add(name, "taylor", Found("foreign", f"the process ended with {child.exitcode}"))
    child.kill()
    child.join()
    made.seconds = time.monotonic() - started
    return made


def rows(path: Path) -> dict[str, Row]:
    """What has been measured, by operator."""
    lines = path.read_text().splitlines() if path.exists() else []
    made = [Row(**json.loads(line)) for line in lines]
    for one in made:
        one.counts = {engine: Counter(counts) for engine, counts in one.counts.items()}
    return {one.name: one for one in made}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    parser.add_argument("--only", action="append", help="measure and print these alone (linalg.*), and write no page")
    parser.add_argument("--samples", type=int, help="so many samples of an operator at most (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="so many operators at a time")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for an operator")
    options = parser.parse_args()
    kept = options.out.with_suffix(".rows.jsonl")
    done = {} if options.only else rows(kept)
    chosen = [name for name in operators() if any(fnmatch(name, only) for only in options.only or ["*"])]
    todo = [name for name in chosen if name not in done]
    with ThreadPool(options.jobs) as pool:
        for made in pool.imap_unordered(lambda name: row(name, options.samples, options.limit), todo):
            done[made.name] = made
            print(
                f"{len(done)} of {len(chosen)}: {made.name}, {made.seconds:.0f} s",
                *map(str, cells(made)[1:]),
                flush=True,
            )
            if options.only:
                print(*(" | ".join(note) for note in made.notes), sep="\n")
                continue
            with kept.open("a") as file:
                file.write(json.dumps(vars(made)) + "\n")
    if not options.only:
        with whole(options.out) as path:
            path.write_text(page([done[name] for name in chosen], options.samples))
        kept.unlink()


# -- the page ----------------------------------------------------------------------------------------------------------

#: what each verdict means
MEANING = {
    "rules": "right, by rules of the library",
    "fallback": "right, an op without a rule differentiated alone by torch and compared with values nearby",
    "refused": "refused with an error of the library",
    "wrong": "a number that values contradict",
    "memory": "the answer depends on what fresh memory held",
    "foreign": "an error of another kind, a crash, or no end",
    "kink": "the map is not smooth there",
    "unresolved": "differences of values do not converge far enough to tell",
    "undefined": "the operator does not run, or is not finite, beside its sample",
    "constant": "the output does not depend on what moves, and the engine says so",
    "random": "the operator draws random numbers or returns fresh memory",
    "nothing real": "no output in double precision",
}
ASIDE = ("undefined", "constant", "random", "nothing real")


def cells(made: Row) -> list[str]:
    """A row of the table."""
    counted = [
        ", ".join(f"{verdict} {made.counts[engine][verdict]}" for verdict in MEANING if made.counts[engine][verdict])
        for engine in ENGINES
    ]
    return [f"`{made.name}`", *(text or "no floating input" for text in counted)]


def kind(made: Row, engine: str) -> str:
    """The verdict on an operator: the worst on its maps."""
    found = [verdict for verdict in VERDICTS if made.counts[engine][verdict]]
    return found[0] if found else "nothing real"


def page(made: list[Row], most: int | None) -> str:
    """The page of the docs."""
    known = set(differentiable())
    table = [one for one in made if one.name in known]
    others = [one for one in made if one.name not in known]
    samples = "all their samples" if most is None else f"at most {most} of their samples"
    lines = [
        "# Operators",
        "",
        f"The {len(table)} operators of torch's own database (`torch.testing._internal.common_methods_invocations` of "
        f"torch {torch.__version__.partition('+')[0]}) that take float64 and have a derivative, on {samples}. Of each "
        "sample every floating input moves in turn, then all of them together; the outputs are taken as one vector. "
        f"`{COMMAND}` writes this page; one sample of each operator is a test (`tests/jets/test_operators.py`).",
        "",
        *NOTES,
        "",
        *_summary(table),
        "",
        "| operator | Taylor engine | autodiff engine |",
        "| --- | --- | --- |",
        *("| " + " | ".join(cells(one)) + " |" for one in sorted(table, key=lambda one: one.name)),
        "",
        "## Refused",
        "",
        *_refused(table),
        "",
        "## Without a derivative in torch",
        "",
        f"{len(others)} more operators take float64 and have no derivative in torch: comparisons, factories, random "
        "numbers and functions whose derivative torch does not know. Right here means that the derivatives vanish, as "
        "they should. " + _counts(others),
        "",
        "| operator | Taylor engine | autodiff engine |",
        "| --- | --- | --- |",
        *("| " + " | ".join(cells(one)) + " |" for one in sorted(others, key=lambda one: one.name) if _moves(one)),
        "",
    ]
    return "\n".join(lines)


NOTES = [
    "The truth is *differences of values*: central differences at twelve steps, extrapolated (Romberg), along four "
    "directions, with an error for each number from two sizes of steps, from the noise at the smallest and from limits "
    "on both sides (`tests/cases/romberg.py`). No automatic differentiation takes part. A number counts as wrong "
    "where it differs from the truth by more than that error and 1e-6 of its size. Judged are value, first and second "
    "derivatives in two random directions, at the sample itself, where kinks and removable singularities are, and at a "
    "point without anything special beside it. What is wrong at either counts; the rest is the verdict at the second. "
    "The Taylor engine runs once more where fresh memory is filled with NaN, and must come to the same verdict.",
    "",
    *(f"- *{verdict}*: {meaning}." for verdict, meaning in MEANING.items()),
]


def _counts(table: list[Row]) -> str:
    counted = [Counter(kind(one, engine) for one in table) for engine in ENGINES]
    return "; ".join(
        f"{engine}: " + ", ".join(f"{verdict} {some[verdict]}" for verdict in MEANING if some[verdict])
        for engine, some in zip(ENGINES, counted, strict=True)
    )


def _summary(table: list[Row]) -> list[str]:
    lines = [
        "| verdict | maps, Taylor | operators, Taylor | maps, autodiff | operators, autodiff |",
        "|" + " --- |" * 5,
    ]
    for verdict in MEANING:
        numbers = []
        for engine in ENGINES:
            numbers += [
                sum(one.counts[engine][verdict] for one in table),
                sum(kind(one, engine) == verdict for one in table),
            ]
        lines.append(f"| {verdict} | " + " | ".join(map(str, numbers)) + " |")
    refused = sum(kind(one, "taylor") == "refused" for one in table)
    whole_ = sum(set(+one.counts["taylor"]) - set(ASIDE) == {"refused"} for one in table)
    return [
        "An operator stands under the worst verdict on any of its maps. "
        f"The Taylor engine refuses some map of {refused} operators ({100 * refused / len(table):.1f} %), and all maps "
        f"of {whole_}.",
        "",
        *lines,
    ]


def _refused(table: list[Row]) -> list[str]:
    lines = []
    for one in sorted(table, key=lambda one: one.name):
        said = [detail for engine, verdict, _, detail in one.notes if (engine, verdict) == ("taylor", "refused")]
        if said:
            total = sum(one.counts["taylor"].values())
            lines.append(f"- `{one.name}`, {one.counts['taylor']['refused']} of {total} maps: {_plain(said[0])}")
    return lines or ["None."]


def _plain(detail: str) -> str:
    """An error in one line of a page, without the place in the tests where it arose."""
    text = re.sub(r" at \w+\.py:\d+", "", " ".join(detail.split()))
    return text.replace("<", "&lt;").replace("|", "\\|")[:200]


def _moves(one: Row) -> bool:
    """Whether something real depends on something real."""
    return any(set(+counts) - set(ASIDE) for counts in one.counts.values())


if __name__ == "__main__":
    main()
