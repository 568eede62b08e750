"""What every kind of movement offers to those who measure on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from fisherflat._arrays import integer
from fisherflat._display import displayed
from fisherflat._renamed import former
from fisherflat._typing import Float, Tensor
from fisherflat.models._model import Model
from fisherflat.models._prompts import Encoded
from fisherflat.models.moves._positions import SPREAD, Position, of_prompt, positions
from fisherflat.spaces.charts import Chart


@displayed
class Fitted(ABC):
    """What moves, fitted to one part of one layer; `Moves.fit` returns one.

    >>> import fisherflat as ff
    >>> issubclass(ff.moves.Words, ff.moves.Fitted)
    True
    """

    @abstractmethod
    def chart(self, states: Sequence[Float[Tensor, "n d"]], tokens: Sequence[int]) -> Chart:
        """The chart at one position of one prompt.

        **Args:**

        - `states`: what entered the part on each of the prompts of `Moves.variants`, in their order, `[n, d]` each.
        - `tokens`: the indices of the tokens that move, from the function `tokens`.

        **Returns:** a `Chart`. Its point, the origin, is `states[0]`.
        """


@displayed
class Moves(ABC):
    """What moves: how a prompt and a part of a layer become a chart.

    It is used in three steps: `positions` once a prompt; `fit` once a part; and, for each prompt and position,
    `variants`, which says what has to run through the model, followed by `Fitted.chart`.

    **Attributes:**

    - `kind`: one word.
    - `k`: how many coordinates.
    - `unit`: what one unit of a coordinate is, in words.
    - `settings`: all that determines what moves, fit for JSON.

    >>> import fisherflat as ff
    >>> moves = ff.moves.parse("random:7")
    >>> isinstance(moves, ff.moves.Moves), moves.k, moves.points(3).shape
    (True, 2, torch.Size([3, 2]))
    """

    kind: str
    k: int
    unit: str

    dim = former("k")

    @abstractmethod
    def __str__(self) -> str:
        """How tokens move, to follow on "a token moves"."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that determines what moves, fit for JSON: two that are equal give equal charts."""

    @property
    def name(self) -> str:
        """What `parse` reads it from, as `random:7`; of vectors the file."""
        said = self.settings
        rest = said.get("seed", said.get("words", said.get("file")))
        listed = ",".join(map(str, rest)) if isinstance(rest, (list, tuple)) else rest
        return self.kind if listed is None else f"{self.kind}:{listed}"

    def positions(self, model: Model, prompt: Encoded, where: Any = SPREAD) -> list[Position]:
        """The positions of a prompt, one a chart; `where` as in `positions`.

        **Raises:** `InputError` where there are none.
        """
        return positions(prompt, where)

    def place(self, model: Model, prompt: Encoded, where: Any = None) -> Position:
        """One position of a prompt, for what is measured at a single one.

        **Args:**

        - `where`: an index, or what `positions` takes, of which the last is meant; by default the last that suits.

        **Raises:** `InputError` where there is none.
        """
        if where is None:
            return self.positions(model, prompt)[-1]
        if not isinstance(where, (str, Sequence)) and not callable(where):
            with of_prompt(prompt):
                where = [integer(where, "position")]
        return self.positions(model, prompt, where)[-1]

    def variants(self, model: Model, prompt: Encoded, position: Position) -> list[Encoded]:
        """The prompts whose states the chart needs; on the first of them the part is measured.

        **Raises:** `InputError` where they cannot be made.
        """
        return [prompt]

    @abstractmethod
    def fit(self, states: Sequence[Float[Tensor, "_ d"]], prompts: Sequence[Encoded]) -> Fitted:
        """Fit to what entered a part on each of the prompts.

        **Raises:** `InputError` where that spans too little.
        """

    def points(self, count: int, seed: int = 0) -> Float[Tensor, "count k"]:
        """The chart's origin, which is the tokens' own state, and `count - 1` points drawn from within one unit of it.

        They are drawn uniformly from the ball, with `seed`.
        """
        return ball(count, self.k, seed)


def ball(count: int, k: int, seed: int) -> Float[Tensor, "count k"]:
    """The origin and `count - 1` points drawn uniformly from the unit ball."""
    generator = torch.Generator().manual_seed(integer(seed, "seed"))
    direction = torch.randn(count - 1, k, generator=generator, dtype=torch.float64)
    radius = torch.rand(count - 1, 1, generator=generator, dtype=torch.float64) ** (1 / k)
    inside = radius * direction / direction.norm(dim=1, keepdim=True)
    return torch.cat([torch.zeros(1, k, dtype=torch.float64), inside])
