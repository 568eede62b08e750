"""What the gradient of the scalar curvature by all weights costs, beside the value alone and nested `torch.func`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from fisherflat.geometry import StatisticalManifold
from fisherflat.lab.bench import maps
from fisherflat.lab.bench._measure import Spread, by_clock
from fisherflat.lab.bench._peers import textbook
from fisherflat.lab.bench.maps import Subject

#: points of a step
POINTS = 4


def nested(subject: Subject, module: nn.Module) -> Callable[[Tensor], dict[str, Tensor]]:
    """The same gradient by transforms alone: reverse mode over the third derivatives of the textbook's curvature."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}

    def total(weights: dict[str, Tensor], u: Tensor) -> Tensor:
        def plain(x: Tensor) -> Tensor:
            return functional_call(module, weights, (x,))

        return textbook(replace(subject, plain=plain))(u).sum()

    return lambda u: grad(total)(weights, u)


def over_value(subject: Subject, repeats: int, *, beside: bool, points: int = POINTS) -> dict[str, Any]:
    """Times of a value and of the value with its gradient, at the same points.

    The value is that of a manifold that has been asked before, and so has kept what its points share; and that of one
    whose weights have just changed, as in training, which has nothing kept. What the gradient takes is what it adds to
    the former. By process time with one thread on a CPU, which other processes disturb least; otherwise by wall time.

    **Args:** `beside`: time nested transforms too, and compare what they find; on maps whose norms they have right.
    """
    given: Any = subject.module
    module, written = copy.deepcopy(given).requires_grad_(True), maps.written_out(given, norms=False)
    value = StatisticalManifold(subject.module, subject.chart, dtype=subject.dtype)
    live = StatisticalManifold(module, subject.chart, dtype=subject.dtype, differentiable=True)
    u = subject.points(points)

    def step() -> None:
        module.zero_grad()
        live.scalar_curvature(u).sum().backward()

    @torch.no_grad()
    def anew() -> None:
        live.scalar_curvature(u)

    calls: dict[str, Callable[[], object]] = {
        "value": lambda: value.scalar_curvature(u), "value anew": anew, "gradient": step
    }  # fmt: skip
    if beside:
        calls["nested"] = lambda: nested(subject, written)(u)
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
    if beside:
        row["nested_over_ours"] = Spread.ratio(found["nested"], found["gradient"])
        theirs = nested(subject, written)(u)
        own = {name: weight.grad for name, weight in module.named_parameters()}
        scale = max(float(theirs[name].abs().max()) for name in theirs)
        row["difference"] = max(float((own[name] - theirs[name]).abs().max()) for name in theirs) / scale
    return row
