"""Curvature pushed up or down in training: a penalty on the real quantity, with its gradient."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import huber_loss

from fisherflat._typing import Tensor
from fisherflat.errors import DegenerateImmersionWarning, PrecisionWarning, without
from fisherflat.geometry import StatisticalManifold
from fisherflat.lab.claims._models import Classifier
from fisherflat.spaces import charts


class Term(ABC):
    """A term of the loss that draws |II| towards a target, at the first points of a batch, every so many steps.

    It is `weight * E h(log(|II|² Var / target²))`, h Huber's function, Var the variance of the representation over the
    same points, so that scaling it changes nothing. The logarithm and h keep single creases from deciding all, and the
    target keeps the term from ruining everything else.

    **Args:** `models`, those of the seeds; `names`, of the trained parameters; `target`, of |II|; `recipe`, with
    `every`, `points` and `weight`.
    """

    def __init__(
        self, models: Sequence[Classifier], names: Sequence[str], target: float, recipe: Mapping[str, Any]
    ) -> None:
        self.models = [model.double() for model in models]
        self.every, self.points = int(recipe["every"]), int(recipe["points"])
        self._names, self._factor = list(names), recipe["weight"] * self.every
        self._target = 2 * math.log(target)

    @abstractmethod
    def bend(self, index: int, x: Tensor) -> Tensor:
        """`log(|II|² Var)` of the model with this index at inputs `[points, *shape]`, with a tape."""

    def add(self, state: dict[str, Tensor], inputs: Tensor) -> None:
        """Add its gradient to those of stacked parameters, at the first of the `inputs` `[seeds, batch, *shape]`."""
        for index, model in enumerate(self.models):
            weights = dict(model.named_parameters())
            with torch.no_grad():
                for name, value in weights.items():
                    value.copy_(state[name][index])
            model.zero_grad()
            at = inputs[index, : self.points].double()
            off = self.bend(index, at) - self._target
            off = off[off.isfinite()]
            (self._factor * huber_loss(off, torch.zeros_like(off), reduction="sum") / len(at)).backward()
            for name in self._names:
                gradient = weights[name].grad
                if gradient is not None and gradient.isfinite().all():
                    state[name].grad[index] += gradient  # type: ignore[index]


class Push(Term):
    """The term of the protocol: the live representation of point tasks, over the plane of inputs."""

    def __init__(
        self, models: Sequence[Classifier], names: Sequence[str], target: float, recipe: Mapping[str, Any]
    ) -> None:
        super().__init__(models, names, target, recipe)
        self._manifolds = [
            StatisticalManifold(model.representation, charts.identity(2), differentiable=True, degenerate="nan")
            for model in self.models
        ]

    def bend(self, index: int, x: Tensor) -> Tensor:
        """As of every term."""
        with without(DegenerateImmersionWarning, PrecisionWarning):
            form = self._manifolds[index].measure(x, ["second_fundamental_form_norm"])["second_fundamental_form_norm"]
        return (form.square() * self.models[index].representation(x).var(0).mean()).log()
