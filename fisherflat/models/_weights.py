"""Where the weights of a model come from: all of them from memory, or those of its blocks from disk, when needed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fisherflat.errors import CheckpointError
from fisherflat.models._stored_tensors import Source


class Weights:
    """The weights of a model.

    **Args:** `root`, the model; `stored`: by `id`, the parameters and buffers of `root` that are on the meta device,
    and where their values are. Without any the model is in memory whole, and nothing here does anything. `device`,
    where values go when they are read.

    What is stored stays on disk where that saves memory: the members of the outermost lists of modules, which hold a
    model's blocks, and the tables of embeddings. All else is read at once.

    - While the model runs (`running`), each of those members has its weights from the start of its call to the end, and
      of a table only the rows that are looked up are read.
    - `module(m)` is a copy of a part of the model with its weights in memory. They live as long as somebody holds the
      copy, and two who ask for the same part at one time share it.

    Values are promoted to float64 exactly.
    """

    def __init__(
        self, root: nn.Module, stored: Mapping[int, Source] | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self._stored, self._device = dict(stored or {}), torch.device(device)
        self._copies: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
        self._last: nn.Module | None = None
        self._units = [unit for unit in _list_members(root) if self._on_disk(unit)] if stored else []
        self._tables: dict[int, Source] = {}
        if stored:
            inside = {id(tensor) for unit in self._units for tensor in _state(unit).values()}
            outside = {name: tensor for name, tensor in self._on_disk(root).items() if id(tensor) not in inside}
            tables = {name: tensor for name, tensor in outside.items() if id(tensor) in _looked_up(root)}
            self._fill(root, {name: tensor for name, tensor in outside.items() if name not in tables})
            self._hold_places(root, tables)

    @classmethod
    def all_read(cls, root: nn.Module, stored: Mapping[int, Source], device: torch.device | str = "cpu") -> Weights:
        """All of them in memory, from the first."""
        reader = cls(root)
        reader._stored, reader._device = dict(stored), torch.device(device)
        reader._fill(root, reader._on_disk(root))
        return cls(root)

    @property
    def lazy(self) -> bool:
        """Whether weights are left on disk until they are needed."""
        return bool(self._stored)

    def device(self, root: nn.Module) -> torch.device:
        """Where `root` computes."""
        return self._device if self.lazy else next((p.device for p in root.parameters()), torch.device("cpu"))

    def module(self, module: nn.Module) -> nn.Module:
        """`module` with its weights in memory: itself, or a copy that should be let go of after use.

        **Raises:** `CheckpointError` where a file cannot be read any more, or holds NaN.
        """
        missing = self._on_disk(module)
        if not missing:
            return module
        filled = self._copies.get(id(module))
        if filled is None:
            self._last = None  # before the next one is read
            filled = copy.deepcopy(module)
            self._fill(filled, missing)
            self._copies[id(module)] = filled
        self._last = filled  # so that taking one part after another of the same block does not read it again
        return filled

    def release(self) -> None:
        """Let go of the part that was read last, which is kept for whoever asks for another part of the same block."""
        self._last = None

    def each(self, root: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """All parameters and buffers of `root` by name, tied ones once, one in memory at a time.

        Those on disk come as they are stored, under their names there.
        """
        seen: set[int] = set()
        for name, tensor in sorted(_state(root).items()):
            source = self._stored.get(id(tensor)) or self._tables.get(id(tensor))
            if source is None and id(tensor) not in seen:
                yield name, tensor
            elif source is not None and id(tensor) not in seen:
                yield from ((stored.name, stored.raw()) for stored in source.tensors)
            seen.add(id(tensor))

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the model as a whole is called."""
        with ExitStack() as stack:
            for unit in self._units:
                enter, leave = self._around(unit)
                stack.callback(unit.register_forward_pre_hook(enter).remove)
                stack.callback(unit.register_forward_hook(leave, always_call=True).remove)
            if self._tables:
                stack.enter_context(_Lookups(self._tables, self._device))
            yield

    def _around(self, unit: nn.Module) -> tuple[Callable[..., None], Callable[..., None]]:
        """Hooks that give a module its weights when it is called, and take them from it when it returns."""
        empty = self._on_disk(unit)

        def enter(module: nn.Module, args: Any) -> None:
            self._fill(module, empty)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            for name, tensor in empty.items():
                put(module, name, tensor)

        return enter, leave

    def _on_disk(self, module: nn.Module) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in _state(module).items() if id(tensor) in self._stored}

    def _fill(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Read the values of meta `tensors`, by name, into `module`; one that is tied to another is read once."""
        values: dict[int, Tensor] = {}
        for name, tensor in tensors.items():
            if id(tensor) not in values:
                value = self._stored[id(tensor)].read(self._device)
                is_parameter = isinstance(tensor, nn.Parameter)
                values[id(tensor)] = nn.Parameter(value, requires_grad=False) if is_parameter else value
            put(module, name, values[id(tensor)])

    def _hold_places(self, root: nn.Module, tables: Mapping[str, Tensor]) -> None:
        """For each table one that has its shape and takes no memory, on the device: models ask for both."""
        holders: dict[int, nn.Parameter] = {}
        for name, table in tables.items():
            if id(table) not in holders:
                holders[id(table)] = nowhere(table, self._device)
                self._tables[id(holders[id(table)])] = self._stored[id(table)]
            put(root, name, holders[id(table)])


#: what may be asked of a table whose entries are not in memory: attributes, sizes
_ABOUT = {"__get__", "size", "dim", "numel", "is_floating_point", "get_device"}


class _Lookups(TorchFunctionMode):
    """Reads the rows that are looked up in tables that are not in memory."""

    def __init__(self, tables: Mapping[int, Source], device: torch.device) -> None:
        super().__init__()
        self._tables, self._device = tables, device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        table = next((id(arg) for arg in args if id(arg) in self._tables), None)
        if table is None or func.__name__ in _ABOUT:
            return func(*args, **(kwargs or {}))
        if func is not functional.embedding:
            raise CheckpointError(
                f"{func.__name__} takes a table of embeddings, of which only rows are in memory; load with lazy=False"
            )
        ids, size = args[0], args[1].shape[0]
        rows, places = torch.unique(ids, return_inverse=True)
        outside = [row for row in rows.tolist() if not 0 <= row < size]
        if outside:
            raise IndexError(f"index {outside[0]} is out of bounds for a table of {size} rows")
        return self._tables[table].read_rows(rows.tolist(), self._device)[places]


def _list_members(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of modules."""
    for child in module.children():
        yield from child.children() if isinstance(child, nn.ModuleList) else _list_members(child)


def _state(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, tied ones under each of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _looked_up(root: nn.Module) -> set[int]:
    """The weights, by `id`, that belong to embeddings and nothing else: one may also be an output projection."""
    tables: set[int] = set()
    others: set[int] = set()
    for module in root.modules():
        for name, parameter in module.named_parameters(recurse=False):
            (tables if isinstance(module, nn.Embedding) and name == "weight" else others).add(id(parameter))
    return tables - others


def put(module: nn.Module, name: str, value: Tensor) -> None:
    """In place of a parameter or buffer of a name."""
    path, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(path), leaf, value)


def nowhere(like: Tensor, device: torch.device) -> nn.Parameter:
    """A parameter of the shape of one that takes no memory and has no values."""
    nothing = torch.full((1,), torch.nan, dtype=torch.float64, device=device)
    return nn.Parameter(nothing.expand(like.shape), requires_grad=False)
