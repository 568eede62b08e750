"""The reference: a page for each public name and each public module, written from the package as it is imported.

Descriptions are Markdown already. What a page adds are signatures, frames around examples, and links from names in
backticks to their pages; so the reference has the names of `dir(fisherflat)` and of its public modules, and no others.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from typer.testing import CliRunner

import fisherflat as ff
from fisherflat import cli

#: the subjects of the table of contents, each with the rooms that its names are from
SUBJECTS = {
    "Maps and jets": ("spaces.families", "jets", "jets.graph", "parts"),
    "Geometry": ("geometry",),
    "Checkpoints and studies": ("models", "report"),
    "Depth": ("studies.depth",),
    "Proofs": ("certificates", "provers", "verifier"),
}

NAMES: dict[str, str] = ff._NAMES
MODULES: tuple[str, ...] = ff._MODULES


def listed(module: str) -> list[str]:
    """The classes, functions and constants that a public module lists."""
    return sorted(import_module(f"fisherflat.{module}").__all__, key=str.lower)


#: the terminal whose help texts are shown: without colours, as wide as the pages
TERMINAL = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100", "TERMINAL_WIDTH": "100"}

#: what a public module has by the same name as the package; it is described once
ALSO = {
    f"{module}.{name}": name
    for module in MODULES
    for name in listed(module)
    if name in NAMES and getattr(getattr(ff, module), name) is getattr(ff, name)
}

#: every name that has a place in the reference
TARGETS = {*NAMES, *MODULES, *(f"{module}.{name}" for module in MODULES for name in listed(module))} - {*ALSO}


def summary(thing: Any) -> str:
    """The first line of a description; nothing for constants, which have those of their types."""
    described = isinstance(thing, type | ModuleType) or inspect.isroutine(thing)
    said = (inspect.getdoc(thing) or "").partition("\n")[0] if described else ""
    return markdown(said).replace("|", "\\|")


def markdown(text: str) -> str:
    """A description with its examples in frames, and its names and pages linked."""
    text = re.sub(r"^>>> .*?(?=\n\n|\Z)", r"```pycon\n\g<0>\n```", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    prose[::2] = [re.sub(r"`(?:fisherflat\.|ff\.)?([A-Za-z_][\w.]*)`", _linked, part) for part in prose[::2]]
    prose[::2] = [re.sub(r"\bdocs/(\w+)\.md\b", _page, part) for part in prose[::2]]
    return "".join(prose)


def _linked(match: re.Match[str]) -> str:
    name = ALSO.get(match[1], match[1])
    return f"[{match[0]}](#fisherflat.{name})" if name in TARGETS else match[0]


def _page(match: re.Match[str]) -> str:
    there = (Path(__file__).parent / f"{match[1]}.md").exists()
    return f"[{match[1]}](/{match[1]}.md)" if there else match[0]


def signature(thing: Any) -> str:
    """The parameters of a callable, with annotations and defaults as they are written; empty where there are none."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    said = inspect.Signature(
        [parameter.replace(annotation=_Written(parameter.annotation)) for parameter in found.parameters.values()],
        return_annotation=_Written(found.return_annotation) if not isinstance(thing, type) else found.empty,
    )
    return re.sub(r" at 0x[0-9a-f]+", "", str(said))


class _Written:
    """An annotation that prints as it is written."""

    def __new__(cls, annotation: Any) -> Any:
        return annotation if annotation is inspect.Parameter.empty else super().__new__(cls)

    def __init__(self, annotation: Any) -> None:
        self.text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)

    def __repr__(self) -> str:
        return self.text


def members(cls: type) -> Iterator[tuple[str, str, Any]]:
    """The public methods and properties of a class that it or one of ours defines: name, directive and definition."""
    seen = set()
    for owner in cls.__mro__:
        if not owner.__module__.startswith("fisherflat"):
            continue
        for name, found in vars(owner).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if getattr(getattr(found, "fget", found), "__module__", "").endswith("._renamed"):  # a former name
                continue
            if isinstance(found, property) or type(found).__name__ == "cached_property":
                yield name, "property", found
            elif isinstance(found, classmethod | staticmethod):
                yield name, type(found).__name__, getattr(cls, name)
            elif inspect.isfunction(found):
                yield name, "method", found


def entry(module: str, name: str, thing: Any) -> str:
    """What the reference says of one name."""
    if isinstance(thing, type):
        kind = "exception" if issubclass(thing, BaseException) else "class"
        called = "" if kind == "exception" else signature(thing)
        inner = "\n".join(_member(*found) for found in members(thing))
        return _framed(kind, name + called, f"{_described(thing)}\n\n{inner}", module=module, depth=4)
    if inspect.isroutine(thing):
        return _framed("function", name + signature(thing), _described(thing), module=module, depth=4)
    return _framed("data", name, f"Of type `{type(thing).__name__}`.", module=module, depth=4)


def _member(name: str, kind: str, found: Any) -> str:
    if kind == "property":
        getter = found.fget if isinstance(found, property) else found.func
        returned = getter.__annotations__.get("return")
        options = {"type": returned} if returned else {}
        return _framed("property", name, _described(getter), depth=3, **options)
    called = str(signature(found))
    if kind == "method":  # without the self that nobody passes
        called = re.sub(r"^\(self(, )?", "(", called)
    return _framed("method", name + called, _described(found), depth=3, **({kind: ""} if kind != "method" else {}))


def _described(thing: Any) -> str:
    return markdown(inspect.getdoc(thing) or "")


def _framed(kind: str, called: str, body: str, *, depth: int, **options: str) -> str:
    fence = ":" * depth
    said = "".join(f":{option}: {value}".rstrip() + "\n" for option, value in options.items())
    return f"{fence}{{py:{kind}}} {called}\n{said}\n{body.strip()}\n{fence}\n"


def _table(rows: list[tuple[str, Any]]) -> str:
    lines = [f"| [`ff.{name}`](#fisherflat.{ALSO.get(name, name)}) | {summary(thing)} |" for name, thing in rows]
    return "\n".join(["| name | what it is |", "|---|---|", *lines]) + "\n"


def contents() -> str:
    """The table of contents, by subject."""
    lines = ["# Reference", "", "What `dir(fisherflat)` lists, with `import fisherflat as ff`.", ""]
    for subject, rooms in SUBJECTS.items():
        names = [name for name, room in NAMES.items() if room in rooms]
        lines += [f"## {subject}", "", _table([(name, getattr(ff, name)) for name in sorted(names, key=str.lower)])]
    rest = [name for name, room in NAMES.items() if not any(room in rooms for rooms in SUBJECTS.values())]
    if rest:
        lines += ["## More", "", _table([(name, getattr(ff, name)) for name in sorted(rest, key=str.lower)])]
    lines += ["## Modules", "", _table([(name, getattr(ff, name)) for name in MODULES])]
    lines += ["[The shell](/shell.md) says what commands share, [Commands](commands.md) what `--help` prints.", ""]
    names = [*MODULES, *sorted(NAMES, key=str.lower)]
    return "\n".join([*lines, "```{toctree}", ":hidden:", "", "/shell", "commands", *names, "/errors", "```", ""])


def module_page(name: str) -> str:
    """The page of a public module: what it says of itself, a table, and then each of its names."""
    module = import_module(f"fisherflat.{name}")
    things = [(each, getattr(module, each)) for each in listed(name)]
    head = [f"# ff.{name}", "", f"```{{py:module}} fisherflat.{name}", "```", "", _described(module), ""]
    table = _table([(f"{name}.{each}", thing) for each, thing in things])
    own = [(each, thing) for each, thing in things if f"{name}.{each}" not in ALSO]
    return "\n".join([*head, table, *(entry(f"fisherflat.{name}", each, thing) for each, thing in own)])


def commands_page() -> str:
    """What `--help` prints, command by command."""
    lines = ["# Commands", "", "Exit codes are in [Errors and warnings](/errors.md#exit-codes).", ""]
    for name in ("", *(command.name or command.callback.__name__ for command in cli.app.registered_commands)):
        printed = CliRunner().invoke(cli.app, [*name.split(), "--help"], prog_name="fisherflat", env=TERMINAL).output
        shown = "\n".join(line.rstrip() for line in printed.strip().splitlines())
        lines += [f"## fisherflat {name}".rstrip(), "", "```text", shown, "```", ""]
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """All pages of the reference, by name."""
    found = {"index": contents(), "commands": commands_page()}
    found |= {name: f"# ff.{name}\n\n" + entry("fisherflat", name, getattr(ff, name)) for name in NAMES}
    return found | {name: module_page(name) for name in MODULES}
