"""What torch says of an op, and its other forms: without writes, in its parts, or as the Python code behind it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import leaves, mapped_leaves

aten = torch.ops.aten

#: memory whose entries are whatever was there before
UNWRITTEN = {aten.empty, aten.empty_like, aten.empty_strided, aten.empty_permuted, aten.new_empty}
UNWRITTEN |= {aten.new_empty_strided}
#: ops that ask for nothing but the kind of their arguments
OF_KIND = UNWRITTEN | {aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.new_ones, aten.new_full}
OF_KIND |= {aten.is_same_size, aten._has_compatible_shallow_copy_type, aten.sym_size, aten.sym_stride, aten.sym_numel}
OF_KIND |= {aten._has_same_storage_numel, aten.is_pinned, aten.scalar_tensor, aten._fused_sdp_choice}
#: writes that read nothing of what they write over
OVERWRITING = {aten.copy_, aten.fill_, aten.zero_}
#: ways to change which memory a tensor has
EXCHANGING = {aten.set_, aten.resize_, aten.resize_as_, aten.resize}


BRANCHES = "a branch depends on the values of the input, so one graph does not hold elsewhere; replace the branch"


def by_values(func: Any, args: Any, moves: Callable[[Tensor], bool]) -> str:
    """Why an op of a moving input has no place in a graph: what it returns, or how much, is a matter of values."""
    packet = func.overloadpacket
    if torch.Tag.data_dependent_output in func.tags:
        return f"{packet}: {BRANCHES}"
    if torch.Tag.dynamic_output_shape not in func.tags:
        return ""
    if packet in (aten.index, aten._unsafe_index, aten.masked_select):  # by positions, or by a mask, which has a count
        masks = [i for i in leaves(args[1]) if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)]
        if not any(map(moves, masks)):
            return ""
    if packet is aten.linalg_lstsq:  # of its outputs only the residuals, by the rank
        return ""
    return (
        f"{packet}: the shape of the output depends on the values of the input, so one graph does not hold at other "
        "points; choose entries with torch.where, or positions of a fixed number"
    )


@cache
def functional(func: Any) -> Any:
    """The op that returns what `func` writes, and takes the same arguments without outputs; `None` if there is none."""
    schema, packet = func._schema, func.overloadpacket
    if any(argument.is_out for argument in schema.arguments):
        others = (getattr(packet, name) for name in packet.overloads())
        return next((o for o in others if not o._schema.is_mutable and _taken(o._schema) == _taken(schema)), None)
    if not packet.__name__.endswith("_"):
        return None
    space = getattr(torch.ops, func.namespace)
    plain = getattr(space, packet.__name__.rstrip("_"), None)
    if plain is None:
        return None
    # its overload may go by another name: `transpose.int` for `transpose_`
    forms = [getattr(plain, name) for name in (func._overloadname, *plain.overloads()) if hasattr(plain, name)]
    same = (form for form in forms if not form._schema.is_mutable and _taken(form._schema) == _taken(schema))
    return next(same, None)


@cache
def with_outputs(func: Any) -> Any:
    """The op that returns the outputs of `func` and, behind them, what `func` writes; `None` if there is none."""
    beside = getattr(getattr(torch.ops, func.namespace), f"{func.overloadpacket.__name__}_functional", None)
    form = getattr(beside, func._overloadname, None)
    if form is None or form._schema.is_mutable:
        return None
    written = [argument for argument in func._schema.arguments if argument.alias_info is not None]
    return form if len(form._schema.returns) == len(func._schema.returns) + len(written) else None


def _taken(schema: Any) -> list[tuple[str, str]]:
    """What an op takes, by name and type, without the places for its outputs."""
    return [(argument.name, str(argument.type)) for argument in schema.arguments if not argument.is_out]


def targets(func: Any, args: Any, kwargs: Any) -> list[Tensor] | None:
    """The tensors that an op writes into, `None` where they are in lists."""
    written = []
    for position, argument in enumerate(func._schema.arguments):
        given = args[position] if position < len(args) else kwargs.get(argument.name)
        if argument.alias_info is None or not argument.alias_info.is_write or given is None:
            continue
        if not isinstance(given, Tensor):
            return None
        written.append(given)
    return written


@cache
def is_composite(func: Any) -> Callable[..., Any] | None:
    """The op in its parts, where torch has it in parts only: in inference mode it arrives whole."""
    name = func.name()
    if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"):
        return func.decompose
    return None


@cache
def implementation(func: Any) -> Callable[..., Any] | None:
    """The Python code of a `torch.library.custom_op`: the formula that it computes."""
    if func.namespace in ("aten", "prims", "prim"):
        return None
    from torch._library import custom_ops

    made = getattr(custom_ops, "OPDEFS", {}).get(func._schema.name)
    return getattr(made, "_init_fn", None)


_FUSED = {
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
}


@cache
def plain_attention(func: Any) -> Callable[..., Any] | None:
    """A fused attention kernel as products and a softmax, whose parts have derivatives."""
    if func.namespace != "aten" or func.overloadpacket.__name__ not in _FUSED:
        return None
    names = [argument.name for argument in func._schema.arguments]
    kinds = [str(returned.type) for returned in func._schema.returns]

    def plain(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        given = dict(zip(names, args, strict=False)) | kwargs
        mask = given.get("attn_mask", given.get("attn_bias"))
        query, key, value = (given[name] for name in ("query", "key", "value"))
        causal, scale = given.get("is_causal", False), given.get("scale")
        grouped = query.dim() > 2 and query.shape[-3] != key.shape[-3]
        out = aten._scaled_dot_product_attention_math.default(
            query, key, value, mask, 0.0, causal, scale=scale, enable_gqa=grouped
        )[0]
        return (out, *(query.new_zeros(()) if kind == "Tensor" else 0 for kind in kinds[1:]))

    return plain


def needed(packet: Any, args: Any, kwargs: Any, tensors: list[Any]) -> list[Any]:
    """The arguments whose entries an op reads."""
    if packet in OF_KIND:
        return []
    if kwargs.get("beta") == 0:  # what is added has no part in the result then, whatever it holds
        return [t for t in tensors if t is not args[0]]
    return tensors


def returns_targets(func: Any) -> bool:
    """Whether what an op returns is what it writes into."""
    return all(returned.alias_info is not None for returned in func._schema.returns)


def outputs(func: Any) -> set[str]:
    """The names of the arguments that are there to be written into."""
    return {a.name for a in func._schema.arguments if a.is_out}


def returned(func: Any, written: list[Any]) -> Any:
    """What an op returns that returns what it writes into."""
    returns = len(func._schema.returns)
    return None if returns == 0 else written[0] if returns == 1 else tuple(written)


def material(out: Any) -> Any:
    """What an op returns, with its numbers in memory: torch looks for zeros and signs that are only noted above modes.

    So a map that resolves them leaves no op on the tape for that, and each op on it has to do so.
    """
    return mapped_leaves(_resolved, out)


def _resolved(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return torch.zeros_like(leaf) if leaf._is_zerotensor() else leaf.resolve_conj().resolve_neg()


def shapes(out: Any) -> tuple[tuple[int, ...], ...]:
    """The shapes of several outputs."""
    return tuple(tuple(o.shape) if isinstance(o, Tensor) else () for o in out)
