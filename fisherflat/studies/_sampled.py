"""How exactly studies sample curvature in all directions."""

from __future__ import annotations

#: the standard error to reach, relative to the value, and planes at most: some seconds for a layer of a small model
ERROR, BUDGET = 0.05, 4000
