"""What a page consists of.

Every item is data: no markup. The template that shows an item has its name in lower case, and escapes all of its text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Value:
    """A number as it is printed, with all of its digits beside it for those who sort or copy.

    **Attributes:** `number`; `text`, with the digits that are right; `tone`, one word for how it stands out: `flat`,
    `curved`, `undecided`, or nothing.
    """

    number: float
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Grid:
    """A table.

    **Attributes:** `caption`; `columns`, their heads; `rows`, in which the first cell names the row; `table`, the name
    of the file that holds all of it.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Value]]
    table: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart of Vega-Lite: drawn into the page as SVG, and again by the reader's browser where that runs scripts.

    **Attributes:** `title`; `about`, how to read it, in one or two sentences; `said`, what it shows, for those who do
    not see it; `spec`, without its width; `table`, the name of the file that holds its numbers.
    """

    title: str
    about: str
    said: str
    spec: Mapping[str, Any]
    table: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure of matplotlib, as SVG. **Attributes:** as in `Chart`; `draw`, which makes it."""

    title: str
    about: str
    said: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Image:
    """A picture that was drawn before. **Attributes:** as in `Chart`; `png`, its bytes."""

    title: str
    about: str
    said: str
    png: bytes


@dataclass(frozen=True)
class Points:
    """Sentences, a line each."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Notice:
    """A sentence that must not be missed."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and what they stand for. **Attributes:** `pairs`."""

    pairs: Mapping[str, str]


@dataclass(frozen=True)
class Code:
    """A command, or some lines of Python, to be copied. **Attributes:** `text`; `label`, what it is for."""

    text: str
    label: str = ""


@dataclass(frozen=True)
class Link:
    """A file beside this one. **Attributes:** `path`, relative; `text`."""

    path: str
    text: str


@dataclass(frozen=True)
class Pick:
    """Items of which a reader looks at one at a time; without scripts all of them are there, one after the other.

    **Attributes:** `label`, what is chosen; `items`, by the word for the choice; `first`, which is shown at first.
    """

    label: str
    items: Mapping[str, Item]
    first: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page, or of a section. **Attributes:** `title`; `items`, in order; text is a paragraph."""

    title: str
    items: Sequence[Item]


Item = str | Grid | Chart | Drawing | Image | Points | Notice | Facts | Code | Link | Pick | Section


@dataclass(frozen=True)
class Page:
    """A report.

    **Attributes:** `title`, what was studied; `kind`, how; `headline`, what a reader should know, in three sentences
    at most; `scale`, sentences by which to judge the numbers of the headline; `sections`; `complete`, false where the
    study was interrupted; `maker`, the program and its version.
    """

    title: str
    kind: str
    headline: Sequence[str]
    sections: Sequence[Section]
    scale: Sequence[str] = field(default=())
    complete: bool = True
    maker: str = "fisherflat"
