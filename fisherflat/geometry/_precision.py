"""Sums of products in twice the working precision, where a few terms may cancel.

Each product and each sum of two floats is split into its rounded value and its error, both exact (Dekker, *A
floating-point technique for extending the available precision*, 1971; Ogita, Rump & Oishi, *Accurate sum and dot
product*, 2005).
"""

from __future__ import annotations

import torch

from fisherflat._arrays import product_error
from fisherflat._typing import Float, Tensor


def combined(change: Float[Tensor, "P a k"], vectors: Float[Tensor, "k *shape"]) -> Float[Tensor, "P a *shape"]:
    """`sum_i change[a, i] vectors[i]` in float64, right to the last place or two also where the terms cancel."""
    flat = vectors.double().reshape(vectors.shape[0], -1)
    factors = change.double()
    total = factors.new_zeros(*change.shape[:2], flat.shape[1])
    lost = torch.zeros_like(total)
    for i in range(flat.shape[0]):
        a, b = torch.broadcast_tensors(factors[:, :, i, None], flat[i])
        product = a * b
        error = product_error(a, b, product)
        new = total + product
        step = new - total
        lost += ((total - (new - step)) + (product - step)) + error
        total = new
    return (total + lost).reshape(*change.shape[:2], *vectors.shape[1:])
