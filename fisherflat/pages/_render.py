"""The one renderer of pages: an HTML file that needs nothing else, neither other files nor a network nor scripts.

All text goes through the template's escaping, and the page's own policy lets nothing run but its two scripts, and
nothing be fetched: what a prompt says is text, whatever it says.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from fisherflat._files import visible
from fisherflat.pages._content import Chart, Page, Pick, Section
from fisherflat.pages._draw import Drawer
from fisherflat.pages._vega import bundle

if TYPE_CHECKING:
    from jinja2 import Environment

#: bytes of a page: a chart that would make it larger is left out, and its table named instead
LIMIT = 5 * 2**20
#: rows of a table that are shown
MOST = 2000


def html(page: Page) -> str:
    """A page as the text of an HTML file of at most `LIMIT` bytes.

    >>> from fisherflat.pages import Page, Section, html
    >>> text = html(Page("a <model>", "a study", ["Nothing is flat."], [Section("Methods", ["None."])]))
    >>> "a &lt;model&gt;" in text, "a <model>" in text
    (True, False)
    """
    scripts = [*([_libraries()] if _has_charts(page.sections) else []), _asset("page.js")]
    room = LIMIT - sum(map(len, scripts))
    drawer = Drawer()
    while True:
        drawer.begin(room)
        text = (
            _environment()
            .get_template("page.html")
            .render(
                page=page, drawer=drawer, most=MOST, style=_asset("page.css"), scripts=scripts, policy=_policy(scripts)
            )
        )
        over = len(text.encode()) - LIMIT
        if over <= 0 or room <= 0:
            return text
        room -= over + 2**16


def _has_charts(items: Iterable[Any]) -> bool:
    return any(
        isinstance(item, Chart)
        or (isinstance(item, Section) and _has_charts(item.items))
        or (isinstance(item, Pick) and _has_charts(item.items.values()))
        for item in items
    )


def _policy(scripts: Iterable[str]) -> str:
    """What the browser lets the page do: run these scripts, show what is in it, and nothing else."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    run = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {run}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("fisherflat.pages", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    made.filters["kind"] = lambda item: type(item).__name__.lower()
    made.filters["repr"] = lambda number: repr(float(number))
    return made


@cache
def _asset(name: str) -> str:
    return resources.files("fisherflat.pages").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _libraries() -> str:
    """Vega, Vega-Lite and Vega-Embed, from the package that also draws without a browser."""
    return re.sub("</(?=script)", r"<\\/", bundle(), flags=re.IGNORECASE)  # in strings, where it is the same
