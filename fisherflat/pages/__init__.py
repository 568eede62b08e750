"""Pages: what a report consists of, and the one renderer that makes a self-contained HTML file of it.

It knows no study: whoever has a result says in these words what is to be read, and in what order.
"""

from __future__ import annotations

from fisherflat.pages._charts import bars, cells, ranges, raster, weights
from fisherflat.pages._content import (
    Chart,
    Code,
    Drawing,
    Facts,
    Grid,
    Image,
    Item,
    Link,
    Notice,
    Page,
    Pick,
    Points,
    Section,
    Value,
)
from fisherflat.pages._render import LIMIT, html

__all__ = [
    "LIMIT",
    "Chart",
    "Code",
    "Drawing",
    "Facts",
    "Grid",
    "Image",
    "Item",
    "Link",
    "Notice",
    "Page",
    "Pick",
    "Points",
    "Section",
    "Value",
    "bars",
    "cells",
    "html",
    "ranges",
    "raster",
    "weights",
]
