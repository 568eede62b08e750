"""The house: imports fall from room to room, never in a circle, and what carries an underscore stays in its room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest
from conftest import ROOT

PACKAGE = ROOT / "fisherflat"

#: from the ground up; a room may import from the rooms before it, the lab and the shell also from the table of contents
FLOORS = (
    "_version", "_versions", "errors", "_renamed", "_typing", "_progress", "_files", "_display", "_modes", "_arrays",
    "statistics", "runners", "spaces", "layers", "jets", "parts", "geometry", "zoo", "scale", "models", "gated_mlp",
    "certificates", "verifier", "provers", "studies", "training", "plot", "pages", "report", "symmetry",
    "charts", "families", "memories", "moves", "readings", "lab", "cli",
)  # fmt: skip


def _name(path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imports(module: str) -> Iterator[str]:
    """What a module of the package imports from the package, also within functions."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == "fisherflat":
                inner = name.partition(".")[2]
                yield inner if inner in MODULES else inner.rpartition(".")[0]


IMPORTS = {module: sorted(set(_imports(module)) - {module}) for module in MODULES if module}


def test_every_room_has_its_floor() -> None:
    assert {module.partition(".")[0] for module in IMPORTS} == set(FLOORS)


def test_imports_fall() -> None:
    def floor(module: str) -> int:
        return FLOORS.index(module.partition(".")[0])

    climbing = [
        f"{module} imports {other or 'fisherflat'}"
        for module, others in IMPORTS.items()
        for other in others
        if (not other and floor(module) < floor("lab")) or (other and floor(other) > floor(module))
    ]
    assert not climbing


def test_no_imports_go_in_a_circle() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_private_modules_are_imported_in_their_own_room_alone() -> None:
    strangers = []
    for module, others in IMPORTS.items():
        for other in others:
            package, _, last = other.rpartition(".")
            if package and last.startswith("_") and not f"{module}.".startswith(f"{package}."):
                strangers.append(f"{module} imports {other}")
    assert not strangers


def test_the_verifier_loads_no_prover() -> None:
    reached, pending = set(), ["verifier"]
    while pending:
        module = pending.pop()
        reached.add(module)
        pending += [other for other in IMPORTS.get(module, ()) if other not in reached]
    assert not [module for module in reached if module.partition(".")[0] == "provers"]


def test_no_file_is_long() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert not {module: length for module, length in lengths.items() if length > 400}


def test_no_two_files_of_tests_share_a_name() -> None:
    """One of them would not be collected, and the run would end there."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}


def test_no_file_keeps_the_marks_of_a_merge() -> None:
    folders = ("fisherflat", "tests", "docs", "notebooks", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.*")] + list(ROOT.glob("*.*"))
    texts = [path for path in files if path.suffix in {".py", ".md", ".ipynb", ".toml", ".txt", ".cff"}]
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    assert [path for path in texts if any(line.startswith(marks) for line in path.read_text().splitlines())] == []
