"""Small gated MLPs with weights of a fixed seed."""

from __future__ import annotations

import torch
from torch import Tensor

from fisherflat.layers import GatedMLP

#: of homogeneity
DEGREES = {"identity": 1, "relu": 1, "relu2": 2}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(activation: str, bias: bool = False, dim: int = 5, hidden: int = 4) -> GatedMLP:
    mlp = GatedMLP(dim, hidden, activation, bias).double()
    for index, parameter in enumerate(mlp.parameters()):
        parameter.data.copy_(normal(*parameter.shape, seed=index))
    return mlp
