"""The results of the claims as pages: `docs/claims.md`, which can be cited, and `report.html`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fisherflat.lab.claims._figures import Tables, alone, figures
from fisherflat.lab.claims._prose import (
    ACCURACIES,
    CEILING,
    CORRELATIONS,
    GAUGE,
    INTRODUCTION,
    MEASURES,
    MLPS,
    RULES,
    SHOWN,
    SHUFFLED,
)
from fisherflat.lab.claims._protocol import PLAIN
from fisherflat.lab.claims._rows import (
    accuracy_rows,
    correlation_rows,
    gauge_rows,
    measure_rows,
    mlp_rows,
    ranged,
    shuffled_rows,
)
from fisherflat.lab.claims._selection import chosen
from fisherflat.lab.claims._statistics import POOLINGS, correlation_over_tasks
from fisherflat.lab.claims._verdicts import FAILS, HOLDS, UNDECIDED, verdicts
from fisherflat.lab.claims._words import asked, detectable, effect, language, subject, where
from fisherflat.pages import Code, Drawing, Facts, Grid, Item, Page, Section, Value

if TYPE_CHECKING:
    import pandas as pd

#: what makes the raw tables, and what makes the pages of them
RUN, SETTLE = (
    "python -m fisherflat.lab.claims --out DIR",
    "python -m fisherflat.lab.claims.page --runs DIR --docs docs --report claims.html",
)
_TONES = {HOLDS: (0, "flat"), FAILS: (1, "curved"), UNDECIDED: (2, "undecided")}
_HEAD = ("test", "what", "where", "asked", "found", "p (Holm)", "detectable", "verdict")


def summary(tests: pd.DataFrame, claim: str) -> str:
    """How many of the tests that decide a claim hold, do not, and are undecided."""
    words = list(tests.loc[(tests["claim"] == claim) & (tests["role"] == "primary"), "verdict"])
    counts = {word: words.count(word) for word in (HOLDS, FAILS, UNDECIDED) if word in words}
    if len(counts) == 1:
        return f"All {len(words)} tests that decide it {_COUNTED[words[0]][1]}."
    parts = [f"{count} {_COUNTED[word][count > 1]}" for word, count in counts.items()]
    return f"Of the {len(words)} tests that decide it, {_joined(parts)}."


def because(tests: pd.DataFrame, claim: str) -> str:
    """The tests by which a claim does not hold or is undecided, three at most; where it holds, the closest one."""
    word = verdicts(tests)[claim]
    own = tests[(tests["claim"] == claim) & (tests["role"] == "primary") & (tests["verdict"] == word)]
    rows = own.to_dict("records")
    rows.sort(key=lambda row: (row["p_holm"], -_apart(row)))  # of a verdict the surest first
    some, lead = {
        HOLDS: ([min(rows, key=_apart)] if rows else [], "The closest to its margin: "),
        FAILS: (rows[:3], "Against it: "),
        UNDECIDED: (rows[:3], "Among those: "),
    }[word]
    said = [f"{subject(row)}, {where(row)}: {effect(row)}, asked {asked(row)}" for row in some]
    more = f"; and {len(rows) - 3} more" if word != HOLDS and len(rows) > 3 else ""
    return f"{lead}{'; '.join(said)}{more}."


def _apart(row: Mapping[str, Any]) -> float:
    """How far an interval is from the margin, on whichever side of it, in its own widths."""
    low, high, margin = row["low"], row["high"], row["margin"]
    gap = max(low - margin, margin - high)
    if row["kind"] == "equivalence":
        gap = max(min(margin - high, low + margin), low - margin, -margin - high)
    return gap / (high - low) if high > low else math.copysign(math.inf, gap)


#: verdict -> what one test, or several, do
_COUNTED = {
    HOLDS: ("holds", "hold"),
    FAILS: ("does not hold", "do not hold"),
    UNDECIDED: ("is undecided", "are undecided"),
}


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def statement(protocol: Mapping[str, Any], claim: str) -> str:
    """A claim as a sentence of its own."""
    text: str = protocol["claims"][claim]["statement"]
    return text[:1].upper() + text[1:]


def rows_of(tests: pd.DataFrame, claim: str) -> list[list[str]]:
    """The tests of a claim, a line each, as they are printed; those that decide nothing in brackets."""
    found = []
    for row in tests[tests["claim"] == claim].to_dict("records"):
        verdict = row["verdict"] + (f": {row['why']}" if row["verdict"] == UNDECIDED else "")
        verdict += "; it is given by a theorem" if row["role"] == "given" else ""
        verdict = verdict if row["role"] == "primary" else f"({verdict})"
        p = f"{row['p_holm']:.2g}" if row["units"] > 1 else ""
        name = row["id"].split(" ")[0]
        found.append([name, subject(row), where(row), asked(row), effect(row), p, detectable(row), verdict])
    return found


def _control(tables: Tables) -> Iterator[str | _Shown]:
    """What is shown of models that were trained on permuted labels, where there are any."""
    table = tables["shuffled"]
    if table.empty:
        return
    x, y = (table[name].to_numpy(float) for name in ("agreement", "test_accuracy"))
    found = correlation_over_tasks(x, y, table["task"], table["arm"], pooling="within task", method="spearman")
    yield SHUFFLED.format(
        models=len(table), most=f"{100 * x.max():.1f}", correlation=ranged(vars(found)), tasks=table["task"].nunique()
    )
    head = ["task", *(str(arm) for arm in dict.fromkeys(table["arm"])), "labels that are true"]
    yield _Shown("Trained on permuted labels [%]", head, shuffled_rows(table), "shuffled.parquet")


def ceiling(table: pd.DataFrame, protocol: Mapping[str, Any]) -> str:
    """How close to the best possible accuracy the models of claim C are."""
    best, found = 1 - protocol["data"]["noise"], []
    for test in protocol["claims"]["C"]["tests"]:
        sides = {"task": test["tasks"], "arm": [test["arm"], test["against"]]}
        found += list(chosen(table, protocol, {**test["where"], **sides})["test_accuracy"])
    short = max((best - accuracy for accuracy in found), default=math.nan)
    return CEILING.format(best=f"{100 * best:.0f}", short=f"{100 * short:.1f}")


def accuracy_tables(table: pd.DataFrame, protocol: Mapping[str, Any]) -> list[str]:
    """The groups of runs that claims B, C and D are about: a line an arm, a column a task."""
    found = []
    for group in protocol["groups"]:
        if group["name"] in protocol["claims"]["D"]["groups"]:
            form = {key: group.get(key, value) for key, value in PLAIN.items()}
            own = chosen(table, protocol, form).set_index(["arm", "task"])
            rows = [
                [arm.replace("_", " "), *(_accuracy(own, arm, task) for task in group["tasks"])]
                for arm in group["arms"]
            ]
            found.append(_table(["arm", *(task.replace("_", " ") for task in group["tasks"])], rows))
    return found


def _accuracy(table: pd.DataFrame, arm: str, task: str) -> str:
    if (arm, task) not in table.index:
        return "–"
    row = table.loc[(arm, task)]
    return f"{100 * row['test_accuracy']:.2f} ± {100 * row['sd']:.2f}"


def _calibrated(table: pd.DataFrame) -> pd.DataFrame:
    """In the calibrated metric, in which the size of the image is given; the proxy as the paper has it."""
    names = table["column"]
    proxies = names.str.startswith("proxy")
    calibrated = names.str.endswith(":calibrated") & ~names.str.startswith(("proxy", "image_size"))
    return table[calibrated | (proxies & names.str.endswith(":live:unit"))]


def opening(tests: pd.DataFrame, protocol: Mapping[str, Any]) -> list[str]:
    """Which claims hold, which do not, and which are undecided."""
    words = verdicts(tests)
    said = []
    for verdict, verbs in _COUNTED.items():
        names = [f"{claim} ({statement(protocol, claim)})" for claim, word in words.items() if word == verdict]
        if names:
            said.append(f"{_joined(names)} {verbs[len(names) > 1]}.")
    return said


class _Shown(NamedTuple):
    """A table beside the tests of a claim, and the file that has it."""

    title: str
    head: Sequence[str]
    rows: list[list[str]]
    file: str


def _beside(claim: str, tables: Tables, protocol: Mapping[str, Any]) -> Iterator[str | _Shown]:
    """What is shown of a claim beside its tests."""
    if claim == "A":
        shown = _calibrated(tables["measures"])
        yield from (MEASURES, SHOWN)
        yield _Shown("Measures", ["measure", *_tasks(shown)], measure_rows(shown), "measures.parquet")
    if claim == "B":
        yield language()
    if claim == "C":
        yield ceiling(tables["accuracies"], protocol)
    if claim == "D":
        found = tables["correlations"]
        yield CORRELATIONS.format(**_counts(found))
        yield _Shown("Correlations", _LEVELS, correlation_rows(found), "correlations.parquet")
        yield GAUGE
        yield _Shown("Stretched", _STRETCHED, gauge_rows(tables["gauge"]), "gauge.parquet")
    if claim == "F" and "mlps" in tables:
        yield MLPS
        yield _Shown("Gated MLPs", _MLP_HEAD, mlp_rows(tables["mlps"]), "mlps.parquet")


def _printed(shown: str | _Shown) -> str:
    return shown if isinstance(shown, str) else _table(shown.head, shown.rows)


def _item(shown: str | _Shown) -> Item:
    return shown if isinstance(shown, str) else Grid(shown.title, shown.head, shown.rows, shown.file)


def markdown(tables: Tables, protocol: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The page of the documentation.

    **Args:** `tables`: `models`, `tests` and what stands beside them; `about`, what the raw tables were made with.
    """
    tests, words = tables["tests"], verdicts(tables["tests"])
    rules = protocol["statistics"]
    claims = [
        [
            claim,
            statement(protocol, claim),
            protocol["claims"][claim]["source"],
            f"**{word}**",
            summary(tests, claim),
        ]
        for claim, word in words.items()
    ]
    parts = [
        "# The claims, settled",
        INTRODUCTION.format(models=_count(tables), hash=about["protocol_sha256"][:12], run=RUN, settle=SETTLE),
        _table(["", "claim", "source", "verdict", "why"], claims),
        RULES.format(
            confidence=f"{100 * rules['confidence']:.0f} %", seeds=rules["least_seeds"], tasks=rules["least_tasks"]
        ),
    ]
    drawn = figures(tables, protocol)
    for claim, word in words.items():
        about_claim = protocol["claims"][claim]
        parts += [
            f"## {claim}. {statement(protocol, claim)}",
            f"**Verdict: {word}.** {summary(tests, claim)} {because(tests, claim)}",
        ]
        if claim in drawn:
            parts.append(f"![{alone(claim)}](images/claims_{claim}.png)")
        level = _level(tests, claim)
        parts += [
            f"Intervals of tests that decide are at {level}; in brackets, tests that decide nothing.",
            _table(_HEAD, rows_of(tests, claim)),
            f"*What would change our mind.* {' '.join(about_claim['mind'].split())}",
        ]
        parts += map(_printed, _beside(claim, tables, protocol))
    parts += [
        "## Accuracies", ACCURACIES, *accuracy_tables(tables["accuracies"], protocol), *map(_printed, _control(tables)),
        "## What it was made with", _files(about),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def page(tables: Tables, protocol: Mapping[str, Any], about: Mapping[str, Any]) -> Page:
    """The same as a page of one file."""
    tests, words, drawn = tables["tests"], verdicts(tables["tests"]), figures(tables, protocol)
    overview: list[list[str | Value]] = [
        [claim, Value(_TONES[word][0], word, _TONES[word][1]), statement(protocol, claim), summary(tests, claim),
         protocol["claims"][claim]["source"]]
        for claim, word in words.items()
    ]  # fmt: skip
    sections = [Section("Claims", [Grid("Claims and verdicts", _OVERVIEW, overview)])]
    for claim in words:
        said = statement(protocol, claim)
        items: list[Item] = [f"{words[claim].capitalize()}. {summary(tests, claim)} {because(tests, claim)}"]
        if claim in drawn:
            title = f"Claim {claim}: effects with their intervals"
            items.append(Drawing(title, f"{said}. Intervals at {_level(tests, claim)}.", alone(claim), drawn[claim]))
        items.append(Grid(f"Tests of claim {claim}", _HEAD, rows_of(tests, claim), "tests.parquet"))
        items += map(_item, _beside(claim, tables, protocol))
        mind = " ".join(protocol["claims"][claim]["mind"].split())
        sections.append(Section(f"{claim}. {said}", [*items, f"What would change our mind. {mind}"]))
    heads = ["task", "arm", "form", "test [%], ± sd over seeds", "training [%]", "parameters", "seeds"]
    grid = Grid("Every form of every arm", heads, accuracy_rows(tables["accuracies"]), "accuracies.parquet")
    sections.append(Section("Accuracies", [ACCURACIES, grid, *map(_item, _control(tables))]))
    made = Section(
        "How it was made", [Facts({key: str(value) for key, value in about.items()}), Code(f"{RUN}\n{SETTLE}")]
    )
    return Page("Claims about gates, curvature and symmetry", "What was asked before, and what was found",
                opening(tests, protocol)[:3], [*sections, made])  # fmt: skip


_LEVELS = [
    "measure", *(f"Spearman, {level}" for level in POOLINGS), "Pearson, pooled",
    "mixed model [points a standard deviation]",
]  # fmt: skip
_OVERVIEW = ("", "verdict", "claim", "why", "source")
_MLP_HEAD = (
    "nonlinearity on", "activation", "optimizer", "test loss", "exchange", "inverse scaling", "drift of |g|² − |u|²",
    "rank-one error", "test loss with rank-one slots", "models",
)  # fmt: skip

_STRETCHED = ["measure", "within task", "after a stretch"]


def _count(tables: Tables) -> str:
    models = tables["models"]
    more = f", and {len(tables['symmetries'])} gated MLPs" if "symmetries" in tables else ""
    return f"{len(models)} trained models on {models['task'].nunique()} tasks{more}"


def _counts(table: pd.DataFrame) -> dict[str, int]:
    return {"models": int(table["models"].max()), "tasks": int(table["tasks"].max())}


def _tasks(table: pd.DataFrame) -> list[str]:
    return [str(task).replace("_", " ") for task in dict.fromkeys(table["task"])]


def _level(tests: pd.DataFrame, claim: str) -> str:
    own = tests[(tests["claim"] == claim) & (tests["role"] == "primary")]
    return f"{100 * own['confidence'].iloc[0]:.2f} %"


#: what tells runs that count from others, and is the same in all of them
_OF_PILOTS = ("files", "pilot", "steps")


def _files(about: Mapping[str, Any]) -> str:
    lines = [f"- {name.replace('_', ' ')}: `{value}`" for name, value in about.items() if name not in _OF_PILOTS]
    lines += [f"- `docs/data/claims/{name}`, sha256 `{digest}`" for name, digest in about.get("files", {}).items()]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
