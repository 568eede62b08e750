"""The code that the documentation shows runs, and what it points at exists."""

from __future__ import annotations

import re
from doctest import ELLIPSIS, OutputChecker
from importlib import import_module

import pytest
from conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


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


@pytest.mark.parametrize("pattern", ["README.md", "docs/*.md", "notebooks/*.ipynb", "fisherflat/**/*.py"])
def test_the_names_that_texts_point_at_exist(pattern: str) -> None:
    wrong = []
    for page in sorted(ROOT.glob(pattern)):
        for found in re.finditer(r"(?<![\w./-])(?:fisherflat|ff)((?:\.[A-Za-z_]\w*)+)", page.read_text()):
            if not _resolves(f"fisherflat{found[1]}"):
                wrong.append(f"{page.relative_to(ROOT)}: {found[0]}")
    assert not wrong
