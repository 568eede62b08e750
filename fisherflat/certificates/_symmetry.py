"""What a certificate about the symmetries of a gated MLP says, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING
from typing import Any, ClassVar, NamedTuple

from fisherflat._display import displayed
from fisherflat.certificates import files
from fisherflat.certificates._bounds import Bound, rounded
from fisherflat.certificates._certificate import Certificate
from fisherflat.certificates._weight import Weight


class Symmetry(NamedTuple):
    """A change of the weights of units; `{p}` in its words stands for the degree of the activation."""

    group: str
    transformation: str
    generator: str


SYMMETRIES = {
    "output scaling": Symmetry("R>0 for each unit", "(u, v) → (λu, v/λ)", "(0, u, -v)"),
    "output sign": Symmetry("Z2 for each unit", "(u, v) → (-u, -v)", "discrete"),
    "permutation": Symmetry("S_h", "units i ↔ j", "discrete"),
    "inverse scaling": Symmetry("R>0 for each unit", "(g, u) → (λg, λ^-{p} u)", "(g, -{p} u, 0)"),
    "exchange": Symmetry("Z2 for each unit", "g ↔ u", "discrete"),
    "factor sign": Symmetry("Z2 for each unit", "(g, u) → (-g, -u)", "discrete"),
}

#: argument -> the verdict that it supports, how firm it is, and the argument in words
ARGUMENTS = {
    "any activation": ("preserved", "identity", "the score times its value stays the same for any φ"),
    "order": ("preserved", "identity", "a sum does not depend on the order of its terms"),
    "homogeneous": ("preserved", "proof", "φ(λz) λ^-{p} w = φ(z) w on each ray"),
    "linear": ("preserved", "exact", "φ(z) = z, and a product does not depend on the order of its factors"),
    "odd": ("preserved", "proof", "φ(-z) = -φ(z)"),
    "enclosures": ("broken", "ball", "two numbers that the symmetry makes equal lie in disjoint balls"),
    "number": ("open", "number", "two numbers that the symmetry makes equal differ, in double precision"),
    "test": ("open", "test", "tested at points and not refuted, which proves nothing"),
}
#: the name of an activation that does not do what its own name says
UNNAMED = "an activation without a name"
#: λ of the counterexamples to inverse scaling
FACTOR = 2


@dataclass(frozen=True)
class Counterexample:
    """Numbers that a symmetry would make equal, and that are not.

    The inputs are `x = a g + b u` for a unit's own gate and up vectors (without the weights of a constant coordinate),
    so that `z = g·x` and `w = u·x` are exact numbers, and `w` is not zero.

    **Attributes:** `unit`; `output`, an output that its value reaches; `inputs`, the pairs `(a, b)`; `left` and
    `right`, disjoint bounds: for exchange of `φ(z) w` and `φ(w) z`; for factor sign of `φ(z) w` and `-φ(-z) w`; for
    inverse scaling, at two inputs, of `φ(2z) φ(z')` and `φ(2z') φ(z)`, which differ for no homogeneous φ of any degree.
    """

    unit: int
    output: int
    inputs: tuple[tuple[float, float], ...]
    left: tuple[Bound, Bound]
    right: tuple[Bound, Bound]


#: symmetry -> what the bounds of a counterexample enclose
SIDES = {
    "exchange": ("φ(g·x)(u·x)", "φ(u·x)(g·x)"),
    "factor sign": ("φ(g·x)(u·x)", "-φ(-g·x)(u·x)"),
    "inverse scaling": ("φ(2g·x) φ(g·x')", "φ(2g·x') φ(g·x)"),
}


@displayed
@dataclass(frozen=True)
class Finding:
    """Whether one symmetry holds: `argument`, out of `ARGUMENTS`; a counterexample; or `note`, what a test saw."""

    symmetry: str
    argument: str
    counterexample: Counterexample | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`"preserved"`, `"broken"` or `"open"`."""
        return ARGUMENTS[self.argument][0]

    @property
    def kind(self) -> str:
        """How firm it is: `"identity"`, `"proof"`, `"exact"`, `"ball"`, `"number"` or `"test"`."""
        return ARGUMENTS[self.argument][1]

    def evidence(self, degree: float | None) -> str:
        """The argument in words, with its numbers."""
        words = ARGUMENTS[self.argument][2].format(p=_degree(degree))
        if self.counterexample is None:
            return f"{words}: {self.note}" if self.note else words
        c = self.counterexample
        places = [f"{name} = {a:.6g} g {b:+.6g} u" for name, (a, b) in zip(("x", "x'"), c.inputs, strict=False)]
        left, right = SIDES[self.symmetry]
        return (
            f"unit {c.unit} at {' and '.join(places)}: {left} is {_ball(c.left)}, but {right} is {_ball(c.right)}; "
            f"seen in output {c.output}"
        )


@dataclass(frozen=True, eq=False)
class SymmetryCertificate(Certificate):
    """Which symmetries the units of a gated MLP have, each with a proof or a counterexample.

    What is certified is the real function `b + Σ_i v_i φ(g_i·x)(u_i·x)` with the weights whose digests are stated, and
    with the real function φ that the traced graph of the activation computes. That these are the weights of the MLP is
    checked whenever they are read from it, against its own graph in double precision.

    **Attributes:** `activation`, the name of φ, and `graph`, the SHA-256 of its graph; `degree`, of φ where it is
    proved to be homogeneous; `units` h, `width` d of the input, `outputs` D; `constant`, whether biases are the weights
    of a constant coordinate; `findings`, one for each of `SYMMETRIES`; `precision`, `weights`, `versions` and `subject`
    as in `Certificate`.
    """

    kind: ClassVar[str] = "symmetry"

    activation: str
    degree: float | None
    units: int
    width: int
    outputs: int
    constant: bool
    findings: tuple[Finding, ...]
    precision: int
    weights: tuple[Weight, ...]
    graph: str
    versions: dict[str, str]
    subject: dict[str, Any] | None = None
    schema: int = files.SCHEMA

    @property
    def claim(self) -> str:
        """The statement in one sentence."""
        by_verdict = {v: [f.symmetry for f in self.findings if f.verdict == v] for v in ("preserved", "broken", "open")}
        text = (
            f"This gated MLP, {self.units} units with φ = {self.activation} from width {self.width} to {self.outputs}, "
            f"keeps its outputs under {_listed(by_verdict['preserved'])} of its units"
        )
        if by_verdict["broken"]:
            text += f", and does not under {_listed(by_verdict['broken'])}"
        if by_verdict["open"]:
            text += f"; nothing is claimed of {_listed(by_verdict['open'])}"
        return text + "."

    @property
    def reason(self) -> str:
        """What each finding rests on, a line each."""
        return "\n".join(f"{f.symmetry}: {f.verdict} ({f.kind}); {f.evidence(self.degree)}" for f in self.findings)

    def rows(self) -> list[dict[str, Any]]:
        """The table of `fisherflat.symmetry.symmetries`, a dict a row.

        An open finding counts as preserved where no test refuted it.
        """
        p = _degree(self.degree)
        return [
            {
                "symmetry": f.symmetry,
                "group": SYMMETRIES[f.symmetry].group,
                "transformation": SYMMETRIES[f.symmetry].transformation.format(p=p),
                "generator": SYMMETRIES[f.symmetry].generator.format(p=p),
                "preserved": f.verdict == "preserved" or f.argument == "test",
                "kind": f.kind,
                "evidence": f.evidence(self.degree),
            }
            for f in self.findings
        ]

    def __repr__(self) -> str:
        broken = [f.symmetry for f in self.findings if f.verdict == "broken"]
        return f"SymmetryCertificate({self.activation!r}, units={self.units}, broken={broken})"


def _degree(degree: float | None) -> str:
    return "p" if degree is None else f"{degree:g}"


def _ball(pair: tuple[Bound, Bound]) -> str:
    middle, radius = (pair[0] + pair[1]) / 2, (pair[1] - pair[0]) / 2
    return f"{float(middle):.12g} ± {float(rounded(radius, 7, ROUND_CEILING)):.1e}" if radius else f"{float(middle):g}"


def _listed(names: list[str]) -> str:
    if not names:
        return "nothing"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
