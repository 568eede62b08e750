"""Tokens that move along k directions of the hidden space: principal, random, or given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fisherflat._arrays import integer
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.models._prompts import Encoded
from fisherflat.models.moves._moves import Fitted, Moves
from fisherflat.models.moves._positions import words
from fisherflat.spaces import charts

#: states that lie further than so many median distances from the median state are outliers
OUTLYING = 5.0


@dataclass(frozen=True, eq=False)
class Along(Fitted):
    """Tokens that move along directions of the hidden space.

    **Attributes:** `directions`, `[k, d]`, each one unit of a coordinate long; `kind`, for reports.
    """

    directions: Float[Tensor, "k d"]
    kind: str

    def chart(self, states: Sequence[Float[Tensor, "n d"]], tokens: Sequence[int]) -> charts.Chart:
        """The chart in which the tokens move together, each by the same vector."""
        chart = charts.token(states[0], tokens, self.directions)
        return charts.Chart(chart.point, chart.basis, self.kind)


@dataclass(frozen=True)
class Principal(Moves):
    """The leading principal directions of the states that enter a part, over the words of all prompts.

    Special tokens and outliers (see `ordinary`) are left out: a few tokens with very large states, such as those that
    serve as attention sinks, would otherwise be most of the spread, and the directions would point at them. Prompts of
    k words or fewer span too little; then special tokens count as well.

    **Args:**

    - `k`: how many directions, at least 1.

    >>> import fisherflat as ff
    >>> print(ff.moves.Principal(3))
    along 3 principal directions
    """

    k: int = 2
    kind = "principal"
    unit = "one standard deviation of the words' states along the direction"

    def __post_init__(self) -> None:
        check_k(self.k)

    def __str__(self) -> str:
        return f"along {self.k} principal directions"

    @property
    def settings(self) -> dict[str, Any]:
        """The kind and k."""
        return {"kind": self.kind, "dim": self.k}

    def fit(self, states: Sequence[Float[Tensor, "_ d"]], prompts: Sequence[Encoded]) -> Along:
        """The directions. **Raises:** `InputError` where the words span fewer than k."""
        return Along(charts.principal_directions(pool(states, prompts, self.k), self.k), self.kind)


@dataclass(frozen=True)
class Random(Moves):
    """Orthonormal random directions, the same for all parts of one width: what a direction without meaning does.

    **Args:**

    - `k`: how many directions, at least 1.
    - `seed`: which directions.

    >>> import fisherflat as ff
    >>> ff.moves.Random(2, seed=1).settings
    {'kind': 'random', 'dim': 2, 'seed': 1}
    """

    k: int = 2
    seed: int = 0
    kind = "random"
    unit = "the root mean square over all directions of the standard deviation of the words' states"

    def __post_init__(self) -> None:
        check_k(self.k)

    def __str__(self) -> str:
        return f"along {self.k} random directions (seed {self.seed})"

    @property
    def settings(self) -> dict[str, Any]:
        """The kind, k and the seed."""
        return {"kind": self.kind, "dim": self.k, "seed": self.seed}

    def fit(self, states: Sequence[Float[Tensor, "_ d"]], prompts: Sequence[Encoded]) -> Along:
        """The directions. **Raises:** `InputError` where the width is below k or the words do not differ."""
        pooled = pool(states, prompts)
        d = pooled.shape[1]
        if self.k > d:
            raise InputError(f"{self.k} orthonormal directions were asked for in hidden states of width {d}")
        length = pooled.var(0).mean().sqrt() if len(pooled) > 1 else pooled.new_zeros(())
        if not length > 0:
            raise InputError(
                "the states of the words do not differ, so there is nothing to measure a unit by; give a longer prompt "
                "or more prompts"
            )
        generator = torch.Generator().manual_seed(integer(self.seed, "seed"))
        normal = torch.randn(d, self.k, generator=generator, dtype=torch.float64)
        return Along(length * torch.linalg.qr(normal).Q.T.to(pooled.device), self.kind)


@dataclass(frozen=True)
class Whole(Moves):
    """All directions of the hidden space at once: `fisherflat.analyze(..., dim="full")` samples curvature in them.

    Their unit is that of the states, on which no curvature depends. `k` is 0: how many there are a part says.

    >>> import fisherflat as ff
    >>> print(ff.moves.Whole())
    in all directions
    """

    k = 0
    kind = "full"
    unit = "one unit of the hidden states"

    def __str__(self) -> str:
        return "in all directions"

    @property
    def settings(self) -> dict[str, Any]:
        """The kind."""
        return {"kind": self.kind, "dim": "full"}

    def fit(self, states: Sequence[Float[Tensor, "_ d"]], prompts: Sequence[Encoded]) -> Along:
        """The unit vectors of the hidden space."""
        identity = torch.eye(states[0].shape[1], dtype=torch.float64, device=states[0].device)
        return Along(identity, self.kind)

    def points(self, count: int, seed: int = 0) -> Float[Tensor, "1 k"]:
        """The tokens' own state alone."""
        return torch.zeros(1, self.k, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Vectors(Moves):
    """Given vectors, such as steering vectors, added to what enters a part.

    The function `vectors` checks them and makes one of these.

    **Args:**

    - `vectors`: `[k, d]`, independent, in units of the hidden states.
    - `source`: where they are from, for reports.

    >>> import torch, fisherflat as ff
    >>> ff.moves.Vectors(torch.eye(4)[:2], {}).k
    2
    """

    vectors: Float[Tensor, "k d"]
    source: dict[str, Any]
    kind = "vectors"
    unit = "one whole vector as given"

    def __str__(self) -> str:
        return f"along {self.k} given vectors{f' ({name})' if (name := self.source.get('file')) else ''}"

    @property
    def k(self) -> int:  # type: ignore[override]
        """How many vectors there are."""
        return self.vectors.shape[0]

    @property
    def settings(self) -> dict[str, Any]:
        """The kind, k and where the vectors are from."""
        return {"kind": self.kind, "dim": self.k, **self.source}

    def fit(self, states: Sequence[Float[Tensor, "_ d"]], prompts: Sequence[Encoded]) -> Along:
        """The vectors. **Raises:** `InputError` where their width is not that of the states."""
        d = states[0].shape[1]
        if self.vectors.shape[1] != d:
            raise InputError(f"the vectors have width {self.vectors.shape[1]}, what enters this part has width {d}")
        return Along(self.vectors.to(states[0].device), self.kind)


def pool(states: Sequence[Float[Tensor, "_ d"]], prompts: Sequence[Encoded], k: int = 1) -> Float[Tensor, "m d"]:
    """The states of the words of all prompts, without outliers; of all tokens where k or fewer are words.

    **Args:**

    - `states`: what entered a part on each prompt, `[n, d]` each.
    - `prompts`: from `Model.encode`, in the same order.
    - `k`: how many words are too few.

    **Returns:** `[m, d]`.

    >>> import torch, fisherflat as ff
    >>> prompt = ff.load("python-llama").encode("def mean(values):")
    >>> ff.moves.pool([torch.randn(len(prompt.ids), 4)], [prompt]).shape[1]
    4
    """
    chosen = torch.cat([x[words(prompt)] for x, prompt in zip(states, prompts, strict=True)])
    if len(chosen) <= k:
        chosen = torch.cat(list(states))
    return chosen[ordinary(chosen)]


def ordinary(states: Float[Tensor, "m d"]) -> Tensor:
    """Which states are not outliers, `[m]`: they lie at most five median distances from the median state.

    The median state is taken coordinate by coordinate. In hundreds of dimensions the distances of ordinary states
    hardly differ, so that the rule leaves out few of them, or none.

    **Args:**

    - `states`: `[m, d]`.

    **Returns:** a mask `[m]`.

    >>> import torch, fisherflat as ff
    >>> ff.moves.ordinary(torch.tensor([[0.0], [1.0], [2.0], [100.0]])).tolist()
    [True, True, True, False]
    """
    return median_distances(states, states) <= OUTLYING


def median_distances(states: Float[Tensor, "m d"], among: Float[Tensor, "p d"]) -> Float[Tensor, " m"]:
    """How far states lie from the median state of others, in median distances of those; 0 where that is 0.

    **Args:**

    - `states`: `[m, d]`; `among`: the others, `[p, d]`.

    **Returns:** `[m]`.

    >>> import torch, fisherflat as ff
    >>> ff.moves.median_distances(torch.tensor([[5.0]]), torch.tensor([[0.0], [1.0], [2.0]])).tolist()
    [4.0]
    """
    centre = among.median(0).values
    distance, scale = (states - centre).norm(dim=1), (among - centre).norm(dim=1).median()
    return distance / scale if scale > 0 else torch.zeros_like(distance)


def check_k(k: int) -> None:
    """**Raises:** `InputError` where there would be no direction."""
    if k < 1:
        raise InputError(f"k, the number of directions, must be at least 1, got {k}")
