"""Checking a certificate about symmetries against its MLP, without trusting who made it.

Nothing is shared with the prover (`fisherflat.provers`) but the reading of the weights, which is compared with
the MLP's graph each time: identities are checked by counting exponents instead of by sympy, what an activation does to
scales and signs is read from its ops instead of its name, and balls come from the verifier's evaluation of graphs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import torch
from flint import arb, arb_series, fmpq

from fisherflat.certificates import UNNAMED, Bound, Counterexample, Finding, SymmetryCertificate, digests
from fisherflat.errors import EnclosureError, FisherflatError, UnsupportedOpError
from fisherflat.jets.graph import Graph
from fisherflat.parts import trace
from fisherflat.verifier import scaling
from fisherflat.verifier._evaluator import evaluate
from fisherflat.verifier._functions import FUNCTIONS
from fisherflat.verifier._polynomials import Polynomial

#: bits beyond those of the prover; units that identities are checked on
EXTRA, UNITS = 64, 8

#: symmetry -> what becomes of z, w and v: a sign, the factor that it is made of, and the power of λ, where "-p" is that
#: of the degree
_CHANGES: dict[str, tuple[tuple[int, str, Any], ...]] = {
    "output scaling": ((1, "z", 0), (1, "w", 1), (1, "v", -1)),
    "output sign": ((1, "z", 0), (-1, "w", 0), (-1, "v", 0)),
    "inverse scaling": ((1, "z", 1), (1, "w", "-p"), (1, "v", 0)),
    "exchange": ((1, "w", 0), (1, "z", 0), (1, "v", 0)),
    "factor sign": ((-1, "z", 0), (-1, "w", 0), (1, "v", 0)),
}
#: argument -> the symmetries that it can carry
_CARRIES = {
    "any activation": {"output scaling", "output sign"},
    "order": {"permutation"},
    "homogeneous": {"inverse scaling"},
    "linear": {"inverse scaling", "exchange", "factor sign"},
    "odd": {"factor sign"},
    "enclosures": {"inverse scaling", "exchange", "factor sign"},
    "number": {"inverse scaling", "exchange", "factor sign"},
    "test": {"inverse scaling", "exchange", "factor sign"},
}


def failures(certificate: SymmetryCertificate, mlp: Any) -> tuple[str, ...]:
    """The checks that fail: the weights are read again, digests are compared, and each finding is decided anew."""
    from fisherflat.gated_mlp import gated_units

    try:
        units = gated_units(mlp)
        # on the CPU, where balls live
        graph = trace(units.activation, torch.tensor([0.25], dtype=torch.float64)).to(
            torch.float64, torch.device("cpu")
        )
    except FisherflatError as error:
        return (f"mlp: it could not be read as gated units: {error}",)
    reasons = tuple(_differences(certificate, units, graph))
    if reasons:
        return reasons
    with flint.ctx.workprec(certificate.precision + EXTRA):
        return tuple(
            f"{finding.symmetry}: {reason}"
            for finding in certificate.findings
            for reason in _Checker(certificate, units, graph).check(finding)
        )


def notes(c: SymmetryCertificate) -> tuple[str, ...]:
    """What the certificate says and nothing checks."""
    said = [f"{f.symmetry}: the note about what is open is the prover's word" for f in c.findings if f.note]
    if c.activation not in NAMED:
        said.insert(0, "activation: the name is the prover's word")
    if c.subject is not None:
        said.append("subject: where the MLP came from is the prover's word; fisherflat.verify_layer checks it")
    return tuple(said)


def _differences(c: SymmetryCertificate, units: Any, graph: Graph) -> Iterator[str]:
    here = {"gate": units.gate, "up": units.up, "value": units.value, "bias": units.bias}
    mine = [(name, tuple(tensor.shape)) for name, tensor in here.items() if tensor is not None]
    stated = [(weight.name, weight.shape) for weight in c.weights]
    sizes = {
        "units": (c.units, len(units.gate)),
        "width": (c.width, units.width),
        "outputs": (c.outputs, units.value.shape[1]),
        "constant": (c.constant, units.constant),
        "weights": (stated, mine),
    }
    for name, (theirs, ours) in sizes.items():
        if theirs != ours:
            yield f"{name}: the certificate says {theirs}, the MLP has {ours}"
    if stated == mine:
        for weight in c.weights:
            if weight.sha256 != digests.of_tensor(here[weight.name]):
                yield f"weights: the numbers of {weight.name!r} are not those of the certificate"
    if c.degree is not None and scaling.degree(graph) != Fraction(c.degree):
        yield f"degree: the ops of the activation do not show that it is homogeneous of degree {c.degree:g}"
    if c.activation not in (units.name, UNNAMED):
        yield f"activation: the certificate says {c.activation}, the MLP has {units.name}"
    if c.activation in NAMED and not _is_named(graph, c.activation):
        yield f"activation: its values are not those of {c.activation}"
    constants = {id(tensor): digests.of_tensor(tensor) for _, tensor in graph.constants()}
    if c.graph != digests.of_graph(graph, constants):
        yield "graph: the activation is not that of the certificate"


#: what a named activation is; others have the names of their ops
NAMED: dict[str, Callable[[arb_series], arb_series]] = {
    "identity": lambda s: s,
    "relu2": lambda s: FUNCTIONS["relu"](s) ** 2,
    "gelu_tanh": lambda s: FUNCTIONS["gelu"](s, "tanh"),
    **{name: FUNCTIONS[name] for name in ("relu", "sigmoid", "softplus", "tanh", "silu", "gelu")},
}
#: where the values of activations are compared
_PLACES = tuple(fmpq(*place) for place in ((-25, 1), (-3, 1), (-1, 3), (1, 5), (1, 1), (7, 2), (30, 1)))


def _is_named(graph: Graph, name: str) -> bool:
    """Whether the graph has the values of the activation of a name, in balls, at some points."""
    try:
        pairs = [(_value(graph, z), NAMED[name](arb_series([arb(z)], prec=1))[0]) for z in _PLACES]
    except (UnsupportedOpError, EnclosureError):
        return False
    return all(mine.overlaps(named) for mine, named in pairs)


def _value(graph: Graph, z: fmpq) -> arb:
    """The activation at a number."""
    return evaluate(graph, Polynomial([np.array([arb(z)], dtype=object)], 0)).value[0]


class _Checker:
    """The findings of a certificate whose MLP is the one given."""

    def __init__(self, certificate: SymmetryCertificate, units: Any, graph: Graph) -> None:
        self.c, self.units, self.graph = certificate, units, graph
        self.degree = scaling.degree(graph)

    def check(self, f: Finding) -> Iterator[str]:
        """What is wrong with a finding."""
        if f.symmetry not in _CARRIES[f.argument]:
            yield f"the argument {f.argument!r} says nothing about it"
        elif f.argument == "enclosures":
            yield from self._counterexample(f.symmetry, f.counterexample)
        elif f.verdict == "preserved":
            yield from self._property(f.argument)
            if f.argument != "order" and not self._holds(f.symmetry, f.argument):
                yield "the identity does not hold"
            if f.argument == "linear" and not self._holds_on_weights(f.symmetry):
                yield "the identity fails on the weights"

    # -- what is preserved ---------------------------------------------------------------------------------------------

    def _property(self, argument: str) -> Iterator[str]:
        """Whether the activation has the property that the argument needs."""
        if argument == "linear" and not scaling.is_identity(self.graph):
            yield "there is an activation"
        if argument == "odd" and scaling.parity(self.graph) != -1:
            yield "the ops of the activation do not show that it is odd"
        if argument == "homogeneous" and (self.degree is None or self.c.degree is None):
            yield "the ops of the activation do not show that it is homogeneous"

    def _holds(self, symmetry: str, argument: str) -> bool:
        """`φ(z') w' v' = φ(z) w v`, by sign, factors and the power of λ."""
        degree = self.degree if self.degree is not None else Fraction(1)
        changes = [(s, name, -degree if p == "-p" else Fraction(p)) for s, name, p in _CHANGES[symmetry]]
        (sign, inner, power), *others = changes
        if argument == "linear":  # φ(z') = z'
            factors = Counter([inner])
        elif inner != "z" or (argument == "any activation" and (sign != 1 or power != 0)):
            return False  # φ of something else, of which nothing is known
        else:  # an odd φ passes a sign on, a homogeneous one a scale to its degree
            if (sign == -1 and argument != "odd") or (power and argument != "homogeneous"):
                return False
            factors, power = Counter(["z"]), power * degree
        for s, name, p in others:
            sign, power = sign * s, power + p
            factors[name] += 1
        return sign == 1 and power == 0 and factors == Counter("zwv")

    def _holds_on_weights(self, symmetry: str) -> bool:
        """Likewise on weights of this MLP at a rational input, λ = 2."""
        n, count = self.units.gate.shape[1], len(self.units.gate)
        x = [fmpq(3 * j % 11 - 5, 7) for j in range(n)]
        for unit in range(0, count, max(1, count // UNITS)):
            z, w = (
                sum((_exact(a) * b for a, b in zip(row[unit].tolist(), x, strict=True)), fmpq(0))
                for row in (self.units.gate, self.units.up)
            )
            value = {"z": z, "w": w}
            after = fmpq(1)
            for sign, name, power in _CHANGES[symmetry][:2]:
                after *= sign * value[name] * fmpq(2) ** (-1 if power == "-p" else power)
            if after != z * w:
                return False
        return True

    # -- what is broken ------------------------------------------------------------------------------------------------

    def _counterexample(self, symmetry: str, example: Counterexample | None) -> Iterator[str]:
        assert example is not None
        if not self.units.value[example.unit, example.output]:
            yield f"unit {example.unit} does not reach output {example.output}"
        if len(example.inputs) != (2 if symmetry == "inverse scaling" else 1):
            yield "it has another number of inputs than the symmetry needs"
            return
        factors = [self._factors(example.unit, *pair) for pair in example.inputs]
        if any(w == 0 for _, w in factors):
            yield "the unit's linear factor vanishes there"
        try:
            left, right = self._sides(symmetry, factors)
        except (UnsupportedOpError, EnclosureError) as error:
            yield f"the verifier cannot evaluate the activation: {error}"
            return
        for name, ball, stated in (("left", left, example.left), ("right", right, example.right)):
            if not (ball >= _real(stated[0]) and ball <= _real(stated[1])):
                yield f"{name}: {ball.str(12)} was found, not between {stated[0]:.12g} and {stated[1]:.12g}"
        if not (example.left[1] < example.right[0] or example.right[1] < example.left[0]):
            yield "the two sides do not exclude each other"

    def _sides(self, symmetry: str, factors: list[tuple[fmpq, fmpq]]) -> tuple[arb, arb]:
        (z, w), *rest = factors
        if symmetry == "exchange":
            return self._phi(z) * arb(w), self._phi(w) * arb(z)
        if symmetry == "factor sign":
            return self._phi(z) * arb(w), self._phi(-z) * -arb(w)
        other = rest[0][0]
        return self._phi(2 * z) * self._phi(other), self._phi(2 * other) * self._phi(z)

    def _phi(self, z: fmpq) -> arb:
        return _value(self.graph, z)

    def _factors(self, unit: int, a: float, b: float) -> tuple[fmpq, fmpq]:
        """`g·x` and `u·x` at `x = a g + b u`, exactly."""
        d = self.units.width
        rows = [[_exact(x) for x in row[unit].tolist()] for row in (self.units.gate, self.units.up)]
        x = [_exact(a) * p + _exact(b) * q for p, q in zip(rows[0][:d], rows[1][:d], strict=True)]
        x += [fmpq(1)] if self.units.constant else []
        z, w = (sum((p * q for p, q in zip(row, x, strict=True)), fmpq(0)) for row in rows)
        return z, w


def _exact(number: float) -> fmpq:
    return fmpq(*number.as_integer_ratio())


def _real(bound: Bound) -> arb:
    return arb(fmpq(bound.numerator, bound.denominator))
