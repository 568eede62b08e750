"""Charts: what moves.

Curvature is a statement about a chart, not about a network: it says which k directions of the input are coordinates.
Every chart here is affine, `u -> point + sum_i u_i basis[i]`; a curved one is an affine chart followed by a map of
your own inside `mean`.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import torch

from fisherflat._arrays import as_float64, integer, integers, lasting
from fisherflat._display import Card, displayed
from fisherflat._renamed import former, renamed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError

__all__ = [
    "Chart",
    "affine",
    "attention_weights",
    "identity",
    "principal",
    "principal_directions",
    "simplex",
    "token",
]


@displayed
@dataclass(frozen=True, eq=False)
class Chart:
    """The affine chart `u -> point + sum_i u_i basis[i]`.

    The basis need not be orthonormal. It should be linearly independent: otherwise every manifold on the chart is
    degenerate.

    **Args:**

    - `point`: the input with coordinates 0, of any shape, taken to float64.
    - `basis`: `[k, *point.shape]`, in units of the point per unit of the coordinate, taken to float64.
    - `kind`: how it was made, for reports and certificates.

    **Raises:** `InputError` where the shapes do not fit or a number is not finite.

    >>> import torch, fisherflat as ff
    >>> chart = ff.charts.Chart(torch.zeros(3), torch.eye(3)[:2])
    >>> chart([2.0, 5.0]).tolist()
    [2.0, 5.0, 0.0]
    """

    point: Tensor
    basis: Tensor
    kind: str = field(default="affine", compare=False)
    #: point and basis with the tape of what they were made of, where there is one
    _taped: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        point, basis = (as_float64(getattr(self, name), name, tape=True) for name in ("point", "basis"))
        if basis.shape[1:] != point.shape or basis.dim() != point.dim() + 1:
            raise InputError(
                f"a chart at a point of shape {list(point.shape)} needs a basis of shape [k, *{list(point.shape)}], "
                f"one direction a row; this basis has shape {list(basis.shape)}"
            )
        if basis.shape[0] == 0:
            raise InputError("a chart needs at least one direction; this basis has none")
        basis = basis.to(point.device)
        if point.requires_grad or basis.requires_grad:
            object.__setattr__(self, "_taped", (point, basis))
        object.__setattr__(self, "point", point.detach())
        object.__setattr__(self, "basis", basis.detach())

    @property
    def k(self) -> int:
        """The number of coordinates."""
        return self.basis.shape[0]

    @property
    def written(self) -> tuple[int, int]:
        """How often point and basis were written into: what was made of them is out of date where this has changed."""
        return self.point._version, self.basis._version

    @property
    def taped(self) -> Chart:
        """The same chart, point and basis of which have gradients by what they were made of."""
        if self._taped is None:
            return self
        found = copy(self)
        for name, tensor in zip(("point", "basis"), self._taped, strict=True):
            object.__setattr__(found, name, tensor)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Without a tape, which no copy can have."""
        return {**vars(self), "_taped": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if isinstance(value, Tensor):
                with lasting():
                    value = value.clone() if value.is_inference() else value.detach()
            object.__setattr__(self, name, value)

    dim = former("k")

    def __call__(self, u: Any) -> Tensor:
        """The points `[*batch, *shape]` with coordinates `u`, in the precision of `u`.

        **Raises:** `InputError` where `u` does not end in an axis of length k or does not hold floating-point numbers.
        """
        u = u if isinstance(u, Tensor) else as_float64(u, "u")
        if u.shape[-1:] != (self.k,) or not u.is_floating_point():
            raise InputError(
                f"u must be floating-point and end in an axis of length k = {self.k}; it is {u.dtype} of shape "
                f"{list(u.shape)}"
            )
        return self.point.to(u.dtype) + torch.tensordot(u, self.basis.to(u.dtype), dims=([-1], [0]))

    def coordinates(self, u: Any) -> Tensor:
        """`u` `[*batch, k]`, checked, in float64 on the chart's device.

        **Raises:** `InputError` where it does not end in an axis of length k or is not finite.
        """
        points = as_float64(u, "u").to(self.point.device)
        if points.dim() == 0 or points.shape[-1] != self.k:
            raise InputError(f"u must end in an axis of length k = {self.k}; it has shape {list(points.shape)}")
        if points.numel() == 0:
            raise InputError("u holds no points")
        return points

    def to(self, device: torch.device | str) -> Chart:
        """The same chart on another device."""
        chart = self.taped
        return Chart(chart.point.to(device), chart.basis.to(device), self.kind)

    def __repr__(self) -> str:
        return f"Chart({self.kind}, k={self.k}, shape={list(self.point.shape)})"

    def _card(self) -> Card:
        return Card("Chart", {"k": self.k, "point": self.point, "basis": self.basis})


def affine(point: Any, basis: Any) -> Chart:
    """The affine chart `u -> point + sum_i u_i basis[i]`.

    **Args:**

    - `point`: an input of the map, of any shape.
    - `basis`: the directions in which it moves, `[k, *point.shape]`.

    **Returns:** a `Chart`.

    **Raises:** `InputError` where the shapes do not fit or a number is not finite.

    >>> import fisherflat as ff
    >>> ff.charts.affine([1.0, 1.0], [[1.0, 0.0]])([0.5]).tolist()
    [1.5, 1.0]
    """
    return Chart(as_float64(point, "point", tape=True), as_float64(basis, "basis", tape=True), "affine")


def identity(dim: SupportsIndex) -> Chart:
    """The inputs themselves as coordinates: `u -> u`.

    **Args:**

    - `dim`: how many, at least 1.

    **Returns:** a `Chart` with k = `dim`.

    **Raises:** `InputError` for fewer than one.

    >>> import fisherflat as ff
    >>> ff.charts.identity(2)([0.3, 0.4]).tolist()
    [0.3, 0.4]
    """
    dim = integer(dim, "dim", 1)
    return Chart(torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64), "identity")


def token(hidden: Any, index: Any, basis: Any) -> Chart:
    """Hidden states in which only token `index` moves, along the rows of `basis`; the other tokens stand still.

    **Args:**

    - `hidden`: the sequence, `[n, d]`.
    - `index`: which token moves, from -n to n - 1; or several, which move together, each by the same vector.
    - `basis`: `[k, d]`, in units of the hidden states.

    **Returns:** a `Chart` of inputs `[n, d]`.

    **Raises:** `InputError` where the shapes do not fit or there is no such token.

    >>> import torch, fisherflat as ff
    >>> ff.charts.token(torch.zeros(3, 2), -1, torch.eye(2))([1.0, 2.0]).tolist()
    [[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]
    """
    hidden, basis = as_float64(hidden, "hidden", tape=True), as_float64(basis, "basis", tape=True)
    if hidden.dim() != 2:
        raise InputError(f"hidden must be [tokens, width]; this one has shape {list(hidden.shape)}")
    n, d = hidden.shape
    if basis.dim() != 2 or basis.shape[1] != d:
        raise InputError(
            f"basis must be [k, {d}] for hidden states of width {d}; this one has shape {list(basis.shape)}"
        )
    several = hasattr(index, "__len__") and getattr(index, "ndim", 1) > 0
    indices = list(integers(index, "tokens that move") if several else [integer(index, "the token that moves")])
    if outside := [i for i in indices if not -n <= i < n]:
        raise InputError(f"token index {outside[0]} is outside a sequence of {n} tokens")
    directions = hidden.new_zeros(basis.shape[0], n, d)
    directions[:, list(indices)] = basis[:, None]
    return Chart(hidden, directions, "token")


def simplex(points: Any) -> Chart:
    """Barycentric coordinates: `u -> sum_i u_i points[i] + (1 - sum_i u_i) points[k]`.

    **Args:**

    - `points`: the corners, `[k + 1, *shape]`.

    **Returns:** a `Chart`, whose origin is the last corner.

    **Raises:** `InputError` for fewer than two corners.

    >>> import fisherflat as ff
    >>> ff.charts.simplex([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0]])([0.5, 0.25]).tolist()
    [1.0, 2.0]
    """
    points = as_float64(points, "points", tape=True)
    if points.dim() < 1 or points.shape[0] < 2:
        raise InputError(
            f"a simplex needs at least two points, stacked on the first axis; got shape {list(points.shape)}"
        )
    return Chart(points[-1], points[:-1] - points[-1], "simplex")


def attention_weights(values: Any) -> Chart:
    """The reading *weights*: attention weights are the coordinates, the `values` `[n, d]` are fixed.

    `u` in `R^(n-1)` holds the weights of all values but the last, whose weight is `1 - sum u`; the chart maps to the
    output mean `[d]`. Without a gate the manifold over it is affine, hence flat (arXiv 2604.14702).

    **Args:**

    - `values`: what attention weighs, `[n, d]`, one row a token.

    **Returns:** a `Chart` with k = n - 1.

    **Raises:** `InputError` where `values` are not at least two rows.

    >>> import torch, fisherflat as ff
    >>> chart = ff.charts.attention_weights(torch.eye(3))
    >>> chart.k, chart([0.2, 0.3]).tolist()
    (2, [0.2, 0.3, 0.5])
    """
    values = as_float64(values, "values", tape=True)
    if values.dim() != 2 or values.shape[0] < 2:
        raise InputError(f"values must be [n, d] with n >= 2, one row a token; these have shape {list(values.shape)}")
    chart = simplex(values).taped
    return Chart(chart.point, chart.basis, "attention weights")


@renamed(dim="k")
def principal(hidden: Any, index: SupportsIndex, k: int = 2) -> Chart:
    """The token slice spanned by the leading principal directions of a set of hidden states.

    One unit of a coordinate is one standard deviation of the hidden states along that direction. The directions are
    right singular vectors of the centred states; their signs are fixed by making the entry of largest size positive, so
    that equal inputs give equal charts.

    **Args:**

    - `hidden`: a sequence `[n, d]` whose token `index` moves and whose tokens are the set; or `[m, n, d]`, m sequences
      that together are the set, of which the first one moves.
    - `index`: which token moves.
    - `k`: how many directions.

    **Returns:** a `Chart` of inputs `[n, d]`.

    **Raises:** `InputError` where the states span fewer than k directions.

    >>> import torch, fisherflat as ff
    >>> ff.charts.principal(torch.eye(4), index=-1, k=2)
    Chart(principal, k=2, shape=[4, 4])
    """
    hidden = as_float64(hidden, "hidden", tape=True)
    if hidden.dim() not in (2, 3):
        raise InputError(f"hidden must be [n, d] or [m, n, d]; it has shape {list(hidden.shape)}")
    directions = principal_directions(hidden.reshape(-1, hidden.shape[-1]), k)
    chart = token(hidden if hidden.dim() == 2 else hidden[0], index, directions).taped
    return Chart(chart.point, chart.basis, "principal")


def principal_directions(states: Float[Tensor, "m d"], k: int) -> Float[Tensor, "k d"]:
    """The leading principal directions of some states, each as long as one standard deviation along it.

    They are right singular vectors of the centred states; their signs make the entry of largest size positive.

    **Args:**

    - `states`: `[m, d]`.
    - `k`: how many directions.

    **Returns:** `[k, d]`, in units of the states.

    **Raises:** `InputError` where the states span fewer than k directions.

    >>> import torch, fisherflat as ff
    >>> ff.charts.principal_directions(torch.tensor([[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), 1).norm(dim=1)
    tensor([2.])
    """
    k = integer(k, "k")
    centred = states - states.mean(0)
    count = max(states.shape[0] - 1, 1)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    rank = singular.numel()
    if rank and not singular.is_meta:
        rank = int((singular > singular.max() * 1e-12).sum()) if singular.max() > 0 else 0
    if not 1 <= k <= rank:
        raise InputError(
            f"{k} principal directions were asked for, and the spread of {states.shape[0]} hidden states has {rank}; "
            "pass more tokens that differ, or a smaller k (at least 1)"
        )
    directions, deviations = directions[:k], singular[:k] / count**0.5
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return directions * largest.sign() * deviations[:, None]
