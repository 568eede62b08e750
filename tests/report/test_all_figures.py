"""What holds of every figure of every result: one look for each reading, whole texts, captions, scales, formats."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from cases.results import HOSTILE, OTHERS, RESULTS, figures, made, strict
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from fisherflat import plot
from fisherflat.errors import InputError
from fisherflat.parts import readings
from fisherflat.plot import _style

matplotlib.use("agg")
pytestmark = pytest.mark.xdist_group("results")  # which are made once in a process

EVERY = [*RESULTS, *OTHERS]
#: of layout, in points: rounding of glyphs to pixels
SLACK = 1.5


@pytest.fixture(params=EVERY)
def drawn(request: pytest.FixtureRequest) -> dict[str, Figure]:
    return figures(request.param)


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]


def legends(figure: Figure) -> list[Legend]:
    return [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend() is not None)]


def texts(figure: Figure) -> Iterator[Text]:
    """All that is written, and seen: ticks beyond the ends of an axis are not."""
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and not _beyond(text):
            yield text


def _beyond(text: Text) -> bool:
    for axis in (axis for ax in text.figure.axes for axis in (ax.xaxis, ax.yaxis)):
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        if any(text in (tick.label1, tick.label2) for tick in ticks):
            shown = [tick for tick in axis._update_ticks() if text in (tick.label1, tick.label2)]
            return not shown or not axis.axes.get_visible() or not axis.get_visible()
    return False


# -- nothing is cut off, nothing lies on anything else ----------------------------------------------------------------


def test_nothing_is_clipped(drawn: dict[str, Figure]) -> None:
    for name, figure in drawn.items():
        inside = figure.bbox.padded(SLACK)
        count = 0
        for text in texts(figure):
            box = text.get_window_extent()
            assert inside.x0 <= box.x0 and box.x1 <= inside.x1, f"{name}: {text.get_text()!r}"
            assert inside.y0 <= box.y0 and box.y1 <= inside.y1, f"{name}: {text.get_text()!r}"
            count += 1
        assert count > 5
        for box in (ax.get_window_extent() for ax in figure.axes if ax.get_visible()):
            assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1, name


def overlap(one: Bbox, other: Bbox) -> bool:
    return Bbox.intersection(one.padded(-SLACK), other.padded(-SLACK)) is not None


def test_legends_and_captions_hide_nothing(drawn: dict[str, Figure]) -> None:
    for name, figure in drawn.items():
        outside = [legend.get_window_extent() for legend in legends(figure)] + [figure._suptitle.get_window_extent()]
        for one, other in combinations(outside, 2):
            assert not overlap(one, other), name
        for ax in figure.axes:
            if not ax.get_visible():
                continue
            written = [text.get_window_extent() for text in (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label)
                       if text.get_text()]  # fmt: skip
            for box in outside:
                assert not any(overlap(box, other) for other in [ax.get_window_extent(), *written]), name


def test_neighbouring_panels_and_their_words_do_not_overlap(drawn: dict[str, Figure]) -> None:
    for name, figure in drawn.items():
        visible = [ax for ax in figure.axes if ax.get_visible()]
        for one, other in combinations(visible, 2):
            assert not overlap(one.get_window_extent(), other.get_window_extent()), name
        labels = [text for ax in visible for text in (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label)]
        for one, other in combinations([text for text in labels if text.get_text()], 2):
            assert not overlap(one.get_window_extent(), other.get_window_extent()), (one, other)


def test_colour_bars_are_whole_and_labelled(drawn: dict[str, Figure]) -> None:
    for name, figure in drawn.items():
        for ax in (ax for ax in figure.axes if ax.get_label() == "<colorbar>"):
            assert ax.get_ylabel(), name
            assert ax.yaxis.label.get_window_extent().height <= figure.bbox.height, name
            assert len([tick for tick in ax.get_yticklabels() if tick.get_text()]) >= 2 or ax.get_ylabel() == "layer"


# -- one look for each reading and part -------------------------------------------------------------------------------


def looks(figure: Figure) -> Iterator[tuple[str, str, str]]:
    """Label, colour and marker of each series that is drawn and labelled."""
    for ax in panels(figure):
        for line in ax.get_lines():
            if not line.get_label().startswith("_") and len(line.get_xdata()):
                yield line.get_label(), to_hex(line.get_color()), str(line.get_marker())
        for container in ax.containers:
            if isinstance(container, ErrorbarContainer):
                line = container.lines[0]
                yield container.get_label(), to_hex(line.get_color()), str(line.get_marker())


def test_a_reading_looks_the_same_in_all_figures() -> None:
    seen: dict[str, set[tuple[str, str]]] = {}
    for name in RESULTS:
        for figure in figures(name).values():
            for label, colour, marker in looks(figure):
                try:
                    reading = readings.canonical(label)
                except InputError:
                    continue
                seen.setdefault(reading, set()).add((colour, marker))
            for legend in legends(figure):
                for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                    if isinstance(handle, Line2D) and text.get_text() in seen:
                        seen[text.get_text()].add((to_hex(handle.get_color()), str(handle.get_marker())))
    assert len(seen) >= 8
    assert all(len(found) == 1 for found in seen.values()), seen
    found = [look for (look,) in seen.values()]
    assert len({colour for colour, _ in found}) == len({marker for _, marker in found}) == len(found)
    assert all(
        found == {(to_hex(plot.of_reading(name).colour), plot.of_reading(name).marker)} for name, found in seen.items()
    )


def test_a_part_looks_the_same_in_all_figures() -> None:
    seen: dict[str, set[tuple[str, str]]] = {}
    for name in RESULTS:
        for label, colour, marker in (look for figure in figures(name).values() for look in looks(figure)):
            if match := re.fullmatch(r"(?:mlp )?gate in (\w+)", label):
                seen.setdefault(match[1], set()).add((colour, marker))
    assert seen.keys() >= {"attention", "mlp", "block"}
    for part, found in seen.items():
        assert found == {(to_hex(plot.of_part(part).colour), plot.of_part(part).marker)}


def every_reading() -> list[str]:
    words = list(readings.WORDS)
    return [readings.name(held) for size in range(len(words) + 1) for held in combinations(words, size)]


def test_no_two_readings_look_alike() -> None:
    every = {reading: plot.of_reading(reading) for reading in every_reading()}
    assert len(every) == 32 and len(set(every.values())) == 32
    usual = {r for roles in (readings.WORDS, ("pattern", "attention_gate"), ("pattern", "mlp_gate"), ("norm",))
             for r in readings.sensible(roles)}  # fmt: skip
    assert len({every[reading].marker for reading in usual}) == len(usual)  # in grey, too
    # light enough to tell from black, dark enough to be seen on white
    for reading, look in every.items():
        luminance = float(np.dot(np.array(to_rgb(look.colour)) ** 2.2, [0.2126, 0.7152, 0.0722]))
        assert luminance < 0.5, reading


#: what people see who lack cones for long, middle or short waves (Machado, Oliveira & Fernandes, 2009)
DEFICIENT = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "all cones": np.eye(3),
}


def lab(colour: str, seen: list[list[float]]) -> np.ndarray:
    """CIE L*a*b* under D65."""
    rgb = np.array(to_rgb(colour))
    linear = np.asarray(seen) @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear.clip(0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", DEFICIENT)
def test_colours_can_be_told_apart(sight: str) -> None:
    """By at least 15 units of CIELAB; 2.3 are a just noticeable difference."""
    for table in (
        {reading: plot.of_reading(reading).colour for reading in
         ("live", *(f"frozen {held}" for held in (*readings.WORDS.values(), "pattern+gate", "pattern+mlp gate",
                                                  "gate+mlp gate", "pattern+gate+mlp gate")))},
        {role: look.colour for role, look in _style.ROLES.items()},
        {part: look.colour for part, look in _style.PARTS.items()},
    ):  # fmt: skip
        for one, other in combinations(table, 2):
            distance = np.linalg.norm(lab(table[one], DEFICIENT[sight]) - lab(table[other], DEFICIENT[sight]))
            assert distance > 15, (one, other)


# -- captions and scales ----------------------------------------------------------------------------------------------


MODELS = {"many parts": "python-qwen3-next", "many layers": "twelve-layers", "undecided": "tiny-afmoe"}


@pytest.mark.parametrize("name", RESULTS)
def test_captions_name_model_prompt_unit_and_statistic(name: str) -> None:
    result = made(name)
    assert result.model == MODELS.get(name, result.model)
    for kind, figure in figures(name).items():
        # broken between words, or within one that is too long
        said = re.sub(r"\s+", "", figure.get_suptitle())
        models = getattr(result, "names", None) or getattr(result, "runs", None) or [result.model]
        assert "□" in said or all(re.sub(r"\s+", "", model) in said for model in models), kind
        assert kind == "forms" or re.search("on“.+”", said), kind  # those are of the weights alone
        assert "σ" in said, kind
        assert "mean" in said or kind == "maps", kind
        if kind.startswith("profile"):
            assert "bands:95%" in said


def test_no_figure_mixes_kinds_of_scales(drawn: dict[str, Figure]) -> None:
    for name, figure in drawn.items():
        scales = {(ax.get_xscale(), ax.get_yscale()) for ax in panels(figure)}
        assert len(scales) == 1, name
        norms = {type(shown.norm) for ax in panels(figure) for shown in (*ax.images, *ax.collections)
                 if isinstance(shown, QuadMesh) or shown in ax.images}  # fmt: skip
        assert len(norms) <= 1, name
        if name == "layers":
            assert len({ax.get_ylim() for ax in panels(figure)}) == 1


def test_maps_have_axes(drawn: dict[str, Figure]) -> None:
    for figure in drawn.values():
        maps = [ax for ax in panels(figure) if any(isinstance(c, QuadMesh) for c in ax.collections)]
        for ax in maps:
            place = ax.get_subplotspec()
            below = any(other.get_subplotspec().rowspan.start > place.rowspan.start
                        and other.get_subplotspec().colspan == place.colspan for other in panels(figure))  # fmt: skip
            assert below or (ax.get_xlabel() and any(tick.get_text() for tick in ax.get_xticklabels()))
            assert place.colspan.start or (ax.get_ylabel() and any(tick.get_text() for tick in ax.get_yticklabels()))


def test_undecided_points_are_drawn_apart() -> None:
    for name, apart in (("undecided", True), ("analysis", False)):
        result, figure = made(name), figures(name)["layers"]
        crosses = {}
        for ax in panels(figure):
            marked = [line for line in ax.get_lines() if line.get_marker() == "x"]
            crosses[ax.get_title(loc="left")] = {round(x) for line in marked for x in line.get_xdata()}
        rows = result.table[~result.table["part"].str.startswith("head ")]
        undecided = rows[rows["verdict"] == "undecided"].groupby("part")["layer"].agg(set).to_dict()
        assert {part: layers for part, layers in crosses.items() if layers} == undecided
        assert bool(undecided) == apart == ("crosses" in figure.get_suptitle())
    # and they are in no mean
    means = made("undecided").estimates.set_index(["layer", "part", "reading"])["mean"]
    for ax in panels(figures("undecided")["layers"]):
        for line in ax.get_lines():
            if not line.get_label().startswith("_"):
                for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
                    known = means[(round(x), ax.get_title(loc="left"), line.get_label())]
                    assert y == pytest.approx(known, rel=1e-12) or (y != y and known != known)


def test_the_boundary_of_the_live_classifier_is_on_live_maps_alone() -> None:
    figure = figures("demo")["demo"]
    for ax in panels(figure):
        thick = [
            c for c in ax.collections if not isinstance(c, (QuadMesh, LineCollection)) and max(c.get_linewidths()) > 1
        ]
        live = "live" in panels(figure)[2 * (panels(figure).index(ax) // 2)].get_ylabel()
        assert bool(thick) == live


# -- asking for figures -----------------------------------------------------------------------------------------------


STARTS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.mark.parametrize("name", ["a single point", "symmetry"])
def test_figures_are_written_in_the_formats_asked_for(name: str, tmp_path: Path) -> None:
    result = made(name)
    for formats in ("svg", ["pdf", "png"], "png, svg"):
        folder = tmp_path / "-".join(formats)
        written = result.save(folder, formats=formats)
        kinds = [kind.strip() for kind in (formats.split(",") if isinstance(formats, str) else formats)]
        for kind, start in STARTS.items():
            files = {path.stem: path for path in folder.glob(f"*.{kind}")}
            assert files.keys() == (set(result.figures) if kind in kinds else set())
            assert all(path.read_bytes().startswith(start) and path in written for path in files.values())
    assert (
        type(result).load(tmp_path / "svg" if (tmp_path / "svg").exists() else folder).sentences() == result.sentences()
    )


@pytest.mark.parametrize("formats", ["jpg", ["png", "gif"], [], "", 3])
def test_formats_that_there_are_not_are_refused_before_anything_is_written(formats: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="png, pdf, svg"):
        made("a single point").save(tmp_path / "new", formats=formats)
    with pytest.raises(InputError, match="png, pdf, svg"):
        made("a single point").plot().save(tmp_path / "new", formats=formats)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", RESULTS)
def test_plot_draws_what_there_is(name: str, tmp_path: Path) -> None:
    result = made(name)
    found = result.plot()
    assert list(found) == list(result.figures) and len(found) == len(result.figures)
    first = next(iter(found))
    assert isinstance(found[first], Figure) and found[first] is found[first]
    one = result.plot(first)
    assert list(one) == [first]
    with pytest.raises(InputError, match=f"no figure 'nothing'; there are {first}"):
        result.plot("nothing")


def test_what_is_changed_in_a_figure_is_kept(tmp_path: Path) -> None:
    found = made("a single point").plot()
    found["layers"].set_size_inches(5.0, 8.0)
    found.save(tmp_path)
    assert matplotlib.image.imread(tmp_path / "layers.png").shape[:2] == (1600, 1000)
    assert found._repr_html_().count("<img ") == len(found)


def test_no_window_is_opened_and_no_setting_changed() -> None:
    import matplotlib.pyplot as plt

    before, open_before = dict(matplotlib.rcParams), plt.get_fignums()
    made("a single point").plot()._repr_html_()
    assert dict(matplotlib.rcParams) == before and plt.get_fignums() == open_before


def test_hostile_names_draw_as_they_are_written() -> None:
    for name in ("hostile", "a hostile depth"):
        for figure in figures(name).values():
            with strict():
                said = figure.get_suptitle()
                assert "$\\frac{x$" in said and "\x1b" not in said and "□□□" in said
    assert not figures("hostile")["layers"]._suptitle.get_parse_math()
    assert set("日本") <= set(HOSTILE)
