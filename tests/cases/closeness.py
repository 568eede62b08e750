"""How near two computations come that would be equal in exact arithmetic.

Equal bits are asked for only where a tensor is read twice or copied: in which order a sum is taken, and with it the
last places, depends on the instruction set and on where in memory its terms lie.
"""

from __future__ import annotations

from torch import Tensor

#: a few thousand last places of a double, more than a few layers of small width make of one
DOUBLE = 2.0**-40
#: the same where a norm casts down to float32 on the way: a last place can round to its neighbour, 2^-24 away
CASTS = 2.0**-18


def assert_same(found: Tensor, expected: Tensor, rounding: float = DOUBLE) -> None:
    """Fail unless the two agree to `rounding`, relative to the largest of what is expected."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    error, size = (found - expected).abs().max().item(), expected.abs().max().item()
    assert error <= rounding * size, f"off by {error:.2e}, where {rounding * size:.2e} is rounding"
