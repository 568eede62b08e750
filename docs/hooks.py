"""Two things the documentation build adds: the reference, a page for each public module, and formulas as MathML.

The reference is written from the table of contents of the package, read without importing it: the names of
`fisherflat`, those of its public modules, and, for whoever extends the library, those of its rooms.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).parents[1] / "fisherflat"


def source(module: str) -> ast.Module:
    """The parsed text of a module, by its path below the package (empty for the package)."""
    path = PACKAGE.joinpath(*module.split(".")) if module else PACKAGE
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def assigned(module: str, name: str) -> Any:
    """A literal that a module assigns to a name, or `None`."""
    for node in source(module).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)
    return None


def imports(module: str) -> Iterator[tuple[str, str, str]]:
    """What a module imports from the package: its own name for it, the other module, the name there."""
    for node in ast.walk(source(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fisherflat."):
            for alias in node.names:
                yield alias.asname or alias.name, node.module.removeprefix("fisherflat."), alias.name


def listed(module: str) -> list[str]:
    """The names in `__all__` of a module; of a face without one of its own, those of the module behind it."""
    found = assigned(module, "__all__")
    if found is None:
        found = next((listed(other) for _, other, name in imports(module) if name == "__all__"), [])
    return sorted((name for name in found if definition(module, name)), key=str.lower)


def definition(module: str, name: str) -> ast.stmt | None:
    """Where a name of a module is defined; `None` for constants that are assigned several at a time."""
    for node in source(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node
    for own, other, theirs in imports(module):
        if own == name or theirs == "*":
            found = definition(other, name if theirs == "*" else theirs)
            if found is not None:
                return found
    return None


def summary(module: str, name: str | None = None) -> str:
    """The first line of the description of a module, or of a name in it, wherever that is defined."""
    node = source(module) if name is None else definition(module, name)
    described = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    return (ast.get_docstring(node) or "").partition("\n")[0] if described else ""


#: class or function of the table of contents -> its room; modules of the table of contents
NAMES: dict[str, str] = assigned("", "_NAMES")
MODULES: tuple[str, ...] = assigned("", "_MODULES")


def behind(module: str) -> str:
    """The module that a face takes all its names from; else the module itself."""
    return next((other for _, other, name in imports(module) if name == "*"), module)


def rooms() -> list[str]:
    """The packages with a face that are no part of the table of contents."""
    paths = (path.parent.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("__init__.py")))
    found = [".".join(path.parts) for path in paths if path.parts and path.parts[0] not in MODULES]
    shown = [behind(module) for module in MODULES]
    return [room for room in found if listed(room) and room not in shown]


def contents() -> str:
    """The table of contents, a line for each name."""
    lines = ["# Table of contents", "", "What `dir(fisherflat)` lists, with `import fisherflat as ff`.", ""]
    lines += ["| | |", "|---|---|"]
    for name, room in sorted(NAMES.items(), key=lambda pair: pair[0].lower()):
        lines.append(f"| [`ff.{name}`][fisherflat.{name}] | {summary(room, name)} |")
    for module in MODULES:
        lines += ["", f"## [`ff.{module}`](fisherflat.{module}.md)", "", summary(module), ""]
        described = [(name, summary(module, name)) for name in listed(module)]
        lines += ["| | |", "|---|---|"]
        lines += [f"| [`ff.{module}.{name}`][fisherflat.{module}.{name}] | {said} |" for name, said in described]
    return "\n".join(lines) + "\n"


def page(module: str, names: list[str]) -> str:
    """The page of a module: what it says of itself, and then each of its names."""
    path = f"fisherflat.{module}" if module else "fisherflat"
    blocks = [f"# {path} {{#{path}}}\n", f"{ast.get_docstring(source(behind(module)))}\n"]
    blocks += [f"::: {path}.{name}\n    options:\n      heading_level: 2\n" for name in names]
    return "\n".join(blocks)


def pages() -> dict[str, str]:
    """The pages of the reference by title."""
    found = {"Table of contents": contents(), "fisherflat": page("", sorted(NAMES, key=str.lower))}
    return found | {f"fisherflat.{module}": page(module, listed(module)) for module in (*MODULES, *rooms())}


def address(title: str) -> str:
    """Where a page of the reference is."""
    return f"reference/{'index' if title == 'Table of contents' else title}.md"


def on_config(config: Any) -> Any:
    """Append the reference to the navigation."""
    own = {f"fisherflat.{room}" for room in rooms()}
    public = [{title: address(title)} for title in pages() if title not in own]
    config["nav"].append({"Reference": [*public, {"Rooms": [{title: address(title)} for title in sorted(own)]}]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Generate the pages of the reference; mkdocstrings fills them from the docstrings."""
    for title, content in pages().items():
        files.append(File.generated(config, address(title), content=content))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Replace TeX by MathML, which browsers show without any script."""

    def mathml(match: re.Match[str]) -> str:
        tex, display = html.unescape(match["tex"]), match["tag"] == "div"
        return convert(tex.strip()[2:-2], display="block" if display else "inline")

    return re.sub(r'<(?P<tag>span|div) class="arithmatex">(?P<tex>.*?)</(?P=tag)>', mathml, content, flags=re.DOTALL)
