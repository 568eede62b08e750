"""Nodes of a graph as steps of a proof, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fisherflat.certificates._bounds import Bound
from fisherflat.jets.ops import OPS, Op


def _affine_rule(op: Op) -> str:
    """How an op takes affine arguments, in words."""
    if op.kind in ("product", "quotient"):
        matrix = " matrix" if op.projects else ""
        return f"product with a constant{matrix}{', plus a constant' if op.factors == (1, 2) else ''}"
    return "sum" if op.kind == "sum" else "linear map"


def _nonlinear_rule(op: Op) -> str:
    """What an op does with input-dependent arguments, in words."""
    if op.kind == "quotient":
        return "division by an input-dependent number"
    return "product of two input-dependent factors" if op.factors else f"{op.name} of an input-dependent argument"


_AFFINE = {"input": "the chart"} | {f"aten.{op.name}": _affine_rule(op) for op in OPS.values()}
_NONLINEAR = {f"aten.{op.name}": _nonlinear_rule(op) for op in OPS.values()}


@dataclass(frozen=True)
class Step:
    """A node of the graph in a proof.

    Its `order` says what it is in the coordinates: constant, a choice (of one of finitely many constants, by the signs
    of what is affine piece by piece), affine, affine by pieces, or nonlinear.
    """

    node: int
    op: str
    order: str
    role: str
    module: str
    source: str

    @property
    def rule(self) -> str:
        """Why the node has this order, given those of the nodes that it reads."""
        if self.order == "nonlinear":
            return _NONLINEAR.get(self.op, f"{self.op.removeprefix('aten.')} of an input-dependent argument")
        if self.order in ("choice", "affine by pieces"):
            return "between kinks"
        return "no moving argument" if self.order == "constant" else _AFFINE.get(self.op, "linear map")

    def __str__(self) -> str:
        where = (f" at {self.source}" if self.source else "") + (f" in {self.module}" if self.module else "")
        if self.order == "nonlinear":
            return f"{self.rule}{where}, role {self.role} (node %{self.node}, {self.op})"
        return f"%{self.node} {self.op}{where}: {self.order} ({self.rule})"


class HeldNode(NamedTuple):
    """A node of the live graph that is held: its `role`, its place `node`, its op, module and source line."""

    role: str
    node: int
    op: str
    module: str
    source: str


@dataclass(frozen=True, eq=False)
class Numbers:
    """Constants of the certified function that torch computed while tracing or freezing: a held pattern, rotary tables.

    **Attributes:** `name`, as the graph gives it; `values`, the constants themselves, float64; `within`, how far each
    of them is at most from the number that it stands for, as a share of itself or of the largest of them (those of
    masks aside), if that is more. What is held stands for the exact value of the held node at the base point; what was
    computed from constants alone, for the same constant wherever the certificate is checked.
    """

    name: str
    values: Tensor
    within: Bound


@dataclass(frozen=True)
class Analytic:
    """What the claim "nonzero almost everywhere" rests on.

    **Attributes:** `ops`: all ops on the way, each real-analytic where it is defined; `restricted`: those among them
    that could not be shown to be defined for every input. Where there are none the domain is all of `R^k`.
    """

    ops: tuple[str, ...]
    restricted: tuple[str, ...]
