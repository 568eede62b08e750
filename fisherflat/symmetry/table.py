"""Which symmetries a gated MLP has, and how that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch

from fisherflat.symmetry.units import GatedUnits, gated_units

if TYPE_CHECKING:
    import pandas as pd

#: pairs of g·x and u·x at which a broken symmetry shows; all are attained where g and u are independent
_POINTS = ((1, -1), (1, 2), (-1, 2), (2, 3))


@dataclass(frozen=True)
class Symmetry:
    """A row of the table; see `symmetries`."""

    symmetry: str
    group: str
    transformation: str
    generator: str
    preserved: bool
    kind: str
    evidence: str


def symmetries(mlp: Any, at: Any = None) -> pd.DataFrame:
    """The symmetries of the units of a gated MLP as a table, a row each: what they do, whether they hold, the evidence.

    `kind` says how firm the evidence is:

    - `"identity"`: holds for every activation, whatever the weights; the identity is checked symbolically with an
      undefined function φ.
    - `"proof"`: follows from a proved property of the activation; the resulting identity is checked symbolically.
    - `"exact"`: besides that, checked on the weights of this MLP in exact rational arithmetic (φ a polynomial).
    - `"ball"`: a counterexample whose two sides lie in disjoint balls of arbitrary-precision arithmetic, at values of
      g·x and u·x that inputs attain, because g and u of the unit named are independent in exact arithmetic.
    - `"number"`: a counterexample in double precision, for an activation without a ball rule or units without such
      independence.
    - `"test"`: the symmetry was tested at points and not refuted; that proves nothing.

    **Args:** as `gated_units`, and **Raises** as there.
    """
    import pandas as pd

    return pd.DataFrame([asdict(row) for row in _rows(gated_units(mlp, at))])


def _rows(units: GatedUnits) -> Iterator[Symmetry]:
    import sympy

    z, w, v, scale, constant = sympy.symbols("z w v lambda c", positive=True)
    phi = sympy.Function("phi")
    degree = sympy.nsimplify(units.degree)
    known = units.homogeneity
    power = constant * z**degree  # a homogeneous function on one of its two rays

    def proved(difference: Any, text: str) -> str:
        if sympy.simplify(difference) != 0:
            raise AssertionError(f"{text} does not hold")
        return f"{text}, checked symbolically"

    always = proved(phi(z) * (scale * w) * (v / scale) - phi(z) * w * v, "φ(z) (λw) (v/λ) = φ(z) w v for any φ")
    yield Symmetry("output scaling", "R>0 for each unit", "(u, v) → (λu, v/λ)", "(0, u, -v)", True, "identity", always)
    always = proved(phi(z) * (-w) * (-v) - phi(z) * w * v, "φ(z) (-w) (-v) = φ(z) w v for any φ")
    yield Symmetry("output sign", "Z2 for each unit", "(u, v) → (-u, -v)", "discrete", True, "identity", always)
    text = "a sum does not depend on the order of its terms"
    yield Symmetry("permutation", "S_h", "units i ↔ j", "discrete", True, "identity", text)

    name = ("inverse scaling", "R>0 for each unit", f"(g, u) → (λg, λ^-{degree} u)", f"(g, -{degree} u, 0)")
    if known.degree is not None:
        scaled = power.subs(z, scale * z) * w * scale**-degree - power * w
        text = proved(scaled, f"φ(λz) λ^-{degree} w = φ(z) w on each ray, as {known.evidence}")
        kind = "proof" if known.proved else "test"
        yield Symmetry(*name, True, *_exact(units, lambda z, w: (2 * z, w / 2), kind, text))
    else:
        yield Symmetry(*name, False, *_counterexample(units, lambda z, w: (2 * z, w / 2), "λ = 2"))

    name = ("exchange", "Z2 for each unit", "g ↔ u", "discrete")
    yield _discrete(units, name, lambda z, w: (w, z), "z w = w z, as φ(z) = z")
    name = ("factor sign", "Z2 for each unit", "(g, u) → (-g, -u)", "discrete")
    yield _discrete(units, name, lambda z, w: (-z, -w), "(-z) (-w) = z w, as φ(z) = z")


def _discrete(
    units: GatedUnits, name: tuple[str, str, str, str], change: Callable[..., tuple[Any, Any]], text: str
) -> Symmetry:
    if units.name == "identity":
        return Symmetry(*name, True, *_exact(units, change, "proof", text))
    if units.name == "tanh" and name[0] == "factor sign":
        return Symmetry(*name, True, "proof", "tanh is odd")
    kind, evidence = _counterexample(units, change, "the change")
    return Symmetry(*name, kind == "test", kind, evidence)


def _exact(units: GatedUnits, change: Callable[..., tuple[Any, Any]], kind: str, text: str) -> tuple[str, str]:
    """The identity on the weights in rational arithmetic, where there is no activation."""
    if units.name != "identity":
        return kind, text
    x = [Fraction(index % 7 - 3, 5) for index in range(units.gate.shape[1])]
    for gate, up in zip(units.gate[:8].tolist(), units.up[:8].tolist(), strict=True):
        z, w = (sum((Fraction(a) * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in (gate, up))
        a, b = change(z, w)
        if a * b != z * w:
            raise AssertionError(f"{text} fails in exact arithmetic")
    return "exact", f"{text}; equal in rational arithmetic on the weights of {min(8, len(units.gate))} units"


def _counterexample(units: GatedUnits, change: Callable[..., tuple[Any, Any]], what: str) -> tuple[str, str]:
    """Kind and evidence: at some point the score changes."""
    unit = next((i for i in range(len(units.gate)) if units.value[i].any() and _independent(units, i)), None)
    for z, w in _POINTS:
        a, b = change(z, w)
        if unit is not None and units.name in _BALLS:
            before, after = _ball(units.name, z, w), _ball(units.name, a, b)
            if not before.overlaps(after):
                at = f"unit {unit}, at g·x = {z}, u·x = {w}"
                return "ball", f"{what} takes the score of {at}, from {before.str(12)} to {after.str(12)}"
        else:
            before, after = (
                float(units.activation(torch.tensor(float(p), dtype=torch.float64))) * q for p, q in ((z, w), (a, b))
            )
            if abs(before - after) > 1e-9 * max(abs(before), abs(after)):
                return "number", f"{what} takes a score at g·x = {z}, u·x = {w} from {before:.12g} to {after:.12g}"
    return "test", f"{what} leaves the score as it is at {len(_POINTS)} points"


def _independent(units: GatedUnits, unit: int) -> bool:
    """Whether g and u of a unit are, in exact arithmetic and without biases, so that g·x and u·x take all values."""
    g, u = ([Fraction(a) for a in weight[unit, : units.width].tolist()] for weight in (units.gate, units.up))
    gg, gu, uu = (sum(a * b for a, b in zip(p, q, strict=True)) for p, q in ((g, g), (g, u), (u, u)))
    return gg * uu != gu * gu


def _half_erf(z: Any) -> Any:
    return z / 2 * (1 + (z / _arb(2).sqrt()).erf())


#: the activations in ball arithmetic
_BALLS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "relu": lambda z: z if z > 0 else 0 * z,
    "relu2": lambda z: z * z if z > 0 else 0 * z,
    "sigmoid": lambda z: 1 / (1 + (-z).exp()),
    "silu": lambda z: z / (1 + (-z).exp()),
    "softplus": lambda z: (1 + z.exp()).log(),
    "tanh": lambda z: z.tanh(),
    "gelu": _half_erf,
}


def _arb(value: Any) -> Any:
    from flint import arb

    return arb(value)


def _ball(name: str, z: Any, w: Any) -> Any:
    """The score; z and w are small integers and halves, which are exact."""
    return _BALLS[name](_arb(z)) * _arb(w)
