"""The tasks: examples and labels by a rule, each drawn from a seed, and a share of labels flipped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.lab.experiments.ring import HALF_WIDTH, INNER_RADIUS, OUTER_RADIUS

#: draws `count` inputs and their labels without noise
Generator = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


class Examples(NamedTuple):
    """Inputs `[count, *shape]`, labels `[count]` with noise, and those without; labels are 0.0 or 1.0."""

    inputs: Tensor
    labels: Tensor
    clean: Tensor


def examples(task: str, count: int, seed: int, noise: float = 0.0) -> Examples:
    """`count` examples of a task from a seed, of whose labels a share `noise` is flipped.

    **Raises:** `InputError` for an unknown task, or a count that is not positive.
    """
    if task not in GENERATORS:
        raise InputError(f"there is no task {task!r}; there are {', '.join(GENERATORS)}")
    if count < 1:
        raise InputError(f"a data set needs at least one example, got count={count}")
    generator = torch.Generator().manual_seed(seed)
    inputs, clean = GENERATORS[task](count, generator)
    flipped = torch.rand(count, generator=generator, dtype=torch.float64) < noise
    return Examples(inputs, torch.where(flipped, 1 - clean, clean), clean)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1


def _signs(generator: torch.Generator, *shape: int) -> Tensor:
    return 2.0 * torch.randint(0, 2, shape, generator=generator).double() - 1


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# -- points in the square [-2, 2]² -----------------------------------------------------------------------------------


def _linear(angle: float, margin: float) -> Generator:
    normal = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))], dtype=torch.float64)

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        points = HALF_WIDTH * _uniform(generator, count, 2)
        while (near := (points @ normal).abs() < margin).any():  # what lies within the margin is drawn again
            points[near] = HALF_WIDTH * _uniform(generator, int(near.sum()), 2)
        return points, (points @ normal > 0).double()

    return draw


def _ring(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    points = HALF_WIDTH * _uniform(generator, count, 2)
    radius = points.norm(dim=-1)
    return points, ((radius > INNER_RADIUS) & (radius < OUTER_RADIUS)).double()


def _xor(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    points = HALF_WIDTH * _uniform(generator, count, 2)
    return points, (points.prod(-1) > 0).double()


def _moons(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half circles of radius 1, the upper one around (-0.5, -0.25), the lower one around (0.5, 0.25)."""
    labels = (_signs(generator, count) + 1) / 2
    angle = math.pi * (1 + _uniform(generator, count)) / 2
    sign = 1 - 2 * labels
    arc = torch.stack([-0.5 * sign + angle.cos(), sign * (angle.sin() - 0.25)], -1)
    return arc + 0.15 * _normal(generator, count, 2), labels


def _spirals(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Arms of 1.25 turns, the second half a turn behind the first; uniform along the radius from 0.2 to 1.7."""
    labels = (_signs(generator, count) + 1) / 2
    along = (1 + _uniform(generator, count)) / 2
    angle, radius = 2.5 * math.pi * along + math.pi * labels, 0.2 + 1.5 * along
    arm = radius[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
    return arm + 0.05 * _normal(generator, count, 2), labels


# -- sequences of tokens ---------------------------------------------------------------------------------------------


def _sum_threshold(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    tokens = _uniform(generator, count, 8, 2)
    return tokens, (tokens[..., 0].sum(-1) > 0).double()


def _majority(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    tokens = _signs(generator, count, 9, 1)
    return tokens, (tokens.sum((-2, -1)) > 0).double()


def _xor_of_counts(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    tokens = _signs(generator, count, 9, 2)
    first, second = (tokens.sum(-2) > 0).unbind(-1)
    return tokens, (first ^ second).double()


def _product(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    tokens = _uniform(generator, count, 8, 2)
    return tokens, (tokens.prod(-1).sum(-1) > 0).double()


def _marked_parity(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens (value, mark): two marks are 1, the others 0."""
    values = _signs(generator, count, 8)
    places = torch.rand(count, 8, generator=generator, dtype=torch.float64).argsort(-1)[:, :2]
    marks = torch.zeros_like(values).scatter(-1, places, 1.0)
    return torch.stack([values, marks], -1), (values.gather(-1, places).prod(-1) > 0).double()


#: the deviation of the query, with which about half of the queries lie in the hull
_QUERY = 0.75


def _hull(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens (x, y, whether it is the query); the query comes first."""
    points = _normal(generator, count, 8, 2)
    points[:, 0] *= _QUERY
    away = points[:, 1:] - points[:, :1]
    angle = torch.atan2(away[..., 1], away[..., 0]).sort(-1).values
    gaps = torch.cat([angle.diff(dim=-1), angle[:, :1] + 2 * math.pi - angle[:, -1:]], -1)
    query = torch.zeros_like(points[..., :1])
    query[:, 0] = 1.0
    return torch.cat([points, query], -1), (gaps.amax(-1) < math.pi).double()  # seen from it, no half plane is empty


GENERATORS: dict[str, Generator] = {
    "linear": _linear(0, 0),
    "linear_margin": _linear(0, 0.2),
    "linear_tilted": _linear(30, 0),
    "linear_tilted_margin": _linear(30, 0.2),
    "ring": _ring,
    "xor": _xor,
    "moons": _moons,
    "spirals": _spirals,
    "sum_threshold": _sum_threshold,
    "majority": _majority,
    "xor_of_counts": _xor_of_counts,
    "product": _product,
    "marked_parity": _marked_parity,
    "hull": _hull,
}
