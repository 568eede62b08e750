"""What a certificate about curvature says, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fisherflat.certificates import files
from fisherflat.certificates._bounds import Bound
from fisherflat.certificates._certificate import Certificate
from fisherflat.certificates._curvature_words import ARGUMENTS, claim
from fisherflat.certificates._steps import Analytic, HeldNode, Numbers, Step
from fisherflat.certificates._weight import Weight
from fisherflat.jets.graph import Held
from fisherflat.parts import readings
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Bernoulli, Categorical, DiagonalGaussian, Gaussian, ParametricFamily, Poisson

#: families besides the Gaussian that certificates are about
CERTIFIED = (Bernoulli, Categorical, DiagonalGaussian, Poisson)


@dataclass(frozen=True, eq=False)
class CurvatureCertificate(Certificate):
    """A proved statement about the curvature of one map on one chart, or the reason why there is none.

    What is certified is the real-valued function that the traced graph computes in exact real arithmetic from the
    stored weights, on the chart, under the covariance. Numbers that torch computed while tracing or freezing (a frozen
    pattern, rotary tables) are constants of that function. Where the proof depends on them, they stand in `constants`.

    **Attributes:**

    - `verdict`: `"flat"`, `"curved"` or `"undecided"`; `argument`: which of `ARGUMENTS` it rests on.
    - `enclosure`: exact bounds `(low, high)` of the sectional curvature of `plane` (k = 2: the Gauss curvature), in
      units of 1 / covariance, or in the metric of another family, on the whole box; `None` for flat.
    - `determinant`: bounds of the determinant of the metric there, where it was enclosed.
    - `scope`: `"everywhere"`, or `"off kinks"`: wherever none of the nodes in `kinks` is at a kink or a jump.
    - `chart`, `family`; `frozen`: the roles of which something is held, `held`: what, as op, module path and source
      line; `base`: the input at which it is held, `None` for the chart's point; `live`: SHA-256 of the graph of which
      it is held; `constants`: see `Numbers`, where the proof depends on them.
    - `point` `[k]` and `radius` of the box in coordinates;
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
    family: Gaussian | ParametricFamily
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
    kinks: tuple[Step, ...] = ()
    held_nodes: tuple[HeldNode, ...] = ()
    base: Tensor | None = None
    live: str = ""
    constants: tuple[Numbers, ...] = ()
    schema: int = files.SCHEMA

    @property
    def scope(self) -> str:
        """Where a claim of flatness holds: `"everywhere"`, or `"off kinks"`."""
        return "off kinks" if self.argument == "affine by pieces" else "everywhere"

    @property
    def held(self) -> list[Held]:
        """What is held: op, module path and source line of each node; empty for the reading `live`."""
        return [Held(node.op, node.module, node.source) for node in self.held_nodes]

    @property
    def reading(self) -> str:
        """What moves and what is held: `weights`, or the name of a reading (`fisherflat.readings`)."""
        if self.chart.kind == "attention weights":
            return "weights"
        return readings.name(self.frozen)

    @property
    def claim(self) -> str:
        """The statement in one sentence."""
        return claim(self)

    @property
    def reason(self) -> str:
        """What the verdict rests on: the proof steps, the witness of nonlinearity, or why nothing was decided."""
        parts = [ARGUMENTS[self.argument][1]]
        if self.unsupported is not None:
            parts.append(f"%{self.unsupported.node} {self.unsupported.op} at {self.unsupported.source}")
        if self.witness is not None:
            parts.append(f"first nonlinear node: {self.witness}")
        lines = [f"kink: {step}" for step in self.kinks]
        lines += [f"held: %{n.node} {n.op} at {n.source}, role {n.role}, of the live graph" for n in self.held_nodes]
        lines += [f"constant: {n.name}, {list(n.values.shape)}, within {float(n.within):.1e}" for n in self.constants]
        return "\n".join(["; ".join(parts), *lines, *map(str, self.steps)])

    def __repr__(self) -> str:
        between = f", enclosure=({self.enclosure[0]:.6g}, {self.enclosure[1]:.6g})" if self.enclosure else ""
        return f"CurvatureCertificate({self.verdict!r}, {self.argument!r}{between}, reading={self.reading!r})"
