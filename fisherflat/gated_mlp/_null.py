"""The null space of the Fisher metric of the weights: where the mean does not move at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fisherflat._arrays import as_float64
from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.gated_mlp._extraction import gated_units
from fisherflat.gated_mlp._generators import generators
from fisherflat.gated_mlp._lowest import lowest
from fisherflat.gated_mlp._units import GatedUnits

#: relative to the largest eigenvalue: below it the eigenvalues of a Gram matrix are rounding and are computed again
_UNSURE = 1e-7
#: rows of the largest matrix, 2 GiB; a gated MLP of width 64 with 128 units has 16,384 gate and up weights
_LARGEST = 16384
#: rows up to which all eigenvalues are computed; beyond, the lowest: all null directions and `_MORE` above them
_WHOLE = 4096
_MORE = 32


@displayed
@dataclass(frozen=True, eq=False)
class NullDirections:
    """The null space of the Fisher metric of the weights of a gated MLP; see `null_directions`.

    **Attributes:**

    - `basis`: `[dimension, P]`, orthonormal, over the `P = h (2n + D)` weights: gates, ups and values, unit by unit, as
      in `GatedUnits`.
    - `spectrum`: the eigenvalues of the metric of gates and ups with the values profiled out, ascending, `[2nh]`.
      Beyond 4,096 gate and up weights it holds the lowest of them, `[m]`: all that are zero, and some above zero, these
      to a few digits and never too small.
    - `predicted`: the number of generators of continuous symmetries, 2h for a homogeneous activation, else h.
    - `residual`: the largest distance of a predicted generator of length 1 from the null space.
    - `gap`: the ratio of the smallest eigenvalue that is not zero to the largest that is taken for zero. A count with a
      small gap is a matter of taste.
    """

    basis: Float[Tensor, "null p"]
    spectrum: Float[Tensor, " m"]
    predicted: int
    residual: float
    gap: float

    @property
    def dimension(self) -> int:
        """The number of null directions."""
        return len(self.basis)


def null_directions(mlp: Any, inputs: Float[Tensor, "*batch d"], *, tolerance: float = 1e-16) -> NullDirections:
    """The null directions of the Fisher metric of the weights of a gated MLP, `(1/N) Σ_n J(x_n)ᵀ J(x_n)`.

    J is the derivative of the output by the weights, so that this is the Fisher information of Gaussian outputs of unit
    covariance over the given inputs. The output depends linearly on the values, `y_n = Σ_i A_ni v_i` with
    `A_ni = φ(g_i·x_n)(u_i·x_n)`, so that they are eliminated first: with the features
    `F_i = (φ'(g_i·x)(u_i·x) x, φ(g_i·x) x)`, `[N, 2n]`, and P the projection onto what A does not reach, the Schur
    complement of the metric has the blocks `(v_i·v_j) (F_iᵀ P F_j) / N`. It has size 2nh instead of (2n + D)h, and the
    same null directions, each with the value weights that undo it, where A has full rank; what A misses is added.

    Up to 4,096 gate and up weights the complement is diagonalised; beyond, its lowest eigenvectors come from one
    Cholesky factorisation and inverse iteration, in the memory of one matrix (`fisherflat.gated_mlp`). In both
    cases the smallest eigenvalues are then computed a second time as squares of singular values of the derivative in
    the space of their eigenvectors, so that they are exact to 1e-24 of the largest rather than to 1e-16.

    Every null direction is one on these inputs. With fewer than `P / D` inputs, or an MLP that represents fewer
    functions than it has weights, there are more than symmetries predict. Biases of gate and up count as weights, that
    of the output does not.

    **Args:**

    - `mlp`: anything that `gated_units` takes.
    - `inputs`: `[..., d]`.
    - `tolerance`: eigenvalues below it, relative to the metric of the unit with the largest, count as zero.

    **Returns:** `NullDirections`.

    **Raises:** as `gated_units`; `InputError` for an MLP with more than 16,384 gate and up weights, for which
    `broken_scaling` and `generator_metric` are made.

    >>> import torch, fisherflat as ff
    >>> inputs = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    >>> found = ff.symmetry.null_directions(ff.layers.GatedMLP(4, 6, "silu"), inputs)
    >>> found.dimension, found.predicted  # output scaling, once a unit
    (6, 6)
    """
    inputs = as_float64(inputs, "inputs")
    units = gated_units(mlp, inputs)
    h, n = units.gate.shape
    if 2 * n * h > _LARGEST:
        raise InputError(
            f"the null space of {h} units of width {n} needs dense linear algebra with matrices of {2 * n * h} rows, "
            f"more than {_LARGEST}; use broken_scaling or generator_metric, which need no such matrix"
        )
    x = units.inputs(inputs).flatten(0, -2) if inputs.dim() > 1 else units.inputs(inputs)[None]
    z, w = x @ units.gate.T, x @ units.up.T
    value, slope = units.activated(z)
    features = torch.cat([(slope * w)[..., None] * x[:, None], value[..., None] * x[:, None]], -1) / len(x) ** 0.5
    left, singular, right = torch.linalg.svd(value * w / len(x) ** 0.5, full_matrices=True)
    rank = int((singular > 1e-12 * singular.max()).sum())
    left, pseudo = left[:, :rank], right[:rank].T / singular[:rank]
    profiled = features.flatten(1)
    for _ in range(2):  # twice is enough for orthogonality to rounding (Giraud et al. 2005)
        profiled = profiled - left @ (left.T @ profiled)
    predicted = generators(units)
    # before the values are profiled out, which may leave nothing
    scale = (features.square().sum((0, 2)) * units.value.square().sum(1)).max()
    spectrum, vectors = _lowest(profiled, units.value, scale, len(predicted))
    zero = int((spectrum <= tolerance * scale).sum())
    factors = vectors[:, :zero].T.unflatten(1, (h, 2 * n))
    moved = torch.einsum("nia,kia->nki", features, factors) @ units.value
    values = -torch.einsum("ir,nr,nkc->kic", pseudo, left, moved)
    basis = torch.cat([factors[..., :n].flatten(1), factors[..., n:].flatten(1), values.flatten(1)], 1)
    basis = torch.linalg.qr(torch.cat([basis, _unreached(right[rank:], units)]).T)[0].T
    residual = (predicted - predicted @ basis.T @ basis).norm(dim=1).max().item()
    return NullDirections(basis, spectrum, len(predicted), residual, _gap(spectrum, zero))


def _lowest(profiled: Tensor, value: Tensor, scale: Tensor, predicted: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of the metric with the values profiled out: all, or the lowest."""
    rows, count = profiled.shape[1], predicted + _MORE
    if rows <= _WHOLE:
        spectrum, vectors = torch.linalg.eigh(_metric(profiled, value))
        unsure = int((spectrum <= _UNSURE * scale).sum())
        low, space = _refined(vectors[:, :unsure], profiled, value)
        return torch.cat([low, spectrum[unsure:]]), torch.cat([space, vectors[:, unsure:]], 1)
    while True:  # until there is one that is not zero
        spectrum, vectors = _refined(lowest(_metric(profiled, value), min(count, rows)), profiled, value)
        if count >= rows or spectrum[-1] > _UNSURE**2 * scale:
            return spectrum, vectors
        count *= 4


def _metric(profiled: Tensor, value: Tensor) -> Tensor:
    """The blocks `(v_i·v_j) (F_iᵀ P F_j)`."""
    h = len(value)
    metric = profiled.T @ profiled
    metric.unflatten(0, (h, -1)).unflatten(2, (h, -1)).mul_((value @ value.T)[:, None, :, None])
    return metric


def _refined(vectors: Tensor, profiled: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and -vectors in a space, as squares of singular values of the derivative there."""
    count = vectors.shape[1]
    if count == 0:
        return vectors[0], vectors
    h = len(value)
    factors = vectors.unflatten(0, (h, -1))
    moved = torch.einsum("nia,iak->nki", profiled.unflatten(1, (h, -1)), factors) @ value
    columns = moved.transpose(1, 2).flatten(0, 1)
    # only the triangle counts, and a square matrix has as many singular values as columns
    triangle = torch.linalg.qr(torch.cat([columns, columns.new_zeros(count, count)]), mode="r")[1]
    _, singular, right = torch.linalg.svd(triangle)
    return singular.square().flip(0), vectors @ right.T.flip(1)


def _unreached(missed: Tensor, units: GatedUnits) -> Tensor:
    """Values that no input sees: for each combination of units whose scores cancel, one direction an output."""
    outputs = units.value.shape[1]
    values = torch.einsum("ki,co->kcio", missed, torch.eye(outputs, dtype=missed.dtype)).flatten(2).flatten(0, 1)
    return torch.cat([values.new_zeros(len(values), 2 * units.gate.numel()), values], 1)


def _gap(spectrum: Tensor, zero: int) -> float:
    if zero in (0, len(spectrum)):
        return float("inf")
    smallest = torch.finfo(spectrum.dtype).tiny
    return (spectrum[zero] / spectrum[zero - 1].clamp(min=smallest)).item()
