"""The papers' empirical claims by the protocol of `fisherflat.lab.claims`: models, measures and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fisherflat.lab.claims import Protocol, Run, collect, load, train_part, units
from fisherflat.lab.claims.page import made
from fisherflat.lab.claims.settled import figures, settle, summary, verdicts
from fisherflat.lab.reproduce._section import Claim, Section

#: verdict by the protocol -> the word of a reproduction
_WORDS = {"holds": "agrees", "does not hold": "does not agree", "undecided": "open"}


@dataclass(frozen=True)
class Settings:
    """`seeds`, at most so many of each cell, and `steps`, if not those of the protocol; `groups` of it (all: none)."""

    seeds: int | None = None
    steps: int | None = None
    groups: tuple[str, ...] = ()


#: too few seeds for a verdict: what the protocol asks for stays open
QUICK = Settings(seeds=2, steps=200, groups=("main", "linear", "sequences", "symmetries"))


def _run(settings: Settings, folder: Path) -> Run:
    protocol = Protocol.load()
    return Run(folder, protocol, tuple(units(protocol, settings.groups, seeds=settings.seeds)), steps=settings.steps)


def left(settings: Settings, folder: Path) -> list[str]:
    """The names of the blocks of models that are not in a folder yet."""
    run = _run(settings, folder)
    return [unit.name for unit in run.units if not run.done(unit)]


def part(settings: Settings, folder: Path, name: str) -> None:
    """Train and measure one of them into a folder."""
    run = _run(settings, folder)
    train_part(run, next(unit for unit in run.units if unit.name == name))


def measure(settings: Settings, folder: Path) -> Section:
    """Join what was trained, and give verdicts."""
    run = _run(settings, folder)
    raw = {path.stem: load(path)[0] for path in collect(run)}
    protocol = run.protocol.tables
    tables = made(raw, protocol) if "models" in raw else {**raw, "tests": settle(raw, protocol)}
    tests = tables["tests"]
    drawn = _drawn(tables, protocol, folder)
    words = verdicts(tests)
    return Section(
        "The claims, settled",
        f"{sum(map(len, raw.values()))} models after the protocol {run.protocol.sha256[:12]}, which names tasks, "
        "arms, seeds, measures, margins and what each claim asks of them. A claim agrees where all tests that decide "
        "it hold beyond their margins, does not where one fails beyond its margin, and is open otherwise; fewer than "
        f"{protocol['statistics']['least_seeds']} seeds give no verdict.",
        [
            Claim(about["source"], about["statement"], summary(tests, name), _WORDS[words[name]])
            for name, about in protocol["claims"].items()
            if name in words
        ],
        {"tests": _rows(tests)},
        drawn,
        asdict(settings),
    )


def _drawn(tables: Mapping[str, Any], protocol: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """The figures of the claims that decided tests have numbers for."""
    found = []
    tests = tables["tests"]
    for claim, draw in figures(tables, protocol).items():
        if (tests.loc[tests["claim"] == claim, "units"] > 1).any():
            draw().savefig(folder / f"{claim}.png", dpi=110)
            found.append(f"{claim}.png")
    return tuple(found)


def _rows(tests: Any) -> list[dict[str, Any]]:
    names = ["id", "role", "kind", "column", "value", "low", "high", "units", "p_holm", "verdict"]
    return [{name: row[name] for name in names} for row in tests.to_dict("records")]
