"""A recorded call as it was: torch's ops in their order, with casts, none of which writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Node, leaves, mapped_leaves
from fisherflat.jets.recording._forms import material
from fisherflat.jets.recording._origin import Origins

aten = torch.ops.aten

FLOATS = tuple(kind for kind in vars(torch).values() if isinstance(kind, torch.dtype) and kind.is_floating_point)
#: runs a node on its arguments
Step = Callable[[Node, Any, Any], Any]


def plainly(node: Node, args: Any, kwargs: Any) -> Any:
    """The op itself; a softmax that casts its input on the way is one that does not.

    An op that reads one triangle of a matrix gets it on both sides: torch's derivatives hold for symmetric matrices.
    """
    if node.target in (aten._softmax.default, aten._log_softmax.default):
        args = (*args[:2], False)
    elif node.packet is aten._linalg_eigh:
        args = (_mirrored(args[0], (*args[1:], "L")[0] == "U"), *args[1:])
    elif node.packet is aten.linalg_cholesky_ex:
        args = (_mirrored(args[0], kwargs.get("upper", False)), *args[1:])
    return material(node.target(*args, **kwargs))


def _mirrored(x: Tensor, upper: bool) -> Tensor:
    half, rest = (x.triu(), x.triu(1)) if upper else (x.tril(), x.tril(-1))
    return half + (rest.mH if x.is_complex() else rest.mT)


class Tape:
    """The ops of a call that its output needs, on an input of the shape that was recorded.

    **Attributes:** `nodes`, the input first; `output`; `dtypes` of nodes; `weights`: name by what tensors of one memory
    share; `origins` of constants.
    """

    def __init__(
        self,
        nodes: list[Node],
        output: Node,
        dtypes: dict[Node, torch.dtype],
        weights: dict[int, str],
        origins: Origins,
    ) -> None:
        needed, stack = {nodes[0]}, [output]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(node.inputs)
        self.nodes, self.output = [node for node in nodes if node in needed], output
        self.dtypes, self.weights, self.origins = dtypes, weights, origins

    @cached_property
    def _last_use(self) -> dict[Node, list[Node]]:
        """Node -> the nodes whose value is not needed after it."""
        last = {source: node for node in self.nodes for source in (node, *node.inputs)}
        dead: dict[Node, list[Node]] = {}
        for node, user in last.items():
            if node is not self.output:
                dead.setdefault(user, []).append(node)
        return dead

    def constants(self) -> Iterator[Tensor]:
        """The tensors that its ops read and that stand still."""
        return (leaf for node in self.nodes for leaf in leaves((node.args, node.kwargs)) if isinstance(leaf, Tensor))

    @property
    def precision(self) -> float:
        """The spacing of numbers around one, in the coarsest floating format on the way."""
        kinds = (self.dtypes[node] for node in self.nodes if node in self.dtypes)
        return max(torch.finfo(kind).eps for kind in kinds if kind.is_floating_point or kind.is_complex)

    def __call__(self, x: Tensor) -> Tensor:
        """The map at `x`, by the same ops in the same order."""
        return self._run(x, lambda leaf: leaf, lambda node, args, kwargs: material(node.target(*args, **kwargs)))

    def raised(
        self, dtype: torch.dtype, step: Step = plainly, constant: Callable[[Tensor], Tensor] | None = None
    ) -> Callable[[Tensor], Tensor]:
        """The function that the map computes, without rounding on the way: casts to lower precision are dropped.

        It consists of plain torch ops, so it can be differentiated and batched. `step` runs a node on its arguments,
        `constant` raises a constant.
        """
        raised = {kind: dtype for kind in FLOATS if kind.itemsize < dtype.itemsize}
        raised |= {kind.to_complex(): dtype.to_complex() for kind in (torch.float16, torch.float32) if kind in raised}
        constants: dict[int, tuple[Tensor, Tensor]] = {}

        def once(leaf: Tensor) -> Tensor:
            if leaf.dtype not in raised:
                return leaf
            if id(leaf) not in constants:
                constants[id(leaf)] = (leaf, leaf.to(raised[leaf.dtype]))
            return constants[id(leaf)][1]

        make = once if constant is None else constant

        def convert(leaf: Any) -> Any:
            if isinstance(leaf, torch.dtype):
                return raised.get(leaf, leaf)
            return make(leaf) if isinstance(leaf, Tensor) else leaf

        return lambda x: self._run(x, convert, step)

    def live(self, dtype: torch.dtype, constants: dict[int, Tensor]) -> Callable[[Tensor], Tensor]:
        """The same function where other tensors stand for constants, by `id`."""

        def raised(leaf: Tensor) -> Tensor:
            found = constants.get(id(leaf), leaf)
            if found.dtype in FLOATS and found.dtype.itemsize < dtype.itemsize:
                return found.to(dtype)
            return found

        return self.raised(dtype, constant=raised)

    def _run(self, x: Tensor, convert: Callable[[Any], Any], step: Step) -> Tensor:
        values: dict[Node, Any] = {}
        dead = self._last_use
        for node in self.nodes:
            if node.target is None:
                values[node] = x
            else:
                args, kwargs = mapped_leaves(
                    lambda leaf: values[leaf] if isinstance(leaf, Node) else convert(leaf), (node.args, node.kwargs)
                )
                values[node] = step(node, args, kwargs)
            for gone in dead.get(node, ()):
                del values[gone]
        return values[self.output]
