"""Proving which symmetries the units of a gated MLP have, and which not."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import flint
import torch
from flint import arb, fmpq

from fisherflat.certificates import (
    FACTOR,
    UNNAMED,
    Bound,
    Counterexample,
    Finding,
    SymmetryCertificate,
    Weight,
    bounds,
    digests,
    versions,
)
from fisherflat.errors import EnclosureError, InputError, TraceError
from fisherflat.gated_mlp import PROOFS, GatedUnits, gated_units, is_named
from fisherflat.jets.graph import Graph
from fisherflat.parts import trace
from fisherflat.provers._enclosure import jet
from fisherflat.spaces.charts import identity

#: values of z = g·x and w = u·x at which a broken symmetry shows
_POINTS = ((1, -1), (-1, 2), (2, 1), (3, 2))
#: units in which a counterexample is looked for, and in which identities are checked on the weights
_UNITS = 16


def certify_symmetry(mlp: Any, at: Any = None, precision: int = 128) -> SymmetryCertificate:
    """Prove which symmetries the units of a gated MLP have and which its activation breaks.

    What holds, holds by an algebraic identity, checked symbolically, and without activation on weights of this MLP in
    exact rational arithmetic too. What does not is refuted by a counterexample in ball arithmetic: two numbers that the
    symmetry would make equal, for one unit at inputs `a g + b u`, at which `g·x` and `u·x` are known exactly.

    **Args:** `mlp` and `at` as in `gated_units`; `precision` of the ball arithmetic in bits.

    **Returns:** a `SymmetryCertificate`: `.save(path)`, and `fisherflat.verify(certificate, mlp)`.

    **Raises:** as `gated_units`; `InputError` for a precision out of range.

    >>> import fisherflat as ff
    >>> certificate = ff.symmetry.certify(ff.layers.GatedMLP(4, 6, "relu").double())
    >>> [finding.symmetry for finding in certificate.findings if finding.verdict == "broken"]
    ['exchange', 'factor sign']
    """
    if type(precision) is not int or not 24 <= precision <= 2**12:
        raise InputError(f"precision is a number of bits from 24 to {2**12}, got {precision!r}")
    units = gated_units(mlp, at)
    graph = activation_graph(units)
    with flint.ctx.workprec(precision):
        found = tuple(_findings(units, graph, precision))
    tensors = {"gate": units.gate, "up": units.up, "value": units.value, "bias": units.bias}
    return SymmetryCertificate(
        activation=units.name if units.name not in PROOFS or is_named(units.activation, units.name) else UNNAMED,
        degree=units.homogeneity.degree if units.homogeneity.proved else None,
        units=len(units.gate),
        width=units.width,
        outputs=units.value.shape[1],
        constant=units.constant,
        findings=found,
        precision=precision,
        weights=tuple(Weight(n, tuple(t.shape), digests.of_tensor(t)) for n, t in tensors.items() if t is not None),
        graph=digests.of_graph(graph, {id(tensor): digests.of_tensor(tensor) for _, tensor in graph.constants()}),
        versions=versions(),
    )


def activation_graph(units: GatedUnits) -> Graph:
    """The graph of φ for one number."""
    return trace(units.activation, torch.tensor([0.5], dtype=torch.float64)).to(torch.float64, torch.device("cpu"))


def _findings(units: GatedUnits, graph: Graph, bits: int) -> Iterator[Finding]:
    import sympy

    z, w, v, scale, constant = sympy.symbols("z w v lambda c", positive=True)
    phi = sympy.Function("phi")
    known = units.homogeneity

    def hold(*differences: Any) -> None:
        if any(sympy.simplify(difference) != 0 for difference in differences):
            raise AssertionError("an identity of symmetries does not hold")

    hold(phi(z) * (scale * w) * (v / scale) - phi(z) * w * v, phi(z) * (-w) * (-v) - phi(z) * w * v)
    yield Finding("output scaling", "any activation")
    yield Finding("output sign", "any activation")
    yield Finding("permutation", "order")

    if graph.output is graph.input:
        hold(scale * z * (w / scale) - z * w, w * z - z * w, (-z) * (-w) - z * w)
        _check_on_weights(units)
        for name in ("inverse scaling", "exchange", "factor sign"):
            yield Finding(name, "linear")
        return
    if known.degree is not None and known.proved:
        power = constant * z ** sympy.nsimplify(known.degree)  # a homogeneous function on one of its two rays
        hold(power.subs(z, scale * z) * w * scale ** -sympy.nsimplify(known.degree) - power * w)
        yield Finding("inverse scaling", "homogeneous")
    else:
        yield _refuted("inverse scaling", units, graph, bits)
    yield _refuted("exchange", units, graph, bits)
    if units.name == "tanh" and is_named(units.activation, "tanh"):
        yield Finding("factor sign", "odd")
    else:
        yield _refuted("factor sign", units, graph, bits)


def _check_on_weights(units: GatedUnits) -> None:
    """The identities of the product `z w` on weights of this MLP, in rational arithmetic."""
    x = [Fraction(index % 7 - 3, 5) for index in range(units.gate.shape[1])]
    for gate, up in zip(units.gate[:_UNITS].tolist(), units.up[:_UNITS].tolist(), strict=True):
        z, w = (sum((Fraction(a) * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in (gate, up))
        if not (2 * z) * (w / 2) == w * z == (-z) * (-w) == z * w:
            raise AssertionError("a product does not commute")


def _refuted(name: str, units: GatedUnits, graph: Graph, bits: int) -> Finding:
    """A counterexample to a symmetry, in balls or else in floats; or that none was found."""
    for unit in range(min(_UNITS, len(units.gate))):
        if not units.value[unit].any():
            continue
        exact = _Exact(units, unit)
        places = [place for place in map(exact.place, _POINTS) if place is not None]
        # inverse scaling is refuted by two inputs, for all degrees at once
        for pair in pairwise(places) if name == "inverse scaling" else ((p,) for p in places):
            try:
                left, right = _sides(name, graph, [exact.factors(*ab) for ab in pair], bits)
            except (TraceError, EnclosureError):
                continue
            if _apart(left, right):
                output = int(units.value[unit].abs().argmax())
                return Finding(name, "enclosures", Counterexample(unit, output, tuple(pair), left, right))
    return _tested(name, units)


def _sides(name: str, graph: Graph, factors: list[tuple[Fraction, Fraction]], bits: int) -> tuple[Any, Any]:
    """Bounds of the two numbers that a symmetry makes equal."""

    def phi(z: Fraction) -> arb:
        return jet(graph, identity(1), [_ball(z)])[0, 0]

    z, w = factors[0]
    if name == "inverse scaling":
        other = factors[1][0]
        pair = phi(FACTOR * z) * phi(other), phi(FACTOR * other) * phi(z)
    elif name == "exchange":
        pair = phi(z) * _ball(w), phi(w) * _ball(z)
    else:
        pair = phi(z) * _ball(w), -phi(-z) * _ball(w)
    return _between(pair[0], bits), _between(pair[1], bits)


def _apart(left: tuple[Bound, Bound], right: tuple[Bound, Bound]) -> bool:
    """Whether the bounds are disjoint, and by more than the rounding of `a` and `b` explains."""
    gap = max(right[0] - left[1], left[0] - right[1])
    return gap > max(map(abs, (*left, *right))) / 2**20


def _between(ball: arb, bits: int) -> tuple[Bound, Bound]:
    return bounds(ball, bits) if ball != 0 else (Bound(0), Bound(0))


def _ball(number: Fraction) -> arb:
    return arb(fmpq(number.numerator, number.denominator))


class _Exact:
    """One unit's factors at inputs `a g + b u`, as exact numbers."""

    def __init__(self, units: GatedUnits, unit: int) -> None:
        g, u = units.gate[unit], units.up[unit]
        d = units.width
        self.gg, self.gu, self.uu = (_dot(p[:d], q[:d]) for p, q in ((g, g), (g, u), (u, u)))
        self.shift = tuple(Fraction(p[d].item()) if units.constant else Fraction(0) for p in (g, u))

    def factors(self, a: float, b: float) -> tuple[Fraction, Fraction]:
        """`g·x` and `u·x`."""
        p, q = Fraction(a), Fraction(b)
        return p * self.gg + q * self.gu + self.shift[0], p * self.gu + q * self.uu + self.shift[1]

    def place(self, wanted: tuple[int, int]) -> tuple[float, float] | None:
        """The `a` and `b` where the factors are about as wanted, if both of them act there."""
        gram = torch.tensor([[self.gg, self.gu], [self.gu, self.uu]], dtype=torch.float64)
        aim = torch.tensor(
            [value - shift for value, shift in zip(wanted, self.shift, strict=True)], dtype=torch.float64
        )
        a, b = (torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ aim).tolist()
        return (a, b) if all(self.factors(a, b)) else None


def _dot(p: torch.Tensor, q: torch.Tensor) -> Fraction:
    """Of floats, exactly: integers times powers of two."""
    pairs = zip(p.tolist(), q.tolist(), strict=True)
    terms = [(*x.as_integer_ratio(), *y.as_integer_ratio()) for x, y in pairs]
    scale = max((s * t for _, s, _, t in terms), default=1)
    return Fraction(sum(m * n * (scale // (s * t)) for m, s, n, t in terms), scale)


def _tested(name: str, units: GatedUnits) -> Finding:
    """What double precision says, where balls say nothing."""

    def phi(z: float) -> float:
        return float(units.activation(torch.tensor(float(z), dtype=torch.float64)))

    if name == "inverse scaling" and units.homogeneity.degree is not None:
        return Finding(name, "test", note=units.homogeneity.evidence)
    if name == "inverse scaling":
        return Finding(name, "number", note=units.homogeneity.evidence)
    for z, w in _POINTS:
        before, after = phi(z) * w, phi(w) * z if name == "exchange" else -phi(-z) * w
        if abs(before - after) > 1e-9 * max(abs(before), abs(after)):
            return Finding(name, "number", note=f"{before:.12g} and {after:.12g} at g·x = {z}, u·x = {w}")
    return Finding(name, "test", note=f"at {len(_POINTS)} values of g·x and u·x")
