"""What the rows of a study say together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fisherflat.geometry import Verdict

if TYPE_CHECKING:
    import pandas as pd


def negligible(table: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are curved while their image is negligible, so that it hardly matters; what is flat has no size.

    **Args:** `table`, with the column `verdict`; without `negligible_image` no row is.

    >>> import pandas as pd
    >>> from fisherflat.studies.layers import negligible
    >>> table = pd.DataFrame({"verdict": ["curved", "curved", "undecided"], "negligible_image": [True, None, True]})
    >>> list(negligible(table))
    [True, False, False]
    """
    curved = table["verdict"] == Verdict.CURVED
    if "negligible_image" not in table:
        return curved & False
    return curved & table["negligible_image"].eq(True).fillna(False).astype(bool)
