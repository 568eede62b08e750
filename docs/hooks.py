"""Two things the documentation build adds: a reference page for each public module, and formulas as MathML."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).parents[1] / "fisherflat"


def public_modules() -> list[str]:
    """Every module without a leading underscore in its path, and every package that defines something itself."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not any(part.startswith("_") for part in parts):
            found.append(".".join(parts))
    return found


def on_config(config: Any) -> Any:
    """Append the reference to the navigation."""
    config["nav"].append({"Reference": [{name: f"reference/{name}.md"} for name in public_modules()]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Generate the pages of the reference; mkdocstrings fills them from the docstrings."""
    for name in public_modules():
        files.append(File.generated(config, f"reference/{name}.md", content=f"::: {name}\n"))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Replace TeX by MathML, which browsers show without any script."""

    def mathml(match: re.Match[str]) -> str:
        tex, display = html.unescape(match["tex"]), match["tag"] == "div"
        return convert(tex.strip()[2:-2], display="block" if display else "inline")

    return re.sub(r'<(?P<tag>span|div) class="arithmatex">(?P<tex>.*?)</(?P=tag)>', mathml, content, flags=re.DOTALL)
