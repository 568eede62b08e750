"""HTML read back with the standard library alone, and text that must not become it."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

#: elements that are never closed
VOID = {"meta", "img", "br", "link", "input", "hr"}
#: attributes that make a browser fetch something
FETCHING = {"src", "href", "xlink:href", "action", "data", "poster", "srcset", "background", "formaction"}


def hostile() -> list[str]:
    """Prompts, names and tokens as somebody else may write them."""
    return [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "'><svg/onload=alert(1)>",
        "{{7*7}}{% raw %}{{ page }}",
        "</script><script>alert(1)//",
        "</style><!-- --><base href=//example.com>",
        "javascript:alert(1)",
        "\u202etxt.exe\u2066 \x1b[31m \x00",
        "=HYPERLINK(1)",
        "&lt;b&gt; &amp;amp;",
        "`<b>` and `code",
    ]


class Table:
    """A table: its caption, the heads of its columns, and of each cell the text and its `data-value`."""

    def __init__(self) -> None:
        self.caption, self.columns = "", list[str]()
        self.rows: list[list[tuple[str, str | None]]] = []


class Parsed(HTMLParser):
    """A page, of which each element must be closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.shape: list[str] = []  # of elements, as they open, without what is in charts
        self.attributes: Counter[str] = Counter()
        self.ids, self.references = list[str](), list[str]()
        self.headings: list[tuple[int, str]] = []
        self.text: list[str] = []
        self.scripts, self.data = list[str](), list[str]()
        self.meta: dict[str, str] = {}
        self.outward: list[str] = []
        self.tables: list[Table] = []
        self.links: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs), f"an attribute of {tag} twice"
        within = [name for name, _ in self._open]
        if "svg" not in within:
            self.shape.append(tag)
            self.attributes.update(f"{tag} {name}" for name in given)
        if "id" in given:
            self.ids.append(str(given["id"]))
        for name in ("aria-labelledby", "aria-describedby", "for"):
            self.references += str(given.get(name) or "").split()
        for name, value in given.items():
            assert not name.startswith("on"), f"{tag} has {name}"
            if name in FETCHING and not (value or "").startswith(("#", "data:")):
                (self.links if tag == "a" else self.outward).append(f"{tag} {name}={value}")
            if name in ("href", "xlink:href") and (value or "").startswith("#"):
                self.references.append(value[1:])
        if tag == "meta" and "http-equiv" in given:
            self.meta[str(given["http-equiv"])] = str(given["content"])
        if tag == "table":
            self.tables.append(Table())
        if tag == "tr" and "tbody" in within:
            self.tables[-1].rows.append([])
        if tag in ("td", "th") and "tbody" in within:
            self.tables[-1].rows[-1].append(("", given.get("data-value")))
        if tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self.headings.append((int(tag[1]), ""))
        if tag == "th":
            assert given.get("scope") in ("col", "row"), "a head of a table without a scope"
        if tag == "script" and given.get("type") is None:
            self.scripts.append("")
        if tag == "script" and given.get("type") == "application/json":
            self.data.append("")
        if tag not in VOID:
            self._open.append((tag, given))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1][0] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        within = [name for name, _ in self._open]
        if "script" in within:
            kept = self.data if self._open[-1][1].get("type") else self.scripts
            kept[-1] += data
            return
        if "style" in within:
            return
        self.text.append(data)
        for name in ("h1", "h2", "h3", "h4", "h5", "h6"):
            if name in within:
                self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
        if "caption" in within:
            self.tables[-1].caption += data
        elif "thead" in within and within[-1] == "th":
            self.tables[-1].columns.append(data)
        elif within[-1:] in (["td"], ["th"]):
            text, value = self.tables[-1].rows[-1][-1]
            self.tables[-1].rows[-1][-1] = (text + data, value)

    def count(self, tag: str) -> int:
        return self.shape.count(tag)

    def check(self) -> None:
        """Names are unique, what is referred to is there, and headings skip no level."""
        assert len(set(self.ids)) == len(self.ids), [name for name, n in Counter(self.ids).items() if n > 1]
        assert set(self.references) <= set(self.ids), set(self.references) - set(self.ids)
        levels = [level for level, _ in self.headings]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels)), self.headings
        assert not self.outward
        for landmark in ("header", "main", "nav", "footer"):
            assert self.count(landmark) == 1
        assert all(table.caption for table in self.tables)
