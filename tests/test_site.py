"""The documentation builds without a warning, needs no network, finds what is sought, and has every public name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from public import MODULES, NAMES


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages. Links, anchors and references that lead nowhere are warnings, and warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", folder / "doctrees"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "0"}
    done = subprocess.run([*build, ROOT / "docs", folder / "html"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@cache
def index(site: Path) -> dict[str, Any]:
    """What the search of the built pages knows."""
    return json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", (site / "searchindex.js").read_text(), re.DOTALL)[1])


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    places = (
        r"<(?:script|img|iframe)\b[^>]*\bsrc=\"([^\"]+)",
        r"<link\b[^>]*\bhref=\"([^\"]+)",
        r"url\(([^)]+)\)",
    )
    loaded = re.compile("|".join(places))
    texts = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(texts) > 60
    found = {place.strip("\"'") for text in texts for match in loaded.findall(text.read_text()) for place in match}
    assert len(found) > 5
    assert not [place for place in found if re.match(r"\w+:(?!image/)|//", place) and not place.startswith("data:")]


def test_formulas_are_mathml(site: Path) -> None:
    pages = [page.read_text() for page in site.rglob("*.html")]
    assert sum(page.count("<math ") for page in pages) > 100
    assert not [page for page in pages if re.search(r"<script[^>]*(?:mathjax|katex)", page, re.IGNORECASE)]


def test_links_lead_to_anchors_that_exist(site: Path) -> None:
    """Also those that the theme makes, and those within raw HTML, which Sphinx does not look at."""
    anchors = {page: {*re.findall(r'\bid="([^"]+)"', page.read_text())} for page in site.rglob("*.html")}
    broken = []
    for page in anchors:
        for link in re.findall(r'<a\b[^>]*\bhref="([^":]*)"', page.read_text()):
            path, _, anchor = link.replace("&amp;", "&").partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors.get(target, ())):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken


@pytest.mark.parametrize(
    ("sought", "page"),
    [
        ("frozen pattern", "readings"),
        ("expressivity gap", "analyze"),
        ("my architecture is not supported", "howto/architecture"),
        ("your checkpoint in five minutes", "five_minutes"),
        ("is 0.005 large", "scale"),
        ("glossary", "glossary"),
    ],
)
def test_the_search_leads_there(site: Path, sought: str, page: str) -> None:
    """The search of Sphinx puts titles that hold all of what is sought before anything else."""
    found = {
        index(site)["docnames"][document]
        for title, places in index(site)["alltitles"].items()
        for document, _ in places
        if sought in title.lower()
    }
    assert found == {page}


def test_the_reference_has_every_public_name_and_no_other(site: Path) -> None:
    pages = {path.stem: path.read_text() for path in (site / "reference").glob("*.html")}
    anchors = {anchor for page in pages.values() for anchor in re.findall(r'id="fisherflat\.([\w.]+)"', page)}
    once = {name for name, thing in NAMES.items() if "." in name and NAMES.get(name.partition(".")[2]) is thing}
    assert {*NAMES} - once <= anchors
    assert all(f'id="module-fisherflat.{module}"' in pages[module] for module in MODULES)
    assert all(anchor.partition(".")[0] in {*NAMES, *MODULES} for anchor in anchors)


def test_signatures_are_whole(site: Path) -> None:
    page = re.sub(r"<[^>]+>", "", (site / "reference" / "StatisticalManifold.html").read_text())
    for said in ("mean", "chart", "family", "engine", "dtype", "degenerate", "memory", "second_fundamental_form"):
        assert re.search(rf"\b{said}\b", page)


def test_every_command_is_on_its_page(site: Path) -> None:
    from fisherflat.cli import app

    page = (site / "reference" / "commands.html").read_text()
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert len(names) > 8 and all(f'id="fisherflat-{name}"' in page for name in names)


def test_every_page_is_in_the_navigation_under_one_of_its_groups(site: Path) -> None:
    groups = ["start", "tutorials", "howto", "theory", "reference/index", "numbers", "limits", "development"]
    home = (site / "index.html").read_text()
    assert all(f'href="{group}.html"' in home for group in groups)
