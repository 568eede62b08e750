"""The second paper's side: gated MLPs trained with a nonlinearity on no factor, on one, and on both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from fisherflat._typing import Tensor
from fisherflat.lab.claims._protocol import Protocol
from fisherflat.layers import BilinearAttention

#: what acts on a factor
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "relu": F.relu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
}
#: sides and activations that are trained; "slots" is bilinear attention of a higher rank, which is then approximated
KINDS = [("none", "identity"), ("slots", "identity")]
KINDS += [(side, activation) for activation in ("relu", "silu", "sigmoid") for side in ("one", "both")]
OPTIMIZERS = ("adam", "gradient flow")
#: the factor of inverse scaling
_FACTOR = 2.0


@dataclass(frozen=True)
class MLPs:
    """MLPs that are trained together, one a seed.

    **Attributes:** `side`, on which factors there is an `activation`; `rank`, of the teacher; `optimizer`; `seeds`.
    """

    side: str
    activation: str
    rank: int
    optimizer: str
    seeds: tuple[int, ...]

    table = "symmetries"

    @property
    def name(self) -> str:
        """The name of its file."""
        parts = ["mlp", self.side, self.activation, f"rank{self.rank}", self.optimizer.replace(" ", "_")]
        return "-".join([*parts, f"seeds{self.seeds[0]}to{self.seeds[-1]}"])


def mlps(protocol: Protocol, seeds: int | None = None, pilot: bool = False) -> Iterator[MLPs]:
    """All that the protocol asks for; bilinear slots are trained by Adam alone."""
    about, first = protocol["mlps"], protocol["pilot"] if pilot else 0
    count = about["seeds"] if seeds is None else min(seeds, about["seeds"])
    for optimizer in OPTIMIZERS:
        for rank in about["ranks"]:
            for side, activation in KINDS:
                if not (side == "slots" and optimizer != "adam"):
                    yield MLPs(side, activation, rank, optimizer, tuple(range(first, first + count)))


class Weights(NamedTuple):
    """Of all seeds, `[seeds, units, rank, inputs]` the factors, `[seeds, units, outputs]` the values."""

    gate: Tensor
    up: Tensor
    value: Tensor


def outputs(weights: Weights, x: Tensor, side: str, activation: str) -> Tensor:
    """`y = Σ_i v_i Σ_r a(g_ir·x) b(u_ir·x)`, `[seeds, examples, outputs]` for `x` `[seeds, examples, inputs]`."""
    act = ACTIVATIONS[activation]
    gate, up = (torch.einsum("surd,snd->snur", factor, x) for factor in weights[:2])
    scores = (act(gate) * (act(up) if side == "both" else up)).sum(-1)
    return scores @ weights.value


def _data(about: dict[str, Any], unit: MLPs) -> tuple[Weights, Tensor, Tensor, Tensor, Tensor]:
    """Initial weights, inputs and targets for training, and for testing: those of a seed depend on nothing else."""
    found = []
    for seed in unit.seeds:
        random = torch.Generator().manual_seed(1000 * seed + unit.rank)

        def normal(*shape: int, random: torch.Generator = random) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64)

        d, o, slots = about["width"], about["outputs"], about["slots"]
        teacher = _weights(normal, slots, unit.rank, d, o, 1.0)
        x = normal(1, about["train"] + about["test"], d)
        y = outputs(teacher, x, "none", "identity")
        y = y / y.std()
        y = y + about["noise"] * normal(*y.shape)
        units, rank = (slots, max(about["ranks"])) if unit.side == "slots" else (about["units"], 1)
        student = _weights(normal, units, rank, d, o, units**-0.5)
        found.append((*student, x, y))
    gate, up, value, x, y = (torch.cat(parts) for parts in zip(*found, strict=True))
    cut = about["train"]
    return Weights(gate, up, value), x[:, :cut], y[:, :cut], x[:, cut:], y[:, cut:]


def _weights(normal: Callable[..., Tensor], units: int, rank: int, inputs: int, outputs: int, spread: float) -> Weights:
    gate, up = (normal(1, units, rank, inputs) / inputs**0.5 for _ in range(2))
    return Weights(gate, up, spread * normal(1, units, outputs))


def _losses(weights: Weights, x: Tensor, y: Tensor, unit: MLPs) -> Tensor:
    """The mean squared error of each seed, relative to the variance of its targets."""
    error = outputs(weights, x, unit.side, unit.activation) - y
    return error.square().mean((1, 2)) / y.var(dim=(1, 2))


def _flow(weights: Weights, slope: Callable[[Weights], Weights], steps: int, rate: float) -> Weights:
    """Gradient flow for a time of `steps * rate`, by the classical Runge-Kutta method."""

    def moved(by: Weights, factor: float) -> Weights:
        return Weights(*(w - factor * s for w, s in zip(weights, by, strict=True)))

    for _ in range(steps):
        first = slope(weights)
        second = slope(moved(first, rate / 2))
        third = slope(moved(second, rate / 2))
        fourth = slope(moved(third, rate))
        weights = Weights(
            *(
                w - rate / 6 * (a + 2 * b + 2 * c + d)
                for w, a, b, c, d in zip(weights, first, second, third, fourth, strict=True)
            )
        )
    return weights


def trained(protocol: Protocol, unit: MLPs, steps: int | None = None) -> tuple[Weights, Weights, Any]:
    """Weights before and after training, and the data."""
    about = protocol["mlps"]
    recipe = about[unit.optimizer.replace(" ", "_")]
    count = recipe["steps"] if steps is None else steps
    start, x, y, *test = _data(about, unit)
    if unit.optimizer == "adam":
        learned = Weights(*(w.clone().requires_grad_() for w in start))
        optimizer = torch.optim.Adam(list(learned), recipe["rate"])
        for step in range(count):
            for group in optimizer.param_groups:
                group["lr"] = recipe["rate"] * (1 + math.cos(math.pi * step / count)) / 2
            optimizer.zero_grad()
            _losses(learned, x, y, unit).sum().backward()
            optimizer.step()
        return start, Weights(*(w.detach() for w in learned)), (x, y, *test)

    def slope(weights: Weights) -> Weights:
        at = [w.detach().requires_grad_() for w in weights]
        return Weights(*torch.autograd.grad(_losses(Weights(*at), x, y, unit).sum(), at))

    return start, _flow(start, slope, count, recipe["rate"]), (x, y, *test)


def rows_of_mlps(protocol: Protocol, unit: MLPs, steps: int | None = None, pilot: bool = False) -> list[dict[str, Any]]:
    """Train the MLPs of a unit and measure their symmetries: a row each."""
    start, end, (x, y, x_test, y_test) = trained(protocol, unit, steps)
    recipe = protocol["mlps"][unit.optimizer.replace(" ", "_")]
    with torch.no_grad():
        before = outputs(end, x_test, unit.side, unit.activation)

        def defect(changed: Weights) -> Tensor:
            after = outputs(changed, x_test, unit.side, unit.activation)
            return (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)

        squares = [[w.square().flatten(2).sum(-1) for w in weights] for weights in (start, end)]
        whole = (squares[1][0] + squares[1][1]).mean(1)
        lengths = [square.sqrt() for square in squares[1][:2]]
        columns = {
            "train_loss": _losses(end, x, y, unit),
            "test_loss": _losses(end, x_test, y_test, unit),
            "exchange_defect": defect(Weights(end.up, end.gate, end.value)),
            "inverse_scaling_defect": defect(Weights(_FACTOR * end.gate, end.up / _FACTOR, end.value)),
            "charge_drift": _drift(squares, 0, 1) / whole,
            "charge_drift_output": _drift(squares, 1, 2) / whole,
            "imbalance": ((lengths[0] - lengths[1]).abs() / (lengths[0] + lengths[1])).mean(1),
            **_rank_one(end, unit, x_test, y_test),
        }
    about = {
        "side": unit.side,
        "activation": unit.activation,
        "rank": unit.rank,
        "optimizer": unit.optimizer,
        "pilot": pilot,
        "parameters": sum(w[0].numel() for w in end),
        "steps": recipe["steps"] if steps is None else steps,
        "protocol_hash": protocol.sha256,
    }
    return [
        {**about, "seed": seed, **{name: values[index].item() for name, values in columns.items()}}
        for index, seed in enumerate(unit.seeds)
    ]


def _drift(squares: list[list[Tensor]], one: int, other: int) -> Tensor:
    """How far the difference of squared lengths of two weights of a unit has moved, its mean over units."""
    start, end = (square[one] - square[other] for square in squares)
    return (end - start).abs().mean(1)


def _rank_one(weights: Weights, unit: MLPs, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What the best gated unit for each slot loses, median over slots, and the test loss with these in their place."""
    names = ("rank_one_error", "rank_one_matrix_error", "rank_one_test_loss")
    if unit.side != "slots":
        return {name: torch.full((len(unit.seeds),), math.nan) for name in names}
    found: list[tuple[float, ...]] = []
    for index in range(len(unit.seeds)):
        # the layer's values are as wide as its inputs; here the scores alone are approximated
        gate, up = weights.gate[index], weights.up[index]
        slots = BilinearAttention(gate, up, torch.zeros_like(gate[:, 0]))
        best, matrix = slots.rank_one("function"), slots.rank_one("matrix")
        near = Weights(best.attention.query[None], best.attention.key[None], weights.value[index][None])
        loss = _losses(near, x[index][None], y[index][None], unit)
        found.append((best.error.median().item(), matrix.error.median().item(), loss.item()))
    return dict(zip(names, torch.tensor(found, dtype=torch.float64).T, strict=True))
