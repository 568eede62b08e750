"""Spectra of interaction matrices given by their factors, and the nearest gated unit in two senses."""

from __future__ import annotations

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError


def matrix_spectra(query: Float[Tensor, "h r n"], key: Float[Tensor, "h r n"]) -> Float[Tensor, "h s"]:
    """The singular values of `Σ_r q_ir k_irᵀ`, s = min(r, n), descending."""
    return _singular(query, key)[1]


def form_spectra(query: Float[Tensor, "h r n"], key: Float[Tensor, "h r n"]) -> Float[Tensor, "h m"]:
    """The eigenvalues of the symmetric part of `Σ_r q_ir k_irᵀ` on the span of its factors, ascending."""
    return _symmetric(query, key)[0]


def rank_one(query: Float[Tensor, "h r n"], key: Float[Tensor, "h r n"], sense: str) -> tuple[Tensor, ...]:
    """`g` and `u` `[h, n]` of the best gated unit, its relative error and its relative Gaussian error, `[h]` each.

    **Raises:** `InputError` for a sense that is neither `"matrix"` nor `"function"`.
    """
    eigenvalues, vectors = _symmetric(query, key)
    if sense == "matrix":
        left, singular, right = _singular(query, key)
        root = singular[:, :1].sqrt()
        gate, up = left[..., 0] * root, right[..., 0] * root
        error = _relative(singular[:, 1:].square().sum(-1), singular.square().sum(-1))
    elif sense == "function":
        # p²aaᵀ - m²bbᵀ is the symmetric part of (pa + mb)(pa - mb)ᵀ
        positive = eigenvalues[:, -1:].clamp(min=0).sqrt() * vectors[..., -1]
        negative = eigenvalues[:, :1].neg().clamp(min=0).sqrt() * vectors[..., 0]
        gate, up = positive + negative, positive - negative
        left_out = eigenvalues.clone()
        left_out[:, -1].clamp_(max=0)
        left_out[:, 0].clamp_(min=0)
        error = _relative(left_out.square().sum(-1), eigenvalues.square().sum(-1))
    else:
        raise InputError(f'a rank-1 approximation is of the "matrix" or of the "function", not {sense!r}')
    # the difference of the two forms again by its factors, so that no n x n matrix is made
    change = form_spectra(torch.cat([query, gate[:, None]], 1), torch.cat([key, -up[:, None]], 1))
    return gate, up, error, _relative(_gaussian(change), _gaussian(eigenvalues))


def _gaussian(eigenvalues: Tensor) -> Tensor:
    """`E[(xᵀ S x)²]` for standard Gaussian x, from the spectrum of S (Isserlis 1918)."""
    return 2 * eigenvalues.square().sum(-1) + eigenvalues.sum(-1).square()


def _relative(square: Tensor, whole: Tensor) -> Tensor:
    """The root of a ratio; 0 where the whole is 0."""
    return torch.where(whole > 0, square / whole.where(whole > 0, torch.ones_like(whole)), square).sqrt()


def _singular(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Left vectors `[h, n, s]`, singular values `[h, s]` and right vectors `[h, n, s]`."""
    (left, r), (right, s) = torch.linalg.qr(query.mT), torch.linalg.qr(key.mT)
    u, singular, vh = torch.linalg.svd(r @ s.mT, full_matrices=False)
    return left @ u, singular, right @ vh.mT


def _symmetric(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues `[h, m]` and eigenvectors `[h, n, m]` of the symmetric part on the span of all factors."""
    basis, factors = torch.linalg.qr(torch.cat([query, key], 1).mT)
    rank = query.shape[1]
    inner = factors[..., :rank] @ factors[..., rank:].mT
    eigenvalues, vectors = torch.linalg.eigh((inner + inner.mT) / 2)
    return eigenvalues, basis @ vectors
