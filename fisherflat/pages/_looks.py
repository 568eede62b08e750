"""How series look on a page: as in the figures of `fisherflat.plot`, in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from fisherflat.errors import InputError
from fisherflat.plot import MARKERS, OKABE_ITO, Look, of_reading

#: the background of a dark page, and the least contrast to it (WCAG 2.2, 1.4.11)
_NIGHT, _CONTRAST = "#14161a", 3.0
#: what is black on paper has the colour of the text
INK = "currentColor"


class Drawn(NamedTuple):
    """A look in Vega. **Attributes:** `colour`; `shape`, by name or as a path."""

    colour: str
    shape: str


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A path that is as large as the shapes that have names."""
    return f"M{'L'.join(f'{1.3 * x:.3g},{1.3 * y:.3g}' for x, y in points)}Z"


def _star(corners: int, inner: float, turn: float = 0.0) -> str:
    """A star, or with an inner radius of 1 a polygon of twice as many corners."""
    around = [(1.0 if i % 2 == 0 else inner, math.pi * i / corners + turn) for i in range(2 * corners)]
    return _path([(r * math.sin(angle), -r * math.cos(angle)) for r, angle in around])


#: marker of matplotlib -> shape
_SHAPES = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross",
    "<": "triangle-left", ">": "triangle-right", "X": _star(4, 0.45, math.pi / 4), "*": _star(5, 0.4),
    "d": _path([(0, -1), (0.55, 0), (0, 1), (-0.55, 0)]), "p": _star(5, 0.81), "h": _star(3, 1.0), "H": _star(3, 0.5),
    "8": _star(4, 1.0), "$A$": "arrow", "$E$": "wedge", "$N$": _star(6, 0.5),
}  # fmt: skip


def looks(names: Sequence[str]) -> list[Drawn]:
    """The looks of some series: of readings their own, of anything else one after the other, no two the same."""
    found = []
    for index, name in enumerate(names):
        turn = index // len(OKABE_ITO)
        look = Look(OKABE_ITO[index % len(OKABE_ITO)], MARKERS[(index + turn) % len(MARKERS)])
        with suppress(InputError):
            look = of_reading(name)
        found.append(Drawn(ink(look.colour), _SHAPES.get(look.marker, "circle")))
    return found


def ink(colour: str) -> str:
    """A colour of a figure on a page."""
    return INK if colour == "#000000" else colour


def at_night(colour: str) -> str | None:
    """What stands for a colour on a dark page, where it would be too dark; `None` where it is light enough.

    >>> from fisherflat.pages._looks import at_night
    >>> at_night("#440154"), at_night("#E69F00")
    ('#896a92', None)
    """
    if not colour.startswith("#"):
        return None
    own = _channels(colour)
    for step in range(1, 21):
        mixed = [channel + (1 - channel) * (step - 1) / 20 for channel in own]
        if (_luminance(mixed) + 0.05) / (_luminance(_channels(_NIGHT)) + 0.05) >= _CONTRAST:
            return None if step == 1 else "#" + "".join(f"{round(255 * channel):02x}" for channel in mixed)
    return "#ffffff"


def _channels(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _luminance(channels: Sequence[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
