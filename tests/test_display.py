"""In a notebook everything displays itself: escaped, short, without colours of its own, and without computing anew."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from html.parser import HTMLParser
from typing import Any

import nbclient
import nbformat
import pytest
import torch
from cases.results import HOSTILE, made
from markdown_it import MarkdownIt
from public import NAMES, is_exception
from torch import nn

import fisherflat as ff
from fisherflat import _display, _progress
from fisherflat._display import Card, by_fields, displayed, short
from fisherflat.geometry import Verdict
from fisherflat.models import Block, Part

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
pytestmark = pytest.mark.xdist_group("results")  # which are made once in a process

# -- every class that a user is handed --------------------------------------------------------------------------------


def handed() -> dict[str, type]:
    """Public classes of values, and those that public functions, methods and properties say they return."""
    found: dict[str, type] = {}
    waiting = [thing for thing in NAMES.values() if not is_exception(thing)]
    seen: set[int] = set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if inspect.isclass(thing):
            if not thing.__module__.startswith("fisherflat") or getattr(thing, "_is_protocol", False):
                continue
            if thing.__module__.startswith("fisherflat.pages"):
                continue  # what a page is made of, and no result
            if issubclass(thing, nn.Module) and not issubclass(thing, Part):
                continue  # layers to be built, which torch displays
            found[f"{thing.__module__}.{thing.__name__}"] = thing
            bases = [base for base in thing.__mro__ if base.__module__.startswith("fisherflat")]
            members = [member for base in bases for name, member in vars(base).items() if name[0] != "_"]
            waiting += [_function(member) for member in members]
        elif isinstance(thing, types.FunctionType):
            waiting += _classes(_returned(thing))
    return found


def _function(member: Any) -> Any:
    """What a property, a cached one or a class method calls."""
    return member.fget if isinstance(member, property) else getattr(member, "func", getattr(member, "__func__", member))


def _returned(function: types.FunctionType) -> Any:
    annotation = function.__annotations__.get("return")
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(vars(typing)), {**vars(sys.modules[function.__module__])})
    except Exception:  # a name that is there for type checkers alone
        return None


def _classes(annotation: Any) -> Iterator[Any]:
    for part in (annotation, *typing.get_args(annotation)):
        if inspect.isclass(part):
            yield part
        elif part is not annotation:
            yield from _classes(part)


HANDED = handed()


def test_the_list_is_whole() -> None:
    names = {name.rpartition(".")[2] for name in HANDED}
    assert names >= {
        "Analysis", "Block", "Blocks", "Certificate", "Comparison", "CurvatureBudget", "CurvatureField", "DepthProfile",
        "DepthStudy", "Drawn", "Estimate", "Geometry", "Graph", "Growth", "Inspection", "Model", "Scale",
        "StatisticalManifold", "SymmetryStudy", "Verification",
    }  # fmt: skip


@pytest.mark.parametrize("name", [*HANDED, "verdict"])
def test_it_displays_itself_in_html_and_in_markdown(name: str) -> None:
    kind = HANDED.get(name, Verdict)
    for method in ("_repr_html_", "_repr_markdown_"):
        assert callable(getattr(kind, method, None)), f"{kind.__name__} has no {method}: decorate it with `displayed`"


# -- what is displayed ------------------------------------------------------------------------------------------------


def bowl(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[0], x[1], x[0] ** 2 + x[1] ** 2])


CHART = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])


@cache
def surface() -> ff.StatisticalManifold:
    return ff.StatisticalManifold(bowl, CHART)


@cache
def certificate() -> Any:
    return ff.certify(bowl, CHART, at=[0.0, 0.0])


@cache
def model() -> ff.Model:
    return ff.load("python-llama")


def hostile_model() -> ff.Model:
    loaded = ff.load("python-llama")
    loaded.name = HOSTILE
    return loaded


def block() -> Block:
    return model().blocks([1, 2, 3])[1]


SHOWN: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: made(name) for name in ("analysis", "depth", "symmetry", "hostile", "a hostile depth")},
    "a hostile model": hostile_model,
    "model": model,
    "inspection": lambda: ff.inspect(model()),
    "hostile inspection": lambda: ff.inspect(hostile_model(), [1, 2, 3]),
    "blocks": lambda: model().blocks([1, 2, 3]),
    "block": block,
    "attention": lambda: block().attention,
    "graph": lambda: ff.freeze(block().attention, block().attention_input),
    "manifold": surface,
    "geometry": lambda: surface().at(torch.zeros(4, 2)),
    "jet": lambda: surface().jet([0.0, 0.0]),
    "chart": lambda: CHART,
    "family": lambda: ff.Gaussian([1.0, 2.0]),
    "another family": ff.families.Poisson,
    "field": lambda: ff.curvature_field(surface(), (-1.0, 1.0, -1.0, 1.0), resolution=3),
    "profile": lambda: made("depth").profiles["live"],
    "budget": lambda: made("depth").budgets["layer-role"],
    "growth": lambda: ff.growth(torch.tensor([[1.0, 1.1], [2.0, 2.3], [4.0, 4.1]])),
    "certificate": certificate,
    "symmetry certificate": lambda: made("symmetry").certificates[0],
    "verification": lambda: ff.verify(certificate(), bowl, CHART),
    "refusal": lambda: ff.verify(certificate(), lambda x: 2 * bowl(x), CHART),
    "estimate": lambda: ff.statistics.estimate([1.0, 2.0, 4.0]),
    "nothing measured": lambda: ff.statistics.estimate([]),
    "scale": lambda: ff.scale.of(-0.005),
    "verdict": lambda: Verdict.CURVED,
    "gap": lambda: ff.readings.gap(["pattern", "attention_gate"]),
    "moves": lambda: ff.moves.parse("random:3"),
    "units": lambda: ff.symmetry.gated_units(ff.layers.GatedMLP(4, 3)),
}


class Page(HTMLParser):
    """The tags, attributes and text of HTML, which must be balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


@pytest.mark.parametrize("name", SHOWN)
def test_html_is_a_headline_and_small_tables_and_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    thing = SHOWN[name]()
    _cheap(monkeypatch)
    html = thing._repr_html_()
    page = Page(html)
    assert page.tags <= {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert set(page.attributes) <= {
        ("class", "fisherflat tex2jax_ignore mathjax_ignore"),
        ("style", "text-align: left"),
    }
    assert not re.search(
        r"colou?r|background|#[0-9a-f]{3,6}\b", re.sub(r">[^<]*<", "><", html)
    )  # light or dark, as it is
    assert len(html) < 20_000 and page.text.strip()
    assert not set(html) & {"\x1b", "\x00"}


@pytest.mark.parametrize("name", SHOWN)
def test_markdown_renders_to_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    thing = SHOWN[name]()
    _cheap(monkeypatch)
    rendered = MARKDOWN.render(thing._repr_markdown_())
    page = Page(re.sub(r"<br ?/?>", "", rendered))
    assert page.tags <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.text.split() == Page(thing._repr_html_()).text.split()


def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no model runs, nothing is differentiated, traced or resampled."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("displaying computed something long")

    from scipy import stats

    from fisherflat.jets.recording import _recorder
    from fisherflat.models._forward import Forward

    monkeypatch.setattr(stats, "bootstrap", refuse)
    monkeypatch.setattr(ff.StatisticalManifold, "_jet", refuse)
    monkeypatch.setattr(nn.Module, "__call__", refuse)
    for thing, home in ((Forward, Forward.__module__), (_recorder, _recorder.__name__)):
        for name, member in list(vars(thing).items()):
            if isinstance(member, types.FunctionType) and member.__module__ == home:
                monkeypatch.setattr(thing, name, refuse)


def test_numbers_displayed_are_those_of_the_tables() -> None:
    found = made("analysis")
    means = found.decided.groupby(["layer", "part", "reading"])["scalar_curvature"].mean()
    card = found._card()
    for layer, *cells in card.rows:
        for column, cell in zip(card.columns[1:], cells, strict=True):
            known = means.get((layer, *column.split(", ")), float("nan"))
            assert cell == pytest.approx(known, rel=1e-12, nan_ok=True)
    depth = made("depth")
    card = depth._card()
    for name, column in zip(depth.profiles, list(zip(*card.rows, strict=True))[1:], strict=True):
        known = depth.estimates[(depth.estimates.unit == "calibrated") & (depth.estimates.reading == name)]["mean"]
        assert column == pytest.approx(known.tolist(), rel=1e-12)
    budget = depth.budgets["role"]
    card = budget._card()
    assert sum(row[1] for row in card.rows) == pytest.approx(budget.scalar_curvature.mean().item(), rel=1e-9)


def test_interrupted_results_say_so() -> None:
    found = made("analysis")
    partial = ff.Analysis(found.rows[:5], model="m", settings=found.settings, complete=False)
    empty = ff.Analysis([], model="m", settings=found.settings, complete=False)
    for shown in (partial, empty):
        assert "interrupted" in shown._repr_html_() and "interrupted" in shown._repr_markdown_()


# -- the helper -------------------------------------------------------------------------------------------------------


HOSTILE_TEXTS = [
    HOSTILE, "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "| a | b |\n|---|---|", "# head\n\n- item",
    "[link](javascript:alert(1))", "![x](http://x/y.png)", "`code` **bold** _em_ ~~gone~~", "$x$ \\(y\\) $$z$$",
    "&lt;b&gt;", "http://example.com www.example.com a@b.c", "\x1b[31mred\x07", "\u202eback", "</div></td></table>",
    "\\", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_text_is_shown_and_does_nothing(text: str) -> None:
    @displayed
    class Shown:
        def _card(self) -> Card:
            return Card(text, {text: text}, (text, "b"), [(text, [text])])

    page = Page(Shown()._repr_html_())
    assert page.tags == {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    rendered = MARKDOWN.render(Shown()._repr_markdown_())
    other = Page(rendered)
    assert other.tags == {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert other.text.split() == page.text.split()
    assert not set(rendered) & set("\x1b\x07\u202e\ud800")


def test_long_things_are_cut_and_say_so() -> None:
    long = Card("x" * 5000, {"a": "y" * 5000}, [f"c{i}" for i in range(50)], [list(range(50)) for _ in range(1000)])
    html = _display._html(long)
    assert len(html) < 20_000 and "… 988 more" in html and html.count("<tr>") == 1 + 1 + _display.ROWS + 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"), (float("nan"), "–"), (1e-300, "1e-300"), (True, "True"), (torch.zeros(3, 4), "3 × 4 numbers"),
        (torch.tensor(0.5), "0.5"), (torch.tensor([1.0, 2.0]), "1, 2"), ([], "none"), ({}, "none"), ((1, 2), "1, 2"),
        ({"a": 1}, "a: 1"), (range(1000), "1000 entries"), (torch.zeros(0), ""), (3, "3"), ("a\n b", "a b"),
    ],
)  # fmt: skip
def test_values_in_a_few_words(value: Any, said: str) -> None:
    assert short(value) == said


def test_what_is_neither_a_dataclass_nor_has_a_card_shows_its_repr() -> None:
    assert by_fields(ff.Gaussian(0.5)).headline == "Gaussian(0.5)"
    assert not isinstance(Verdict.CURVED._repr_html_(), Enum)


# -- completion -------------------------------------------------------------------------------------------------------


def test_names_are_completed() -> None:
    found = made("analysis")
    drawn = found.plot()
    assert drawn._ipython_key_completions_() == list(found.figures)
    assert {"table", "plot", "save", "sentences"} <= set(dir(found)) and {"scale", "analyze"} <= set(dir(ff))
    for name, thing in HANDED.items():
        if hasattr(thing, "__getitem__") and issubclass(thing, typing.Mapping):
            assert hasattr(thing, "_ipython_key_completions_"), name


# -- progress ---------------------------------------------------------------------------------------------------------


def test_a_bar_leaves_nothing_behind_in_a_notebook() -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import sys, time\nfrom fisherflat._progress import progress\nprint('before')\n"
        "with progress(True) as step:\n    for i in range(4):\n        step('layer', i, 4); time.sleep(0.25)\n"
        "print('after')\n"
        "try:\n    with progress(True) as step:\n        step('layer', 1, 4); raise KeyboardInterrupt\n"
        "except KeyboardInterrupt:\n    pass"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    seen: list[str] = []
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3")
    process = client.process_message

    def watched(msg: dict[str, Any], cell: Any, index: int) -> Any:
        seen.append(str(msg["content"].get("data", "")))
        return process(msg, cell, index)

    client.process_message = watched
    client.execute()
    outputs = notebook.cells[0].outputs
    assert any("2 of 4" in text and "left" in text for text in seen)  # it moved meanwhile
    assert "".join(output.text for output in outputs if output.output_type == "stream") == "before\nafter\n"
    assert all(not output.data for output in outputs if output.output_type != "stream")


def test_times_in_words() -> None:
    assert _progress._in_words("layer 3", 9, 30, 9.0) == "layer 3  ▰▰▰▰▰▰▱▱▱▱▱▱▱▱▱▱▱▱▱▱  9 of 30, 0:21 left"
    assert _progress._in_words("reading", 0, None, 9.0) == "reading"
    assert _progress._in_words("a", 0, 4, 9.0).endswith("0 of 4") and _progress._in_words("a", 4, 4, 9.0).endswith(
        "0:00 left"
    )
    assert _progress._clock(3725.4) == "1:02:05"
