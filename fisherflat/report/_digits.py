"""Numbers as they are printed: no digit that is not right."""

from __future__ import annotations

import math

from fisherflat.statistics import Estimate


def shown(value: float, error: float = 0.0, digits: int = 3, sign: str = "") -> str:
    """A number with as many digits as its error leaves, and what the error is where that is fewer than wanted.

    **Args:** `error`, absolute, not a number where nothing is known of it; `digits`, at most; `sign`: `"+"` for a sign
    in any case.

    >>> from fisherflat.report._digits import shown
    >>> shown(0.123456, 1e-9), shown(0.123456, 0.02), shown(0.123456, 0.5)
    ('0.123', '0.12 ± 0.02', 'unknown')
    """
    if math.isnan(error) or 2 * error <= abs(value) * 10.0 ** (1 - digits):
        return f"{value:{sign}.{digits}g}"
    if not error < abs(value):
        return "unknown"
    right = max(1, math.floor(math.log10(abs(value))) - math.floor(math.log10(error)) + 1)
    return f"{value:{sign}.{min(digits, right)}g} ± {error:.1g}"


def share(value: float, error: float = 0.0) -> str:
    """A share of a whole in per cent, with its error where that shows.

    >>> from fisherflat.report._digits import share
    >>> share(0.123, 1e-9), share(0.123, 0.02), share(0.123, 0.5)
    ('12%', '12% ± 2%', 'unknown')
    """
    if math.isnan(error) or 2 * error <= 0.01:
        return f"{value:.0%}"
    return f"{value:.0%} ± {100 * error:.1g}%" if error < abs(value) else "unknown"


def known_to(found: Estimate, error: float) -> str:
    """What follows a mean where its own digits are fewer than the three that are printed."""
    return f", known to {error:.1g}" if 200 * error > abs(found.mean) and found.count else ""
