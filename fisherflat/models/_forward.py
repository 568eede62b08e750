"""One real forward pass of a model on a prompt: what is called, how its input is laid out, where the blocks are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from fisherflat.errors import CheckpointError, CheckpointWarning, FisherflatError, InputError, warn
from fisherflat.jets.recording import alone, evaluating
from fisherflat.models._block_list import CONTAINERS, find_stack, list_of, lists_of_modules, most_weights, weights
from fisherflat.models._hooks import Enough, ended, entered
from fisherflat.models._part import Part
from fisherflat.models._prompts import Encoded
from fisherflat.models._recorded_calls import Arguments, Call, first_tensor, recording, rows_of
from fisherflat.models._sections import mixes
from fisherflat.models._stretches import find_stretches
from fisherflat.models._weights import Weights

#: where the axis of a batch may be, or none
LAYOUTS: tuple[Callable[[Tensor], Tensor], ...] = (lambda x: x[None], lambda x: x, lambda x: x[:, None])


@dataclass(frozen=True, eq=False)
class Way:
    """A way to run a model on a prompt.

    **Attributes:** `callee`, the module that is called; `layout`, of its input; `enters`: hidden states replace what
    enters the first block; `settled`: the layout is known to be right.
    """

    callee: nn.Module
    layout: Callable[[Tensor], Tensor]
    enters: bool = False
    settled: bool = False


class Forward:
    """Runs a model, and finds its blocks in the calls that happen.

    A model is run in the first of several ways in which a chain of blocks hands hidden states on and, since a batch
    axis may be taken for that of tokens, in which tokens reach each other. What is called is the model itself, or a
    model of transformers within it, or, where hidden states are given to a model that reads something else, its blocks.

    **Args:** `module`; `searched`, in which blocks are looked for: of an encoder-decoder one half; `weights`; `blocks`,
    the path of their list; `decoder`: whether the prompt is the decoder's; `name`, for errors.
    """

    def __init__(
        self, module: nn.Module, searched: nn.Module, weights: Weights, blocks: str | None, decoder: bool, name: str
    ) -> None:
        self.module, self._searched, self._weights, self._path = module, searched, weights, blocks
        self._decoder, self._name = decoder, name
        self._stack: str | None = None
        self._wide = False
        #: by kind of prompt, that which was found to work
        self._ways: dict[str, Way] = {}

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._weights.device(self.module)

    def rows(self, encoded: Encoded) -> int:
        """How many rows the hidden states have that the model makes of inputs of its own.

        **Raises:** `CheckpointError` where it fails on them, or has no blocks that hand on hidden states.
        """
        failures: list[Exception] = []
        for wide in (False, True):
            modules = dict.fromkeys(module for found in self._lists(wide).values() for module in found.values())
            for way in self._ways_of(encoded):
                counts: dict[int, int] = {}

                def count(module: nn.Module, args: Any, output: Any, counts: dict[int, int] = counts) -> None:
                    state = first_tensor(output)
                    rows = rows_of(state)
                    handed_on = state is not None and state.shape in [
                        arg.shape for arg in args if isinstance(arg, Tensor)
                    ]
                    if rows is not None and handed_on:
                        counts[rows] = counts.get(rows, 0) + sum(weight.numel() for weight in module.parameters())

                with alone, torch.no_grad(), evaluating(self.module), self._weights.running(), ExitStack() as hooks:
                    for module in modules:
                        hooks.callback(module.register_forward_hook(count).remove)
                    try:
                        self._call(way, encoded)
                    except (CheckpointError, InputError) as error:
                        failures.append(error)
                        continue
                if counts:
                    return max(counts, key=lambda rows: counts[rows])
        raise failures[0] if failures else self._no_blocks()

    def run(self, encoded: Encoded, stop: int | None = None) -> list[Call]:
        """The calls of the blocks in order, the first `stop` of them.

        **Raises:** `InputError`, `CheckpointError` where the model does not run on the prompt, or no blocks are found.
        """
        if encoded.kind in self._ways:
            return self._run(self._ways[encoded.kind], encoded, stop)
        if len(encoded.ids) == 1 and encoded.inputs is None:  # one token cannot show what mixes tokens
            with suppress(CheckpointError, InputError):
                self.run(encoded.repeated())
            if encoded.kind in self._ways:
                return self._run(self._ways[encoded.kind], encoded, stop)
        failures: list[Exception] = []
        unmixed: list[tuple[Way, list[Call]]] = []
        for way in self._ways_of(encoded):
            try:
                calls = self._run(way, encoded, stop)
            except (CheckpointError, InputError) as error:
                if isinstance(error, InputError) and encoded.kind == "ids":  # no other layout makes them fit
                    raise
                failures.append(error)
                continue
            if way.settled or any(mixes(Part(call.module, arguments_of(call))) for call in calls):
                return self._chosen(way, encoded, calls, failures)
            unmixed.append((way, calls))
        if not unmixed:
            raise failures[0] if failures else self._no_blocks()
        way, calls = unmixed[0]
        return self._chosen(way, encoded, calls, failures) if len(encoded.ids) > 1 else calls

    def way(self, encoded: Encoded) -> Way:
        """How the model runs on a prompt on which it has run.

        **Raises:** `CheckpointError` where its blocks ran alone, without what is around them.
        """
        found = self._ways.get(encoded.kind)
        if found is None or isinstance(found.callee, _Bare):
            raise CheckpointError(f"{self._name} takes no such input as a whole; give a prompt that it takes itself")
        return found

    def _chosen(self, way: Way, encoded: Encoded, calls: list[Call], failures: Sequence[Exception]) -> list[Call]:
        self._ways[encoded.kind] = way
        if isinstance(way.callee, _Bare) and not isinstance(self.module, CONTAINERS):
            warn(
                f"{self._name} takes no hidden states, so its blocks run on them one after the other, "
                "without masks and positions that the model itself may give them; give its own inputs as a dictionary "
                f"if it does ({failures[0] if failures else ''})",
                CheckpointWarning,
            )
        return calls

    # -- in which way --------------------------------------------------------------------------------------------------

    def _ways_of(self, encoded: Encoded) -> Iterator[Way]:
        """Ways to run on a prompt, the likeliest first."""
        callees = [module for module in (self.module, *self._inner) if not isinstance(module, CONTAINERS)]
        first, plain, _ = LAYOUTS
        if encoded.inputs is not None:
            layouts = (plain, first) if isinstance(encoded.inputs, Tensor) else (plain,)
            yield from (Way(callee, layout, settled=True) for callee in callees for layout in layouts)
            return
        enters = encoded.hidden is not None
        if not enters or any(isinstance(module, nn.Embedding) for module in self.module.modules()):
            for callee in callees:
                known = is_pretrained(callee)
                yield from (Way(callee, layout, enters, known) for layout in (LAYOUTS[:1] if known else LAYOUTS))
        if enters:
            yield from (Way(self.module, layout) for layout in LAYOUTS if self.module in callees)
            lists = self._lists(False) or self._lists(True)
            bare = _Bare(list(lists.get(most_weights(lists) or "", {}).values()))
            yield from (Way(bare, layout) for layout in LAYOUTS)

    @cached_property
    def _inner(self) -> list[nn.Module]:
        """The outermost models of transformers within the module: what wraps them may take something else."""
        found: dict[str, nn.Module] = {}
        for path, module in self.module.named_modules():
            if path and is_pretrained(module) and not any(path.startswith(f"{outer}.") for outer in found):
                found[path] = module
        return list(found.values())

    def arguments(self, way: Way, encoded: Encoded) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What is passed to the module that is called."""
        takes = inspect.signature(way.callee.forward).parameters
        if isinstance(encoded.inputs, Mapping):
            return (), dict(encoded.inputs)
        if encoded.inputs is not None or (encoded.hidden is not None and not way.enters):
            given: Any = encoded.inputs if encoded.inputs is not None else encoded.hidden
            main: Any = getattr(way.callee, "main_input_name", None)
            tensor = way.layout(given)
            return ((), {main: tensor}) if main in takes and encoded.inputs is not None else ((tensor,), {})
        tokens = way.layout(encoded.ids.to(self.device))
        inputs = {"input_ids": tokens, "use_cache": False}
        if self._decoder:
            inputs |= {"input_ids": tokens[:, 1:] if encoded.hidden is None else tokens, "decoder_input_ids": tokens}
        args = () if "input_ids" in takes else (tokens,)
        return args, {name: value for name, value in inputs.items() if name in takes}

    # -- one pass ------------------------------------------------------------------------------------------------------

    def _lists(self, wide: bool) -> dict[str, dict[str, nn.Module]]:
        return lists_of_modules(self._searched, self._path, wide)

    def _run(self, way: Way, encoded: Encoded, stop: int | None = None) -> list[Call]:
        """One real forward pass; the calls of the blocks in order."""
        lists = self._lists(self._wide)
        expected = self._stack or most_weights(lists)
        if way.enters and encoded.hidden is not None and self._stack is None:
            self._run(way, replace(encoded, hidden=None), stop)  # to see which block is the first
            lists = self._lists(self._wide)
        modules = {path: module for members in lists.values() for path, module in members.items()}
        holders = _holders(lists, self._searched)
        modules |= {path: self._searched.get_submodule(path) for path in holders.values()}
        members = [*lists.get(expected or "", {}).values()]
        first = [*lists.get(self._stack or "", {}).values()]
        tokens = len(encoded.ids)
        with (
            alone,
            torch.no_grad(),
            evaluating(self.module),
            ended(members, stop),  # before the next block's weights are read
            self._weights.running(),
            entered(first, encoded.hidden if way.enters else None),
            recording(modules.items(), tokens=tokens, copy=True) as calls,
        ):
            self._call(way, encoded)
        chosen = find_stack(calls, lists, tokens)
        found = list_of(chosen, lists)
        if stop is not None and found != expected:  # stopped too early: the list with most weights is not the blocks
            if found is not None:
                self._stack = found
            return self._run(way, encoded)[:stop]
        for path in sorted(holders, key=lambda path: -weights_of(lists[path])):
            holder = next((call for call in calls if call.path == holders[path]), None)
            if holder is not None and weights_of(lists[path]) > 2 * weights(chosen):
                chosen = find_stretches(holder, lists[path], tokens) or chosen
        if not chosen and not self._wide:
            self._wide = True
            return self._run(way, encoded, stop)
        if not chosen:
            self._wide = False
            raise self._no_blocks()
        self._stack = found
        return chosen if stop is None else chosen[:stop]

    def _call(self, way: Way, encoded: Encoded) -> None:
        try:
            args, kwargs = self.arguments(way, encoded)
            try:
                way.callee(*args, **kwargs)
            except (FisherflatError, Enough):
                raise
            except Exception:  # one that insists on single precision is given the prompt in it, and computes in double
                if (single := _single((args, kwargs))) is None:
                    raise
                way.callee(*single[0], **single[1])
        except Enough:
            return
        except FisherflatError:
            raise
        except Exception as error:
            raise self._failed(way, encoded, error) from error

    # -- what went wrong -----------------------------------------------------------------------------------------------

    def _no_blocks(self) -> CheckpointError:
        return CheckpointError(
            f"{type(self.module).__name__} has no list of blocks that take and return hidden states; "
            "give the part you mean to ff.StatisticalManifold as a function"
        )

    def _failed(self, way: Way, encoded: Encoded, error: Exception) -> FisherflatError:
        said = f"{type(error).__name__}: {error}"
        if encoded.hidden is None and encoded.inputs is None and _is_outside(error):
            return self._outside(way, encoded, said)
        lazily = "; if that is because a weight is on disk, load with lazy=False" if self._weights.lazy else ""
        given = {"ids": "token ids", "hidden": "hidden states", "inputs": "its inputs"}[encoded.kind]
        takes = inspect.signature(way.callee.forward).parameters
        names = [name for name, p in takes.items() if p.kind is not p.VAR_KEYWORD][:3]
        return CheckpointError(
            f"{self._name} ({type(self.module).__name__}) failed on {given}: {said}{lazily}; what a model takes by "
            f"names of its own can be given as a dictionary, here of {', '.join(names)}"
        )

    def _outside(self, way: Way, encoded: Encoded, said: str) -> InputError:
        """Which table was too short: that of token ids, or one of positions."""
        largest, tokens = int(encoded.ids.max()), len(encoded.ids)
        tables: dict[int, nn.Embedding] = {}

        def look(module: nn.Module, args: tuple[Any, ...]) -> None:
            ids = next((arg for arg in args if isinstance(arg, Tensor) and arg.numel()), None)
            if isinstance(module, nn.Embedding) and ids is not None and int(ids.max()) >= module.num_embeddings:
                tables[int(ids.max())] = module

        with alone, ExitStack() as hooks, torch.no_grad(), suppress(Exception):
            for module in self.module.modules():
                if isinstance(module, nn.Embedding):
                    hooks.callback(module.register_forward_pre_hook(look).remove)
            args, kwargs = self.arguments(way, encoded)
            way.callee(*args, **kwargs)
        table = tables.get(largest)
        if table is not None:
            return InputError(
                f"token id {largest} is outside the table of {table.num_embeddings} tokens of {self._name}: the "
                "tokenizer, or whoever chose the ids, knows more tokens than the model; take the tokenizer of the model"
            )
        return InputError(
            f"{tokens} tokens do not fit into the embeddings of {self._name} ({said}); shorten the prompt"
        )


class _Bare(nn.Module):
    """Blocks, one after the other, without what is around them; what else a block asks for is `None`."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self._blocks = tuple(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """What the last one returns."""
        for block in self._blocks:
            _, *others = inspect.signature(block.forward).parameters.values()
            needed = [p for p in others if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            output = first_tensor(block(x, **{p.name: None for p in needed}), x)
            if output is None:
                raise CheckpointError(f"{type(block).__name__} returned no tensor")
            x = output
        return x


def is_pretrained(module: nn.Module) -> bool:
    """Whether a module is a model of transformers, which takes token ids `[1, n]`."""
    return hasattr(getattr(module, "config", None), "model_type") and hasattr(module, "get_input_embeddings")


def arguments_of(call: Call) -> Arguments:
    """Those of a block in a stack, which has some."""
    assert call.arguments is not None
    return call.arguments


def weights_of(members: Mapping[str, nn.Module]) -> int:
    """How many numbers the members of a list hold."""
    return sum(parameter.numel() for module in members.values() for parameter in module.parameters())


def _holders(lists: Mapping[str, Mapping[str, nn.Module]], root: nn.Module) -> dict[str, str]:
    """By path of a list whose members are containers, which are not called: the module that runs it."""
    found = {}
    for path, members in lists.items():
        if not all(isinstance(member, CONTAINERS) for member in members.values()):
            continue
        holder = path
        while holder and isinstance(root.get_submodule(holder), CONTAINERS):
            holder = holder.rpartition(".")[0]
        if not isinstance(root.get_submodule(holder), CONTAINERS):
            found[path] = holder
    return found


def _single(arguments: Any) -> Any:
    """Arguments with those in double in single precision; `None` where there are none."""
    with torch._C.DisableTorchFunction():
        is_double = [isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(arguments)]
        if not any(is_double):
            return None
        return tree_map(lambda x: x.float() if isinstance(x, Tensor) and x.dtype == torch.float64 else x, arguments)


def _is_outside(error: Exception) -> bool:
    return isinstance(error, IndexError) or "out of bounds" in str(error) or "index out of range" in str(error)
