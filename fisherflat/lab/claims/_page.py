"""The results of the claims as pages: `docs/claims.md`, which can be cited, and `report.html`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fisherflat.lab.claims._figures import Tables, alone, figures
from fisherflat.lab.claims._selection import PLAIN
from fisherflat.lab.claims._statistics import POOLINGS
from fisherflat.lab.claims._verdicts import FAILS, HOLDS, UNDECIDED, verdicts
from fisherflat.lab.claims._words import asked, detectable, effect, language, measure, signed, subject, where
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
    rows.sort(key=lambda row: row["p_holm"])  # of a verdict the surest first
    chosen, lead = {
        HOLDS: (rows[-1:], "The least sure of them: "),
        FAILS: (rows[:3], "Against it: "),
        UNDECIDED: (rows[:3], "Among those: "),
    }[word]
    said = [f"{subject(row)}, {where(row)}: {effect(row)}, asked {asked(row)}" for row in chosen]
    more = f"; and {len(rows) - 3} more" if word != HOLDS and len(rows) > 3 else ""
    return f"{lead}{'; '.join(said)}{more}."


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


def correlation_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line a measure: Spearman's correlation with accuracy at every level, Pearson's pooled, and the mixed model."""
    found = []
    for column in dict.fromkeys(table["column"]):
        own = table[table["column"] == column].set_index(["method", "level"])
        cells = [_ranged(own.loc[("spearman", level)]) for level in POOLINGS]
        cells += [_ranged(own.loc[("pearson", "pooled")]), _ranged(own.loc[("mixed model", "task and arm")])]
        found.append([measure(column), *cells])
    return found


def _ranged(row: Any) -> str:
    if not math.isfinite(row["value"]):
        return "–"
    return f"{signed(row['value'])} ({signed(row['low'])} to {signed(row['high'])})"


def gauge_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line a measure: its correlation, and how far a stretch of the representations moves it."""
    return [
        [measure(row["column"]), signed(row["value"]), f"{signed(row['lowest'])} to {signed(row['highest'])}"]
        for row in table.to_dict("records")
    ]


def measure_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line a measure, a column a task: gated to ungated, and in how many seeds the gated model has more."""
    tasks = list(dict.fromkeys(table["task"]))
    found = []
    for column in dict.fromkeys(table["column"]):
        own = table[table["column"] == column].set_index("task")
        found.append([measure(column), *(_ratio(own.loc[task]) for task in tasks)])
    return found


def _ratio(row: Any) -> str:
    if row["seeds"] == 0:
        return "–"
    share = f"{row['higher']:.0%}"
    return f"{10 ** row['log10_ratio']:.2g} ({share})" if math.isfinite(row["log10_ratio"]) else share


def mlp_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line a kind of gated MLP and optimizer."""
    names = ["test_loss", "exchange_defect", "inverse_scaling_defect", "charge_drift"]
    names += ["rank_one_error", "rank_one_test_loss"]
    found = []
    for row in table.to_dict("records"):
        cells = [f"{row[name]:.2g}" if math.isfinite(row.get(name, math.nan)) else "–" for name in names]
        found.append([row["side"], row["activation"], row["optimizer"], *cells, str(row["models"])])
    return found


def accuracy_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line an arm in its form, with the mean accuracy on each task."""
    found = []
    keys = [name for name in ("depth", "heads", "residual", "norm", "weight_decay", "arm") if name in table.columns]
    for form, own in table.groupby(["task", *keys], sort=False):
        row = own.iloc[0]
        about = dict(zip(["task", *keys], form, strict=True))
        words = [f"depth {about['depth']}", f"{about['heads']} head{'s' if about['heads'] > 1 else ''}"]
        words += [name for name in ("residual", "norm") if about[name]]
        decay = f", decay {about['weight_decay']:g}" if "weight_decay" in about else ""
        accuracy = f"{100 * row['test_accuracy']:.2f} ± {100 * row['sd']:.2f}"
        found.append([
            about["task"].replace("_", " "), about["arm"].replace("_", " "), ", ".join(words) + decay, accuracy,
            f"{100 * row['train_accuracy']:.2f}", f"{row['parameters']:.0f}", str(row["seeds"]),
        ])  # fmt: skip
    return found


def accuracy_tables(table: pd.DataFrame, protocol: Mapping[str, Any]) -> list[str]:
    """The groups of runs that claims B, C and D are about: a line an arm, a column a task."""
    found = []
    for group in protocol["groups"]:
        if group["name"] in protocol["claims"]["D"]["groups"]:
            own = table
            for key, value in PLAIN.items():
                own = own[own[key].isin(group.get(key, value))]
            own = own.sort_values("seeds", ascending=False).drop_duplicates(["arm", "task"]).set_index(["arm", "task"])
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
    """In the calibrated metric; the proxy as the paper has it."""
    names = table["column"]
    proxies = names.str.startswith("proxy")
    return table[(names.str.endswith(":calibrated") & ~proxies) | (proxies & names.str.endswith(":live:unit"))]


def opening(tests: pd.DataFrame, protocol: Mapping[str, Any]) -> list[str]:
    """Which claims hold, which do not, and which are undecided."""
    words = verdicts(tests)
    said = []
    for verdict, verb in ((HOLDS, "hold"), (FAILS, "do not hold"), (UNDECIDED, "are undecided")):
        names = [f"{claim} ({statement(protocol, claim)})" for claim, word in words.items() if word == verdict]
        if names:
            said.append(f"{_joined(names)} {verb if len(names) > 1 else _single(verdict)}.")
    return said


def _single(verdict: str) -> str:
    return "is undecided" if verdict == UNDECIDED else verdict


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
        _INTRODUCTION.format(models=_count(tables), hash=about["protocol_sha256"][:12], run=RUN, settle=SETTLE),
        _table(["", "claim", "source", "verdict", "why"], claims),
        _RULES.format(
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
        if claim == "A":
            shown = _calibrated(tables["measures"])
            parts += [_MEASURES, _SHOWN, _table(["measure", *_tasks(shown)], measure_rows(shown))]
        if claim == "B":
            parts.append(language())
        if claim == "F" and "mlps" in tables:
            parts += [_MLPS, _table(_MLP_HEAD, mlp_rows(tables["mlps"]))]
        if claim == "D":
            parts += [
                _CORRELATIONS.format(**_counts(tables["correlations"])),
                _table(_LEVELS, correlation_rows(tables["correlations"])),
                _GAUGE,
                _table(_STRETCHED, gauge_rows(tables["gauge"])),
            ]
    parts += [
        "## Accuracies", _ACCURACIES, *accuracy_tables(tables["accuracies"], protocol),
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
        if claim == "A":
            heads = ["measure", *_tasks(tables["measures"])]
            items += [_MEASURES, Grid("Every measure", heads, measure_rows(tables["measures"]), "measures.parquet")]
        if claim == "B":
            items.append(language())
        if claim == "F" and "mlps" in tables:
            items += [_MLPS, Grid("Gated MLPs", _MLP_HEAD, mlp_rows(tables["mlps"]), "mlps.parquet")]
        if claim == "D":
            items += [
                _CORRELATIONS.format(**_counts(tables["correlations"])),
                Grid("Correlations", _LEVELS, correlation_rows(tables["correlations"]), "correlations.parquet"),
                _GAUGE,
                Grid("Stretched", _STRETCHED, gauge_rows(tables["gauge"]), "gauge.parquet"),
            ]  # fmt: skip
        mind = " ".join(protocol["claims"][claim]["mind"].split())
        sections.append(Section(f"{claim}. {said}", [*items, f"What would change our mind. {mind}"]))
    heads = ["task", "arm", "form", "test [%], ± sd over seeds", "training [%]", "parameters", "seeds"]
    grid = Grid("Every form of every arm", heads, accuracy_rows(tables["accuracies"]), "accuracies.parquet")
    sections.append(Section("Accuracies", [_ACCURACIES, grid]))
    made = Section(
        "How it was made", [Facts({key: str(value) for key, value in about.items()}), Code(f"{RUN}\n{SETTLE}")]
    )
    return Page("Claims about gates, curvature and symmetry", "What was asked before, and what was found",
                opening(tests, protocol)[:3], [*sections, made])  # fmt: skip


_INTRODUCTION = """What two papers claim of gates, curvature and symmetry, *Gating Enables Curvature* (arXiv
2604.14702) and *Gated MLPs as Symmetry-Broken Rank-1 Bilinear Attention* (arXiv 2606.22172), asked by a protocol
that was written and committed before any run that counts, and answered as it fell: {models}. The protocol is
`fisherflat/lab/claims/protocol.toml` (sha256 `{hash}…`); it names the tasks, arms, seeds, measures, margins and
tests, and no number below comes from anything else. To make the tables again, and the pages of them (with
the extra `reproduce`):

```sh
{run}
{settle}
```"""

_RULES = """A test *holds* or *does not hold* where the interval of its effect lies wholly on one side of the margin
that was named before, and its p value, corrected after Holm for all tests that decide the claim, is below 5 %; all
else is *undecided*. A claim holds where all of them hold, and does not hold where one does not. Intervals of
differences are BCa bootstrap intervals over seeds, paired by seed, with p values from flipping signs; those over
several tasks are Student's t over tasks; those of correlations resample whole tasks. Together the tests that decide
a claim are wrong in at most one of twenty such experiments: each interval is as wide as that asks for ({confidence}
for all of them together). Fewer than {seeds} seeds, or {tasks} tasks, give no verdict. *Detectable* is the distance
from the margin that so many seeds with this spread show in four experiments of five. *Live*: nothing is held;
*held*: attention patterns are held at the point itself. *Unit*: distances between representations as they are;
*calibrated*: in units of their spread over the test examples; *whitened*: of their covariance."""

_MEASURES = """Every measure that was taken, gated next to ungated in the models of the tests that decide: the ratio
of the geometric means over seeds and, in brackets, in how many of the seeds the gated model has more. Where a
measure has no logarithm, the share alone. No verdict rests on these but on those above."""

_SHOWN = (
    """Here in the calibrated metric, and the paper's proxy as it defines it; `measures.parquet` has all of them."""
)

_LEVELS = [
    "measure", *(f"Spearman, {level}" for level in POOLINGS), "Pearson, pooled",
    "mixed model [points a standard deviation]",
]  # fmt: skip
_OVERVIEW = ("", "verdict", "claim", "why", "source")
_MLP_HEAD = (
    "nonlinearity on", "activation", "optimizer", "test loss", "exchange", "inverse scaling", "drift of |g|² − |u|²",
    "rank-one error", "test loss with rank-one slots", "models",
)  # fmt: skip
_MLPS = """All kinds that were trained, means over seeds and teachers; losses are relative to the variance of the
targets. *slots* is bilinear attention of rank 3, whose slots are replaced by their best gated units: the rank-one form
of the paper is an approximation of it, with the error of the last columns."""

_STRETCHED = ["measure", "within task", "after a stretch"]

_CORRELATIONS = """The correlation of each measure with accuracy, {models} models on {tasks} tasks, with 95 %
intervals from resampling tasks. *Pooled*: all models together; *within task (and arm)*: the mean of the
correlations in each; *across task means*: of the means of the tasks. The mixed model has a level and a slope for
each task and a level for each arm. Where the levels disagree, a pooled correlation says which tasks are easy, and
not what curvature does."""

_GAUGE = """A read-out that is divided by what multiplies the representation classifies every example as before.
Multiply each representation by a factor between 1/2 and 2, and the correlation of measures in the metric *unit*
goes anywhere between the two ends below, while no prediction changes; the other two metrics do not notice, and only
*whitened* ones do not notice stretches in some directions either."""

_ACCURACIES = """On test examples, in per cent, with the standard deviation over seeds; the protocol flips labels so
that no model is at the ceiling. `accuracies.parquet` has all other forms, training accuracies and parameters."""


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
