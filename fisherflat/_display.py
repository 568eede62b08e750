"""What objects show of themselves in a notebook: a headline and a small table, in HTML and in Markdown.

One helper for all of them. Text is escaped, so that names from files and prompts do nothing; nothing has a colour of
its own, so that it is read on light and on dark; and nothing is computed that takes long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, TypeVar

from fisherflat._files import visible

#: how many rows, columns and letters are shown
ROWS, COLUMNS, LETTERS = 12, 8, 300
#: what Markdown, tables in it or mathematics could take for a command
_COMMANDS = re.compile(r"[\\`*_\[\]<>#|$~&\"'!:@{}()]")


class Card(NamedTuple):
    """What is shown: a `headline`, `facts` by name, and a table, `columns` and `rows`. What is long is cut."""

    headline: str
    facts: Mapping[str, Any] = {}
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()


Kind = TypeVar("Kind", bound=type)


def displayed(kind: Kind) -> Kind:
    """A decorator of classes that show themselves in notebooks: as `_card` says, or else by their fields.

    >>> from fisherflat._display import Card, displayed
    >>> @displayed
    ... class Found:
    ...     def _card(self):
    ...         return Card("found <b>", {"count": 2})
    >>> print(Found()._repr_markdown_())
    **found &#60;b&#62;**
    <BLANKLINE>
    | | |
    |---|---|
    | count | 2 |
    """
    shows: Any = kind
    if not hasattr(kind, "_card"):
        shows._card = by_fields
    shows._repr_html_ = _as_html
    shows._repr_markdown_ = _as_markdown
    return kind


def _as_html(self: Any) -> str:
    return _html(self._card())


def _as_markdown(self: Any) -> str:
    return _markdown(self._card())


def by_fields(thing: Any) -> Card:
    """The card of a dataclass or a named tuple: its class and its fields; of anything else, what `repr` says."""
    names = getattr(thing, "_fields", None) or getattr(thing, "__dataclass_fields__", None)
    if not names:
        return Card(repr(thing))
    return Card(type(thing).__name__, {name: getattr(thing, name) for name in names if name[0] != "_"})


def short(value: Any) -> str:
    """Any value in a few words: numbers to six digits, tensors and tables by their sizes, lists by how many they hold.

    >>> from fisherflat._display import short
    >>> short(0.1234567891), short([1, 2]), short(range(100)), short(None)
    ('0.123457', '1, 2', '100 entries', '–')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return _cut(str(value))
    if isinstance(value, (bool, int)):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        size = math.prod(value.shape)
        if size <= 4 and len(value.shape) <= 1:
            numbers = value.tolist()
            return ", ".join(map(short, numbers)) if isinstance(numbers, list) else short(numbers)
        return f"{' × '.join(str(int(n)) for n in value.shape)} numbers"
    if hasattr(value, "columns") and hasattr(value, "index"):
        return f"table of {len(value)} rows"
    if isinstance(value, Mapping):
        return _few([f"{key}: {short(item)}" for key, item in list(value.items())[:5]], len(value))
    if isinstance(value, (list, tuple, set, frozenset, range)):
        plain = len(value) <= 8 and all(isinstance(item, (str, int, float)) for item in value)
        return _few([short(item) for item in value] if plain else [], len(value))
    if hasattr(value, "__dataclass_fields__"):
        return type(value).__name__
    return _cut(str(value))


def _few(shown: Sequence[str], count: int) -> str:
    return _cut(", ".join(shown)) if count == len(shown) and shown else f"{count} entries" if count else "none"


def _cut(text: str) -> str:
    text = " ".join(visible(text).split())
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"


def _table(card: Card) -> tuple[list[str], list[list[str]]]:
    """The columns and rows that are shown, as text, with what was left out in the last one."""
    columns = [short(name) for name in card.columns[:COLUMNS]]
    rows = [[short(cell) for cell in row[:COLUMNS]] for row in card.rows[:ROWS]]
    if len(card.columns) > COLUMNS:
        columns, rows = [*columns, "…"], [[*row, "…"] for row in rows]
    if (more := len(card.rows) - ROWS) > 0:
        rows.append([f"… {more} more", *[""] * (len(columns) - 1)])
    return columns, rows


def _html(card: Card) -> str:
    columns, rows = _table(card)
    parts = [f"<p><strong>{_safe(_cut(card.headline))}</strong></p>"]
    if card.facts:
        found = [f"<tr>{_cell('th', name)}{_cell('td', short(value))}</tr>" for name, value in card.facts.items()]
        parts.append(f"<table><tbody>{''.join(found)}</tbody></table>")
    if rows:
        head = "".join(_cell("th", name) for name in columns)
        body = "".join(f"<tr>{''.join(_cell('td', cell) for cell in row)}</tr>" for row in rows)
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    # the classes keep MathJax from reading dollars as mathematics
    return f'<div class="fisherflat tex2jax_ignore mathjax_ignore">{"".join(parts)}</div>'


def _cell(kind: str, text: str) -> str:
    return f'<{kind} style="text-align: left">{_safe(text)}</{kind}>'


def _safe(text: str) -> str:
    return escape(visible(text))


def _markdown(card: Card) -> str:
    columns, rows = _table(card)
    lines = [f"**{_plain(_cut(card.headline))}**"]
    if card.facts:
        lines += ["", "| | |", "|---|---|"]
        lines += [f"| {_plain(name)} | {_plain(short(value))} |" for name, value in card.facts.items()]
    if rows:
        lines += ["", _line(columns), "|" + "---|" * len(columns), *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _COMMANDS.sub(lambda found: f"&#{ord(found[0])};", " ".join(visible(text).split()))


def shown(value: float, error: float = 0.0, digits: int = 3, sign: str = "") -> str:
    """A number with as many digits as its error leaves, and what the error is where that is fewer than wanted.

    **Args:** `error`, absolute, not a number where nothing is known of it; `digits`, at most; `sign`: `"+"` for a sign
    in any case.

    >>> from fisherflat._display import shown
    >>> shown(0.123456, 1e-9), shown(0.123456, 0.02), shown(0.123456, 0.5)
    ('0.123', '0.12 ± 0.02', 'unknown')
    """
    if math.isnan(error) or 2 * error <= abs(value) * 10.0 ** (1 - digits):
        return f"{value:{sign}.{digits}g}"
    if not error < abs(value):
        return "unknown"
    right = max(1, math.floor(math.log10(abs(value))) - math.floor(math.log10(error)) + 1)
    return f"{value:{sign}.{min(digits, right)}g} ± {error:.1g}"
