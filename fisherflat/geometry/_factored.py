"""QR factorisations of many tall matrices at once."""

from __future__ import annotations

import torch

from fisherflat._typing import Float, Tensor

#: beyond so many columns there are few matrices, and a library's blocked factorisation of each is the faster one
_FEW = 16


def factored(
    columns: Float[Tensor, "*batch D k"],
) -> tuple[Float[Tensor, "*batch D k"], Float[Tensor, "*batch k k"]]:
    """`Q` with orthonormal columns and upper triangular `R`, `Q R = columns`.

    On the CPU by LAPACK. Elsewhere torch factorises one matrix after another, which for thousands of points takes
    several times the time of their jets; there few columns are orthogonalised for all points together.
    """
    if columns.device.type == "cpu" or columns.shape[-1] > _FEW:
        q, r = torch.linalg.qr(columns)
        return q, r
    return gram_schmidt(columns)


def gram_schmidt(
    columns: Float[Tensor, "*batch D k"],
) -> tuple[Float[Tensor, "*batch D k"], Float[Tensor, "*batch k k"]]:
    """QR by Gram-Schmidt, each column made orthogonal twice to those before it.

    Twice is enough for orthogonality to rounding unless a column depends on those before it to rounding (Giraud,
    Langou, Rozloznik and van den Eshof, *Numerische Mathematik* 101, 2005, 87-100). Columns that do are zero in `R`'s
    diagonal to rounding, or exactly, and then `Q` has a column of zeros.
    """
    found: list[Tensor] = []
    rows: list[Tensor] = []
    k = columns.shape[-1]
    for j, column in enumerate(columns.unbind(-1)):
        along = column.new_zeros((*column.shape[:-1], k))
        if found:
            basis = torch.stack(found, -2)  # [*batch, j, D]
            for _ in range(2):
                share = basis @ column[..., None]  # [*batch, j, 1]
                column = column - (basis.mT @ share)[..., 0]
                along = along + torch.nn.functional.pad(share[..., 0], (0, k - j))
        length = torch.linalg.vector_norm(column, dim=-1)
        found.append(column / torch.where(length > 0, length, 1.0)[..., None])
        rows.append(along + torch.nn.functional.pad(length[..., None], (j, k - j - 1)))
    return torch.stack(found, -1), torch.stack(rows, -1)
