"""Training: the models of a block of seeds at once, each on data of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from fisherflat._typing import Tensor
from fisherflat.lab.claims._models import Classifier, classifier, trained_names
from fisherflat.lab.claims._protocol import Protocol, Unit
from fisherflat.lab.claims._push import Push, Term
from fisherflat.lab.claims._tasks import Examples, examples

#: the share of steps in which the rate rises
_WARM_UP = 0.05


@dataclass
class Trained:
    """A trained model with its data: `loss` is the mean over the last tenth of training."""

    seed: int
    model: Classifier
    train: Examples
    test: Examples
    loss: float
    train_accuracy: float
    test_accuracy: float


def data(
    protocol: Protocol | Mapping[str, Any], task: str, seed: int, shuffled: bool = False
) -> tuple[Examples, Examples]:
    """What a seed is trained and tested on; where `shuffled`, its training labels are permuted."""
    sizes = protocol["data"]
    train = examples(task, sizes["train"], 2 * seed, sizes["noise"])
    if shuffled:
        order = torch.randperm(sizes["train"], generator=torch.Generator().manual_seed(seed))
        train = train._replace(labels=train.labels[order])
    return train, examples(task, sizes["test"], 2 * seed + 1, sizes["noise"])


def rate(step: int, steps: int) -> float:
    """The learning rate at a step, relative to the largest: a linear rise, then half a cosine."""
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


def train(
    protocol: Protocol,
    unit: Unit,
    steps: int | None = None,
    term: Callable[[Sequence[Classifier], Sequence[str]], Term] | None = None,
) -> list[Trained]:
    """The trained models of a unit, in double precision; `steps`, if not those of the protocol.

    `term`, if not that of the arm, makes a further term of the loss, of models and the names of what is trained.

    Nothing couples the seeds: losses are added up, and AdamW acts entry by entry.
    """
    cell, recipe = unit.cell, protocol.family(unit.cell.task)
    arm, steps = protocol["arms"][cell.arm], recipe["steps"] if steps is None else steps
    models = [classifier(protocol, cell, seed) for seed in unit.seeds]
    sets = [data(protocol, cell.task, seed, cell.shuffled) for seed in unit.seeds]
    inputs = torch.stack([part.inputs for part, _ in sets]).float()
    labels = torch.stack([part.labels for part, _ in sets]).float()
    state = stack_module_state(models)[0]
    skeleton = deepcopy(models[0]).to("meta")
    learned = [state[name] for name in trained_names(skeleton, arm)]
    optimizer = torch.optim.AdamW(learned, recipe["learning_rate"], weight_decay=cell.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    forward = vmap(lambda weights, x: functional_call(skeleton, weights, (x,)))
    losses: list[Tensor] = []
    push: Term | None = None
    if term is not None:
        push = term(deepcopy(models), trained_names(skeleton, arm))
    elif "push" in arm:
        push = Push(deepcopy(models), trained_names(skeleton, arm), arm["push"], protocol["push"])
    for step, batch in enumerate(_batches(inputs.shape[1], recipe["batch"], steps)):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(
            forward(state, inputs[:, batch]), labels[:, batch], reduction="none"
        ).mean(1)
        loss.sum().backward()
        if push is not None and step % push.every == 0:
            push.add(state, inputs[:, batch])
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    last = torch.stack(losses[-max(1, steps // 10) :]).mean(0)
    return [
        _finished(seed, model, {name: value[index] for name, value in state.items()}, *sets[index], last[index].item())
        for index, (seed, model) in enumerate(zip(unit.seeds, models, strict=True))
    ]


def _batches(count: int, size: int, steps: int) -> list[Tensor]:
    """The examples of each step: passes in an order of their own, the same for all seeds, which have other examples."""
    generator = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    while len(found) < steps:
        found += torch.randperm(count, generator=generator).split(size)
    return found[:steps]


@torch.no_grad()
def _finished(
    seed: int, model: Classifier, weights: dict[str, Tensor], train: Examples, test: Examples, loss: float
) -> Trained:
    model.load_state_dict({name: value.detach() for name, value in weights.items()})
    model = model.double().eval().requires_grad_(False)
    right = [((model(part.inputs) > 0) == (part.labels > 0.5)).double().mean().item() for part in (train, test)]
    return Trained(seed, model, train, test, loss, *right)
