"""What the gradient of the scalar curvature by all weights costs, beside the value alone and nested `torch.func`.

In time, and in memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from fisherflat.geometry import StatisticalManifold
from fisherflat.lab.bench import maps
from fisherflat.lab.bench._measure import Spread, by_clock
from fisherflat.lab.bench._peers import Curvature, forward_over_forward, forward_over_reverse, textbook
from fisherflat.lab.bench.maps import Subject
from fisherflat.lab.bench.memory import Tally, peak

#: points of a step
POINTS = 4


#: how a scalar curvature is written with `torch.func`: the Hessian as its documentation has it, the textbook's
#: derivatives of Christoffel symbols, and what an expert writes who knows on which maps nested forward mode is right
ROUTES: dict[str, Callable[[Subject], Curvature]] = {
    "jacfwd(jacrev) + Gauss": forward_over_reverse,
    "textbook": textbook,
    "jacfwd(jacfwd) + Gauss": forward_over_forward,
}


def nested(
    subject: Subject, module: nn.Module, route: Callable[[Subject], Curvature]
) -> Callable[[Tensor], dict[str, Tensor]]:
    """The same gradient by transforms alone: reverse mode over one of `ROUTES`."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}

    def total(weights: dict[str, Tensor], u: Tensor) -> Tensor:
        def plain(x: Tensor) -> Tensor:
            return functional_call(module, weights, (x,))

        return route(replace(subject, plain=plain))(u).sum()

    return lambda u: grad(total)(weights, u)


@dataclass(frozen=True, eq=False)
class _Trained:
    """A map's scalar curvature at some points: as a value alone, and with its gradient by the weights of a module."""

    module: nn.Module
    value: StatisticalManifold
    live: StatisticalManifold
    u: Tensor

    @classmethod
    def of(cls, subject: Subject, points: int) -> _Trained:
        given: Any = subject.module
        module = copy.deepcopy(given).requires_grad_(True)
        value = StatisticalManifold(given, subject.chart, dtype=subject.dtype)
        live = StatisticalManifold(module, subject.chart, dtype=subject.dtype, differentiable=True)
        return cls(module, value, live, subject.points(points))

    def alone(self) -> None:
        self.value.scalar_curvature(self.u)

    @torch.no_grad()
    def anew(self) -> None:
        self.live.scalar_curvature(self.u)

    def step(self) -> None:
        self.module.zero_grad()
        self.live.scalar_curvature(self.u).sum().backward()


def over_value(subject: Subject, repeats: int, *, beside: bool, points: int = POINTS) -> dict[str, Any]:
    """Times of a value and of the value with its gradient, at the same points.

    The value is that of a manifold that has been asked before, and so has kept what its points share; and that of one
    whose weights have just changed, as in training, which has nothing kept. What the gradient takes is what it adds to
    the former. By process time with one thread on a CPU, which other processes disturb least; otherwise by wall time.

    **Args:** `beside`: time nested transforms too, and compare what they find; through norms only the one that is right
    there.
    """
    made = _Trained.of(subject, points)
    module, u = made.module, made.u
    calls: dict[str, Callable[[], object]] = {"value": made.alone, "value anew": made.anew, "gradient": made.step}
    written, routes = maps.written_out(subject.module, norms=False), ROUTES if beside else {}  # type: ignore[arg-type]
    if subject.has_norms:  # about which nested forward mode is wrong, without a warning
        routes = {name: route for name, route in routes.items() if route is forward_over_reverse}
    contenders = {name: nested(subject, written, route) for name, route in routes.items()}
    for name, contender in contenders.items():
        calls[name] = partial(contender, u)
    clock = "process" if subject.device.type == "cpu" and torch.get_num_threads() == 1 else "wall"
    found = by_clock(calls, repeats, subject.device)[clock]
    added = [both - alone for both, alone in zip(found["gradient"], found["value"], strict=True)]
    row: dict[str, Any] = {
        "points": points,
        "weights": sum(weight.numel() for weight in module.parameters()),
        "seconds": {name: Spread.of(samples) for name, samples in found.items()},
        "clock": clock,
        "gradient_over_value": Spread.ratio(added, found["value"]),
        "value_and_gradient_over_value": Spread.ratio(found["gradient"], found["value"]),
        "value_and_gradient_over_value_anew": Spread.ratio(found["gradient"], found["value anew"]),
    }
    own: dict[str, Any] = {name: weight.grad for name, weight in module.named_parameters()}
    row["nested"] = {}
    for name, contender in contenders.items():
        theirs = contender(u)
        scale = max(float(slope.abs().max()) for slope in theirs.values())
        difference = max(float((own[key] - slope).abs().max()) for key, slope in theirs.items()) / scale
        row["nested"][name] = {"over_ours": Spread.ratio(found[name], found["gradient"]), "difference": difference}
    return row


def tape(subject: Subject, points: int = 8) -> dict[str, Any]:
    """Bytes of the value alone and of the value with its gradient at most, of the tape of one point, and of gradients.

    On a CPU, where live bytes can be told.
    """
    made = _Trained.of(subject, points)
    alone, both = (peak(call, subject.device) for call in (made.alone, made.step))
    with Tally() as tally:
        kept = made.live.scalar_curvature(made.u[:1])
        of_one_point = tally.live
    del kept
    gradients = sum(weight.nbytes for weight in made.module.parameters())
    return {
        "points": points,
        "bytes": {
            "value": alone,
            "value_and_gradient": both,
            "tape_of_one_point": of_one_point,
            "gradients": gradients,
        },
        "tape_over_value": of_one_point / alone,
        "both_over_value": (both - gradients) / alone,
        "both_over_value_with_weights": (both + gradients) / (alone + gradients),
    }
