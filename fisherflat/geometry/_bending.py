"""What the second fundamental form on an orthonormal frame says: sums of inner products of its vectors.

It comes as one vector for each pair `a <= b`, `[*batch, m, D]` with `m = k (k + 1) / 2`. Nothing here takes more memory
than a few Hessians.
"""

from __future__ import annotations

import torch

from fisherflat._arrays import some
from fisherflat._typing import Float, Tensor
from fisherflat.jets import pair_index

#: with so many coordinates, what has two indices is carried to the frame one index after the other
MANY = 16
#: numbers that are worked on together, so that they stay in a cache
WARM = 2**20


def on_frame(
    triangular: Float[Tensor, "*batch k k"], second: Float[Tensor, "*batch m D"]
) -> Float[Tensor, "*batch m D"]:
    """From pairs of coordinates to pairs of frame vectors: `II_ab = sum_ij W_ia W_jb II_ij`, `W = R^-1`.

    One product of matrices of pairs costs `m^2 D = k^4 D / 4`. With more coordinates, II is `L + L^T` with what is on
    one side of the diagonal and half of that, `X = L W` and `II = W^T X + X^T W`: both triangular, `5 k^3 D / 6`, in
    the memory of a few Hessians.
    """
    k = triangular.shape[-1]
    identity = torch.eye(k, dtype=triangular.dtype, device=triangular.device)
    w = torch.linalg.solve_triangular(triangular, identity.expand_as(triangular), upper=True)
    if k < MANY:
        first, last = torch.triu_indices(k, k, device=w.device)
        i, j, a, b = first[None, :], last[None, :], first[:, None], last[:, None]
        return (w[..., i, a] * w[..., j, b] + (i != j) * w[..., j, a] * w[..., i, b]) @ second
    batch, m, dim = second.shape[:-2], *second.shape[-2:]
    out = torch.empty_like(second, memory_format=torch.contiguous_format).reshape(-1, m, dim)
    rows, vectors, step = w.mT.reshape(-1, k, k), second.reshape(-1, m, dim), max(1, WARM // (m * dim))
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


def square(framed: Float[Tensor, "*batch m D"], k: int) -> Float[Tensor, "*batch"]:
    """`|II|^2`: pairs `a < b` count twice."""
    first, last = torch.triu_indices(k, k, device=framed.device)
    return (_squares(framed, k) * (1 + (first < last))).sum(-1)


def scalar(framed: Float[Tensor, "*batch m D"], k: int) -> Float[Tensor, "*batch"]:
    """`2 sum_(a<b) (II_aa . II_bb - |II_ab|^2)`: no need of all inner products."""
    left, right = torch.triu_indices(k, k, 1, device=framed.device)
    mixed = pair_index(k, framed.device)[left, right]
    own = diagonal(framed, k)
    gram = own @ own.transpose(-1, -2)
    return 2 * (gram.triu(1).sum((-2, -1)) - _squares(framed, k)[..., mixed].sum(-1))


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
