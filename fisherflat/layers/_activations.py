"""The activations that gates and gated MLPs put on one of their two factors, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from fisherflat._typing import Tensor
from fisherflat.errors import InputError

Activation = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """`x` itself: no activation, so that the product with the other factor is bilinear.

    >>> import torch, fisherflat as ff
    >>> ff.layers.identity(torch.tensor(3.0))
    tensor(3.)
    """
    return x


def relu2(x: Tensor) -> Tensor:
    """`max(x, 0)²` (So et al., *Primer*, arXiv 2109.08668)."""
    return torch.relu(x).square()


GATE_ACTIVATIONS: dict[str, Activation] = {
    "identity": identity,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,  # exact, x Φ(x) through erf; not the tanh approximation
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softplus": F.softplus,
}
MLP_ACTIVATIONS: dict[str, Activation] = {**GATE_ACTIVATIONS, "relu2": relu2}


def named(name: str | Activation, known: dict[str, Activation], functions: bool = False) -> Activation:
    """The activation called `name` among those `known`, or a function itself where `functions` may be given too.

    **Raises:** `InputError` for a name that is not among them; the message lists those that are.
    """
    if functions and callable(name):
        return name
    if not isinstance(name, str) or name not in known:
        raise InputError(f"unknown activation {name!r}; known here are {', '.join(known)}")
    return known[name]
