"""How strongly the layers of some trained models are curved, as a table that ships with the package."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat._arrays import integer, number
from fisherflat.errors import InputError
from fisherflat.parts.readings import canonical

if TYPE_CHECKING:
    import pandas as pd

_FILE = Path(__file__).parent / "reference.json"


@cache
def _content() -> dict[str, Any]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


def provenance() -> dict[str, Any]:
    """What the reference layers are: models, prompts, settings, versions, and the command that made the table.

    >>> import fisherflat as ff
    >>> [model["name"] for model in ff.scale.provenance()["models"]][:2]
    ['python-llama', 'python-qwen3-next']
    """
    return {name: value for name, value in json.loads(_FILE.read_text(encoding="utf-8")).items() if name != "quantiles"}


def reference(*, times_width: bool = False) -> pd.DataFrame:
    """The curvature of the reference layers: quantiles, a row for each part and reading.

    A value is the size of the mean scalar curvature of one layer on one prompt, in 1/σ² with the covariance calibrated
    (docs/scale.md); flat layers count as 0.

    **Args:**

    - `times_width`: the curvatures times the number of channels that a part puts out, for models of another width.

    **Returns:** a table, its index `part` and `reading`; the columns are `count`, how many values, and the levels from
    0 to 1.

    >>> import fisherflat as ff
    >>> bool((ff.scale.reference().loc[("attention", "frozen pattern+gate"), 0.0:] == 0).all())
    True
    """
    import pandas as pd

    content, column = _content(), "times_width" if times_width else "scalar_curvature"
    rows = [[row["part"], row["reading"], row["count"], *row[column]] for row in content["quantiles"]]
    table = pd.DataFrame(rows, columns=["part", "reading", "count", *content["levels"]])
    return table.set_index(["part", "reading"])


def less_curved(scalar_curvature: Any, part: Any, reading: str = "live", *, width: Any = None) -> float | None:
    """The share of the reference layers that are less curved, whatever the sign, in the same part and reading.

    **Args:**

    - `scalar_curvature`, of a chart with k = 2, the covariance calibrated on the outputs.
    - `part`: `"attention"`, `"mlp"` or `"block"`; `reading`, see `fisherflat.readings`.
    - `width`: how many channels the part puts out. If given, curvatures times widths are compared: σ is the spread of
      one channel, and outputs of d channels spread over √d of it.

    **Returns:** a number from 0 to 1, linear between the quantiles of the table; NaN for NaN; `None` for a part or a
    reading that the reference models do not have.

    **Raises:** `InputError` for what is no finite number (NaN is let pass), no reading, or a width below 1.

    >>> import fisherflat as ff
    >>> ff.scale.less_curved(1e3, "attention"), ff.scale.less_curved(0.005, "head 3")
    (1.0, None)
    """
    factor = 1 if width is None else integer(width, "width", 1)
    size = abs(number(scalar_curvature, "scalar_curvature")) * factor
    if not isinstance(part, str):
        raise InputError(f"part must be a name such as 'attention', got {part!r}")
    row = _row(part, canonical(reading))
    if row is None:
        return None
    return _share(size, row["scalar_curvature" if width is None else "times_width"], _content()["levels"])


def _share(size: float, quantiles: list[float], levels: list[float]) -> float:
    """Where a size lies among quantiles; those that equal it are not below it."""
    if math.isnan(size):
        return math.nan
    i = bisect_left(quantiles, size)
    if i in (0, len(quantiles)):
        return levels[0] if i == 0 else levels[-1]
    (low, high), (below, above) = quantiles[i - 1 : i + 1], levels[i - 1 : i + 1]
    return below + (above - below) * (size - low) / (high - low) if size < high else above


def counted(part: str, reading: str) -> tuple[int, int]:
    """How often a part was measured in a reading, once a layer and prompt, and in how many layers; 0 for none."""
    row = _row(part, canonical(reading)) or {"count": 0, "layers": 0}
    return row["count"], row["layers"]


def _row(part: str, reading: str) -> dict[str, Any] | None:
    return next((row for row in _content()["quantiles"] if (row["part"], row["reading"]) == (part, reading)), None)
