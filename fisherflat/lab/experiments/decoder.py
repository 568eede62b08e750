"""A small variational autoencoder whose decoder says how sure it is, for the notebooks on families and on training."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

#: points of the ring, their outputs, and the units between
_POINTS, _OUTPUTS, _UNITS = 512, 8, 32
#: codes that a penalty sees in a step, and steps over which the bound is averaged
_PENALISED, _LAST = 16, 100

Penalty = Callable[[Tensor], Tensor]


def ring(seed: int = 0) -> Tensor:
    """Points `[n, outputs]` of a noisy ring, bent into more dimensions, in single precision."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(_POINTS, 1, generator=generator)
    plane = (1 + 0.1 * torch.randn(_POINTS, 1, generator=generator)) * torch.cat([angle.cos(), angle.sin()], 1)
    bent = torch.randn(2, _OUTPUTS, generator=generator)
    return torch.tanh(plane @ bent) + 0.05 * torch.randn(_POINTS, _OUTPUTS, generator=generator)


class Decoder(nn.Module):
    """From a code in the plane to means and logarithms of standard deviations, a pair `[outputs]`.

    **Attributes:** `bound`: the negative evidence lower bound of the last steps of training, without a penalty, in nats
    for each point of the data.
    """

    bound: float = math.nan

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, _UNITS)
        self.means, self.spreads = nn.Linear(_UNITS, _OUTPUTS), nn.Linear(_UNITS, _OUTPUTS)

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """The parameters of a `DiagonalGaussian`."""
        units = torch.tanh(self.hidden(code))
        return self.means(units), self.spreads(units)


def trained(
    data: Tensor, steps: int = 600, seed: int = 0, penalty: Callable[[Decoder], Penalty] | None = None
) -> tuple[Decoder, Tensor]:
    """A decoder and the codes `[n, 2]` of the data, after some seconds of Adam on the evidence lower bound.

    **Args:** `data` `[n, outputs]`; `penalty`, which makes of the decoder a term of the loss that is called with some
    codes in each step, such as a `fisherflat.training.CurvaturePenalty`.

    **Returns:** the decoder, in double precision; the means of the encoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder, encoder = Decoder(), nn.Sequential(nn.Linear(_OUTPUTS, _UNITS), nn.Tanh(), nn.Linear(_UNITS, 4))
        term, bounds = penalty(decoder) if penalty else None, list[float]()
        optimiser = torch.optim.Adam([*decoder.parameters(), *encoder.parameters()], lr=5e-3)
        for _ in range(steps):
            code, spread = encoder(data).chunk(2, -1)
            means, logs = decoder(code + spread.exp() * torch.randn_like(code))
            logs = logs.clamp_min(-3)
            likely = (-(((data - means) / logs.exp()) ** 2) / 2 - logs).sum(-1)
            prior = (code**2 + (2 * spread).exp() - 2 * spread - 1).sum(-1) / 2
            optimiser.zero_grad()
            loss = (prior - likely).mean()
            bounds.append(loss.item())
            if term is not None:
                loss = loss + term(code[torch.randint(len(code), (_PENALISED,))].detach())
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            codes = encoder(data)[:, :2].double()
    decoder.bound = sum(bounds[-_LAST:]) / len(bounds[-_LAST:])
    return decoder.double().requires_grad_(False).eval(), codes
