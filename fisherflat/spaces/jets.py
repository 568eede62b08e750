"""The 2-jet of a map: value, first and second derivatives, in one tensor with a coefficient axis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from fisherflat._arrays import table
from fisherflat._display import displayed
from fisherflat._typing import Float, Int, Tensor


@lru_cache(maxsize=64)
def pairs(k: int) -> tuple[tuple[int, int], ...]:
    """The index pairs `i <= j` in the order in which second derivatives are stored (row-wise upper triangle)."""
    return tuple((i, j) for i in range(k) for j in range(i, k))


@table
def pair_index(k: int, device: torch.device | str = "cpu") -> Int[Tensor, "k k"]:
    """`[i, j]` -> the position of the pair among `pairs(k)`; a table on each device, made once."""
    rows = torch.arange(k, device=device)
    low, high = torch.minimum(rows[:, None], rows), torch.maximum(rows[:, None], rows)
    return low * k - low * (low - 1) // 2 + high - low


def size(k: int) -> int:
    """S = 1 + k + k(k+1)/2, the number of coefficients of a 2-jet in k coordinates."""
    return 1 + k + k * (k + 1) // 2


@displayed
@dataclass(frozen=True, eq=False)
class Jet:
    """The 2-jet of a map `R^k -> R^D` at a batch of points.

    **Attributes:** `coefficients` `[*batch, S, D]`: the value, the k first derivatives, the k(k+1)/2 second derivatives
    `d_i d_j` with `i <= j`, row-wise (derivatives, not Taylor coefficients: no factor 1/2). `k`: coordinates.
    """

    coefficients: Float[Tensor, "*batch S D"]
    k: int

    def __repr__(self) -> str:
        *batch, _, dim = self.coefficients.shape
        return f"Jet(points={batch}, k={self.k}, D={dim})"

    @cached_property
    def _orders(self) -> tuple[Tensor, ...]:
        """The three together, so that a tape joins their gradients once."""
        rows = self.coefficients.shape[-2]
        return self.coefficients.split([1, self.k, rows - 1 - self.k], -2)

    @property
    def value(self) -> Float[Tensor, "*batch D"]:
        """The map itself."""
        return self._orders[0].squeeze(-2)

    @property
    def jacobian(self) -> Float[Tensor, "*batch k D"]:
        """`[..., i, :] = d_i f`."""
        return self._orders[1]

    @property
    def second(self) -> Float[Tensor, "*batch m D"]:
        """Second derivatives as stored, one for each pair `i <= j`."""
        return self._orders[2]

    @property
    def hessian(self) -> Float[Tensor, "*batch k k D"]:
        """`[..., i, j, :] = d_i d_j f`, symmetric in i and j."""
        return self.second[..., pair_index(self.k, self.coefficients.device), :]
