"""The search for the plane of largest sectional curvature."""

from __future__ import annotations

import torch

from fisherflat._typing import Float, Tensor

#: of the search for the extreme sectional curvatures: random starts beside the frame's own vectors, and rounds
_STARTS, _ROUNDS = 8, 64


def largest_sectional(riemann: Float[Tensor, "*batch k k k k"]) -> Float[Tensor, "*batch"]:
    """The largest `R(x, y, y, x)` found over orthonormal x, y; `riemann` on an orthonormal frame.

    For one vector fixed it is a quadratic form in the other, whose best value is an eigenvalue: each round takes the
    best x for y and goes on with x in the place of y, so that the value never falls.
    """
    k = riemann.shape[-1]
    generator = torch.Generator().manual_seed(0)
    random = torch.nn.functional.normalize(torch.randn(_STARTS, k, generator=generator, dtype=torch.float64), dim=-1)
    y = torch.cat([torch.eye(k, dtype=torch.float64), random]).to(riemann)
    y = y.expand(*riemann.shape[:-4], *y.shape)
    size = riemann.abs().amax((-4, -3, -2, -1), True)
    size = torch.where(size > 0, size, 1.0)
    riemann = riemann / size
    # what no form exceeds: it keeps the eigenvector off y itself, where the form vanishes
    bound = 1 + 2 * riemann.square().sum((-4, -3, -2, -1)).sqrt()[..., None, None, None]
    for _ in range(_ROUNDS):
        form = torch.einsum("...abcd,...sb,...sc->...sad", riemann, y, y) - bound * y[..., :, None] * y[..., None, :]
        values, vectors = torch.linalg.eigh((form + form.transpose(-1, -2)) / 2)
        y = vectors[..., -1]
    return values[..., -1].amax(-1) * size[..., 0, 0, 0, 0]
