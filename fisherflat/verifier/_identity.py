"""Whether a chart and a graph are those that a certificate is about, and the graph with the certificate's constants."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import flint
import torch
from flint import arb
from torch import Tensor

from fisherflat.certificates import Bound, CurvatureCertificate, digests, versions
from fisherflat.errors import EnclosureError, UnsupportedOpError
from fisherflat.jets.graph import Graph, Node, mapped_leaves
from fisherflat.spaces.charts import Chart
from fisherflat.verifier._held import Comparison
from fisherflat.verifier._parts import parts_that_are_none

#: the arguments that look at numbers; the others hold whatever the constants are
NUMERICAL = ("enclosure", "full dimension", "zero enclosed")
#: how far constants may be from what they stand for, as a share of their size
CLOSE = Fraction(1, 2**20)
#: numbers of this size are no measure of the others: masks
MASK = 2.0**64


def chart_differences(stated: Chart, given: Chart) -> Iterator[str]:
    """What is not the same about two charts."""
    if stated.kind != given.kind:
        yield f"it is of kind {stated.kind!r} in the certificate and {given.kind!r} here"
    for name in ("point", "basis"):
        mine, yours = getattr(stated, name), getattr(given, name).cpu()
        if mine.shape != yours.shape:
            yield f"its {name} has the shape {list(mine.shape)} in the certificate and {list(yours.shape)} here"
        elif digests.raw(mine) != digests.raw(yours):
            yield f"its {name} differs in {int((mine != yours).sum())} of {mine.numel()} numbers"
    if reason := _misnamed(stated):
        yield f"kind: it is called {stated.kind!r}, and {reason}"


def _misnamed(chart: Chart) -> str | None:
    """Why a chart is not of the kind that it says, as far as its numbers tell."""
    point, basis = chart.point, chart.basis
    if chart.kind == "identity":
        plain = point.dim() == 1 and not point.any() and torch.equal(basis, torch.eye(len(basis), dtype=basis.dtype))
        return None if plain else "its coordinates are not the input"
    if chart.kind == "attention weights":
        return None if point.dim() == 1 else "its point is no weighted mean of values"
    if chart.kind in ("token", "principal", "random", "vectors"):
        moving = [i for i in range(len(point)) if basis[:, i].any()] if point.dim() == 2 else []
        alike = all(torch.equal(basis[:, i], basis[:, moving[0]]) for i in moving)
        return None if moving and alike else "its basis moves no token, or several in different ways"
    return None


def differences(c: CurvatureCertificate, graph: Graph, found: Comparison | None) -> Iterator[str]:
    """What is not the same about the graph and the one that the certificate is about."""
    if c.frozen != graph.frozen:
        yield f"frozen: the certificate holds {list(c.frozen)}, the map {list(graph.frozen)}"
    yield from _weights(c, graph)
    if c.outputs != math.prod(graph.shape):
        yield f"outputs: the certificate says D = {c.outputs}, the map has another number"
    if c.schema == 1:
        return
    if recorded_alike(c) and c.graph != digests.of_graph(graph, digests.of_constants(graph)):
        yield "graph: the digest of the traced graph is not that of the certificate"
    if found is not None:
        yield from _held(c, found)
    elif c.held_nodes:
        yield "held: nothing is held of the map"


def recorded_alike(c: CurvatureCertificate) -> bool:
    """Whether the certificate was made with what is here, so that the graph is the same node for node."""
    return c.schema > 1 and c.versions == versions()


def notes(c: CurvatureCertificate, graph: Graph) -> Iterator[str]:
    """What the certificate says and nothing here has checked."""
    if not recorded_alike(c):
        yield "versions: made with others than are here; node numbers, modules and source lines are the prover's word"
    if c.subject is not None:
        yield "subject: where the map came from is the prover's word; fisherflat.verify_layer checks it"


def _weights(c: CurvatureCertificate, graph: Graph) -> Iterator[str]:
    here = {
        name: tensor for name, tensor in graph.constants() if c.schema == 1 or not digests.is_computed(name, tensor)
    }
    stated = {weight.name: weight for weight in c.weights}
    if c.schema == 1:  # which numbers constants, and has digests of those too
        if c.argument not in NUMERICAL:
            yield from _shapes(graph, c)
            here = {name: tensor for name, tensor in here.items() if not _is_numbered(name)}
            stated = {name: weight for name, weight in stated.items() if not _is_numbered(name)}
        elif graph.holdings:
            here = {f"constant {i}" if _is_numbered(n) else n: t for i, (n, t) in enumerate(graph.constants(), 1)}
    for name in [*here, *(name for name in stated if name not in here)]:
        if name not in stated or name not in here:
            yield f"weights: {name!r} is in {'the graph' if name in here else 'the certificate'} alone"
        elif (stated[name].shape, stated[name].sha256) != (tuple(here[name].shape), digests.of_tensor(here[name])):
            hint = " (torch computed them, and another processor rounds otherwise)" if _is_numbered(name) else ""
            yield f"weights: the numbers of {name!r} are not those of the certificate{hint}"


def _shapes(graph: Graph, c: CurvatureCertificate) -> Iterator[str]:
    """What the first schema says of constants whose numbers do not matter."""
    here = [tuple(tensor.shape) for name, tensor in graph.constants() if _is_numbered(name)]
    if here != [weight.shape for weight in c.weights if _is_numbered(weight.name)]:
        yield "weights: the constants that torch computed are not of the shapes of the certificate's"


def _is_numbered(name: str) -> bool:
    return name.startswith(("constant ", "held "))


def _held(c: CurvatureCertificate, found: Comparison) -> Iterator[str]:
    live = found.graph
    base = c.chart.point if c.base is None else c.base
    if base.shape != found.at.shape or digests.raw(base) != digests.raw(found.at):
        yield "base: parts of the map are held at another input than the certificate says"
    alike = recorded_alike(c)
    # nodes of a graph that was recorded otherwise have other numbers
    stated = [(n.role, n.op, *((n.node, n.module, n.source) if alike else ())) for n in c.held_nodes]
    nodes = [(role, live.nodes[index]) for index, role in found.held.items()]
    here = [(r, n.op, *((n.index, n.module_path, n.source) if alike else ())) for r, n in nodes]
    if alike and c.live != digests.of_graph(live, digests.of_constants(live)):
        yield "live: the digest of the graph of which parts are held is not that of the certificate"
    if sorted(stated) != sorted(here):
        yield "held: what the certificate lists is not what is held of the map"
    for reason in parts_that_are_none(found):
        yield f"held: {reason}"


# -- constants that torch computed -------------------------------------------------------------------------------------


def with_numbers(c: CurvatureCertificate, graph: Graph, found: Comparison | None, bits: int) -> tuple[Graph, list[str]]:
    """The graph with the constants of the certificate, and what is wrong about them.

    Each has to be as close as the certificate says to what it stands for: to the exact value of the held node at the
    base point, in balls; or, where it is made of constants alone, to the constant that the trace has here.
    """
    if c.argument not in NUMERICAL:
        wrong = ["constants: they have no meaning for this argument"] if c.constants else []
        if c.argument == "held in floats" and _can_be_computed(graph, found, bits):
            wrong.append("argument: what is held can be computed in balls")
        return graph, wrong
    if c.schema == 1:
        return graph, []
    computed = [(name, tensor) for name, tensor in graph.constants() if digests.is_computed(name, tensor)]
    alike = recorded_alike(c)
    stated = [(n.name if alike else "", tuple(n.values.shape)) for n in c.constants]
    if stated != [(name if alike else "", tuple(tensor.shape)) for name, tensor in computed]:
        return graph, ["constants: they are not those that the graph has"]
    distances: dict[int, Bound] = {}
    try:
        with flint.ctx.workprec(bits):
            distances = deviations(
                graph, found, {id(t): n.values for n, (_, t) in zip(c.constants, computed, strict=True)}
            )
    except (UnsupportedOpError, EnclosureError) as error:
        return graph, [f"constants: what is held could not be computed: {error}"]
    wrong = []
    for numbers, (name, tensor) in zip(c.constants, computed, strict=True):
        distance = distances.get(id(tensor))
        if distance is None or distance > numbers.within:
            wrong.append(f"constants: the numbers of {name!r} are not what they stand for, to within {numbers.within}")
        elif numbers.within > CLOSE:
            wrong.append(f"constants: {name!r} is stated to be no closer than {numbers.within} to what it stands for")
    values = {id(tensor): n.values for n, (_, tensor) in zip(c.constants, computed, strict=True)}
    return replaced(graph, values), wrong


def _can_be_computed(graph: Graph, found: Comparison | None, bits: int) -> bool:
    try:
        with flint.ctx.workprec(bits):
            constants = {id(tensor): tensor for name, tensor in graph.constants() if digests.is_computed(name, tensor)}
            return len(deviations(graph, found, constants)) == len(constants)
    except (UnsupportedOpError, EnclosureError):
        return False


#: a distance below two to this power is stated as that
FAR_BELOW = -20_000


def deviations(graph: Graph, found: Comparison | None, numbers: dict[int, Tensor]) -> dict[int, Bound]:
    """`id` of a constant -> how far at most its `numbers` are from what it stands for; none where that is not finite.

    Distances are shares: of the number itself, or of the largest of the tensor (those of masks aside), if that is more.

    **Raises:** `UnsupportedOpError`, `EnclosureError` where what is held cannot be computed in balls.
    """
    exact = found.values() if found is not None else {}
    distances: dict[int, Bound] = {}
    for _, tensor in graph.constants():
        if id(tensor) not in numbers:
            continue
        mine = numbers[id(tensor)].double().flatten().tolist()
        worth = exact[id(tensor)].ravel().tolist() if id(tensor) in exact else tensor.double().flatten().tolist()
        size = max((abs(x) for x in mine if abs(x) < MASK), default=0.0)
        pairs = [(x, arb(y)) for x, y in zip(mine, worth, strict=True) if not _equal(x, y)]
        apart = [(abs(arb(x) - y) / max(abs(x), size)).upper() if x or size else arb("inf") for x, y in pairs]
        if all(distance.is_finite() for distance in apart):
            distances[id(tensor)] = max(map(_bound, apart), default=Bound(0))
    return distances


def _equal(x: float, y: Any) -> bool:
    return x == y or (isinstance(y, float) and math.isnan(x) and math.isnan(y))


def _bound(number: arb) -> Bound:
    mantissa, exponent = (int(part) for part in number.man_exp())
    if (
        exponent + mantissa.bit_length() < FAR_BELOW
    ):  # a masked weight is the exponential of minus a billion: its fraction would fill the memory
        return Bound(Fraction(2) ** FAR_BELOW)
    return Bound(Fraction(mantissa) * Fraction(2) ** exponent)


def replaced(graph: Graph, numbers: dict[int, Tensor]) -> Graph:
    """The graph with other constants, by `id`."""
    copies: dict[Node, Node] = {}

    def mapped(leaf: Any) -> Any:
        return copies[leaf] if isinstance(leaf, Node) else numbers.get(id(leaf), leaf)

    for node in graph.nodes:
        copies[node] = replace(node, args=mapped_leaves(mapped, node.args), kwargs=mapped_leaves(mapped, node.kwargs))
    return Graph(list(copies.values()), mapped(graph.output), {})
