"""How far apart two prompts are for a layer: the geodesic between their states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch

from fisherflat._arrays import integer
from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import StatisticalManifold
from fisherflat.models import as_model
from fisherflat.models.moves import pool
from fisherflat.models.moves import tokens as moved
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian, ParametricFamily
from fisherflat.studies._lens import Lens, asked

#: points of the path that is returned
_POINTS = 33


@displayed
@dataclass(frozen=True, eq=False)
class Between:
    """The shortest way between two prompts' states as a layer sees them.

    **Attributes:**

    - `distance`, its length; `error`, an estimate; `straight`, the length of the straight line between the states,
      which no shortest path exceeds. In standard deviations of the layer's outputs, or in the metric of a family.
    - `path` `[points, k]`, in coordinates, from the first prompt's state at 0 to the second's at 1 along the first
      coordinate; `manifold`, in which it lies, on the plane of `manifold.chart`.
    - `moving`, what goes from one prompt to the other, in words.

    >>> import fisherflat as ff
    >>> found = ff.geometry_between("python-llama", "a = [1, 2]", "b = [3, 4]", layer=0)
    >>> bool(0 < found.distance <= found.straight)
    True
    """

    distance: float
    error: float
    straight: float
    path: Float[Tensor, "points k"]
    manifold: StatisticalManifold
    moving: str

    def __repr__(self) -> str:
        return f"Between(distance={self.distance:.6g}, straight={self.straight:.6g}, {self.moving})"


def geometry_between(
    model: Any,
    prompt_a: Any,
    prompt_b: Any,
    layer: SupportsIndex,
    *,
    k: SupportsIndex = 2,
    family: str | ParametricFamily | None = None,
) -> Between:
    """The distance between two prompts along the geometry of a layer, and the shortest path.

    The states that enter the layer are the ends. Where both prompts have as many tokens, all of these go from one to
    the other; else the last word of the first prompt goes to the state of the last word of the second, and the rest
    of the first stays. The path may leave the straight line along the leading principal directions of the words'
    states, which all that moves follows together.

    **Args:**

    - `model`, loaded, a module, or what `fisherflat.load` takes; `prompt_a`, `prompt_b`: anything that it encodes.
    - `layer`, from 0, or negative from the end: its whole block is the map.
    - `k`, dimensions of the chart, the first of which joins the states.
    - `family`: `"next-token"` (after the last word), `"class"` or `"direction"`, what the model's head makes of what
      the layer puts out, or one of `fisherflat.families`; default a Gaussian with the mean variance of the layer's
      outputs at the words.

    **Returns:** a `Between`.

    **Raises:** `InputError` where the states are the same, or there is no such layer, and what
    `fisherflat.load` and `Model.readout` raise.

    >>> import fisherflat as ff
    >>> found = ff.geometry_between("python-llama", "a = [1, 2]", "b = [3, 4]", layer=-1, family="next-token")
    >>> found.path.shape
    torch.Size([33, 2])
    """
    loaded, kind, k = as_model(model), asked(family), integer(k, "k", 1)
    encoded = [loaded.encode(prompt) for prompt in (prompt_a, prompt_b)]
    blocks = [loaded.blocks(one) for one in encoded]
    index, depth = integer(layer, "layer"), len(blocks[0])
    if not -depth <= index < depth:
        raise InputError(f"the model has layers 0 to {depth - 1}, there is no layer {index}")
    first, second = (some[index % depth] for some in blocks)
    point, other = first.input, second.input
    words = [moved(one, None) or list(range(len(one.ids))) for one in encoded]
    if point.shape == other.shape:
        across, tokens, moving = other - point, list(range(len(point))), "all tokens move"
    else:
        at, to = words[0][-1], words[1][-1]
        across, tokens = torch.zeros_like(point), [at]
        across[at] = other[to] - point[at]
        moving = f"token {at} moves to the state of token {to} of the second prompt"
    if not across.any():
        raise InputError(
            f"the states that enter layer {index} are the same for both prompts; nothing lies between them"
        )
    chart = Chart(point, torch.stack([across, *_sideways([point, other], encoded, across, tokens, k - 1)]), "between")
    mean: Any = first
    space: Gaussian | ParametricFamily
    if kind is None:
        with torch.no_grad():
            space = Gaussian.calibrated(pool([first(point), second(other)], encoded))
    else:
        lens = Lens.of(loaded, kind, encoded[0], words[0][-1:], first(point))
        mean, space = _Seen(first, lens), lens.family
    manifold = StatisticalManifold(mean, chart, space)
    ends = torch.eye(k, dtype=torch.float64)[:1].repeat(2, 1) * torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = manifold.distance(ends[0], ends[1], error=True)
    path = manifold.geodesic(ends[0], ends[1], points=_POINTS)
    return Between(found.value.item(), found.error.item(), found.straight.item(), path, manifold, moving)


def _sideways(states: Any, encoded: Any, across: Tensor, tokens: list[int], count: int) -> list[Tensor]:
    """Principal directions of the words' states, as long as one standard deviation, for all that moves together."""
    if not count:
        return []
    words = pool(states, encoded, count + 1)
    spread = words - words.mean(0)
    _, lengths, directions = torch.linalg.svd(spread, full_matrices=False)
    if len(lengths) < count or not lengths[count - 1] > 1e-8 * lengths[0]:
        raise InputError(f"the states span no {count} further directions; take a smaller k")
    unit = lengths[:count, None] / (len(words) - 1) ** 0.5 * directions[:count]
    found = across.new_zeros(count, *across.shape)
    found[:, tokens] = unit[:, None, :]
    return list(found)


class _Seen(torch.nn.Module):
    """A block, and what a lens makes of its states."""

    def __init__(self, block: torch.nn.Module, lens: Lens) -> None:
        super().__init__()
        self.block, self._lens = block, lens

    def forward(self, x: Tensor) -> Tensor:
        """The parameters of the family."""
        states = self.block(x)
        return states if self._lens.graph is None else self._lens.graph(states)
