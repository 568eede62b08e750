"""How the constants of a graph are made of weights, so that they can be made again of what the weights are by then.

A graph holds constants: weights, and what the map computes from them alone. While a `Program` is being written, every
op on plain tensors is noted; afterwards those on the way from the weights to the constants are kept. Run again, with a
tape, they give the same constants as functions of the live weights, so that gradients reach these and steps of an
optimiser are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fisherflat.errors import MapError, TraceError
from fisherflat.jets.graph import leaves, mapped_leaves

aten = torch.ops.aten

#: ops that give the tensor itself: what they hide from a tape is no secret of the function that a map computes
_SAME = {aten.detach, aten.alias, aten.lift_fresh, aten.lift}


@dataclass(frozen=True, eq=False)
class _Step:
    """One op that has run: on what, and what came out."""

    func: Any
    args: Any
    kwargs: Any
    outs: tuple[Tensor, ...]

    @property
    def given(self) -> list[Tensor]:
        return [leaf for leaf in leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    @property
    def written(self) -> list[Tensor]:
        """What it writes into."""
        if not self.func._schema.is_mutable:
            return []
        named = dict(zip((argument.name for argument in self.func._schema.arguments), self.args, strict=False))
        named |= self.kwargs
        targets = (a.name for a in self.func._schema.arguments if a.alias_info is not None and a.alias_info.is_write)
        return [leaf for name in targets for leaf in leaves(named.get(name)) if isinstance(leaf, Tensor)]


class Program:
    """The ops that make a graph's constants of weights.

    **Args:** `read`: by `id` of a tensor that the map reads, how to get its live counterpart; other tensors that
    require a gradient, such as those in a closure, stand for themselves.

    **Attributes:** `sources`, the live tensors that the constants of the graph depend on, once it has been `ended`.
    """

    def __init__(self, read: dict[int, tuple[Tensor, Callable[[], Tensor]]] | None = None) -> None:
        self._read = read or {}
        self._steps: list[_Step] = []
        self._made: set[int] = set()
        self._constants: list[Tensor] = []
        self._memories: set[int] = set()  # of weights

    @contextmanager
    def written(self) -> Iterator[None]:
        """While it is open, what runs is noted."""
        with _Noting(self):
            yield

    def note(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """One op that has run."""
        step = _Step(func, args, kwargs, tuple(leaf for leaf in leaves(out) if isinstance(leaf, Tensor)))
        self._memories.update(_memory(tensor) for tensor in step.given if self._is_source(tensor))
        for tensor in step.written:
            if _memory(tensor) in self._memories:
                raise TraceError(
                    f"{func} writes into a weight of the map while the map runs, so it has no gradient; write into a "
                    "copy of it"
                )
        self._steps.append(step)
        self._made.update(id(tensor) for tensor in step.outs if not any(tensor is given for given in step.given))

    def _is_source(self, tensor: Tensor) -> bool:
        return id(tensor) in self._read or (tensor.requires_grad and id(tensor) not in self._made)

    def ended(self, constants: Iterable[Tensor]) -> Program:
        """The same program with what these constants need, and nothing else."""
        wanted = {id(tensor): tensor for tensor in constants}
        moving = {_memory(tensor) for tensor, _ in self._read.values()}
        for (
            step
        ) in self._steps:  # what depends on a weight; a memory that one was written into, from its first entry on
            given = step.given
            if any(_memory(t) in moving or self._is_source(t) for t in given):
                moving.update(map(_memory, (*step.outs, *step.written)))
        for tensor in wanted.values():
            if self._is_source(tensor):
                moving.add(_memory(tensor))
        live = {i for i, tensor in wanted.items() if _memory(tensor) in moving}
        needed = {_memory(wanted[i]) for i in live}
        kept: list[_Step] = []
        for step in reversed(self._steps):
            touched = {_memory(tensor) for tensor in (*step.outs, *step.written)}
            if touched & needed & moving:
                kept.append(step)
                needed |= {_memory(tensor) for tensor in step.given}
        found = Program(self._read)
        found._steps = kept[::-1]
        found._made = {id(tensor) for step in kept for tensor in step.outs} - {id(t) for s in kept for t in s.written}
        found._memories = self._memories
        found._constants = [wanted[i] for i in live]
        return found

    @property
    def sources(self) -> list[Tensor]:
        """The live tensors that are read."""
        given = [tensor for step in self._steps for tensor in step.given] + self._constants
        found = {id(t): self._source(t) for t in given if self._is_source(t)}
        return list({id(tensor): tensor for tensor in found.values()}.values())

    def _source(self, tensor: Tensor) -> Tensor:
        if id(tensor) in self._read:
            return self._read[id(tensor)][1]()
        return tensor

    def constants(self) -> dict[int, Tensor]:
        """By `id` of a constant of the graph, what it is now; with a tape where gradients are recorded.

        **Raises:** `MapError` where a weight has another shape by now, `TraceError` where torch has no derivative.
        """
        values: dict[int, Tensor] = {}

        def value(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if id(leaf) in values:
                return values[id(leaf)]
            if not self._is_source(leaf):
                return leaf
            found = self._source(leaf)
            was, now = ((tuple(t.shape), t.dtype, t.device) for t in (leaf, found))
            if was != now:
                raise MapError(f"a weight was {was} when the map was taken up and is now {now}; make the manifold anew")
            values[id(leaf)] = found
            return found

        try:
            for step in self._steps:
                args, kwargs = mapped_leaves(value, (step.args, step.kwargs))
                out = args[0] if step.func.overloadpacket in _SAME else step.func(*args, **kwargs)
                values.update(zip(map(id, step.outs), (t for t in leaves(out) if isinstance(t, Tensor)), strict=False))
        except (RuntimeError, NotImplementedError) as error:
            raise TraceError(
                f"what this map makes of its weights cannot be differentiated: {error}; write that step in simpler ops"
            ) from error
        return {id(constant): value(constant) for constant in self._constants}


class _Noting(TorchDispatchMode):
    def __init__(self, program: Program) -> None:
        super().__init__()
        self._program = program

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._program.note(func, args, dict(kwargs or {}), out)
        return out


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)
