"""Reading a bilinear MLP from its weights: what input features an output direction responds to."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from fisherflat._arrays import as_float64
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.symmetry.units import gated_units


class Eigenfeatures(NamedTuple):
    """Eigenvalues `[m]` and unit eigenvectors `[m, n]` of an interaction matrix, largest absolute value first."""

    eigenvalues: Tensor
    vectors: Tensor


def interaction_matrix(mlp: Any, direction: Float[Tensor, " out"]) -> Float[Tensor, "n n"]:
    """The symmetric matrix S with `c·y(x) = c·b + xᵀ S x` for an output direction c: `Σ_i (v_i·c) sym(g_i u_iᵀ)`.

    Exact, but only for an MLP without activation. Where gate and up have biases, x is continued by a coordinate 1, to
    which the last row and column belong. Pearce et al., *Bilinear MLPs Enable Weight-Based Mechanistic
    Interpretability* (arXiv 2410.08417).

    **Args:** `mlp`: anything that `gated_units` takes without an input; `direction`: c, `[D]`.

    **Raises:** `InputError` where the MLP has an activation, or c is not of the width of the output.
    """
    units = gated_units(mlp)
    c = as_float64(direction, "direction")
    if units.name != "identity":
        raise InputError(f"an MLP with the activation {units.name} is no quadratic form of its input")
    if c.shape != units.value.shape[1:]:
        raise InputError(f"the direction has shape {list(c.shape)}, the output {list(units.value.shape[1:])}")
    matrix = (units.gate * (units.value @ c)[:, None]).T @ units.up
    return (matrix + matrix.T) / 2


def eigenfeatures(mlp: Any, direction: Float[Tensor, " out"], count: int | None = None) -> Eigenfeatures:
    """The leading eigenfeatures of an output direction: `c·y(x) = c·b + Σ_m λ_m (e_m·x)²`.

    **Args:** as `interaction_matrix`; `count`, how many (default all). **Raises:** as there.
    """
    eigenvalues, vectors = torch.linalg.eigh(interaction_matrix(mlp, direction))
    order = eigenvalues.abs().argsort(descending=True)[:count]
    return Eigenfeatures(eigenvalues[order], vectors.T[order])
