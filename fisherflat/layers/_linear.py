"""How the reference layers make and initialise their linear projections."""

from __future__ import annotations

from torch import nn


def linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """A linear map with Xavier-uniform weights and zero bias.

    This is how *Attention Is All You Need* was commonly implemented and what `torch.nn.MultiheadAttention` does for its
    input projections (Glorot & Bengio 2010). Unlike the normal distribution of width 0.02 of the large language
    models, it keeps the scale of the activations at any width, also at those of a toy.
    """
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
