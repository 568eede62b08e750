"""Checking a certificate about curvature against its map and chart, without trusting who made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import flint
import numpy as np
import torch
from flint import arb, fmpq_mat
from torch import Tensor

from fisherflat.certificates import Bound, CurvatureCertificate, Step, digests, versions
from fisherflat.errors import EnclosureError, FisherflatError, UnsupportedOpError
from fisherflat.jets.graph import Graph
from fisherflat.parts import trace
from fisherflat.spaces.charts import Chart
from fisherflat.verifier._affinity import Affinity
from fisherflat.verifier._evaluator import evaluate
from fisherflat.verifier._polynomials import matrix
from fisherflat.verifier._surface import Surface, rational, real

#: bits that the verifier takes beyond those of the prover
EXTRA = 64
#: pieces that the verifier may cut the pieces of a box into
PIECES = 256


class _Failed(Exception):
    """A check that failed."""


def failures(certificate: CurvatureCertificate, mean: Callable[[Tensor], Tensor], chart: Chart) -> tuple[str, ...]:
    """The checks that fail: the map is traced again, digests are compared, and the decisive computation is done anew.

    The computation shares no rule with the engine that proved, and takes more bits. Every statement of the certificate
    is checked but the versions it was made with.
    """
    reasons = [f"chart: {reason}" for reason in _differences(certificate.chart, chart)]
    if reasons:
        return tuple(reasons)
    try:
        graph = trace(mean, chart.point).to(torch.float64, torch.device("cpu"))
    except FisherflatError as error:
        return (f"graph: the map could not be traced: {error}",)
    reasons = [*_identity(certificate, graph)]
    if not reasons:
        try:
            _Checker(certificate, graph).check()
        except _Failed as failure:
            reasons = [str(failure)]
        except UnsupportedOpError as error:
            reasons = [f"verifier: {error}"]
        except EnclosureError as error:
            reasons = [f"enclosure: the verifier's arithmetic leaves open what the certificate decides ({error})"]
    return tuple(reasons)


def _differences(stated: Chart, given: Chart) -> Iterator[str]:
    if stated.kind != given.kind:
        yield f"it is of kind {stated.kind!r} in the certificate and {given.kind!r} here"
    for name in ("point", "basis"):
        mine, yours = getattr(stated, name), getattr(given, name).cpu()
        if mine.shape != yours.shape:
            yield f"its {name} has the shape {list(mine.shape)} in the certificate and {list(yours.shape)} here"
        elif digests.raw(mine) != digests.raw(yours):
            yield f"its {name} differs in {int((mine != yours).sum())} of {mine.numel()} numbers"


def _identity(c: CurvatureCertificate, graph: Graph) -> Iterator[str]:
    """Whether the graph is the one that the certificate is about."""
    if c.frozen != graph.frozen:
        yield f"frozen: the certificate holds {list(c.frozen)}, the map {list(graph.frozen)}"
    constants = {id(tensor): digests.of_tensor(tensor) for _, tensor in graph.constants()}
    here = [(name, tuple(tensor.shape), constants[id(tensor)]) for name, tensor in graph.constants()]
    stated = [(weight.name, weight.shape, weight.sha256) for weight in c.weights]
    if len(stated) != len(here):
        yield f"weights: the certificate lists {len(stated)}, the graph has {len(here)}"
    for (name, *rest), (other, *there) in zip(here, stated, strict=False):
        if name != other:
            yield f"weights: {other!r} stands where the graph has {name!r}"
        elif rest != there:
            nameless = " (if it was computed while tracing: another processor or torch may round it otherwise)"
            hint = nameless if name.startswith("constant ") else ""
            yield f"weights: the numbers of {name!r} are not those of the certificate{hint}"
    if c.graph != digests.of_graph(graph, constants):
        yield "graph: the digest of the traced graph is not that of the certificate"
    if c.outputs != int(np.prod(graph.shape, dtype=np.int64)):
        yield f"outputs: the certificate says D = {c.outputs}, the map has another number"


class _Checker:
    """The decisive computation, for a certificate whose map and chart are those given."""

    def __init__(self, certificate: CurvatureCertificate, graph: Graph) -> None:
        self.c, self.graph, self.k = certificate, graph, certificate.chart.k
        self.affinity = Affinity(graph)
        self.bits = certificate.precision + EXTRA
        self.surface = Surface(graph, certificate.chart, certificate.family, self.bits)

    def check(self) -> None:
        """**Raises:** `_Failed` with the check that failed."""
        self._check_fields()
        self._check_nodes()
        checks = {
            "affine": self._affine,
            "one coordinate": lambda: self._require(self.k == 1, "flatness: the chart has more than one coordinate"),
            "full dimension": self._full_dimension,
            "enclosure": self._curved,
        }
        with flint.ctx.workprec(self.bits):
            checks.get(self.c.argument, self._undecided)()

    def _require(self, condition: bool, failure: str) -> None:
        if not condition:
            raise _Failed(failure)

    # -- structure -----------------------------------------------------------------------------------------------------

    def _check_fields(self) -> None:
        """Fields that have no meaning for the argument are empty, so that nothing unchecked is said."""
        c, argument = self.c, self.c.argument
        enclosed = argument in ("enclosure", "zero enclosed")
        meant = {
            "enclosure": enclosed,
            "determinant": enclosed or argument == "full dimension",
            "plane": enclosed and self.k > 2,
            "cells": argument == "enclosure",
            "rank": argument == "affine",
            "steps": argument == "affine",
            "unsupported": argument == "unsupported op",
            "radius": c.verdict != "flat",
            "analytic": argument == "enclosure",
        }
        for name, wanted in meant.items():
            self._require(wanted or not getattr(c, name), f"{name}: it has no meaning for the argument {argument!r}")
        self._require(c.plane is not None or not meant["plane"], "plane: missing")

    def _check_nodes(self) -> None:
        """What is said about single nodes."""
        c, orders = self.c, self.affinity.orders
        first = next((node for node in self.graph.nodes if orders[node] == "nonlinear"), None)
        self._require((c.witness is None) == (first is None), "witness: there is none, or none was needed")
        self._require(
            not c.steps or len(c.steps) == len(self.graph.nodes), "steps: they are not the nodes of the graph"
        )
        named = [("steps", step) for step in c.steps] + [("unsupported", c.unsupported)]
        if c.witness is not None and first is not None:
            self._require(c.witness.node == first.index, f"witness: the first nonlinear node is %{first.index}")
            named.append(("witness", c.witness))
        traced_alike = c.versions == versions()
        for place, (name, step) in enumerate(named):
            if step is None:
                continue
            self._require(step.node < len(self.graph.nodes), f"{name}: there is no node %{step.node}")
            node = self.graph.nodes[step.node]
            mine = Step(node.index, node.op, orders[node], node.role, node.module_path, node.source)
            if not traced_alike:  # other versions keep their code in other lines
                mine = Step(mine.node, mine.op, mine.order, mine.role, step.module, step.source)
            self._require(name != "steps" or step.node == place, f"{name}: node %{place} is missing")
            self._require(step == mine, f"{name}: node %{step.node} is {mine}, not {step}")
        analytic = self.affinity.analytic() if c.argument == "enclosure" else None
        self._require(
            c.analytic == analytic,
            "analytic: the ops on the way, or where they are defined, are not as the certificate says",
        )

    # -- flat ----------------------------------------------------------------------------------------------------------

    def _affine(self) -> None:
        self._require(self.affinity.order != "nonlinear", "flatness: the graph is not affine")
        value, derivatives = self.surface.jet([arb(0)] * self.k)
        # and by numbers: far away, the map is what its slopes at the origin say
        far = (4 * torch.randn(self.k, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).tolist()
        there = evaluate(self.graph, self.surface.input([arb(c) for c in far], 0)).value.ravel()
        defect = there - value - sum(arb(c) * row for c, row in zip(far, derivatives[: self.k], strict=True))
        small = arb(max(abs(float(x)) for x in there) + 1e-300) * arb(2) ** (-self.bits // 2)
        self._require(all(abs(x) < small for x in defect), "flatness: the map is not what its slopes at the origin say")
        self._rank(derivatives[: self.k])

    def _rank(self, jacobian: np.ndarray) -> None:
        assert self.c.rank is not None
        least, is_exact = self.c.rank
        rows: list[Any] = []
        for row in jacobian:
            tried = matrix(np.stack([*rows, row]))
            if (tried * tried.transpose()).det() > 0:
                rows.append(row)
        if is_exact and len(rows) < self.k:
            with flint.ctx.workprec(64 * self.bits):
                jacobian = self.surface.jet([arb(0)] * self.k)[1][: self.k]
                self._require(all(x.is_exact() for x in jacobian.ravel()), "rank: it is not known exactly")
                rank = fmpq_mat([[rational(x) for x in row] for row in jacobian]).rank()
            self._require(rank == least, f"rank: it is {rank}, not {least}")
        else:
            self._require(len(rows) == least and is_exact == (least == self.k), f"rank: {len(rows)} is proved")

    def _full_dimension(self) -> None:
        self._require(self.c.outputs == self.k, f"flatness: k = {self.k} is not D = {self.c.outputs}")
        self._within(self.surface.metric_determinant([arb(x) for x in self.c.point]), self.c.determinant, "determinant")

    # -- curved --------------------------------------------------------------------------------------------------------

    def _curved(self) -> None:
        c = self.c
        assert c.enclosure is not None and c.determinant is not None
        self._require(c.enclosure[0] > 0 or c.enclosure[1] < 0, "enclosure: it does not exclude zero")
        self._require(c.determinant[0] > 0, "determinant: the immersion is not proved to be regular")
        self._require(_covers(c.cells), "cells: they do not make up the box")
        left = PIECES
        pending = list(c.cells)
        while pending:
            path = pending.pop()
            curvature, determinant = self.surface.curvature(self._cell(path), self.c.plane)
            inside = _inside(curvature, c.enclosure) and _inside(determinant, c.determinant)
            if inside:
                continue
            left -= 2
            apart = _apart(curvature, c.enclosure) or _apart(determinant, c.determinant)
            if apart or c.radius == 0 or left < 0:
                self._within(determinant, c.determinant, "determinant")
                self._within(curvature, c.enclosure, "enclosure")
            pending += [path + "0", path + "1"]

    def _cell(self, path: str) -> list[arb]:
        """The piece of the box after some halvings, of one coordinate after the other."""
        low = [Fraction(x) - Fraction(self.c.radius) for x in self.c.point]
        width = [2 * Fraction(self.c.radius)] * self.k
        for depth, side in enumerate(path):
            axis = depth % self.k
            width[axis] /= 2
            low[axis] += width[axis] * int(side)
        return [real(a).union(real(a + w)) for a, w in zip(low, width, strict=True)]

    def _within(self, ball: arb, bounds: tuple[Bound, Bound] | None, name: str) -> None:
        assert bounds is not None
        self._require(
            _inside(ball, bounds),
            f"{name}: {ball.str(12)} was found, which does not lie between {bounds[0]:.12g} and {bounds[1]:.12g}",
        )

    # -- undecided -----------------------------------------------------------------------------------------------------

    def _undecided(self) -> None:
        """Nothing is claimed, but that nothing was found has to be true."""
        c = self.c
        self._require(self.affinity.order == "nonlinear" and self.k > 1, "verdict: the manifold is flat by structure")
        try:
            curvature, determinant = self.surface.curvature(self._cell(""), self.c.plane)
        except UnsupportedOpError:
            self._require(c.argument == "unsupported op", "argument: the verifier lacks an op that the prover had")
            return
        except EnclosureError:
            self._require(
                c.argument != "zero enclosed" or c.radius > 0, "argument: the verifier finds no enclosure at all"
            )
            return
        decided = determinant > 0 and not curvature.contains(0) and c.outputs != self.k
        self._require(not decided, f"verdict: the curvature is {curvature.str(12)}, which excludes zero")
        if c.enclosure is not None and c.determinant is not None:
            self._require(c.enclosure[0] <= 0 <= c.enclosure[1], "enclosure: it excludes zero")
            self._require(not _apart(curvature, c.enclosure), f"enclosure: {curvature.str(12)} was found")
            self._require(not _apart(determinant, c.determinant), f"determinant: {determinant.str(12)} was found")
        if c.radius == 0:  # over a box, two arithmetics may fail in different ways
            failed = c.argument == "zero enclosed" or (c.argument == "degenerate immersion" and not determinant > 0)
            self._require(failed, "argument: it is not what is open there")


def _inside(ball: arb, bounds: tuple[Bound, Bound]) -> bool:
    return bool(ball.is_finite() and ball >= real(bounds[0]) and ball <= real(bounds[1]))


def _apart(ball: arb, bounds: tuple[Bound, Bound]) -> bool:
    return bool(ball < real(bounds[0]) or ball > real(bounds[1]))


def _covers(paths: Sequence[str]) -> bool:
    """Whether the pieces are the leaves of a tree of halvings."""
    whole = sum(Fraction(1, 2 ** len(path)) for path in paths) == 1
    ordered = sorted(paths)
    return whole and not any(b.startswith(a) for a, b in pairwise(ordered))
