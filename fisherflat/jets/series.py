"""What flows through a graph: truncated Taylor series of intermediate values, and the algebra that rules are written in.

A `Series` holds an array `[C, P, *shape]`: coefficients first, then points, then the shape of the value. C says how much
is known to vanish: 1 for a value that does not move to first order, 1 + k for one that is affine in the coordinates,
S = 1 + k + k(k+1)/2 for the general case. So structure (is it affine?) and numbers (what are the derivatives?) are one
notion, and what is known to be zero costs nothing.

An `Algebra` provides arrays. Rules use its functions and slicing, arithmetic operators and elementary functions of the
arrays themselves; torch tensors are one such array, arrays of real balls another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from fisherflat.jets.graph import Node
from fisherflat.jets.jet import size


@dataclass(eq=False, slots=True)
class Series:
    """Coefficients `data` `[C, P, *shape]` in k coordinates; see the module."""

    data: Any
    k: int

    @property
    def order(self) -> int:
        """0, 1 or 2: the order up to which there are coefficients; beyond it derivatives vanish identically."""
        count = self.data.shape[0]
        return 0 if count == 1 else 1 if count == 1 + self.k else 2

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape[2:])

    def row(self, i: int) -> Any:
        """The second derivatives `d_i d_j` for j = i .. k-1."""
        start = 1 + self.k + i * self.k - i * (i - 1) // 2
        return self.data[start : start + self.k - i]


def count(order: int, k: int) -> int:
    """C, the number of coefficients up to an order."""
    return (1, 1 + k, size(k))[order]


class Algebra(Protocol):
    """Arrays with two leading axes (coefficients, points) and the few operations that rules need beyond operators."""

    def empty(self, coefficients: int, like: Any, shape: tuple[int, ...]) -> Any:
        """An uninitialised array `[coefficients, P, *shape]` with the points of `like`."""

    def constant(self, tensor: Tensor) -> Any:
        """A constant as an array `[*shape]` that combines with the others."""

    def add(self, a: Any, b: Any, out: Any) -> None:
        """`out = a + b`, broadcast."""

    def mul(self, a: Any, b: Any, out: Any) -> None:
        """`out = a * b`, broadcast."""

    def div(self, a: Any, b: Any, out: Any) -> None:
        """`out = a / b`, broadcast, b constant."""

    def fma(self, out: Any, a: Any, b: Any) -> None:
        """`out += a * b`, broadcast."""

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        """`out = a @ b`, batched and broadcast over leading axes."""

    def contract(self, a: Series, b: Series, shape: tuple[int, ...]) -> Series:
        """The matrix product of two series, batched and broadcast over leading axes."""

    def linear(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], order: int, k: int) -> Series:
        """The op of `node`, which is affine in all its floating arguments together, on each coefficient."""

    def values(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        """The op of `node` on values alone, as series of order 0 (a tuple of them where the op has several outputs)."""

    def fallback(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Series:
        """An op without a rule."""
