"""Sectional curvature from the Riemann tensor on an orthonormal frame: its extremes over planes."""

from __future__ import annotations

import torch

from fisherflat._arrays import some, table
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry._taped import smooth

#: of the search for the extreme sectional curvatures: random starts beside the frame's own vectors, and rounds
_STARTS, _ROUNDS = 8, 64


def largest_sectional(riemann: Float[Tensor, "*batch k k k k"]) -> Float[Tensor, "*batch"]:
    """The largest `R(x, y, y, x)` found over orthonormal x, y; `riemann` on an orthonormal frame.

    For one vector fixed it is a quadratic form in the other, whose best value is an eigenvalue: each round takes the
    best x for y and goes on with x in the place of y, so that the value never falls.
    """
    with torch.no_grad():
        values, next_best, x, y, size = _search(riemann.detach())
        best = values.argmax(-1, keepdim=True)
    if not (torch.is_grad_enabled() and riemann.requires_grad):
        return values.amax(-1) * size
    # the plane that is best stays so to first order, so that its curvature has the gradient of the largest one

    def planes() -> Tensor:
        return x[..., :, None] * y[..., None, :] - y[..., :, None] * x[..., None, :]

    def tied() -> Tensor:
        """Whether another plane does as well: one that another start led to, or one through the same vector."""
        found = planes().flatten(-2)
        chosen = found.take_along_dim(best[..., None], -2)
        other = 1 - ((found * chosen).sum(-1) / 2).abs() > 1e-6
        least = values.amax(-1, keepdim=True) - 1e-9
        return (other & (values >= least)).any(-1) | (next_best >= least).any(-1)

    a, b = (v.take_along_dim(best[..., None], -2)[..., 0, :] for v in (x, y))
    value = torch.einsum("...abcd,...a,...b,...c,...d->...", riemann, a, b, b, a)
    return smooth(value, tied, "the largest sectional curvature, or the smallest, is that of two planes")


@table
def _starts(k: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The axes and some random directions, the same on every device: drawn on the CPU, and moved once."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(_STARTS, k, generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(random, dim=-1)
    return torch.cat([torch.eye(k, dtype=torch.float64), directions]).to(device, dtype)


def _search(riemann: Float[Tensor, "*batch k k k k"]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What some starts lead to, of `riemann / size`: values `[*batch, s]`, the next best with the same y, and x and y.

    `size` comes last.
    """
    k = riemann.shape[-1]
    y = _starts(k, riemann.device, riemann.dtype)
    y = y.expand(*riemann.shape[:-4], *y.shape)
    size = riemann.abs().amax((-4, -3, -2, -1), True)
    size = torch.where(size > 0, size, 1.0)
    riemann = riemann / size
    # what no form exceeds: it keeps the eigenvector off y itself, where the form vanishes
    bound = 1 + 2 * riemann.square().sum((-4, -3, -2, -1)).sqrt()[..., None, None, None]
    for _ in range(_ROUNDS):
        form = torch.einsum("...abcd,...sb,...sc->...sad", riemann, y, y) - bound * y[..., :, None] * y[..., None, :]
        values, vectors = torch.linalg.eigh((form + form.transpose(-1, -2)) / 2)
        x, y = y, vectors[..., -1]
    return values[..., -1], values[..., -2], x, y, size[..., 0, 0, 0, 0]


def extremes(riemann: Float[Tensor, "*batch k k k k"]) -> Float[Tensor, "*batch 2"]:
    """The smallest and the largest sectional curvature over all planes, k >= 3: exact for k = 3, else as found."""
    if riemann.shape[-1] > 3:
        return torch.stack([-largest_sectional(-riemann), largest_sectional(riemann)], -1)
    a, b = torch.tensor([(0, 0, 1), (1, 2, 2)], device=riemann.device)
    # <R(e_a ^ e_b), e_c ^ e_d> = R_abdc
    operator = riemann[..., a[:, None], b[:, None], b[None, :], a[None, :]]
    values = torch.linalg.eigvalsh(operator)

    def tied() -> Tensor:
        return (values.diff(dim=-1) <= 1e-9 * values.abs().amax(-1, keepdim=True)).any(-1)

    return smooth(values[..., [0, 2]], tied, "an extreme sectional curvature is that of two planes")


def orthonormal(
    x: Float[Tensor, "*batch k"], y: Float[Tensor, "*batch k"]
) -> tuple[Float[Tensor, "*batch k"], Float[Tensor, "*batch k"]]:
    """Orthonormal vectors of the frame in the plane of two.

    **Raises:** `InputError` where they are parallel or zero.
    """
    length = x.norm(dim=-1, keepdim=True)
    x = x / length
    rest = y - (x * y).sum(-1, keepdim=True) * x
    parallel = rest.norm(dim=-1) <= 8 * torch.finfo(x.dtype).eps * y.norm(dim=-1)
    if some(parallel | (length[..., 0] == 0)):
        raise InputError("x and y are parallel (or zero), so they span no plane; pass two independent tangent vectors")
    return x, rest / rest.norm(dim=-1, keepdim=True)
