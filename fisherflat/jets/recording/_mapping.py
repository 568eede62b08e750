"""The user's map as the engines see it: a pure function of one tensor, evaluated, in the working precision."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fisherflat.errors import MapError, PrecisionWarning, warn
from fisherflat.jets.graph import Graph, Watch, unwrapped
from fisherflat.jets.recording._copies import own
from fisherflat.jets.recording._modes import Repeatable, evaluating
from fisherflat.jets.recording._program import Program


class Mapping:
    """`mean` as a function `x -> y` of one tensor, in eval mode, with floating weights in the working precision.

    **Args:** `mean`: an `nn.Module` or a callable. What runs is a copy of the module (`own`) that shares its weights;
    those that are not in `dtype` are promoted (float16 and bfloat16 with a `PrecisionWarning`). The user's module is
    not touched. Other callables are called as they are. `joined`: makes one tensor of several outputs, where there
    may be several. `live`: whether its graph follows the weights and has gradients by them.

    **Attributes:** `weights`: name -> tensor, for a module (empty otherwise); `module`: the copy, or `None`; `modules`:
    those that run, also where a callable holds them; `program`, of a live map, how its constants are made.
    """

    def __init__(
        self,
        mean: Callable[[Tensor], Tensor],
        dtype: torch.dtype,
        device: torch.device,
        joined: Callable[[list[Tensor]], Tensor] | None = None,
        live: bool = False,
    ) -> None:
        mean = unwrapped(mean)
        if isinstance(mean, Graph):  # whose constants are not weights of a module, so it is converted as a whole
            mean = mean.to(dtype, device)
        self.mean, self.dtype, self._joined, self._device = mean, dtype, joined, device
        self.module = own(mean) if isinstance(mean, nn.Module) else None
        self.modules = [self.module] if self.module is not None else _held_by(mean)
        self.weights: dict[str, Tensor] = {}
        self._swapped: dict[str, Tensor] = {}
        self._given: list[Tensor] = []
        self._checked: tuple[Tensor, Tensor] | None = None
        self.watch = Watch() if live else _watch(mean)
        self.program: Program | None = Program() if live else None
        if self.module is None:
            return
        if live and isinstance(mean, nn.Module):
            self.program = Program(_followed(self.module, mean))
        state = dict(_state(self.module))
        misplaced = [name for name, tensor in state.items() if tensor.device.type != device.type]
        if misplaced:
            raise MapError(
                f"the weight {misplaced[0]!r} is on {state[misplaced[0]].device}, the chart on {device}; "
                "move one of them (module.to(device) or chart.to(device))"
            )
        halves = [name for name, t in state.items() if t.dtype in (torch.float16, torch.bfloat16)]
        if halves:
            warn(f"{len(halves)} weights are in half precision and are promoted to {dtype} (exactly)", PrecisionWarning)
        with torch.inference_mode(False), self.writing():  # tensors made in that mode can have no derivatives
            self._swapped = {
                name: tensor.detach().to(dtype)
                for name, tensor in state.items()
                if tensor.is_floating_point() and tensor.dtype != dtype
            }
        self.weights = {name: self._swapped.get(name, tensor) for name, tensor in state.items()}
        self._given = list(state.values())

    def wider(self) -> Mapping | None:
        """The same map in double, where it is a module of such weights that is measured in a lower precision.

        What else such a module holds, as inputs that were captured, is in double too, and does not fit rounded weights;
        its graph can be rounded as a whole. `None` for others, and for a live map.
        """
        if self.program is not None or all(tensor.dtype != torch.float64 for tensor in self._given):
            return None
        return Mapping(self.mean, torch.float64, self._device, self._joined) if self.dtype != torch.float64 else None

    def writing(self) -> AbstractContextManager[None]:
        """While it is open, a live map's program is written."""
        return nullcontext() if self.program is None else self.program.written()

    def trainable(self) -> list[tuple[str, Tensor]]:
        """What requires a gradient among the weights of the map, or among what a callable holds."""
        found: list[tuple[str, Tensor]] = [
            (name, tensor) for root in self.modules for name, tensor in root.named_parameters()
        ]
        if self.module is None:
            found += [("a tensor that the map holds", thing) for thing in _held(self.mean) if isinstance(thing, Tensor)]
        return [(name, tensor) for name, tensor in found if tensor.requires_grad]

    def __call__(self, x: Tensor) -> Any:
        """The map at `x`, of the shape of the chart's point and in the working precision; `value` says if it is one."""
        with evaluating(*self.modules):
            y = self._called(x)
            several = isinstance(y, (tuple, list)) and y and all(isinstance(part, Tensor) for part in y)
            if several and self._joined is not None:
                return self._joined(list(y))
            return y

    def _called(self, x: Tensor) -> Any:
        if self.module is None:
            return self.mean(x)
        if self._swapped:
            return torch.func.functional_call(self.module, self._swapped, (x,))
        return self.module(x)

    def unchanged(self) -> None:
        """**Raises:** `MapError` where a weight of the user's module was written into since."""
        self.watch.check()

    def value(self, x: Tensor, guard: Repeatable | None = None) -> Tensor:
        """The map at `x`, without a tape and without random numbers.

        **Raises:** `TraceError` for a map that draws random numbers, `MapError` for one that returns anything but one
        tensor of real numbers, and whatever the map raises.
        """
        guard = guard or Repeatable()
        try:
            with torch.no_grad(), guard:
                y = self(x.clone())  # a map that writes into its input must not move the chart
        finally:
            if guard.refused is not None:
                raise guard.refused
        if not isinstance(y, Tensor):
            raise no_tensor(y)
        if not y.is_floating_point():
            raise MapError(f"the map returned {y.dtype}; outputs must be real floating-point numbers")
        return y

    def check(self, point: Tensor) -> Tensor:
        """The value at `point`.

        **Raises:** `MapError` where the map fails there or has no whole weights, and what `value` raises.
        """
        names = (name for root in self.modules for name, own in root.named_parameters() if hasattr(own, "full_tensor"))
        if (sharded := next(names, None)) is not None:
            raise MapError(
                f"the weight {sharded!r} is a shard of a distributed tensor, and curvature takes whole weights: gather "
                "them first, behind fully_shard by unshard() of each module that was sharded, and let them go by "
                "reshard() afterwards; or measure a copy whose weights are their full_tensor()"
            )
        guard = Repeatable()
        try:
            value = self.value(point, guard)
        except Exception as error:
            if isinstance(error, MapError) or error is guard.refused:
                raise
            raise MapError(
                f"the map failed on the chart's point, of shape {list(point.shape)} and {point.dtype}: "
                f"{type(error).__name__}: {error}. Chart and map must fit: the map takes one tensor of this shape, "
                "without a batch axis, and its own constants must be in this precision "
                f"({'module.double()' if self.dtype == torch.float64 else 'module.float()'})"
            ) from error
        self._checked = (point, value)
        return value

    def first(self, point: Tensor) -> Tensor:
        """The value at `point`, from the check where that was there."""
        if self._checked is not None and not point.is_meta and torch.equal(self._checked[0], point):
            return self._checked[1]
        return self.value(point)


def _watch(mean: Any) -> Watch:
    """Of the weights of a module, of a graph, or of the modules that a callable holds, which may count in buffers."""
    if isinstance(mean, Graph):
        return mean.watch
    if isinstance(mean, nn.Module):
        return Watch(_state(mean))
    return Watch(found for module in _held_by(mean) for found in module.named_parameters())


def _state(mean: Any) -> list[tuple[str, Tensor]]:
    return [*mean.named_parameters(), *mean.named_buffers()] if isinstance(mean, nn.Module) else []


def _followed(copy: nn.Module, mean: nn.Module) -> dict[int, tuple[Tensor, Callable[[], Tensor]]]:
    """By `id` of a weight of the copy that runs, how to get the user's."""
    found: dict[int, tuple[Tensor, Callable[[], Tensor]]] = {}
    for name, parameter in copy.named_parameters():
        found[id(parameter)] = parameter, partial(mean.get_parameter, name)
    for name, buffer in copy.named_buffers():
        found[id(buffer)] = buffer, partial(mean.get_buffer, name)
    return found


def _held_by(function: Any) -> list[nn.Module]:
    """Modules that a callable holds: to name weights and paths."""
    return [thing for thing in _held(function) if isinstance(thing, nn.Module)]


def _held(function: Any) -> Iterator[Any]:
    """What a callable holds in its attributes, its bound object or its closure."""
    held = [*vars(function).values()] if hasattr(function, "__dict__") else []
    held += [getattr(function, "__self__", None)]
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # a variable that has no value yet
            continue
    yield from held


def no_tensor(output: Any) -> MapError:
    """What is raised where a map returned something else."""
    hint = "make it return a tensor that torch computed from its input"
    if isinstance(output, (tuple, list)):
        hint = (
            "wrap it, e.g. lambda x: module(x)[0], or name the family whose parameters they are, e.g. "
            "fisherflat.families.DiagonalGaussian() for means and logarithms of standard deviations"
        )
    elif isinstance(output, abc.Mapping) and output:
        hint = f"wrap it, e.g. lambda x: module(x)[{next(iter(output))!r}]"
    return MapError(f"the map must return one tensor, it returned {type(output).__name__}; {hint}")
