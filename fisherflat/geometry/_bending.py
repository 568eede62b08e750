"""What the second fundamental form on an orthonormal frame says: sums of inner products of its vectors.

It comes as one vector for each pair `a <= b`, `[*batch, m, D]` with `m = k (k + 1) / 2`. Nothing here takes more memory
than a few Hessians.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from fisherflat._arrays import some
from fisherflat._typing import Float, Tensor
from fisherflat.geometry._frame import inverse
from fisherflat.jets import pair_index

#: with so many coordinates, what has two indices is carried to the frame one index after the other
MANY = 16
#: numbers that are worked on together, so that they stay in a cache
WARM = 2**20
#: so many rows of a triangular matrix are taken as if it were full there, and so many outputs at least at a time
ROWS, COLUMNS = 16, 128


class Sums(NamedTuple):
    """What the scalar curvature is made of: inner products `II_aa . II_bb`, and the sum of `|II_ab|^2`, `a` not `b`."""

    own: Float[Tensor, "*batch k k"]
    mixed: Float[Tensor, "*batch"]

    @property
    def scalar(self) -> Float[Tensor, "*batch"]:
        """`|tr II|^2 - |II|^2`, without the terms that both have."""
        return 2 * self.own.triu(1).sum((-2, -1)) - self.mixed

    @property
    def square(self) -> Float[Tensor, "*batch"]:
        """`|II|^2`."""
        return self.own.diagonal(dim1=-2, dim2=-1).sum(-1) + self.mixed

    @property
    def trace_square(self) -> Float[Tensor, "*batch"]:
        """`|tr II|^2`."""
        return self.own.sum((-2, -1))


def on_frame(
    triangular: Float[Tensor, "*batch k k"], second: Float[Tensor, "*batch m D"]
) -> Float[Tensor, "*batch m D"]:
    """From pairs of coordinates to pairs of frame vectors: `II_ab = sum_ij W_ia W_jb II_ij`, `W = R^-1`.

    One product of matrices of pairs costs `m^2 D = k^4 D / 4`. With more coordinates, II is `L + L^T` with what is on
    one side of the diagonal and half of that, `X = L W` and `II = W^T X + X^T W`: both triangular, `5 k^3 D / 6`, in
    the memory of a few Hessians.
    """
    k = triangular.shape[-1]
    rows = inverse(triangular.mT)  # W^T
    if k < MANY:
        w = rows.mT
        first, last = torch.triu_indices(k, k, device=w.device)
        i, j, a, b = first[None, :], last[None, :], first[:, None], last[:, None]
        return (w[..., i, a] * w[..., j, b] + (i != j) * w[..., j, a] * w[..., i, b]) @ second
    batch, m, dim = second.shape[:-2], *second.shape[-2:]
    out = torch.empty_like(second, memory_format=torch.contiguous_format).reshape(-1, m, dim)
    rows, vectors, step = rows.reshape(-1, k, k), second.reshape(-1, m, dim), max(1, WARM // (m * dim))
    for first in range(0, len(out), step):
        points = slice(first, first + step)
        _congruent(rows[points], vectors[points], out[points])
    return out.reshape(*batch, m, dim)


def _congruent(w: Float[Tensor, "P k k"], second: Float[Tensor, "P m D"], out: Float[Tensor, "P m D"]) -> None:
    """Write `w second w^T`, w lower triangular, to `out`."""
    k, index = w.shape[-1], pair_index(w.shape[-1], w.device)
    x = second.new_empty(len(w), k, k, second.shape[-1])  # [:, b, i], for i <= b
    for i, row in enumerate(second.split([*range(k, 0, -1)], 1)):
        x[:, i:, i] = torch.cat([w[:, i:, i : i + 1] / 2, w[:, i:, i + 1 :]], -1) @ row
    for b in reversed(range(k)):  # the last first: each pair is written before it is added to
        column, start = x[:, b, : b + 1], b * k - b * (b - 1) // 2
        out[:, index[: b + 1, b]] = w[:, : b + 1, : b + 1] @ column
        out[:, start : start + k - b].baddbmm_(w[:, b:, : b + 1], column)


def diagonal(framed: Float[Tensor, "*batch m D"], k: int) -> Float[Tensor, "*batch k D"]:
    """`II_aa`."""
    return framed[..., pair_index(k, framed.device).diagonal(), :]


def _squares(framed: Float[Tensor, "*batch m D"], k: int) -> Float[Tensor, "*batch m"]:
    """`|II_ab|^2`, in no memory to speak of where there are many."""
    if k < MANY:
        return framed.square().sum(-1)
    return (framed[..., None, :] @ framed[..., :, None])[..., 0, 0]


def hardly(normal: Float[Tensor, "*batch m D"], second: Float[Tensor, "*batch m D"]) -> bool:
    """Whether a normal part is so small that a second projection is to take away what the first one left.

    That is eps |second|, in the tangent space: at right angles to the normal part, and so of second order in products.
    """
    lengths = [torch.linalg.vector_norm(vectors.detach(), dim=-1) for vectors in (normal, second)]
    return some(lengths[0] < 4 * torch.finfo(normal.dtype).eps ** 0.5 * lengths[1])


def entries(framed: Float[Tensor, "*batch m D"], triangular: Float[Tensor, "*batch k k"]) -> Float[Tensor, "*batch n"]:
    """A vector as long as `|II|`: all entries, whichever way the vectors of the frame point."""
    ways = triangular.detach().diagonal(dim1=-2, dim2=-1).sgn()
    first, last = torch.triu_indices(ways.shape[-1], ways.shape[-1], device=ways.device)
    weights = ways[..., first] * ways[..., last] * (1 + (first < last)).to(ways).sqrt()
    return (framed * weights[..., None]).flatten(-2)


def summed(framed: Float[Tensor, "*batch m D"], k: int) -> Sums:
    """The sums of a second fundamental form on an orthonormal frame: no need of all inner products."""
    left, right = torch.triu_indices(k, k, 1, device=framed.device)
    own = diagonal(framed, k)
    mixed = _squares(framed, k)[..., pair_index(k, framed.device)[left, right]]
    return Sums(own @ own.transpose(-1, -2), 2 * mixed.sum(-1))


def streamed(
    triangular: Float[Tensor, "*batch k k"], frame: Float[Tensor, "*batch D k"], second: Float[Tensor, "*batch m D"]
) -> Sums | None:
    """The same from second derivatives in coordinates, a few outputs at a time, of which nothing leaves the cache.

    **Args:** `triangular` and `frame`, `R` and `Q` of the Jacobian, `J^T = Q R`.

    **Returns:** `None` where that does not pay, or where a normal part is so small that one projection leaves too few
    digits: `|second|^2` is then hardly more than what its tangential part has of it.
    """
    batch, dim, k = second.shape[:-2], second.shape[-1], triangular.shape[-1]
    if k < MANY or dim == k or not second.is_cpu or second.requires_grad:
        return None
    tangential = second @ frame
    whole, part = (torch.linalg.vector_norm(vectors, dim=-1).square() for vectors in (second, tangential))
    if some(whole - part < 64 * torch.finfo(second.dtype).eps * whole):
        return None
    given = [x.reshape(-1, *x.shape[-2:]) for x in (inverse(triangular.mT), frame, second, tangential)]
    own, mixed = second.new_zeros(len(given[0]), k, k), second.new_zeros(len(given[0]))
    step = max(COLUMNS, WARM // 4 // k**2)
    for point, (w, q, vectors, along) in enumerate(zip(*given, strict=True)):
        for first in range(0, dim, step):
            taken = slice(first, first + step)
            diagonals, squares = _on_rows(w, torch.addmm(vectors[:, taken], along, q[taken].T, alpha=-1))
            own[point].addmm_(diagonals, diagonals.T)
            mixed[point] += squares
    return Sums(own.reshape(*batch, k, k), mixed.reshape(batch))


def _on_rows(w: Float[Tensor, "k k"], normal: Float[Tensor, "m c"]) -> tuple[Float[Tensor, "k c"], Float[Tensor, ""]]:
    """Of `w II w^T`, w lower triangular: the entries `II_aa`, and the sum of all others' squares."""
    k, columns = len(w), normal.shape[-1]
    full = normal.index_select(0, pair_index(k).flatten()).view(k, k * columns)
    diagonals, squares = [], normal.new_zeros(())
    for start in range(0, k, ROWS):
        end = min(start + ROWS, k)
        half = (w[start:end, :end] @ full[:end]).view(end - start, k, columns)
        block = torch.bmm(w[:end, :end].expand(end - start, -1, -1), half[:, :end])  # [a, b], b < end
        own = block[:, start:].diagonal(dim1=0, dim2=1)
        diagonals.append(own.T.clone())
        own.zero_()
        left, within = block[:, :start].flatten(), block[:, start:].flatten()
        squares += 2 * left.dot(left) + within.dot(within)
    return torch.cat(diagonals), squares


def ricci(framed: Float[Tensor, "*batch m D"], k: int) -> Float[Tensor, "*batch k k"]:
    """`tr II . II_bc - sum_a II_ab . II_ac`."""
    index = pair_index(k, framed.device)
    rows = framed[..., index, :].flatten(-2)
    traced = (framed @ diagonal(framed, k).sum(-2)[..., None]).squeeze(-1)
    return traced[..., index] - rows @ rows.transpose(-1, -2)


def of_plane(
    framed: Float[Tensor, "*batch m D"], x: Float[Tensor, "*batch k"], y: Float[Tensor, "*batch k"]
) -> Float[Tensor, "*batch"]:
    """`II(x, x) . II(y, y) - |II(x, y)|^2`."""
    whole = framed[..., pair_index(x.shape[-1], framed.device), :]
    along_x, along_y = (torch.einsum("...a,...abd->...bd", vector, whole) for vector in (x, y))
    terms = ((x, along_x), (y, along_x), (y, along_y))
    xx, xy, yy = (torch.einsum("...b,...bd->...d", *pair) for pair in terms)
    return (xx * yy).sum(-1) - xy.square().sum(-1)
