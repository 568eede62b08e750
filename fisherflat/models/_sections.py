"""Which submodules of a block are its attention and its MLP: read from one call, not from names.

* The **token mixer** is the submodule through which one token's hidden state reaches another token's: found by moving
  some tokens and looking at the others.
* A submodule that only **wraps** a part together with the residual sum or with the norm before or after it is opened.
* A linear map that takes the mixer's output as it is belongs to it (BERT keeps its output projection elsewhere).
* What mixes tokens of several hidden states (queries of one, keys and values of another) is not a map of one.
* The **MLP** is what else has weight matrices. If no submodule holds them all, it runs from the first to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fisherflat.errors import CheckpointError
from fisherflat.jets.recording import evaluating
from fisherflat.models._part import Part
from fisherflat.models._recorded_calls import Arguments, Call, is_hidden, recording, same_tensor, same_values

#: relative to the largest output; above the noise of a model that computes in float32 inside, below any real effect
MIXING_THRESHOLD = 1e-6


@dataclass(frozen=True)
class Section:
    """Where a part lies in its block: paths below the block; see `Part`."""

    root: str
    entries: tuple[str, ...] = ()
    exit: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The submodules whose arguments must be captured."""
        return (self.root, *self.entries)

    def part(self, module: Callable[[str], nn.Module], arguments: Callable[[str], Arguments | None]) -> Part:
        """The part, from a module and captured arguments for each path."""

        def at(path: str) -> Arguments:
            found = arguments(path)
            if found is None:
                raise CheckpointError(f"the submodule {path!r} took no hidden states on this prompt")
            return found

        entries = tuple((module(path), at(path)) for path in self.entries)
        return Part(module(self.root), at(self.root), entries, None if self.exit is None else module(self.exit))


@dataclass(frozen=True)
class Sections:
    """Where the parts of a block lie.

    **Attributes:**

    - `attention`, `mlp`: where each lies, `None` where there is none.
    - `softmax`: whether the token mixer computes a softmax, so that it has an attention pattern.
    - `mixer`: the class of the token mixer.
    """

    attention: Section | None
    mlp: Section | None
    softmax: bool
    mixer: str | None


def find_sections(block: Part) -> Sections:
    """Find the parts of a block from one call of it on at least two tokens, and from trying its submodules."""
    rows = block.input
    names = [(name, module) for name, module in block.root.named_modules() if name]
    with torch.no_grad(), evaluating(block):
        with recording(names, tokens=rows.shape[0], copy=False) as calls:
            block(rows)
        return _Search(calls, block).sections()


class _Search:
    def __init__(self, calls: list[Call], block: Part) -> None:
        seen: dict[str, int] = {}
        for call in calls:
            seen[call.path] = seen.get(call.path, 0) + 1
        self.calls, self.block = calls, block
        self.once = [call for call in calls if seen[call.path] == 1]
        self.tokens = block.input.shape[0]
        #: what the block was given besides hidden states, such as the states of an encoder
        self.conditions = [tensor for tensor in block.arguments.others() if _is_sequence(tensor)]
        # parts mostly have the width of the block, but not where that carries several streams, or attention reads two
        widths = list(dict.fromkeys((block.arguments.hidden.shape[-1], *self._other_widths())))
        self.tried = {id(call): _Tried(call) for call in calls if call.arguments is not None}
        for width in widths:
            self._look(width)
            if self.softmax:
                return
        self._look(next((width for width in widths if self._look(width)), widths[0]))

    def _look(self, width: int) -> bool:
        """Look for token mixers among the maps of hidden states of a width; whether there are some."""
        self.width = width
        self.all_candidates = [call for call in self.once if self._is_candidate(call)]
        #: which mix tokens, and which of them do so by way of another hidden state than their first
        self.joint = {id(call) for call in self.all_candidates if self._mixes_another(call)}
        mixing = [c for c in self.all_candidates if id(c) in self.joint or self.tried[id(c)].mixes]
        self.mixing = set(map(id, mixing))
        self.candidates = [call for call in self.all_candidates if not self._is_wrapper(call)]
        # where nothing but a wrapper mixes tokens (ALBERT), the wrapper is cut open
        self.mixers = _outermost([call for call in mixing if call in self.candidates]) or _innermost(mixing)
        self.softmax = [call for call in self.mixers if self.tried[id(call)].softmax]
        return bool(self.mixers)

    def sections(self) -> Sections:
        mixer = max(self.softmax or self.mixers, key=_weights, default=None)
        # what mixes tokens of several states, as keys and values of different ones, is not a map of one
        single = mixer is not None and id(mixer) not in self.joint
        attention, projection = self._attention(mixer) if mixer is not None and single else (None, None)
        mlp = self._mlp(self.mixers, projection)
        return Sections(
            attention=attention if attention and self._fits(attention, across=True) else None,
            mlp=mlp if mlp and self._fits(mlp, across=False) else None,
            softmax=bool(self.softmax),
            mixer=type(mixer.module).__name__ if mixer is not None else None,
        )

    # -- attention -----------------------------------------------------------------------------------------------------

    def _attention(self, mixer: Call) -> tuple[Section | None, Call | None]:
        if mixer not in self.candidates:
            return self._between(self._leaves(lambda call: call.inside(mixer))), None
        projection = next(
            (
                call
                for call in self.once
                if call.order > mixer.order
                and not call.inside(mixer)
                and _is_affine(call.module)
                and same_tensor(_hidden(call), mixer.output)
                and is_hidden(call.output, self.tokens, self.width)
            ),
            None,
        )
        if projection is None:
            return self._whole(mixer), None
        return Section(self._holder(mixer.path, projection.path), (mixer.path,), projection.path), projection

    def _whole(self, call: Call) -> Section:
        """A part that is a module, without a residual that the module adds itself."""
        assert call.arguments is not None and call.output is not None
        for residual in call.arguments.others():
            if is_hidden(residual, self.tokens, self.width):
                added = call.output.reshape(self.tokens, -1) - residual.reshape(self.tokens, -1)
                for inner in reversed(self._inside(call)):
                    if _is_affine(inner.module) and _close(inner.output, added):
                        return Section(call.path, (), inner.path)
        return Section(call.path)

    # -- MLP -----------------------------------------------------------------------------------------------------------

    def _mlp(self, mixers: list[Call], projection: Call | None) -> Section | None:
        def is_free(call: Call) -> bool:
            return not any(call is other or call.inside(other) or other.inside(call) for other in taken)

        conditioned = [call for call in self.once if self._is_conditioned(call)]
        taken = [*mixers, *conditioned, *([projection] if projection else [])]
        modules = [call for call in self.candidates if is_free(call) and len(_matrices(call.module)) > 1]
        if modules:
            return self._whole(max(_outermost(modules), key=_weights))
        return self._between(self._leaves(is_free))

    # -- parts without a module of their own ---------------------------------------------------------------------------

    def _leaves(self, include: Callable[[Call], bool]) -> list[Call]:
        return [call for call in self.once if include(call) and _is_affine(call.module) and call.arguments is not None]

    def _between(self, leaves: list[Call]) -> Section | None:
        """From the first linear maps, all those that take the same hidden state, to the last."""
        entries = [call.path for call in leaves if same_tensor(_hidden(call), _hidden(leaves[0]))]
        rest = [call for call in leaves if call.path not in entries]
        ends = [call.path for call in rest if is_hidden(call.output, self.tokens, self.width)]
        if not ends:
            return None
        return Section(self._holder(*entries, ends[-1]), tuple(entries), ends[-1])

    def _holder(self, *paths: str) -> str:
        """The path of the innermost submodule that holds all of them and is itself called, as a list is not."""
        called = [call.path for call in self.once if call.arguments]
        holders = [path for path in called if all(inner.startswith(f"{path}.") for inner in paths)]
        return max(holders, key=len, default="")

    # -- what a call is ------------------------------------------------------------------------------------------------

    def _mixes_another(self, call: Call) -> bool:
        """Whether tokens are mixed by way of a second argument that moves with the block's input."""
        assert call.arguments is not None
        hidden = call.arguments.hidden
        states = [other for other in call.arguments.others() if is_hidden(other, self.tokens)]
        states = [other for other in states if not same_tensor(other, hidden) and self._moves(call, other)]
        return any(mixes(Part(call.module, replace(call.arguments, hidden=other))) for other in states)

    def _moves(self, call: Call, argument: Tensor) -> bool:
        """Whether an argument of a call depends on the block's input: by running the block on another one.

        What the block was given and hands on as it is, such as rotary tables, stands still whatever the input is.
        """
        given = self.block.arguments
        if not same_values(argument, given.hidden) and any(same_values(argument, one) for one in given.others()):
            return False
        again = next((other for other in self._elsewhere if other.path == call.path), None)
        if again is None or again.arguments is None or call.arguments is None:
            return False
        place = next(i for i, other in enumerate(call.arguments.others()) if other is argument)
        others = again.arguments.others()
        return place < len(others) and not same_values(others[place], argument)

    @cached_property
    def _elsewhere(self) -> list[Call]:
        """The calls of the block on an input away from the captured one."""
        rows = self.block.input
        names = [(call.path, call.module) for call in self.once]
        with recording(names, tokens=self.tokens, copy=True) as calls:
            self.block(rows + _noise(rows))
        return calls

    def _other_widths(self) -> list[int]:
        """The widths of hidden states inside the block, where none has the block's, in order."""
        hidden = [_hidden(call) for call in self.once]
        widths = [state.shape[-1] for state in hidden if state is not None and is_hidden(state, self.tokens)]
        return list(dict.fromkeys(widths))

    def _is_candidate(self, call: Call) -> bool:
        """A map of hidden states `[n, d] -> [n, m]`; attention may leave in another width."""
        return (
            call.arguments is not None
            and is_hidden(call.arguments.hidden, self.tokens, self.width)
            and is_hidden(call.output, self.tokens)
            and bool(_matrices(call.module))
        )

    def _fits(self, section: Section, across: bool) -> bool:
        """Whether a part, cut out, is what it should be: a map to the block's width that mixes tokens, or does not."""
        widths = (self.width, self.block.arguments.hidden.shape[-1])
        calls = {call.path: call for call in self.once}
        if section == Section(section.root):  # a module as it was called
            call = calls[section.root]
            assert call.output is not None
            width = call.output.reshape(self.tokens, -1).shape[-1]
            return width in widths and self.tried[id(call)].mixes is across
        modules = {path: (call.module, call.arguments) for path, call in calls.items()}
        modules[""] = (self.block.root, self.block.arguments)
        part = section.part(lambda path: modules[path][0], lambda path: modules[path][1])
        return mixes(part, widths) is across

    def _is_wrapper(self, call: Call) -> bool:
        """Whether a call holds a part together with the residual sum, or with a norm around it or beside it."""
        assert call.arguments is not None and call.output is not None
        inside = self._inside(call)
        output = call.output.reshape(self.tokens, -1)
        added = output - call.arguments.rows if output.shape[-1] == self.width else None
        for inner in inside:
            around = same_tensor(inner.output, call.output) or same_tensor(_hidden(inner), _hidden(call))
            if (around and _is_norm(inner.module)) or (added is not None and _close(inner.output, added)):
                return True
        norms = [inner for inner in inside if _is_norm(inner.module)] if id(call) in self.mixing else []
        return any(
            self._is_attention(inner) and not all(norm.inside(inner) for norm in norms) for inner in inside if norms
        )

    def _is_attention(self, call: Call) -> bool:
        """Whether a call, of hidden states of any width, computes a softmax and mixes tokens."""
        if call.arguments is None or not _matrices(call.module) or not is_hidden(call.output, self.tokens):
            return False
        tried = self.tried[id(call)]
        return is_hidden(call.arguments.hidden, self.tokens) and tried.softmax and bool(tried.mixes)

    def _is_conditioned(self, call: Call) -> bool:
        """Whether a call takes something from outside the block, as cross-attention takes the encoder's states."""
        if call.arguments is None or id(call) in self.mixing:
            return False
        return any(same_values(mine, given) for mine in call.arguments.others() for given in self.conditions)

    def _inside(self, call: Call) -> list[Call]:
        return [other for other in self.calls if other.inside(call)]


class _Tried:
    """A call, tried on its own once for each thing that is asked of it."""

    def __init__(self, call: Call) -> None:
        assert call.arguments is not None
        self._call, self._part = call, Part(call.module, call.arguments)

    @cached_property
    def mixes(self) -> bool | None:
        """Whether it mixes tokens, see `mixes`."""
        return mixes(self._part, output=self._call.output if self._call.untouched else None)

    @cached_property
    def softmax(self) -> bool:
        """Whether it computes a softmax."""
        with _SoftmaxWatch() as watch:
            self._part(self._part.input)
        return watch.seen


def mixes(part: Part, widths: Collection[int] = (), output: Tensor | None = None) -> bool | None:
    """Whether some tokens' outputs depend on other tokens' inputs: the first half moves, the second is watched.

    In a causal model later tokens depend on earlier ones, so the first half it is. `None` where the part cannot be
    called like this, or does not return hidden states of one of the `widths` that are given.

    **Args:** `output`: what the part returned at its captured input, where that is known.
    """
    rows = part.input
    half = rows.shape[0] // 2
    moved = rows.clone()
    moved[:half] += _noise(rows)[:half]
    try:
        before = part(rows) if output is None else output.reshape(rows.shape[0], -1)
        before, after = before[half:], part(moved)[half:]
    except Exception:  # whatever a module of someone else raises when it is called out of its place
        return None
    if widths and before.shape[-1] not in widths:
        return None
    return bool((after - before).abs().max() > MIXING_THRESHOLD * before.abs().max())


def _noise(rows: Tensor) -> Tensor:
    """Something of the size of a hidden state, the same at every call."""
    # of NumPy, because blocks may be taken apart within a map that is being traced, where torch draws no numbers
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(rows.shape))
    return noise.to(rows) * rows.abs().max()


def _is_sequence(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() == 3


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.dim() >= 2]


def _is_affine(module: nn.Module) -> bool:
    """A leaf with a weight matrix: nn.Linear, GPT-2's Conv1D and their kin."""
    return next(module.children(), None) is None and bool(_matrices(module))


def _is_norm(module: nn.Module) -> bool:
    """What is called a norm or has no weights but vectors; it may hold modules of its own, such as hooks."""
    if _matrices(module):
        return False
    return "norm" in type(module).__name__.lower() or any(parameter.dim() == 1 for parameter in module.parameters())


def _hidden(call: Call) -> Tensor | None:
    return None if call.arguments is None else call.arguments.hidden


def _weights(call: Call) -> int:
    return sum(parameter.numel() for parameter in call.module.parameters())


def _outermost(calls: list[Call]) -> list[Call]:
    return [call for call in calls if not any(call.inside(other) for other in calls)]


def _innermost(calls: list[Call]) -> list[Call]:
    return [call for call in calls if not any(other.inside(call) for other in calls)]


def _close(a: Tensor | None, b: Tensor) -> bool:
    if a is None or a.dtype != b.dtype or a.numel() != b.numel():
        return False
    return torch.allclose(a.reshape(b.shape), b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


class _SoftmaxWatch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.seen |= "softmax" in name or "scaled_dot_product" in name
        return func(*args, **(kwargs or {}))
