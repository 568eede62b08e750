"""Figures of a page as SVG, each within what room is left, and names that are unique on it."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fisherflat._files import visible
from fisherflat.pages._content import Chart, Drawing, Image, Section
from fisherflat.pages._looks import at_night
from fisherflat.pages._vega import svg

if TYPE_CHECKING:
    from markupsafe import Markup

#: pixels that a chart is wide where no script draws it anew
WIDTH = 680
#: what all charts share; `currentColor` is that of the text, in light and in dark
_CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "padding": {"left": 20, "right": 8, "top": 4, "bottom": 4},  # a reader's letters may be wider than those measured
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor", "titleColor": "currentColor", "tickColor": "currentColor",
        "domainColor": "currentColor", "gridColor": "currentColor", "gridOpacity": 0.12, "labelFontSize": 11,
        "titleFontSize": 12, "titleFontWeight": "normal",
    },
    "legend": {
        "orient": "bottom", "labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 11,
        "titleFontSize": 11, "titleFontWeight": "normal", "columns": 3, "labelLimit": 220, "symbolLimit": 60,
        "symbolOpacity": 1, "symbolStrokeWidth": 0,
    },
}  # fmt: skip
#: where an SVG names something in it, or refers to that
_NAMES = re.compile(r'(\bid="|url\(#|href="#)([^")]+)')


class Drawer:
    """Draws the figures of one page. What was drawn once is kept, since a page may be laid out again with less room."""

    def __init__(self) -> None:
        self._kept: dict[int, str] = {}
        self.begin(0)

    def begin(self, room: int) -> None:
        """Begin a page, with so many bytes for its figures."""
        self._left = room
        self._names = {"main": 1, "in-short": 1}  # the template's own
        self._anchors: dict[int, str] = {}
        self._colours: dict[str, None] = {}

    def name(self, text: str) -> str:
        """A name that no other element of the page has, made of a title."""
        plain = "-".join(re.findall("[a-z0-9]+", text.lower())) or "part"
        count = self._names[plain] = self._names.get(plain, 0) + 1
        return plain if count == 1 else f"{plain}--{count}"  # no name that is made of a title has two

    def anchor(self, section: Section) -> str:
        """The name of a section, by which the page refers to it."""
        if id(section) not in self._anchors:
            self._anchors[id(section)] = self.name(section.title)
        return self._anchors[id(section)]

    def figure(self, item: Chart | Drawing | Image) -> Markup | None:
        """The figure as an element of the page; `None` where no room is left for it."""
        from markupsafe import Markup

        if id(item) not in self._kept:
            self._kept[id(item)] = _drawn(item)
        prefix = self.name("drawing")
        numbers: dict[str, int] = {}  # libraries count on from one drawing to the next
        text = _NAMES.sub(
            lambda found: f"{found[1]}{prefix}__{numbers.setdefault(found[2], len(numbers))}", self._kept[id(item)]
        )
        self._left -= len(text.encode()) + (len(self.data(item)) if isinstance(item, Chart) else 0)
        return Markup(text) if self._left >= 0 else None

    def night(self) -> Markup:
        """Rules of style for the charts of the page that are drawn by now: colours too dark for a dark page."""
        from markupsafe import Markup

        changed = {colour: light for colour in self._colours if (light := at_night(colour))}
        rules = (
            f'figure.chart [{what}="{colour}"] {{ {what}: {light}; }}'
            for colour, light in changed.items()
            for what in ("fill", "stroke")
        )
        return Markup(f"@media screen and (prefers-color-scheme: dark) {{ {' '.join(rules)} }}")

    def data(self, chart: Chart) -> Markup:
        """The specification of a chart, as text for an element that is no markup."""
        from markupsafe import Markup

        self._colours |= dict.fromkeys(_ranges(chart.spec))
        text = json.dumps(specification(chart), separators=(",", ":"))
        return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _ranges(spec: Any) -> Iterator[str]:
    """The colours of the series of a chart."""
    if isinstance(spec, Mapping):
        if "range" in spec:
            yield from (name for name in spec["range"] if str(name).startswith("#"))
        for item in spec.values():
            yield from _ranges(item)
    elif isinstance(spec, list):
        for item in spec:
            yield from _ranges(item)


def specification(chart: Chart) -> dict[str, Any]:
    """A chart as Vega-Lite, as wide as a page."""
    spec: dict[str, Any] = _shown(chart.spec)
    return {**spec, "width": WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}, "config": _CONFIG}


def _shown(value: Any) -> Any:
    """The same, in which no text turns the direction of writing."""
    if isinstance(value, Mapping):
        return {name: _shown(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return visible(value) if isinstance(value, str) else value


def _drawn(item: Chart | Drawing | Image) -> str:
    if isinstance(item, Image):
        return f'<img alt="" src="data:image/png;base64,{base64.b64encode(item.png).decode()}">'
    text = _of_vega(item) if isinstance(item, Chart) else _of_matplotlib(item)
    return text[text.index("<svg") :].replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _of_vega(chart: Chart) -> str:
    return re.sub(r' (?:aria-[a-z]+|role)="[^"]*"', "", svg(specification(chart)))  # it is described as a whole


def _of_matplotlib(drawing: Drawing) -> str:
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fisherflat"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawing.draw().savefig(file, format="svg", metadata=nothing)
    return file.getvalue()
