"""The algebra of `fisherflat.jets.rules` in torch tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from fisherflat._arrays import on_host, some
from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.engines._affine import applied
from fisherflat.jets.engines._batched import batched
from fisherflat.jets.engines._fallback import differentiated, padded
from fisherflat.jets.engines._matrices import MATRICES
from fisherflat.jets.engines._norms import norm_in, normalised
from fisherflat.jets.engines._trust import EQUALITIES
from fisherflat.jets.engines._writing import into
from fisherflat.jets.graph import Node
from fisherflat.jets.ops import OPS
from fisherflat.jets.rules import (
    Adjoint,
    Algebra,
    Factor,
    Recorded,
    Series,
    Unknown,
    aligned,
    leibniz_adjoint,
    moving_rows,
    series_in,
)

aten = torch.ops.aten


def _expanded(data: Tensor, batch: list[int]) -> Tensor:
    missing = len(batch) - (data.dim() - 4)
    data = data.reshape(*data.shape[:2], *(1,) * missing, *data.shape[2:])
    return data.expand(*data.shape[:2], *batch, *data.shape[-2:])


def _alone(a: Any, b: Any = None) -> Tensor:
    """At which points entries of two series or numbers are equal, but not all their derivatives; or one is NaN."""
    if b is None:
        return a.data[0].isnan().reshape(a.data.shape[1], -1).any(1)
    given = [s.data if isinstance(s, Series) else torch.as_tensor(s)[None, None] for s in (a, b)]
    rank, count = (max(sizes) for sizes in zip(*((s.dim() - 2, s.shape[0]) for s in given), strict=True))
    one, two = (padded(aligned(s, rank), count) for s in given)
    equal = one == two
    # what is infinite and moves by finite numbers, as a masked score, is so nearby too
    masked = one[0].isinf() & one[1:].isfinite().all(0) & two[1:].isfinite().all(0)
    return (equal[0] & ~equal[1:].all(0) & ~masked).reshape(equal.shape[1], -1).any(1)


def _more(out: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """`out += scale * left @ right`, broadcast over leading axes."""
    left, right = (x.expand(*out.shape[:-2], *x.shape[-2:]).flatten(0, -3) for x in (left, right))
    out.view(-1, *out.shape[-2:]).baddbmm_(left, right, alpha=scale)


def _stacked(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right`, where the leading axis of one of them is 1, coefficient by coefficient: nothing is copied."""
    lead = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    if torch.is_grad_enabled():
        return left @ right
    out = left.new_empty(*lead, left.shape[-2], right.shape[-1])
    for row in range(lead[0]):
        pair = (x[min(row, len(x) - 1)].expand(*lead[1:], *x.shape[-2:]).flatten(0, -3) for x in (left, right))
        torch.bmm(*pair, out=out[row].view(-1, *out.shape[-2:]))
    return out


#: ops the rules of which take all points at once, also where nothing moves; others are called by `batched`
_FOR_ALL = ("structural", "linear", "sum", "product")
#: the gradient of a matrix product by each factor
_BY_FACTOR = (
    Factor(lambda g, other: _stacked(g, other.mT), lambda out, g, other, scale: _more(out, g, other.mT, scale), True),
    Factor(lambda g, other: _stacked(other.mT, g), lambda out, g, other, scale: _more(out, other.mT, g, scale), True),
)


class TensorAlgebra(Algebra):
    """The algebra of `fisherflat.jets.rules` in torch tensors.

    **Attributes:** `alone`: the points where an equality of things that move holds, or an entry is not a number, and
    may not be nearby; `tape`: whether gradients may be recorded, see `into`; `spilled`: where the host is not to wait
    for each node, whether each may spill gradients (`spilling`), to be asked at the end.
    """

    alone: Tensor | None = None
    spilled: list[Tensor] | None = None

    def __init__(
        self,
        labels: dict[Node, int] | None = None,
        blocks: int = 1,
        constants: dict[int, Tensor] | None = None,
        tape: bool = False,
        seconds: str = "pair",
    ) -> None:
        super().__init__(labels, blocks, constants)
        self.tape, self.seconds = tape, seconds

    @property
    def _taping(self) -> bool:
        return self.tape and torch.is_grad_enabled()

    def empty(self, coefficients: int, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        return like.new_empty(coefficients, like.shape[1], *shape)

    def recorded(self, forward: Callable[..., Any], adjoint: Adjoint, *arrays: Any, by_output: bool = False) -> Any:
        if not self._taping or not any(array.requires_grad for array in arrays):
            return forward(*arrays)
        return Recorded.apply(forward, adjoint, by_output, *arrays)

    def shifted(self, rows: Tensor, value: Any) -> Tensor:
        if not self._taping:
            return super().shifted(rows, value)
        return torch.cat([rows[:1] + value, rows[1:]])

    def kept(self, rows: Tensor) -> Tensor:
        return rows.clone() if self._taping else rows

    def spilling(self, value: Any) -> bool:
        # an infinite slope times a gradient of zero, where an entry is not read or masked behind
        parts = value if isinstance(value, tuple) else (value,)
        data = (part.data for part in parts if isinstance(part, Series) and not isinstance(part, Unknown))
        if not self._taping:
            return False
        finite = [d.detach().sum().isfinite() for d in data]
        if self.spilled is None:
            return any(some(~one) for one in finite)
        self.spilled += [~one for one in finite]
        return False

    def shielded(self, value: Any) -> Any:
        if not isinstance(value, Series) or isinstance(value, Unknown) or not value.data.requires_grad:
            return value
        data = value.data.view_as(value.data)
        data.register_hook(lambda gradient: gradient.masked_fill(gradient.isnan(), 0.0))
        return Series(data, value.k)

    def constant(self, tensor: Tensor) -> Tensor:
        return tensor

    def mul(self, a: Tensor, b: Any, out: Tensor) -> None:
        into(out, torch.mul, a, b)

    def add(self, a: Tensor, b: Any, out: Tensor) -> None:
        into(out, torch.add, a, b)

    def div(self, a: Tensor, b: Any, out: Tensor) -> None:
        into(out, torch.div, a, b)

    def fma(self, out: Tensor, a: Tensor, b: Tensor) -> None:
        out.addcmul_(a, b)

    def none(self, mask: Tensor) -> bool:
        return on_host(mask) and not mask.any()

    def normalised(self, node: Node, a: Series, b: Series) -> Series | None:
        found = norm_in(node) if self.blocks == 1 else None
        if found is None:
            return None
        position, norm = found
        return normalised(self, norm, node, *((a, b) if position == 0 else (b, a)), self.count(2, a.k))

    def anchor(self, rows: Tensor, index: Tensor, axis: int) -> None:
        rows.sub_(self.kept(rows).gather(axis, index.expand(rows.shape[0], *index.shape)))

    def matmul(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        rows = a.reshape(-1, a.shape[-1]) if b.dim() == 2 else None
        if rows is not None and (moving := moving_rows(rows, b.shape[-1])) is not None:
            lines = out.view(-1, out.shape[-1]).zero_()
            lines[moving] = rows[moving] @ b
            return
        into(out, torch.matmul, a, b)

    def solve_triangular(self, a: Tensor, rows: Tensor, upper: bool, unitriangular: bool) -> None:
        rows.copy_(torch.linalg.solve_triangular(a, rows, upper=upper, unitriangular=unitriangular))

    def convolve(self, node: Node, a: Tensor, b: Tensor, options: tuple[Any, ...]) -> Tensor:
        rank = len(node.shape)
        lead = torch.broadcast_shapes(*(x.shape[: x.dim() - rank] for x in (a, b)))
        flat = [x.expand(*lead, *x.shape[-rank:]).flatten(0, len(lead) - 1) for x in (a, b)]
        out = batched(node, lambda x, w: aten.convolution(x, w, None, *options), (True, True), flat)
        return out.unflatten(0, lead)

    def matrix(self, node: Node, what: str, *arrays: Tensor) -> tuple[Any, ...]:
        return MATRICES[what](*arrays)

    def contract(self, node: Node, a: Series, b: Series) -> Series:
        """All products of coefficients in a few large products.

        Those of the left factor are stacked as rows, those of the right one as columns, behind the batch axes.
        """
        batch = list(node.shape[:-2])
        adjoint = leibniz_adjoint(a.k, self.sources(node, a.k), bool(a.order and b.order), _BY_FACTOR)

        def forward(*arrays: Tensor) -> Tensor:
            return self.contracted(node, *(Series(_expanded(array, batch), a.k) for array in arrays)).data

        rank = len(node.shape)
        return Series(self.recorded(forward, adjoint, aligned(a.data, rank), aligned(b.data, rank)), a.k)

    def contracted(self, node: Node, a: Series, b: Series) -> Series:
        """The same where no gradient is recorded, of factors with the same batch axes."""
        k, (*batch, rows, columns) = a.k, node.shape
        left, right = a.data, b.data
        (ca, points), cb, inner = left.shape[:2], right.shape[0], left.shape[-1]
        mixing = bool(a.order and b.order)
        every = points * math.prod(batch)
        # [batch, C, rows, inner] and [batch, inner, C, columns]
        left = left.movedim(0, -3).reshape(every, ca * rows, inner)
        right = right.movedim(0, -2).reshape(every, inner, cb * columns)
        count = self.count(2 if mixing else max(a.order, b.order), k)
        out = left.new_empty(every, count, rows, columns)
        result = Series(out.view(points, *batch, count, rows, columns).movedim(-3, 0), k)
        if cb == 1:
            torch.bmm(left, right, out=out.view(every, ca * rows, columns))
            return result
        out[:, 0].zero_()

        def multiplied(one: range, other: range) -> Tensor:
            """Products of such coefficients of the left factor with such of the right one, `[one, other, P, ...]`."""
            above = left[:, one.start * rows : one.stop * rows]
            behind = right[:, :, other.start * columns : other.stop * columns]
            product = torch.bmm(above, behind).view(points, *batch, len(one), rows, len(other), columns)
            return product.movedim((-4, -2), (0, 1))

        result.data[1:cb] = multiplied(range(1), range(1, cb))[0]
        blank = mixing and self.blank(result, cb)
        if not blank:
            result.data[cb:].zero_()
        if mixing and self.seconds == "sum":
            one = a.data[1 : 1 + k].movedim(0, -2).reshape(every, rows, k * inner)
            other = b.data[1 : 1 + k].movedim(0, -3).reshape(every, k * inner, columns)
            result.data[1 + k].add_(torch.bmm(one, other).view(points, *batch, rows, columns), alpha=2)
        if mixing and self.seconds == "pair":
            slopes = range(1, 1 + k)
            cross = multiplied(slopes, slopes)
            for i in range(k):
                row = self.row(node, result, i)
                if blank:
                    into(row, torch.add, cross[i, i:], cross[i:, i])
                else:
                    row.add_(cross[i, i:]).add_(cross[i:, i])
        if ca == count:
            whole = out.view(every, ca * rows, columns)
            torch.baddbmm(whole, left, right[:, :, :columns], out=whole)
        else:
            out[:, :ca] += torch.bmm(left, right[:, :, :columns]).view(every, ca, rows, columns)
        return result

    def linear(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], order: int, k: int) -> Series:
        return Series(applied(node, args, kwargs, self.count(order, k)), k)

    @torch.no_grad()
    def values(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        return self._values(node, args, kwargs, k)

    def still(self, node: Node, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        op = OPS.get(node.packet)
        if op is not None and op.kind in _FOR_ALL and all(x.data.is_floating_point() for x in series_in(args, kwargs)):
            return rule(self, node, *args, **kwargs)
        if not self._taping or (op is not None and op.kind == "constant"):  # what jumps has no gradient
            return self.values(node, args, kwargs, k)
        return self._values(node, args, kwargs, k)

    def _values(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        op = OPS.get(node.packet)
        if op is not None and op.shape_only:  # a constant, the same for all points
            return node.target(args[0].data[0, 0], *args[1:], **kwargs)
        if node.packet in EQUALITIES:
            with torch.no_grad():
                self._note(_alone(*args))
        leaves, structure = tree_flatten((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Series))

        def call(*filled: Any) -> Any:
            full_args, full_kwargs = tree_unflatten(filled, structure)
            out = node.target(*full_args, **full_kwargs)
            return out if isinstance(out, Tensor) else tuple(out)

        moving = tuple(isinstance(leaf, Series) for leaf in leaves)
        out = batched(node, call, moving, [leaf.data[0] if isinstance(leaf, Series) else leaf for leaf in leaves])
        return tuple(Series(o[None], k) for o in out) if isinstance(out, tuple) else Series(out[None], k)

    def forget(self) -> None:
        """No point is known to be alone."""
        self.alone = None

    def _note(self, points: Tensor) -> None:
        self.alone = points if self.alone is None else self.alone | points

    def fallback(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        if self.seconds != "pair":  # of them not enough is known to be compared with values
            raise UnsupportedOpError(f"{node.op} at {node.source} has no rule, and derivatives of each pair alone")
        return differentiated(node, args, kwargs, k, self.count(2, k), self.sources(node, k))
