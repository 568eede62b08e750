"""What all figures share: the look of readings, parts and roles, labels, axes, scales and captions.

The colours are those of Okabe & Ito and of Paul Tol, which people with colour vision deficiency can tell apart; what
they say is also said by markers, line styles and hatching, for print in grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from fisherflat._display import displayed
from fisherflat._files import visible
from fisherflat.errors import InputError
from fisherflat.parts import readings
from fisherflat.spaces.families import labelled

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

#: the width of a column of a paper, in inches
COLUMN = 3.4
#: lengths on the manifold are in standard deviations σ of a Gaussian, so curvature is per σ²
CURVATURE_LABEL = labelled("scalar curvature", None)
#: what lines and bars are, wherever they are drawn; the tables beside figures hold the same numbers
STATISTIC = "means, with 95 % intervals"
#: purple for negative, white for zero, orange for positive
COLOURS = "PuOr_r"
#: distinguishable to colour-blind people (Okabe & Ito, *Color universal design*, 2008), and of different lightness
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")


def family_of(table: Any) -> str | None:
    """The family whose curvature a table holds, by its column or what was noted with it; `None` for a `Gaussian`."""
    if "family" in table and len(table):
        found = table["family"].iloc[0]
        return found if isinstance(found, str) else None
    return table.attrs.get("family")


@displayed
class Look(NamedTuple):
    """How a series is drawn, in every figure; `fisherflat.plot.of_reading` gives one.

    **Attributes:** `colour`, `marker`, and `hatch`, where it is a bar.
    """

    colour: str
    marker: str
    hatch: str = ""


#: role -> the look of what it makes, and of the reading in which it alone is held
ROLES = {
    "pattern": Look("#0072B2", "s"),
    "attention_gate": Look("#D55E00", "^", "//"),
    "norm": Look("#009E73", "D", ".."),
    "mlp_gate": Look("#CC79A7", "v", "\\\\"),
    "activation": Look("#E69F00", "P", "xx"),
    "other": Look("#DDCC77", "h", "--"),
}
#: the readings that hold nothing, or several roles
_TOGETHER = {
    (): Look("#000000", "o"),
    ("pattern", "attention_gate"): Look("#56B4E9", "X"),
    ("pattern", "mlp_gate"): Look("#8B0000", "*"),
    ("attention_gate", "mlp_gate"): Look("#440154", "<"),
    ("pattern", "attention_gate", "mlp_gate"): Look("#4D4D4D", ">"),
}
#: for readings that nothing in this library asks for by itself: shades of brown and green, and markers of their own
_RARE = (
    ("#8C510A", "#BF812D", "#01665E", "#35978F", "#762A83", "#A6761D"),
    ("p", "d", "8", "H", "$A$", "$E$", "$N$"),
)
#: part -> its look where parts are compared; where readings are too, a part is a line style and how markers are filled
PARTS = {"attention": Look("#332288", "o"), "mlp": Look("#44AA99", "s"), "block": Look("#CC6677", "D")}
_OTHER_PART = Look("#888888", "P")
_LINES = {"attention": ("-", "full"), "mlp": ("--", "none"), "block": ("-.", "left")}


def _all_readings() -> dict[tuple[str, ...], Look]:
    found = {(role,): Look(*ROLES[role][:2]) for role in readings.WORDS} | _TOGETHER
    rest = [held for size in range(2, len(readings.WORDS) + 1) for held in combinations(readings.WORDS, size)]
    colours, markers = _RARE
    for number, held in enumerate(held for held in rest if held not in found):
        found[held] = Look(colours[number % len(colours)], markers[number % len(markers)])
    return found


_READINGS = _all_readings()


def of_reading(reading: str) -> Look:
    """The colour and the marker of a reading, the same in every figure.

    **Raises:** `InputError` for what is no reading.

    >>> import fisherflat as ff
    >>> ff.plot.of_reading("live"), ff.plot.of_reading("frozen gate").colour
    (Look(colour='#000000', marker='o', hatch=''), '#D55E00')
    """
    return _READINGS[readings.roles(reading)]


def of_part(part: str) -> Look:
    """The colour and the marker of a part where parts are compared, the same in every figure.

    >>> import fisherflat as ff
    >>> ff.plot.of_part("mlp").marker
    's'
    """
    return PARTS.get(part, _OTHER_PART)


def of_role(role: str) -> Look:
    """The look of what a role makes, the same in every figure.

    >>> import fisherflat as ff
    >>> ff.plot.of_role("norm").colour == ff.plot.of_reading("frozen norm").colour
    True
    """
    return ROLES.get(role, _OTHER_PART)


def series(names: Iterable[str]) -> list[Look]:
    """The looks of some lines: of readings their own; of anything else, such as models, one after the other."""
    names = list(names)
    try:
        return [of_reading(name) for name in names]
    except InputError:
        return [Look(OKABE_ITO[i % len(OKABE_ITO)], MARKERS[i % len(MARKERS)]) for i in range(len(names))]


def line(look: Look, part: str = "attention") -> dict[str, Any]:
    """A look as arguments of `Axes.plot`; the part decides on the line style and on how markers are filled."""
    style, fill = _LINES.get(part, (":", "full"))
    edges = {"markerfacecolor": "white"} if fill == "none" else {"fillstyle": fill, "markerfacecoloralt": "white"}
    return {"color": look.colour, "marker": look.marker, "linestyle": style, "markeredgewidth": 0.8, **edges}


def shades() -> Colormap:
    """Colours of things that have an order, such as layers: dark to light, and never so light as to vanish on white."""
    import matplotlib
    import numpy as np
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.88, 256)), "layers")


def plain_label(name: str) -> str:
    """A name as a label: no formula, nothing that steers, and shown also where it begins with an underscore."""
    text = visible(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def axes_for(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """`ax`, or the axes of a new figure of `size` in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def undecided(ax: Axes, x: Any, colour: str) -> None:
    """Crosses on the horizontal axis: at these places something is undecided, and left out of what is drawn."""
    ax.plot(x, [0.0] * len(x), "x", transform=ax.get_xaxis_transform(), color=colour, ms=4, clip_on=False)


def profile_axis(ax: Axes, sizes: np.ndarray, x: str, y: str, columns: int = 2, statistic: str | None = None) -> None:
    """Scale, ticks, labels and legend of a profile over layers.

    `sizes` are the absolute values that are drawn, in all panels that are to have the same scale; `statistic` names
    what they are, above the legend.

    The vertical axis is symmetric logarithmic when they span more than two decades, and linear otherwise; at most four
    decades are told apart, so that those that matter have room.

    >>> import matplotlib.pyplot as plt, numpy as np, fisherflat as ff
    >>> ax = plt.figure().add_subplot()
    >>> line = ax.plot([1.0, 1e4], label="block")
    >>> ff.plot.profile_axis(ax, np.array([1.0, 1e4]), "layer", "scalar curvature")
    >>> ax.get_yscale()
    'symlog'
    """
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import offset_copy

    sizes = sizes[sizes > 0]
    if len(sizes):
        # what is below 1e-9 of the largest is zero to rounding and must not stretch the axis
        smallest = sizes[sizes > 1e-9 * sizes.max()].min()
        if sizes.max() > 100 * smallest:
            ax.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(max(smallest, 1e-4 * sizes.max()))))
            ax.yaxis.get_major_locator().set_params(numticks=7)  # type: ignore[call-arg]
    ax.axhline(0, color="0.5", linewidth=0.6, zorder=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.tick_params(labelsize=8)
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    if ax.get_legend_handles_labels()[0]:
        # below the label of the axis, where it hides neither curves nor a title
        below = offset_copy(ax.transAxes, ax.get_figure(root=True), y=-30, units="points")
        ax.legend(
            fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=columns,
            title=statistic, title_fontsize=7,
        )  # fmt: skip


#: of captions, in points
_SIZE = 6.5
#: a line of a caption becomes at most so many
_MOST = 3


def caption(figure: Figure, lines: Sequence[str]) -> None:
    r"""Say above a figure what it shows: a line each, broken where it is long; the figure grows by as much.

    At most three lines become of one, and the rest is cut. Nothing in a line is taken as mathematics or as a command,
    and what the font does not have is drawn as a box.

    >>> import fisherflat as ff
    >>> from matplotlib.figure import Figure
    >>> figure = Figure((3.4, 2.0), layout="constrained")
    >>> ff.plot.caption(figure, ["python-llama", "mean $x$ over points"])
    >>> figure.get_suptitle()
    'python-llama\nmean $x$ over points'
    """
    width, height = figure.get_size_inches()
    broken = [part for text in lines if text for part in _broken(visible(text), 72 * width - 16)]
    if not broken:
        return
    figure.set_size_inches(width, height + (len(broken) * 1.25 * _SIZE + 4) / 72)
    figure.suptitle("\n".join(broken), x=5 / (72 * width), ha="left", fontsize=_SIZE, parse_math=False)


def _broken(text: str, width: float) -> list[str]:
    """A line as a few of at most so many points, broken between words, or within one that is too long."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.textpath import TextToPath

    properties = FontProperties(size=_SIZE)
    known, measure = get_font(findfont(properties)).get_charmap(), TextToPath()

    def wide(text: str) -> float:
        return measure.get_text_width_height_descent(text, properties, ismath=False)[0]

    text = "".join(letter if ord(letter) in known else "□" for letter in text)
    found = [""]
    for word in text.split():
        joined = f"{found[-1]} {word}".strip()
        if wide(joined) <= width:
            found[-1] = joined
            continue
        found += [""] if found[-1] else []
        for letter in word:
            if wide(found[-1] + letter) > width:
                found.append("")
            found[-1] += letter
        if len(found) > _MOST:
            return [*found[: _MOST - 1], f"{found[_MOST - 1][:-1]}…"]
    return found
