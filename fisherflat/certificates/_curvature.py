"""What a certificate about curvature says, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import Any, ClassVar

from fisherflat.certificates._bounds import Bound, rounded
from fisherflat.certificates._certificate import Certificate
from fisherflat.certificates._weight import Weight
from fisherflat.jets.ops import OPS, Op
from fisherflat.parts import readings
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian

VERDICTS = ("flat", "curved", "undecided")

#: argument -> the verdict that it supports, and the argument in words
ARGUMENTS = {
    "affine": ("flat", "every node is constant or affine in the coordinates"),
    "one coordinate": ("flat", "a curve has no intrinsic curvature"),
    "full dimension": ("flat", "an immersed manifold of the dimension of its space is an open piece of that space"),
    "enclosure": ("curved", "the enclosure of the curvature excludes zero"),
    "zero enclosed": ("undecided", "the enclosure of the curvature contains zero at the largest precision tried"),
    "degenerate immersion": ("undecided", "the determinant of the metric could not be bounded away from zero"),
    "not finite": (
        "undecided",
        "the map or its derivatives are not finite there, so that the point is outside its domain",
    ),
    "open decision": ("undecided", "the map asks for a sign or an order that is open there (a kink or a jump)"),
    "unsupported op": ("undecided", "an op on the way has no rule in ball arithmetic"),
}


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
    """A node of the graph in a proof: `order` is constant, affine or nonlinear in the coordinates."""

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
        return "no moving argument" if self.order == "constant" else _AFFINE.get(self.op, "linear map")

    def __str__(self) -> str:
        where = (f" at {self.source}" if self.source else "") + (f" in {self.module}" if self.module else "")
        if self.order == "nonlinear":
            return f"{self.rule}{where}, role {self.role} (node %{self.node}, {self.op})"
        return f"%{self.node} {self.op}{where}: {self.order} ({self.rule})"


@dataclass(frozen=True)
class Analytic:
    """What the claim "nonzero almost everywhere" rests on.

    **Attributes:** `ops`: all ops on the way, each real-analytic where it is defined; `restricted`: those among them
    that could not be shown to be defined for every input. Where there are none the domain is all of `R^k`.
    """

    ops: tuple[str, ...]
    restricted: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CurvatureCertificate(Certificate):
    """A proved statement about the curvature of one map on one chart, or the reason why there is none.

    What is certified is the real-valued function that the traced graph computes in exact real arithmetic from the
    stored weights, on the chart, under the covariance. Numbers that torch computed from weights alone while tracing or
    freezing (a frozen pattern, rotary tables) are constants of that function, as they came out.

    **Attributes:**

    - `verdict`: `"flat"`, `"curved"` or `"undecided"`; `argument`: which of `ARGUMENTS` it rests on.
    - `enclosure`: exact bounds `(low, high)` of the sectional curvature of `plane` (k = 2: the Gauss curvature), in
      units of 1 / covariance, on the whole box; `None` for flat.
    - `determinant`: bounds of the determinant of the metric there, where it was enclosed.
    - `chart`, `family`; `frozen`: the roles that are held; `point` `[k]` and `radius` of the box in coordinates;
      `plane`: two tangent vectors in coordinates, `None` for k = 2; `cells`: the pieces that the box was bisected into,
      each as its path of halvings.
    - `rank`: `(proved lower bound, whether it is exact)` of an affine map; `steps`: the nodes of a proof by structure.
    - `witness`: the first nonlinear node; `unsupported`: the op without a rule; `analytic`: see `Analytic`, or `None`.
    - `precision` in bits; `weights`, `graph` (SHA-256) and `outputs` (D): what it is about; `versions`; `subject`:
      where it came from, for the command line.
    """

    kind: ClassVar[str] = "curvature"

    verdict: str
    argument: str
    chart: Chart
    family: Gaussian
    frozen: tuple[str, ...]
    precision: int
    point: tuple[float, ...]
    radius: float
    plane: tuple[tuple[float, ...], tuple[float, ...]] | None
    cells: tuple[str, ...]
    enclosure: tuple[Bound, Bound] | None
    determinant: tuple[Bound, Bound] | None
    rank: tuple[int, bool] | None
    witness: Step | None
    unsupported: Step | None
    steps: tuple[Step, ...]
    analytic: Analytic | None
    weights: tuple[Weight, ...]
    graph: str
    outputs: int
    versions: dict[str, str]
    subject: dict[str, Any] | None = None

    @property
    def reading(self) -> str:
        """What moves and what is held: `weights`, or the name of a reading (`fisherflat.readings`)."""
        if self.chart.kind == "attention weights":
            return "weights"
        return readings.name(self.frozen)

    @property
    def claim(self) -> str:
        """The statement in one sentence."""
        return _CLAIMS[self.verdict](self)

    @property
    def reason(self) -> str:
        """What the verdict rests on: the proof steps, the witness of nonlinearity, or why nothing was decided."""
        parts = [ARGUMENTS[self.argument][1]]
        if self.unsupported is not None:
            parts.append(f"%{self.unsupported.node} {self.unsupported.op} at {self.unsupported.source}")
        if self.witness is not None:
            parts.append(f"first nonlinear node: {self.witness}")
        return "; ".join(parts) + "".join(f"\n{step}" for step in self.steps)

    def __repr__(self) -> str:
        between = f", enclosure=({self.enclosure[0]:.6g}, {self.enclosure[1]:.6g})" if self.enclosure else ""
        return f"CurvatureCertificate({self.verdict!r}, {self.argument!r}{between}, reading={self.reading!r})"


def _flat(c: CurvatureCertificate) -> str:
    if c.argument == "affine":
        rank, exact = c.rank if c.rank is not None else (0, False)
        k = c.chart.k
        degenerate = f" (the rank of the map is {rank} < k = {k})" if exact and rank < k else ""
        least = "" if exact or rank == k else "at least "
        return (
            f"Reading {c.reading}: the manifold is flat everywhere, because the map is affine on this chart and its "
            f"image an affine subspace of dimension {least}{rank}{degenerate}, so that its second fundamental form "
            "vanishes identically."
        )
    why = f"it fills its space, k = D = {c.outputs}" if c.argument == "full dimension" else "it has one coordinate"
    return f"Reading {c.reading}: the manifold is flat wherever the map is smooth and immersed, because {why}."


def _curved(c: CurvatureCertificate) -> str:
    assert c.enclosure is not None
    low, high = rounded(c.enclosure[0], 32, ROUND_FLOOR), rounded(c.enclosure[1], 32, ROUND_CEILING)
    place = f"at u = {_numbers(c.point)}"
    if c.radius:
        place = f"at every u within {c.radius:g} of {_numbers(c.point)} in each coordinate"
    what = "the Gauss curvature"
    if c.plane is not None:
        what = f"the sectional curvature of the plane of {' and '.join(map(_numbers, c.plane))}"
    sign = "positive" if low > 0 else "negative"
    text = f"Reading {c.reading}: {what} {place} is {sign}, between {low} and {high} in units of 1 / covariance"
    if c.analytic is not None:
        where = "R^k"
        if c.analytic.restricted:
            where = "the connected part, around this point, of the coordinates for which the map is defined"
        text += f", and it is nonzero almost everywhere on {where} (wherever the map is an immersion)"
    return text + "."


def _undecided(c: CurvatureCertificate) -> str:
    between = f" (between {c.enclosure[0]:.3g} and {c.enclosure[1]:.3g})" if c.enclosure is not None else ""
    return f"Reading {c.reading}: nothing is claimed, because {ARGUMENTS[c.argument][1]}{between}."


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


_CLAIMS = {"flat": _flat, "curved": _curved, "undecided": _undecided}
