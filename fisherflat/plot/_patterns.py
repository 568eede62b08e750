"""Attention patterns of heads, over the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fisherflat._files import visible
from fisherflat.errors import InputError
from fisherflat.plot._layers import stacked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: how many tokens are named along an axis, and how many letters of each are shown
_NAMED, _LETTERS = 24, 12


def patterns(
    weights: Mapping[str, Any], tokens: Sequence[str], *, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """Attention patterns side by side: a row for each token that attends, a column for each that it attends to.

    **Args:**

    - `weights`: by title, `[n, n]` each, such as `block.heads[2].pattern`; `tokens`, n texts.
    - `axes`, one for each (default: a new figure one column wide, one above the other).

    **Returns:** the axes. **Raises:** `InputError` where there is nothing to draw, or shapes do not fit.

    >>> import fisherflat as ff
    >>> [ax] = ff.plot.patterns({"head 0": [[1.0, 0.0], [0.5, 0.5]]}, ["The", "cat"])
    >>> ax.get_title(loc="left"), [label.get_text() for label in ax.get_yticklabels()]
    ('head 0', ['The', 'cat'])
    """
    n = len(tokens)
    found = {title: np.asarray(one, dtype=float) for title, one in weights.items()}
    if wrong := [title for title, one in found.items() if one.shape != (n, n) or not n]:
        raise InputError(f"patterns are [n, n] for n tokens; {wrong[0]!r} is {list(found[wrong[0]].shape)} for {n}")
    panels = stacked(max(1, len(found))) if axes is None else axes
    if not found or len(panels) != len(found):
        raise InputError(f"there are {len(found)} patterns and {len(panels)} axes; give one for each")
    step = -(-n // _NAMED)
    places, labels = range(0, n, step), [visible(token)[:_LETTERS] for token in tokens[::step]]
    for (title, one), ax in zip(found.items(), panels, strict=True):
        image = ax.imshow(one, cmap="Blues", vmin=0.0, vmax=1.0, interpolation="none")
        ax.set_title(title, fontsize=8, loc="left", pad=3)
        ax.set_xticks(places, labels, fontsize=6, rotation=90)
        ax.set_yticks(places, labels, fontsize=6)
        ax.tick_params(length=2, pad=1)
    bar = panels[0].figure.colorbar(image, ax=list(panels), aspect=40, pad=0.02, shrink=0.7)
    bar.set_label("attention weight, of a row to a column", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return panels
