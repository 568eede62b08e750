"""What states are read as: the mean of a Gaussian as they are, or the parameters of a family behind a model's head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.jets import Jet
from fisherflat.jets.engines import TensorAlgebra, evaluated, exactly, packed
from fisherflat.jets.graph import Graph
from fisherflat.jets.rules import Series
from fisherflat.models import READOUTS, Encoded, Model
from fisherflat.parts import trace
from fisherflat.spaces.families import NextToken, ParametricFamily, check

#: what may be asked for
Asked = str | ParametricFamily | None


@dataclass(frozen=True, eq=False)
class Lens:
    """A map of states to parameters of a family, and that family.

    **Attributes:** `graph`, the map, `None` where states are parameters themselves; `family`; `shape`, of the
    parameters.
    """

    graph: Graph | None
    family: ParametricFamily
    shape: tuple[int, ...]

    @classmethod
    def of(cls, model: Model, asked: Any, prompt: Encoded, tokens: Sequence[int], states: Float[Tensor, "n d"]) -> Lens:
        """What a model's own head makes of the states of some tokens.

        **Raises:** `CheckpointError` where it has none.
        """
        readout = model.readout(asked, prompt)
        graph = trace(readout.of(tokens), states)
        check(readout.family, graph.shape)
        return cls(graph, readout.family, graph.shape)

    def jets(self, jets: Float[Tensor, "P S D"], k: int) -> Float[Tensor, "P S E"]:
        """The 2-jets of the parameters, of those of the states."""
        if self.graph is None:
            return jets
        algebra, graph = TensorAlgebra(), self.graph
        if jets.dtype != torch.float64:
            with exactly():
                graph = graph.to(jets.dtype, jets.device)
        states = jets.reshape(*jets.shape[:2], *graph.nodes[0].shape).transpose(0, 1)
        return packed(algebra, evaluated(algebra, graph, Series(states, k)))

    def jet(self, jet: Jet) -> Jet:
        """The same, as a jet."""
        return Jet(self.jets(jet.coefficients, jet.k), jet.k)


def asked(family: Any) -> Asked:
    """What was asked for, if that is something.

    **Raises:** `InputError` where it is not.
    """
    if family is None or isinstance(family, ParametricFamily) or (isinstance(family, str) and family in READOUTS):
        return family
    names = ", ".join(f'"{name}"' for name in READOUTS)
    raise InputError(f"family must be {names}, or one of ff.families such as NextToken(weight); got {family!r}")


def own_metric(family: Asked, covariance: Any, output: Any) -> None:
    """**Raises:** `InputError` where a family is asked for together with a Gaussian's covariance or outputs."""
    if family is not None and (covariance != "words" or output != "all"):
        raise InputError("a family has its own metric, and reads the tokens that move: no covariance, no output")


def named(family: Asked) -> str | None:
    """A name for tables and settings, which tells families apart."""
    if isinstance(family, NextToken) and isinstance(family.weight, torch.Tensor):
        from fisherflat.certificates import digests

        return f"{family!r} {digests.of_tensor(family.weight)[:16]}"
    return family if family is None or isinstance(family, str) else repr(family)


def in_words(family: str | None) -> str | None:
    """What the numbers are about, for sentences; `None` for the mean of a Gaussian."""
    return None if family is None else READOUTS.get(family, f"the distribution of {family}")
