"""How the documentation is built: `sphinx-build -W --keep-going docs DIR`. See docs/contributing.md."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.logging import getLogger

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import fisherflat  # noqa: E402

project = "fisherflat"
author = "The fisherflat maintainers"
copyright = "the fisherflat maintainers, Apache-2.0"
version = release = fisherflat.__version__
language = "en_GB"

extensions = ["myst_nb", "sphinx_copybutton"]
exclude_patterns = ["_*"]
root_doc = "index"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4  # so that links to headings are checked
nb_execution_mode = "off"  # the notebooks ship with their outputs, and the tests run them
nb_ipywidgets_js: dict[str, Any] = {}  # nothing from the network
nb_merge_streams = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "pydata_sphinx_theme"
html_title = f"fisherflat {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
html_theme_options = {
    "logo": {"text": "fisherflat"},
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def write_pages(app: Any) -> None:
    """The pages that are made of something else: the reference of the package, the tutorials of the notebooks."""
    from _reference import pages

    made = {f"reference/{name}.md": text for name, text in pages().items()}
    made |= {f"tutorials/{path.name}": path.read_text() for path in (DOCS.parent / "notebooks").glob("*.ipynb")}
    for folder in ("reference", "tutorials"):
        (DOCS / folder).mkdir(exist_ok=True)
        for path in (DOCS / folder).iterdir():
            if f"{folder}/{path.name}" not in made:
                path.unlink()
    for name, text in made.items():
        if not (DOCS / name).exists() or (DOCS / name).read_text() != text:  # so that only what is new is built
            part = DOCS / f".{os.getpid()}.part"  # another build may read meanwhile
            part.write_text(text)
            part.replace(DOCS / name)


def mathml(translator: Any, node: Any) -> None:
    """A formula as MathML, which browsers show without a script and without the network."""
    display = isinstance(node, nodes.math_block)
    try:
        formula = tex2mathml(node.astext(), as_block=display)
        formula = re.sub(r"<mo(?: class=\"math\w+\")?>\|</mo>", '<mo stretchy="false">|</mo>', formula)  # small bars
    except MathError as error:
        formula = node.astext()
        getLogger("formulas").warning("%s: %r", error, formula, location=node)
    translator.body.append(f'<div class="formula">{formula}</div>' if display else formula)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """What Sphinx asks of a configuration that extends it."""
    app.connect("builder-inited", write_pages)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
