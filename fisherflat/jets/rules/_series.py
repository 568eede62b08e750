"""What flows through a graph: Taylor series of intermediate values, and the algebra that rules are written in.

A `Series` holds an array `[C, P, *shape]`: coefficients first, then points, then the shape of the value. C says how
much is known to vanish: 1 for a value that does not move to first order, 1 + k for one that is affine in the
coordinates, S = 1 + k + k(k+1)/2 for the general case (fewer where not all of a 2-jet is wanted). So structure (is it
affine?) and numbers (what are the derivatives?) are one notion, and what is known to be zero costs nothing.

An `Algebra` provides arrays. Rules use its functions and slicing, arithmetic operators and elementary functions of the
arrays themselves; torch tensors are one such array, arrays of real balls another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.graph import Node
from fisherflat.jets.rules._adjoints import Adjoint


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
        """The shape of the value, without the two leading axes."""
        return tuple(self.data.shape[2:])


class Unknown(Series):
    """An output whose derivatives are not known: an error as soon as it is asked for them."""

    __slots__ = ("_said",)

    def __init__(self, said: str) -> None:
        self._said = said

    @property
    def data(self) -> Any:
        """Not known."""
        raise UnsupportedOpError(self._said)


def aligned(data: Any, rank: int) -> Any:
    """Coefficients with ones put before a shape of lower rank, so that it broadcasts behind the two leading axes."""
    missing = rank - (len(data.shape) - 2)
    return data.reshape(*data.shape[:2], *(1,) * missing, *data.shape[2:]) if missing > 0 else data


class Algebra:
    """Arrays with two leading axes (coefficients, points) and the few operations that rules need beyond operators.

    Second-order coefficients can be kept apart by the label of the node whose source they stem from: in `blocks` blocks
    of k(k+1)/2, `labels` mapping nodes to blocks. Their sum is the second derivative, exactly; with one block it is it.

    **Attributes:** `constants`: by `id` of a constant of a graph, what stands for it, where weights are live;
    `seconds`, which coefficients of second order there are: of each `"pair"` of directions, the `"sum"` of those of
    each with itself, a Laplacian (Dangel et al., *Collapsing Taylor Mode Automatic Differentiation*, arXiv 2505.13644,
    2025), or `"none"`.
    """

    seconds = "pair"

    def __init__(
        self, labels: dict[Node, int] | None = None, blocks: int = 1, constants: dict[int, Tensor] | None = None
    ) -> None:
        self.labels, self.blocks, self.constants = labels or {}, blocks, constants or {}

    def count(self, order: int, k: int) -> int:
        """C, the number of coefficients up to an order."""
        return (1, 1 + k, 1 + k + self.blocks * self._width(k))[order]

    def _width(self, k: int) -> int:
        return k * (k + 1) // 2 if self.seconds == "pair" else int(self.seconds == "sum")

    def crossings(self, k: int) -> Iterator[tuple[int, slice]]:
        """The directions i that others are crossed with, and these, `i <= j`: what `row` has rows for."""
        if self.seconds != "none":
            for i in range(k):
                yield i, slice(i, k if self.seconds == "pair" else i + 1)

    def sources(self, node: Node, k: int) -> int:
        """The first coefficient that a node puts its sources into."""
        return 1 + k + (self.labels.get(node, 0) * self._width(k) if self.blocks > 1 else 0)

    def row(self, node: Node, series: Series, i: int) -> Any:
        """Where a node puts its sources of `d_i d_j`, for the j that are crossed with i."""
        k, start = series.k, self.sources(node, series.k)
        if self.seconds == "sum":
            return series.data[start : start + 1]
        start += i * k - i * (i - 1) // 2
        return series.data[start : start + k - i]

    def blank(self, series: Series, written: int) -> bool:
        """Whether sources are to be written, not added, when `written` coefficients have been written before."""
        if written > 1 + series.k:
            return False
        alone = self.blocks == 1 and self.seconds == "pair"  # else sources are not all, or meet in one place
        if not alone:
            series.data[1 + series.k :].zero_()
        return alone

    def empty(self, coefficients: int, like: Any, shape: tuple[int, ...]) -> Any:
        """An uninitialised array `[coefficients, P, *shape]` with the points of `like`."""
        raise NotImplementedError

    def recorded(self, forward: Callable[..., Any], adjoint: Adjoint, *arrays: Any, by_output: bool = False) -> Any:
        """`forward(*arrays)`; where gradients are recorded, `adjoint` says what they are, see `_adjoints`."""
        return forward(*arrays)

    def shifted(self, rows: Any, value: Any) -> Any:
        """A series' array with a constant added to its value, in place where no gradient is recorded."""
        rows[0].add_(value)
        return rows

    def kept(self, rows: Any) -> Any:
        """Rows of an array that is still being written, to be read: with a tape, as they are now."""
        return rows

    def spilling(self, value: Any) -> bool:
        """Whether a gradient through a value that was just computed may be no number although nothing depends on it."""
        return False

    def shielded(self, value: Any) -> Any:
        """The same value, to which such gradients do not come."""
        return value

    def constant(self, tensor: Tensor) -> Any:
        """A constant as an array `[*shape]` that combines with the others."""
        raise NotImplementedError

    def add(self, a: Any, b: Any, out: Any) -> None:
        """`out = a + b`, broadcast."""
        raise NotImplementedError

    def mul(self, a: Any, b: Any, out: Any) -> None:
        """`out = a * b`, broadcast."""
        raise NotImplementedError

    def div(self, a: Any, b: Any, out: Any) -> None:
        """`out = a / b`, broadcast, b constant."""
        raise NotImplementedError

    def fma(self, out: Any, a: Any, b: Any) -> None:
        """`out += a * b`, broadcast."""
        raise NotImplementedError

    def none(self, mask: Any) -> bool:
        """Whether no entry of a mask `[P, *shape]` is true; also not where to know that would take long."""
        raise NotImplementedError

    def normalised(self, node: Node, a: Series, b: Series) -> Series | None:
        """The product of two series where it is a norm that this algebra has a better way for; else `None`."""
        return None

    def anchor(self, rows: Any, index: Any, axis: int) -> None:
        """Subtract from `rows`, along an axis, the entry at `index` `[P, *shape]`, where an exact zero is left."""
        raise NotImplementedError

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        """`out = a @ b`, batched and broadcast over leading axes."""
        raise NotImplementedError

    def solve_triangular(self, a: Any, rows: Any, upper: bool, unitriangular: bool) -> None:
        """`rows = a⁻¹ rows` for a triangular `a`, batched and broadcast over leading axes."""
        raise NotImplementedError

    def matrix(self, node: Node, what: str, *arrays: Any) -> tuple[Any, ...]:
        """An inverse, a factor or the like of matrices `[P, *batch, n, m]`, for the rule of a node."""
        raise NotImplementedError

    def convolve(self, node: Node, a: Any, b: Any, options: tuple[Any, ...]) -> Any:
        """The convolution of `a` with the weights `b`, broadcast over leading axes, with the options of the op."""
        raise NotImplementedError

    def contract(self, node: Node, a: Series, b: Series) -> Series:
        """The matrix product of two series, batched and broadcast over leading axes, as the value of a node."""
        raise NotImplementedError

    def linear(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], order: int, k: int) -> Series:
        """The op of `node`, which is affine in all its floating arguments together, on each coefficient."""
        raise NotImplementedError

    def values(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        """The op of `node` on values alone, as series of order 0 (a tuple of them where the op has several outputs)."""
        raise NotImplementedError

    def still(self, node: Node, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        """The same where no argument moves; `rule`, the op's or `None`, is for algebras that cannot call the op."""
        return self.values(node, args, kwargs, k)

    def fallback(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Series:
        """An op without a rule."""
        raise NotImplementedError
