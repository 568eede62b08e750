"""Reading a bilinear MLP from its weights: what input features an output direction responds to."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from fisherflat._arrays import as_float64
from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.gated_mlp._extraction import gated_units
from fisherflat.gated_mlp._units import GatedUnits
from fisherflat.layers import BilinearAttention


@displayed
class Eigenfeatures(NamedTuple):
    """Eigenvalues `[m]` and unit eigenvectors `[m, n]` of an interaction matrix, from `eigenfeatures`.

    **Attributes:** `eigenvalues`, largest absolute value first; `vectors`, a row for each.
    """

    eigenvalues: Tensor
    vectors: Tensor


def interaction_matrix(mlp: Any, direction: Float[Tensor, " out"]) -> Float[Tensor, "n n"]:
    """The symmetric matrix S with `c·y(x) = c·b + xᵀ S x` for an output direction c: `Σ_i (v_i·c) sym(g_i u_iᵀ)`.

    It is exact, but exists only for an MLP without activation. Where gate and up have biases, x is continued by a
    coordinate 1, to which the last row and column belong. Pearce et al., *Bilinear MLPs Enable Weight-Based Mechanistic
    Interpretability* (arXiv 2410.08417).

    **Args:**

    - `mlp`: a `fisherflat.layers.BilinearAttention`, of any rank, or anything that `gated_units` takes without an
      input.
    - `direction`: c, `[D]`.

    **Returns:** S, `[n, n]`, n = d, or d + 1 with biases.

    **Raises:** `InputError` where the MLP has an activation, or c is not of the width of the output.

    >>> import torch, fisherflat as ff
    >>> mlp, c, x = ff.layers.GatedMLP(4, 6, "identity").double(), torch.ones(4).double(), torch.ones(4).double()
    >>> torch.allclose(x @ ff.symmetry.interaction_matrix(mlp, c) @ x, c @ mlp(x))
    True
    """
    units = units_of(mlp)
    c = as_float64(direction, "direction")
    if units.name != "identity":
        raise InputError(f"an MLP with the activation {units.name} is not a quadratic form of its input")
    if c.shape != units.value.shape[1:]:
        raise InputError(f"the direction has shape {list(c.shape)}, the output {list(units.value.shape[1:])}")
    matrix = (units.gate * (units.value @ c)[:, None]).T @ units.up
    return (matrix + matrix.T) / 2


def eigenfeatures(mlp: Any, direction: Float[Tensor, " out"], *, count: int | None = None) -> Eigenfeatures:
    """The leading eigenfeatures of an output direction: `c·y(x) = c·b + Σ_m λ_m (e_m·x)²`.

    **Args:**

    - `mlp`, `direction`: as in `interaction_matrix`.
    - `count`: how many, default all.

    **Returns:** `Eigenfeatures`, those of largest absolute eigenvalue first.

    **Raises:** as `interaction_matrix`.

    >>> import torch, fisherflat as ff
    >>> mlp = ff.layers.GatedMLP(4, 6, "identity")
    >>> ff.symmetry.eigenfeatures(mlp, torch.ones(4), count=2).vectors.shape
    torch.Size([2, 4])
    """
    eigenvalues, vectors = torch.linalg.eigh(interaction_matrix(mlp, direction))
    order = eigenvalues.abs().argsort(descending=True)[:count]
    return Eigenfeatures(eigenvalues[order], vectors.T[order])


def units_of(mlp: Any) -> GatedUnits:
    """The units of a gated MLP, or of bilinear attention: one for each slot and rank, those of a slot with one value.

    For what depends on the function alone. The weights of a slot's units are tied, so symmetries need `gated_units`.
    """
    if not isinstance(mlp, BilinearAttention):
        return gated_units(mlp)
    gate, up = (factor.detach().double().flatten(0, 1) for factor in (mlp.query, mlp.key))
    value = mlp.value.detach().double().repeat_interleave(mlp.query.shape[1], 0)
    name = mlp.activation if isinstance(mlp.activation, str) else "unknown"
    bias = None if mlp.bias is None else mlp.bias.detach().double()
    return GatedUnits(gate, up, value, mlp._activation, name, mlp.constant, bias)
