"""Maps made of torch's own operator database: an operator on one of its sample inputs, as a function of one tensor.

Of each sample, every floating input moves in turn while the others stand still, and then all of them together.
"""

from __future__ import annotations

import random
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

import fisherflat as ff
from fisherflat.spaces.charts import Chart


@cache
def operators() -> dict[str, Any]:
    """Name -> entry of the database, for all that take float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db  # takes seconds

    return {op.full_name: op for op in op_db if torch.float64 in op.dtypes}


def differentiable() -> list[str]:
    """The operators that torch differentiates."""
    return [name for name, op in operators().items() if op.supports_autograd]


@dataclass(frozen=True)
class OperatorMap:
    """`x -> op(sample with x in it)`, real and flat.

    **Attributes:** `name`, sample and what moves; `point`, what the sample holds there; `call`, the map.
    """

    name: str
    point: Tensor
    call: Callable[[Tensor], Tensor]

    def chart(self) -> Chart:
        """Two random directions through the sample itself, seeded by the name."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        basis = torch.randn(2, *self.point.shape, dtype=torch.float64, generator=generator)
        return ff.charts.affine(self.point, basis)


def seeded(name: str) -> None:
    """Samples are drawn by three generators; they depend on the operator alone."""
    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the one that the database draws from
    random.seed(seed)


def samples(name: str, most: int | None = None) -> list[Any]:
    """The sample inputs of an operator, or the first of them; of some, hundreds are drawn."""
    seeded(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(islice(_drawn(operators()[name]), most))


def _drawn(op: Any) -> Iterator[Any]:
    """As `op.sample_inputs` draws them, which takes longer to look in all modules for the test that asks."""
    from torch.testing._internal.common_utils import SEED, set_rng_seed

    found = iter(op.sample_inputs_func(op, "cpu", torch.float64, False))
    while True:
        set_rng_seed(SEED)
        try:
            yield next(found)
        except StopIteration:
            return


def maps(
    name: str, chosen: Callable[[int], list[int]] = lambda count: list(range(count)), most: int | None = None
) -> Iterator[OperatorMap]:
    """The maps of an operator; `chosen` picks samples by position, from the first ones if `most` says how many."""
    op, found = operators()[name], samples(name, most)
    for position in chosen(len(found)):
        sample = found[position]
        leaves, structure = tree_flatten((sample.input, sample.args, sample.kwargs))
        leaves = [_in_double(leaf) for leaf in leaves]
        floating = [i for i, leaf in enumerate(leaves) if _moves(leaf)]
        groups = [[i] for i in floating] + ([floating] if len(floating) > 1 else [])
        for group in groups:
            what = f"{name}[{position}] input {'+'.join(str(floating.index(i)) for i in group)}"
            point = leaves[group[0]] if len(group) == 1 else torch.cat([leaves[i].reshape(-1) for i in group])
            if not point.isfinite().all():
                continue
            plain = _map(op.op, leaves, structure, group, sample.output_process_fn_grad)
            yield OperatorMap(what, point.detach().clone(), plain)
            if op.gradcheck_wrapper.__name__ != "<lambda>":  # as torch itself differentiates it: symmetrised, masked
                wrapped = lambda *args, **kwargs: op.gradcheck_wrapper(op.op, *args, **kwargs)  # noqa: E731
                call = _map(wrapped, leaves, structure, group, sample.output_process_fn_grad)
                yield OperatorMap(f"{what}, wrapped", point.detach().clone(), call)


def _in_double(leaf: Any) -> Any:
    """Some samples hold weights in single precision, beside an input in double; a map's constants are in its own."""
    low = isinstance(leaf, Tensor) and leaf.dtype in (torch.float32, torch.float16, torch.bfloat16)
    return leaf.double() if low else leaf


def _moves(leaf: Any) -> bool:
    return (
        isinstance(leaf, Tensor) and leaf.dtype == torch.float64 and leaf.layout == torch.strided and leaf.numel() > 0
    )


def _map(op: Any, leaves: list[Any], structure: Any, group: list[int], processed: Any) -> Callable[[Tensor], Tensor]:
    shapes = [leaves[i].shape for i in group]

    def call(x: Tensor) -> Tensor:
        pieces = [x] if len(group) == 1 else x.split([shape.numel() for shape in shapes])
        # an operator that writes into what it is given must find the same at its next call
        filled = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        for i, piece, shape in zip(group, pieces, shapes, strict=True):
            filled[i] = piece.reshape(shape)
        given, args, kwargs = tree_unflatten(filled, structure)
        return _flat(processed(op(given, *args, **kwargs)))

    return call


def _flat(outputs: Any) -> Tensor:
    """All real and complex outputs in double precision as one vector, of at least two entries."""
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    dense = [leaf if leaf.layout == torch.strided else leaf.to_dense() for leaf in tensors]
    real = [torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf for leaf in dense]
    flat = [leaf.reshape(-1) for leaf in real if leaf.dtype == torch.float64]
    if not flat:
        return torch.zeros(0, dtype=torch.float64)
    joined = flat[0] if len(flat) == 1 else torch.cat(flat)
    return torch.cat([joined, joined]) if joined.numel() == 1 else joined
