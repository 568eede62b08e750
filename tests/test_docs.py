"""The code that the documentation shows runs, and what it points at exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from doctest import ELLIPSIS, OutputChecker
from importlib import import_module

import pytest
from conftest import ROOT

#: what is written by hand; the build writes docs/reference and docs/tutorials
WRITTEN = ("README.md", "docs/*.md", "docs/howto/*.md")
PAGES = [page for pattern in WRITTEN for page in sorted(ROOT.glob(pattern))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_block_runs_and_prints_what_the_page_says(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # some save files
    exec(compile(block, "documentation", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    for said in re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE):
        assert any(OutputChecker().check_output(said + "\n", line + "\n", ELLIPSIS) for line in printed), (
            said,
            printed,
        )


STARTED = """
import os, runpy, sys

sys.path = [place for place in sys.path if place]  # the folder where this runs is none of a script's
for script in sys.argv[1:]:
    for module in [name for name in sys.modules if name.partition(".")[0] == "cases"]:
        del sys.modules[module]
    before = list(sys.path)
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name="started")
    sys.path[:] = before
"""


def test_scripts_that_texts_name_start_by_themselves():
    """As they are printed: without paths that only pytest sets."""
    texts = [*PAGES, *(ROOT / "fisherflat").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    scripts = sorted({found for text in texts for found in re.findall(r"`python (tests/[\w/]+\.py)", text.read_text())})
    assert len(scripts) > 5
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STARTED, *scripts], cwd=ROOT, env=alone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_command_that_makes_numbers_is_listed():
    """What pages say was measured by a script or an experiment has a row on the page of numbers."""
    made = re.compile(r"python (-m fisherflat\.lab[\w.]*|tests/[\w/]+\.py)")
    found = {command for page in PAGES for command in made.findall(page.read_text())}
    listed = {*made.findall((ROOT / "docs" / "numbers.md").read_text())}
    assert len(listed) > 15
    assert not found - listed - {"-m fisherflat.lab.bench"}  # the same as `fisherflat bench`


def _resolves(dotted: str) -> bool:
    """Whether a dotted name is that of a module, or of something in one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            thing = import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return all((thing := getattr(thing, part, None)) is not None for part in parts[count:])
    return False


@pytest.mark.parametrize("pattern", [*WRITTEN, "notebooks/*.ipynb", "fisherflat/**/*.py"])
def test_the_names_that_texts_point_at_exist(pattern: str) -> None:
    wrong = []
    for page in sorted(ROOT.glob(pattern)):
        for found in re.finditer(r"(?<![\w./-])(?:fisherflat|ff)((?:\.[A-Za-z_]\w*)+)", page.read_text()):
            if not _resolves(f"fisherflat{found[1]}"):
                wrong.append(f"{page.relative_to(ROOT)}: {found[0]}")
    assert not wrong
