"""Reading, writing and choosing entries: masks as choices or positions, copies as views, order statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.recording.decompositions._table import TABLE, decomposes

aten = torch.ops.aten


@decomposes("masked_fill.Tensor")
def _masked_fill(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    return torch.where(mask, value, x)


@decomposes("fill.Scalar")
def _fill(x: Tensor, value: complex) -> Tensor:
    return torch.full_like(x, value)


@decomposes("fill.Tensor")
def _fill_tensor(x: Tensor, value: Tensor) -> Tensor:
    return value.to(x.dtype).expand(x.shape)


@decomposes("zero")
def _zero(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


@decomposes("copy")
def _copy(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(x.dtype).expand(x.shape)


@decomposes("masked_scatter")
def _masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    x, mask = torch.broadcast_tensors(x, mask)
    return x.index_put((mask,), source.reshape(-1)[: int(mask.sum())])


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _positions(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Masks as the positions where they hold; one that moves with the input cannot be traced: its count is open."""
    found: list[Tensor | None] = []
    for index in indices:
        found += index.nonzero().unbind(1) if index is not None and _is_mask(index) else [index]
    return found


@decomposes("index")
def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Any:
    return aten.index.Tensor(x, _positions(indices)) if any(map(_is_mask, indices)) else NotImplemented


@decomposes("_unsafe_index")
def _unsafe_index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    return aten.index.Tensor(x, indices)


@decomposes("index_put")
def _index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Any:
    """`x[mask] = value` is a choice at each entry, where the mask may move with the input."""
    if not any(map(_is_mask, indices)):
        return NotImplemented
    mask, *others = indices
    values = values.reshape(()) if values.numel() == 1 else values
    if others or mask is None or values.dim() > x.dim() - mask.dim():
        return aten.index_put.default(x, _positions(indices), values, accumulate)
    mask = mask.reshape(*mask.shape, *(1,) * (x.dim() - mask.dim()))
    return torch.where(mask.to(torch.bool), x + values if accumulate else values, x)


@decomposes("index_fill.int_Tensor")
def _index_fill(x: Tensor, dim: int, index: Tensor, value: Tensor) -> Tensor:
    filled = torch.zeros(x.shape[dim] if x.dim() else 1, dtype=torch.bool, device=x.device)
    filled[index] = True
    shape = [1] * x.dim()
    if x.dim():
        shape[dim] = -1
    return torch.where(filled.reshape(shape), value, x)


@decomposes("put")
def _put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    index, source = index.reshape(-1), source.reshape(-1)
    return x.reshape(-1).index_put((index,), source, accumulate).reshape(x.shape)


@decomposes("masked_select")
def _masked_select(x: Tensor, mask: Tensor) -> Tensor:
    x, mask = torch.broadcast_tensors(x, mask)
    return x[mask]


@decomposes("roll")
def _roll(x: Tensor, shifts: Any, dims: Any = ()) -> Any:
    return NotImplemented if x.dim() else x.clone()  # batched, torch rolls through the points


@decomposes("take")
def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.reshape(-1)[index]


@decomposes("as_strided")
def _as_strided(x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Tensor:
    """A gather of the entries that the strides meet, because coefficients need not lie in memory as the value did."""
    return x.reshape(-1)[_met(x, size, stride, offset)]


def _met(x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None) -> Tensor:
    """The positions, in the order of `x`, of the entries that strides over its memory meet."""
    memory = torch.arange(x.untyped_storage().nbytes() // x.element_size(), device=x.device)
    entry = torch.full_like(memory, -1)
    entry[memory.as_strided(x.shape, x.stride(), x.storage_offset())] = torch.arange(
        x.numel(), device=x.device
    ).reshape(x.shape)
    index = entry[memory.as_strided(size, stride, x.storage_offset() if offset is None else offset)]
    if (index < 0).any():
        raise IndexError("as_strided reaches outside of the tensor that it is called on")
    return index


@decomposes("as_strided_scatter")
def _as_strided_scatter(
    x: Tensor, source: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Tensor:
    index = _met(x, size, stride, offset).reshape(-1)
    if len(index.unique()) < len(index):
        raise ValueError("as_strided_scatter writes to an entry twice, in no order that is defined")
    return x.reshape(-1).index_put((index,), source.expand(size).reshape(-1)).reshape(x.shape)


@decomposes("kthvalue.default")
def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    if not x.dim():
        return x.clone(), torch.zeros((), dtype=torch.long, device=x.device)
    values, indices = (part.narrow(dim, k - 1, 1) for part in x.sort(dim=dim, stable=True))
    return (values, indices) if keepdim else (values.squeeze(dim), indices.squeeze(dim))


@decomposes("median.dim")
def _median(x: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return _kthvalue(x, (x.shape[dim] + 1) // 2 if x.dim() else 1, dim, keepdim)


@decomposes("median.default")
def _median_of_all(x: Tensor) -> Tensor:
    return _median(x.reshape(-1))[0]


@decomposes("nanmedian.dim")
def _nanmedian(x: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """Sorted, what is no number stands behind the numbers."""
    if not x.dim():
        return x.clone(), torch.zeros((), dtype=torch.long, device=x.device)
    values, indices = x.sort(dim=dim, stable=True)
    middle = ((x.isnan().logical_not().count_nonzero(dim).unsqueeze(dim) - 1) // 2).clamp(min=0)
    found = values.gather(dim, middle), indices.gather(dim, middle)
    return found if keepdim else tuple(part.squeeze(dim) for part in found)


@decomposes("nanmedian.default")
def _nanmedian_of_all(x: Tensor) -> Tensor:
    return _nanmedian(x.reshape(-1))[0]


@decomposes("amax", "amin")
def _extreme_of_one(x: Tensor, dim: Any = (), keepdim: bool = False) -> Any:
    return NotImplemented if x.dim() else x.clone()


@decomposes("max.dim", "min.dim")
def _extreme_of_one_along(x: Tensor, dim: int, keepdim: bool = False) -> Any:
    return NotImplemented if x.dim() else (x.clone(), torch.zeros((), dtype=torch.long, device=x.device))


@decomposes("aminmax")
def _aminmax(x: Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    dims = [] if dim is None else [dim]
    return x.amin(dims, keepdim), x.amax(dims, keepdim)


@decomposes("_unsafe_masked_index")
def _unsafe_masked_index(x: Tensor, mask: Tensor, indices: Sequence[Tensor | None], fill: float) -> Tensor:
    return torch.where(mask, aten.index.Tensor(x, _within(x, indices)), fill)


@decomposes("_unsafe_masked_index_put_accumulate")
def _unsafe_masked_put(x: Tensor, mask: Tensor, indices: Sequence[Tensor | None], values: Tensor) -> Tensor:
    return aten.index_put.default(x, _within(x, indices), torch.where(mask, values, 0.0), True)


def _within(x: Tensor, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Positions outside of the tensor, which a mask leaves out, as some in it."""
    sizes = x.shape[: len(indices)]
    return [None if index is None else index.clamp(0, n - 1) for index, n in zip(indices, sizes, strict=True)]


def _pieces(x: Tensor, sizes: Sequence[int], dim: int) -> tuple[Tensor, ...]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(x.narrow(dim, start, length) for start, length in zip(starts, sizes, strict=True))


@decomposes("split", "unsafe_split", "split_copy")
def _split_equal(x: Tensor, size: int, dim: int = 0) -> tuple[Tensor, ...]:
    total = x.shape[dim]
    return _pieces(x, [min(size, total - start) for start in range(0, total, size)], dim)


@decomposes("split_with_sizes", "unsafe_split_with_sizes", "split_with_sizes_copy")
def _split_sizes(x: Tensor, sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    return _pieces(x, list(sizes), dim)


@decomposes("unbind", "unbind_copy")
def _unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    return tuple(x.select(dim, i) for i in range(x.shape[dim]))


def _nearest(op: Any) -> Any:
    def repeated(x: Tensor, size: Sequence[int], *scales: Any) -> Tensor:
        """Each entry is one of the input: which one is what the op does with positions."""
        places = torch.arange(x[0, 0].numel(), dtype=torch.float64, device=x.device).reshape(1, 1, *x.shape[2:])
        index = op(places, size, *scales).long().reshape(-1)
        return x.flatten(2).index_select(2, index).reshape(*x.shape[:2], *size)

    return repeated


for _name in (f"{kind}{rank}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for rank in (1, 2, 3)):
    decomposes(f"{_name}.default")(_nearest(getattr(aten, _name).default))


# copies of views are views here, where nothing is written to
for _name in ("as_strided", "diagonal", "select", "slice", "unfold"):
    TABLE[getattr(aten, f"{_name}_copy")] = getattr(aten, _name)
TABLE[aten.narrow_copy] = torch.narrow


@decomposes("block_diag")
def _block_diag(blocks: Sequence[Tensor]) -> Tensor:
    matrices = [torch.atleast_2d(block) for block in blocks]
    width, before, rows = sum(m.shape[1] for m in matrices), 0, []
    for m in matrices:
        rows.append(torch.nn.functional.pad(m, (before, width - before - m.shape[1])))
        before += m.shape[1]
    return torch.cat(rows)


@decomposes("_chunk_cat")
def _chunk_cat(tensors: Sequence[Tensor], dim: int, count: int) -> Tensor:
    """Each tensor in so many chunks along `dim`, padded to equal length; the chunks of all side by side."""
    flat = []
    for x in tensors:
        length = -(-x.shape[dim] // count)
        missing = [0, 0] * (x.dim() - 1 - dim % x.dim()) + [0, length * count - x.shape[dim]]
        padded = torch.nn.functional.pad(x, missing)
        flat.append(padded.reshape(*x.shape[:dim], count, -1))
    return torch.cat(flat, -1)


@decomposes("unfold_backward")
def _unfold_backward(gradient: Tensor, shape: Sequence[int], dim: int, size: int, step: int) -> Tensor:
    """The transpose of reading windows: each entry is the sum of all that were read from it."""
    index = torch.arange(shape[dim], device=gradient.device).unfold(0, size, step).reshape(-1)
    pieces = gradient.movedim(-1, dim % len(shape) + 1).flatten(dim % len(shape), dim % len(shape) + 1)
    return gradient.new_zeros(shape).index_add(dim, index, pieces)
