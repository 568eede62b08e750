"""What one task measures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from fisherflat import charts
from fisherflat._typing import Float, Tensor
from fisherflat.analysis.tasks import Row, Task
from fisherflat.checkpoints import Block, Encoded, Operator
from fisherflat.errors import DegenerateImmersionWarning
from fisherflat.family import Gaussian
from fisherflat.geometry import Geometry
from fisherflat.jets import Graph, freeze, trace
from fisherflat.manifold import StatisticalManifold

#: reading -> the roles that are held at the base point
READINGS: dict[str, tuple[str, ...]] = {"live": (), "frozen pattern": ("pattern",)}
#: part -> the readings that make sense for it
PARTS: dict[str, tuple[str, ...]] = {
    "attention": ("live", "frozen pattern"),
    "mlp": ("live",),
    "block": ("live",),
}
#: what cancellation leaves of the terms that cancel, in units of the machine precision
ROUNDING = 1e3


class Study:
    """A model's blocks on some prompts, and what they share: for each layer and part one basis and one covariance.

    **Args:** `prompts` and, for each, the `blocks` of the model; `points` `[P, dim]`, coordinates in every chart;
    `engine`, of the jets.
    """

    def __init__(
        self, prompts: Sequence[Encoded], blocks: Sequence[Sequence[Block]], points: Float[Tensor, "P k"], engine: str
    ) -> None:
        self.prompts, self.blocks, self.points, self.engine = prompts, blocks, points, engine
        # tasks come layer by layer, so only the last few of these are needed again
        self._frame = lru_cache(maxsize=4)(self._make_frame)
        self._graph = lru_cache(maxsize=4)(self._make_graph)

    def readings(self, layer: int, part: str) -> tuple[str, ...]:
        """The readings that make sense for a part of a layer: no frozen pattern where there is no pattern."""
        if part == "attention" and not self.blocks[0][layer].anatomy.softmax:
            return ("live",)
        return PARTS[part]

    def measure(self, task: Task) -> list[Row]:
        """The rows of one task, one a point; where it fails, one row with the error."""
        prompt = self.prompts[task.prompt]
        about: Row = {
            "layer": task.layer,
            "part": task.part,
            "reading": task.reading,
            "prompt": task.prompt,
            "text": prompt.text,
            "position": task.position,
            "token": prompt.tokens[task.position],
        }
        try:
            return [about | row for row in self._rows(task)]
        except Exception as error:  # one part that fails must not end the run; its row says why
            return [about | {"error": f"{type(error).__name__}: {error}"}]

    def _rows(self, task: Task) -> list[Row]:
        frame = self._frame(task.layer, task.part)
        part = self._part(task.layer, task.part, task.prompt)
        token = charts.token(part.input, task.position, frame.basis)
        manifold = StatisticalManifold(
            self._graph(task.layer, task.part, task.reading, task.prompt),
            charts.Chart(token.point, token.basis, "principal"),
            frame.family,
            engine=self.engine,
            degenerate="nan",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateImmersionWarning)  # such points have an error in their row
            geometry = manifold.at(self.points.to(part.input.device))
        return _describe(geometry, self.points)

    def _part(self, layer: int, part: str, prompt: int) -> Operator:
        block = self.blocks[prompt][layer]
        return {"attention": lambda: block.attention, "mlp": lambda: block.mlp, "block": lambda: block}[part]()

    def _make_frame(self, layer: int, part: str) -> _Frame:
        parts = [self._part(layer, part, prompt) for prompt in range(len(self.prompts))]
        with torch.no_grad():
            inputs, outputs = [p.input for p in parts], [p(p.input) for p in parts]
        directions = charts.principal(torch.cat(inputs), 0, self.points.shape[-1]).basis[:, 0]
        return _Frame(directions, Gaussian.calibrated(torch.cat(outputs)))

    def _make_graph(self, layer: int, part: str, reading: str, prompt: int) -> Graph:
        operator = self._part(layer, part, prompt)
        if roles := READINGS[reading]:
            return freeze(operator, operator.input, roles=roles)
        return trace(operator, operator.input)


@dataclass(frozen=True, eq=False)
class _Frame:
    """What the charts and families of a layer's part share over all prompts.

    **Attributes:** `basis` `[k, d]`: principal directions of what entered the part, in units of one standard
    deviation; `family`, calibrated on what left it.
    """

    basis: Tensor
    family: Gaussian


def sample_points(count: int, dim: int, seed: int) -> Float[Tensor, "count dim"]:
    """The chart's origin and `count - 1` points drawn uniformly from the ball of one standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(count - 1, dim, generator=generator, dtype=torch.float64)
    radius = torch.rand(count - 1, 1, generator=generator, dtype=torch.float64) ** (1 / dim)
    inside = radius * direction / direction.norm(dim=1, keepdim=True)
    return torch.cat([torch.zeros(1, dim, dtype=torch.float64), inside])


def _describe(geometry: Geometry, points: Float[Tensor, "P k"]) -> list[Row]:
    columns = {
        "scalar_curvature": geometry.scalar_curvature,
        "second_fundamental_form": geometry.second_fundamental_form_norm,
        "mean_curvature": geometry.mean_curvature.norm(dim=-1),
        "volume_density": geometry.volume_density,
        "condition_number": geometry.condition_number,
    }
    values = {name: tensor.tolist() for name, tensor in columns.items()}
    rows = []
    for point, (u, verdict) in enumerate(zip(points.tolist(), _verdicts(geometry), strict=True)):
        row: Row = {"point": point, "u": u, **{name: column[point] for name, column in values.items()}}
        row["verdict"] = verdict
        row["error"] = None if verdict else "the metric is degenerate here: some direction of the chart changes nothing"
        rows.append(row)
    return rows


def _verdicts(geometry: Geometry) -> list[str | None]:
    """`flat to rounding`, `positive` or `negative` at each point; `None` where there is no geometry.

    The scalar curvature is a difference, `|tr II|^2 - |II|^2` (`tr II = k H`). It is zero to rounding where it is small
    against the sum of the two, or where the second fundamental form itself is no more than the rounding of the values,
    seen in the frame of the metric. That is a measurement, not a proof.
    """
    scal, form = geometry.scalar_curvature, geometry.second_fundamental_form_norm
    noise = ROUNDING * torch.finfo(scal.dtype).eps
    terms = (geometry.k * geometry.mean_curvature.norm(dim=-1)) ** 2 + form**2
    affine = form <= noise * geometry.jet.value.norm(dim=-1) / geometry.singular_values[..., -1] ** 2
    flat = affine | (scal.abs() <= noise * terms)
    words = ["flat to rounding" if f else "positive" if s > 0 else "negative" for f, s in zip(flat, scal, strict=True)]
    return [word if torch.isfinite(s) else None for word, s in zip(words, scal, strict=True)]
