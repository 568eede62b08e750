"""To which parts curvature is attributed: an exact split of the second fundamental form.

The second-order terms of a jet are sums over the nodes where they are born: a nonlinear node adds a source of its
own, and all that follows passes it on linearly. Kept apart by label (role, layer, or both), they split the second
fundamental form exactly, `II = sum_a II_a`, and with it the scalar curvature by the Gauss equation:

    scal = sum_ab B_ab,    B_ab = tr II_a . tr II_b - <II_a, II_b>.

In a family with a metric of its own two parts more are the family's: the second derivatives that it has where the map
has none (`family`), and the curvature of its space (`ambient`), which stands in the matrix by itself. Nothing is
ablated and nothing approximated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from fisherflat._arrays import integer
from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import ERRORS, exceptional, sample
from fisherflat.jets import pairs
from fisherflat.jets.engines import Noise, in_chunks
from fisherflat.jets.graph import ROLES
from fisherflat.models.covariances import Covariance
from fisherflat.parts.readings import LIVE
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian, ParametricFamily
from fisherflat.studies.depth._apart import Apart
from fisherflat.studies.depth._budget import EXTRAS, CurvatureBudget, Part, without
from fisherflat.studies.depth._sampled import sampled_matrices
from fisherflat.studies.depth._stack import Stack
from fisherflat.studies.depth._subject import read_stack

#: how often errors are estimated
_RUNS = 2
#: what a budget can be split by
SPLITS = ("role", "layer", "layer-role")


def curvature_budget(
    blocks: Any,
    chart: Chart | None = None,
    u: Any = None,
    *,
    by: str = "role",
    family: Gaussian | ParametricFamily | str | None = None,
    prompt: Any = None,
    halves: bool = False,
    reading: str = LIVE,
    degenerate: str = "raise",
    covariance: Covariance | None = None,
    output: str = "all",
    planes: int | None = None,
    seed: int = 0,
    memory: int | None = None,
) -> CurvatureBudget:
    """The exact split of the scalar curvature by the parts where second-order terms are born.

    The second fundamental form is a sum over these parts, `II = sum_a II_a`, and by the Gauss equation
    `scal = sum_ab B_ab` with `B_ab = tr II_a . tr II_b - <II_a, II_b>`. Nothing is ablated and nothing approximated. A
    part that is frozen gets exactly zero. Labels that do not fit into memory at a time are taken in groups.

    **Args:**

    - `blocks`, `chart`, `u` `[*batch, k]`, `family`, `covariance`, `output`, `prompt`, `reading`, `degenerate` and
      `memory` as in `depth_profile`.
    - `by`: `"role"`, `"layer"` or `"layer-role"`, of which the first two are sums (`CurvatureBudget.by`).
    - `halves`: a layer is half of a block, such as `3 attention`.
    - `planes`: estimate in all k directions of the chart, hundreds or thousands, at one point, from so many random
      planes drawn with `seed`; a batch of one budget for each. Means over it are unbiased, traces and products too, and
      sum to the mean of `k (k - 1)` times the sectional curvature; their spread over `sqrt(planes)` is the standard
      error.

    **Returns:** a `CurvatureBudget` of n parts: `.matrix` `[*batch, n, n]` in units of 1 / covariance, `.labels`.

    **Raises:** `InputError` for an unknown `by`, and what `depth_profile` raises.

    >>> import torch, fisherflat as ff
    >>> bowl = lambda x: x + torch.stack([0 * x[0], 0 * x[1], x[0] ** 2 + x[1] ** 2])
    >>> chart = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    >>> found = ff.curvature_budget([bowl, bowl], chart, torch.zeros(2), by="layer")
    >>> found.labels, found.matrix.tolist(), found.scalar_curvature.item()
    (('layer 0', 'layer 1'), [[8.0, 8.0], [8.0, 8.0]], 32.0)
    """
    if by not in SPLITS:
        raise InputError(f'by must be "role", "layer" or "layer-role", got {by!r}')
    stack = read_stack(blocks, chart, prompt, family, halves, reading, covariance, output)
    chart = stack.chart
    where = torch.zeros(chart.k) if u is None else u
    if planes is not None:
        return sampled_budget(stack, where, by, planes=planes, seed=seed, memory=memory)
    return budget(stack, where, by, degenerate=degenerate, memory=memory)


def sampled_budget(
    stack: Stack, u: Any, by: str = "layer-role", *, planes: int, seed: int = 0, memory: int | None = None
) -> CurvatureBudget:
    """The budget in all directions of the chart, one for each plane; see `curvature_budget`."""
    count, seed = integer(planes, "planes", 2), integer(seed, "seed", 0)
    at = stack.chart.coordinates(u)
    if at.dim() != 1:
        raise InputError(f"planes are drawn at one point [k], got coordinates of shape {list(at.shape)}")
    found = Apart(stack, by, "raise", memory)
    matrices = sampled_matrices(stack, found, at, count, seed, memory)
    parts, index = _places(found, by)
    traces, products = (_placed(matrix, index, len(parts)) for matrix in matrices)
    return CurvatureBudget(tuple(parts), found.labels, traces, products, torch.full_like(traces, torch.nan))


def budget(
    stack: Stack, u: Any, by: str = "layer-role", *, degenerate: str = "raise", memory: int | None = None
) -> CurvatureBudget:
    """The budget of a stack that has been traced; see `curvature_budget`."""
    k, points = stack.chart.k, stack.chart.coordinates(u)
    found = Apart(stack, by, degenerate, memory)
    pieces = in_chunks(
        found.measure,
        points.reshape(-1, k),
        2 * found.widest * (1 + k + len(found.parts) * len(pairs(k))) * points.element_size(),  # kept between maps
        memory,
    )
    parts, index = _places(found, by)

    def placed(matrices: Sequence[Tensor], *shape: int) -> Tensor:
        full = _placed(torch.cat(list(matrices)), index, len(parts))
        return full.reshape(*shape, *full.shape[1:])

    *matrices, skewness, sizes = zip(*pieces, strict=True)
    traces, products, born = (placed(column, *points.shape[:-1]) for column in matrices)
    several = torch.tensor([found.births[part] > 1 for part in parts], dtype=torch.bool, device=born.device)

    def noisy(which: Tensor) -> Tensor:
        with Noise(0):
            *columns, _, _ = found.measure(points.reshape(-1, k)[which].repeat(_RUNS, 1), "nan")
        return torch.stack([placed([column], _RUNS, len(which)) for column in columns])

    sampled = sample(torch.cat(skewness), ERRORS["sample"])
    again = noisy(sampled)
    size = torch.cat(sizes).reshape(points.shape[:-1])
    made = CurvatureBudget(tuple(parts), found.labels, traces, products, without(born, several), again, sampled, size)
    odd = exceptional(made.verdicts.reshape(-1), sampled)
    if len(odd):
        made = replace(made, again=torch.cat([again, noisy(odd)], 2), sampled=torch.cat([sampled, odd]))
    return made


def _places(found: Apart, by: str) -> tuple[list[Part], Tensor]:
    """All parts of a split, and the positions of those that have sources."""
    extras = [part for part in found.parts if part.role in EXTRAS]
    parts = {
        "role": [*(Part(role=role) for role in ROLES), *extras],
        "layer": [*(Part(layer=label) for label in found.labels), *extras],
        "layer-role": found.parts,
    }[by]
    return parts, torch.tensor([parts.index(part) for part in found.parts], dtype=torch.long)


def _placed(matrices: Tensor, index: Tensor, count: int) -> Tensor:
    """Matrices over the parts that have sources, among those over all parts."""
    full = matrices.new_zeros(len(matrices), count, count)
    index = index.to(matrices.device)
    full[:, index[:, None], index] = matrices
    return full
