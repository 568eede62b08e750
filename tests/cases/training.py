"""A training loop that has nothing to do with measuring, and depends on all that measuring could disturb."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Clipped(torch.autograd.Function):
    """The identity, whose gradient is clipped: what it computes is not what it says its derivative is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        assert ctx.needs_input_grad == (True,)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (grad * x).clamp(-0.1, 0.1)


def trained(steps: int) -> list[Tensor]:
    """The weights of a small model after some steps, in each of which a module is built, too."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 8, generator=generator, requires_grad=True)
    layer = nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True)
    norm = nn.BatchNorm1d(8)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    optimizer = torch.optim.SGD([weight, *layer.parameters()], lr=0.05)
    for _ in range(steps):
        x = torch.randn(4, 3, 8, generator=generator)
        hidden = Clipped.apply(x @ weight)
        query = norm(hidden.flatten(0, 1)).view_as(hidden)
        attended = F.scaled_dot_product_attention(query, hidden, hidden)
        head = nn.Linear(8, 1, bias=False)
        nn.init.constant_(head.weight, 0.1)
        loss = (layer(attended) - torch.ones(8)).square().mean() + torch.full((1,), 0.1).sum() * head(hidden).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [tensor.detach() for tensor in (weight, *layer.parameters(), *norm.buffers())]


def undisturbed(work: Callable[[], Any], steps: int = 40, rounds: int = 1) -> list[Any]:
    """What `work` returns, done again and again while another thread trains; its weights are those of training alone.

    **Args:** `rounds`: do it so often at least.
    """
    alone = trained(steps)
    beside: list[Tensor] = []
    done: list[Any] = []
    thread = threading.Thread(target=lambda: beside.extend(trained(steps)))
    thread.start()
    while thread.is_alive() or len(done) < rounds:
        done.append(work())
    thread.join()
    assert len(beside) == len(alone)
    for mine, yours in zip(alone, beside, strict=True):
        assert torch.equal(mine, yours)
    return done
