"""Arithmetic with noise, to see how much rounding matters.

Whatever torch computes while the mode is on, is perturbed by a few last places: each result of arithmetic by a relative
noise of its own, and what enters a reduction (a product of matrices, a sum, a factorisation) as well, because there
terms that cancel leave a rounding that is large against their sum. What only moves or chooses entries is exact. So the
same rules run as without noise, and what comes out differs by about as much as rounding could have done (Monte Carlo
arithmetic: Parker, *Monte Carlo arithmetic: exploiting randomness in floating-point arithmetic*, 1997).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from fisherflat._arrays import table
from fisherflat.jets.ops import OPS

aten = torch.ops.aten

#: the size of the noise in units of the precision, of which rounding is at most a half
AMPLITUDE = 3.0
#: an estimate is at least so many last places: a few runs may by chance come out alike
_LEAST = 8.0
#: about how many entries of a tensor have a noise of their own
_LARGE = 2**22


def _ops(names: str) -> frozenset[Any]:
    """Ops by name; those that the installed torch does not know are left out."""
    return frozenset(getattr(aten, name) for name in names.split() if hasattr(aten, name))


#: ops that move or choose entries, or make them from nothing, beyond what the table of ops says
_EXACT = frozenset(packet for packet, op in OPS.items() if op.kind in ("structural", "choice", "constant")) | _ops(
    "neg neg_ abs abs_ relu clamp clamp_min clamp_max maximum minimum copy_ copy clone contiguous _to_copy fill_ fill "
    "zero_ zeros ones full empty eye arange empty_like zeros_like ones_like full_like new_empty new_zeros new_ones "
    "new_full new_empty_strided empty_strided lift_fresh_copy scalar_tensor masked_fill_ tril_ triu_ index_put_ "
    "scatter_ index_copy_ index_fill_ nan_to_num nan_to_num_ _unsafe_view _reshape_copy masked_select take resize_ "
    "_local_scalar_dense item masked_scatter isfinite nonzero"
)
#: ops whose results are sums of many terms
_REDUCTIONS = _ops(
    "mm bmm addmm baddbmm addbmm dot mv vdot sum mean prod cumsum cumprod _softmax _log_softmax logsumexp var std "
    "var_mean linalg_vector_norm norm convolution linalg_solve_triangular triangular_solve linalg_qr _linalg_svd "
    "_linalg_eigh linalg_cholesky_ex native_layer_norm _fused_rms_norm native_group_norm _native_batch_norm_legit "
    "_softmax_backward_data _log_softmax_backward_data native_layer_norm_backward avg_pool2d scatter_add index_add"
)


_SUMS = _ops("add add_ sub sub_")

_exactly: ContextVar[bool] = ContextVar("exactly", default=False)


@contextmanager
def exactly() -> Iterator[None]:
    """Where arithmetic is free of noise: in sums and products that are split into their value and their rounding."""
    token = _exactly.set(True)
    try:
        yield
    finally:
        _exactly.reset(token)


class Noise(TorchDispatchMode):
    """While it is on, the thread's floating-point arithmetic is perturbed.

    **Args:** `seed`, of the noise.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._places = Random(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        how = _treatment(func)
        if how.exact or _exactly.get():
            return func(*args, **kwargs)
        if how.reduces:
            args = tuple(self._perturbed(leaf) for leaf in args)
            kwargs = {name: v if name in how.written else self._perturbed(v) for name, v in kwargs.items()}
        still = _without_effect(*args) if how.adds else None
        found = func(*args, **kwargs)
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if _is_real(tensor):
                factors = self._factors(tensor)
                tensor.mul_(factors if still is None else torch.where(still, 1.0, factors))
        return found

    def _perturbed(self, leaf: Any) -> Any:
        if isinstance(leaf, (tuple, list)):
            return [self._perturbed(one) for one in leaf]
        return leaf * self._factors(leaf) if _is_real(leaf) else leaf

    def _factors(self, like: Tensor) -> Tensor:
        """Factors near 1 of the shape of a tensor: for each row a window of the pool, the first at a random place.

        The windows of a large tensor overlap, so that the pool stays small.
        """
        columns = max(like.shape[-1], 1) if like.dim() else 1
        rows = like.numel() // columns
        step = min(columns, max(1, _LARGE // max(rows, 1)))
        span = (rows - 1) * step + columns
        pool = _pool(like.dtype, like.device, max(16, (2 * span).bit_length()))
        start = self._places.randrange(pool.numel() - span)
        strides = [step * math.prod(like.shape[axis + 1 : -1]) for axis in range(like.dim() - 1)]
        return pool[start:].as_strided(like.shape, (*strides, 1)[: like.dim()])


def noisy() -> bool:
    """Whether arithmetic of this thread is perturbed."""
    return any(isinstance(mode, Noise) for mode in _get_current_dispatch_mode_stack())


@dataclass(frozen=True)
class _Treatment:
    """What noise does to an op: nothing, or something to its results, and to what enters a reduction."""

    exact: bool
    reduces: bool
    adds: bool
    written: frozenset[str]


@cache
def _treatment(func: Any) -> _Treatment:
    packet, schema = func.overloadpacket, func._schema
    views = any(result.alias_info and not result.alias_info.is_write for result in schema.returns)
    written = frozenset(a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write)
    return _Treatment(views or packet in _EXACT, packet in _REDUCTIONS, packet in _SUMS, written)


@table
def _pool(dtype: torch.dtype, device: torch.device, bits: int) -> Tensor:
    """`2^bits` factors, drawn once a process: what is random in each run is where the windows are."""
    drawn = torch.rand(2**bits, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sub_(0.5)
    # no small ones: where one rounding makes the error, each run should see it
    noise = drawn.add_(drawn.sign(), alpha=0.5)
    return noise.mul_(AMPLITUDE * torch.finfo(dtype).eps).add_(1).to(device, dtype)


def _is_real(leaf: Any) -> bool:
    # zeros that torch knows to be zeros have no memory to write into, and nothing was rounded
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and not leaf._is_zerotensor()


def _without_effect(a: Any, b: Any, *rest: Any) -> Tensor | None:
    """Where a sum is one of its terms, the other being zero, and so exact."""
    zeros = [term == 0 for term in (a, b)]
    return zeros[0] | zeros[1] if any(isinstance(zero, Tensor) for zero in zeros) else None


def spread(found: Tensor, again: Tensor) -> Tensor:
    """The largest difference between numbers and what they were with noise; infinite where that was none at all.

    **Args:** `found` `[*shape]`; `again` `[runs, *shape]`.
    """
    largest = (again - found).abs().nan_to_num(nan=float("inf")).amax(0)
    least = found.abs() * (_LEAST * torch.finfo(found.dtype).eps)
    return torch.where(found.isnan(), found, torch.maximum(largest, least))
