"""Numbers as they are printed: no digit that is not right."""

from __future__ import annotations

import math

from fisherflat.statistics import Estimate


def share(value: float, error: float = 0.0) -> str:
    """A share of a whole in per cent, with its error where that shows.

    >>> from fisherflat.report._digits import share
    >>> share(0.123, 1e-9), share(0.123, 0.02), share(0.123, 0.5)
    ('12%', '12% ± 2%', 'unknown')
    """
    if math.isnan(error) or 2 * error <= 0.01:
        return f"{value:z.0%}"  # no minus before a zero
    return f"{value:z.0%} ± {100 * error:.1g}%" if error < abs(value) else "unknown"


def known_to(found: Estimate, error: float) -> str:
    """What follows a mean where its own digits are fewer than the three that are printed."""
    return f", known to {error:.1g}" if 200 * error > abs(found.mean) and found.count else ""
