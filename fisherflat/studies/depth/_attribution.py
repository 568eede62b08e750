"""To which parts curvature is attributed: an exact split of the second fundamental form.

The second-order terms of a jet are sums over the nodes where they are born: a nonlinear node adds a source of its
own, and all that follows passes it on linearly. Kept apart by label (role, layer, or both), they split the second
fundamental form exactly, `II = sum_a II_a`, and with it the scalar curvature by the Gauss equation:

    scal = sum_ab B_ab,    B_ab = tr II_a . tr II_b - <II_a, II_b>.

Nothing is ablated and nothing approximated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import ERRORS, Geometry, exceptional, sample
from fisherflat.jets import Jet, pairs
from fisherflat.jets.engines import Noise, TensorAlgebra, evaluated, in_chunks, memory_budget, start
from fisherflat.jets.graph import ROLES, Graph, Node
from fisherflat.jets.rules import Series
from fisherflat.parts.readings import LIVE
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian
from fisherflat.studies.depth._budget import CurvatureBudget, Part, without
from fisherflat.studies.depth._stack import Stack, Stage, over_points
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
    family: Gaussian | str | None = None,
    prompt: Any = None,
    halves: bool = False,
    reading: str = LIVE,
    degenerate: str = "raise",
    memory: int | None = None,
) -> CurvatureBudget:
    """The exact split of the scalar curvature by the parts where second-order terms are born.

    The second fundamental form is a sum over these parts, `II = sum_a II_a`, and by the Gauss equation
    `scal = sum_ab B_ab` with `B_ab = tr II_a . tr II_b - <II_a, II_b>`. Nothing is ablated and nothing approximated. A
    part that is frozen gets exactly zero. Labels that do not fit into memory at a time are taken in groups.

    **Args:**

    - `blocks`, `chart`, `u` `[*batch, k]`, `family`, `prompt`, `reading`, `degenerate` and `memory` as in
      `depth_profile`.
    - `by`: `"role"`, `"layer"` or `"layer-role"`, of which the first two are sums (`CurvatureBudget.by`).
    - `halves`: a layer is half of a block, such as `3 attention`.

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
    stack = read_stack(blocks, chart, prompt, family, halves, reading)
    chart = stack.chart
    return budget(stack, torch.zeros(chart.k) if u is None else u, by, degenerate=degenerate, memory=memory)


def budget(
    stack: Stack, u: Any, by: str = "layer-role", *, degenerate: str = "raise", memory: int | None = None
) -> CurvatureBudget:
    """The budget of a stack that has been traced; see `curvature_budget`."""
    k, points = stack.chart.k, stack.chart.coordinates(u)
    here = [_bending(stage, by) for stage in stack.stages]
    births = Counter(part for parts in here for part in parts)  # in how many maps a part has sources
    known = list(births)
    widest = max(stage.shape.numel() for stage in stack.stages)
    pieces = in_chunks(
        lambda chunk: _measure(stack, chunk, by, births, degenerate, memory),
        points.reshape(-1, k),
        2 * widest * (1 + k + len(known) * len(pairs(k))) * points.element_size(),  # what is kept between maps
        memory,
    )
    parts = {
        "role": [Part(role=role) for role in ROLES],
        "layer": [Part(layer=label) for label in stack.labels],
        "layer-role": known,
    }[by]
    index = torch.tensor([parts.index(part) for part in known], dtype=torch.long)

    def placed(matrices: Sequence[Tensor], *shape: int) -> Tensor:
        """Matrices over the parts that have sources, among those over all parts."""
        joined = torch.cat(list(matrices))
        full = joined.new_zeros(len(joined), len(parts), len(parts))
        full[:, index[:, None], index] = joined
        return full.reshape(*shape, *full.shape[1:])

    *matrices, skewness = zip(*pieces, strict=True)
    traces, products, born = (placed(column, *points.shape[:-1]) for column in matrices)
    several = torch.tensor([births[part] > 1 for part in parts], dtype=torch.bool, device=born.device)

    def noisy(which: Tensor) -> Tensor:
        with Noise(0):
            found = _measure(stack, points.reshape(-1, k)[which].repeat(_RUNS, 1), by, births, "nan", memory)[:3]
        return torch.stack([placed([column], _RUNS, len(which)) for column in found])

    sampled = sample(torch.cat(skewness), ERRORS["sample"])
    again = noisy(sampled)
    found = CurvatureBudget(tuple(parts), stack.labels, traces, products, without(born, several), again, sampled)
    odd = exceptional(found.verdicts.reshape(-1), sampled)
    if len(odd):
        found = replace(found, again=torch.cat([again, noisy(odd)], 2), sampled=torch.cat([sampled, odd]))
    return found


def _bending(stage: Stage, by: str) -> list[Part]:
    """The parts that have sources in a map."""
    return list(dict.fromkeys(_part(by, stage, role) for role in ROLES if role in stage.bending))


def _part(by: str, stage: Stage, role: str) -> Part:
    return Part(None if by == "role" else stage.label, None if by == "layer" else role)


def _measure(
    stack: Stack, u: Float[Tensor, "P k"], by: str, births: Counter[Part], degenerate: str, memory: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`traces`, `products` and `born` `[P, n, n]` of all parts with sources, in the order of `births`.

    And the skewness `[P]` of the tangents after the last map.
    """
    k, m, parts = stack.chart.k, len(pairs(stack.chart.k)), list(births)
    born = u.new_zeros(len(u), len(parts), len(parts))
    traces = products = torch.zeros_like(born)
    skewness = torch.ones_like(u[:, 0])
    state, n = start(stack.chart, u).data.transpose(0, 1), 0
    for depth, (stage, graph) in enumerate(zip(stack.stages, stack.graphs(), strict=True), 1):
        # parts take up coefficients from the first map on in which they have sources
        positions = {part: parts.index(part) for part in _bending(stage, by)}
        old, n = n, max(n, *(index + 1 for index in positions.values())) if positions else n
        if state.shape[1] > 1 + k:
            state = torch.cat([state, state.new_zeros(len(u), m * (n - old), *state.shape[2:])], 1)
        labels = {node: positions[_part(by, stage, node.role)] for node in graph.nodes if node.role in stage.bending}
        alone = [index for part, index in positions.items() if births[part] == 1]
        wanted = list(range(n)) if depth == len(stack.stages) else alone
        per_part = stage.footprint * m
        group = max(1, min(n, memory_budget(u.device, memory) // (per_part * u.element_size()) - 2))

        through = partial(_through, graph, k, n, labels, group)

        def step(
            chunk: Tensor,
            through: Callable[[Tensor], Tensor] = through,
            state: Tensor = state,
            family: Gaussian = stack.families[depth],
            wanted: list[int] = wanted,
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            after = through(state[chunk])
            shares, skewness = _shares(family.whiten(after.flatten(2)), k, wanted, degenerate, u[chunk])
            return after, _traces(shares, k), _products(shares, k), skewness

        pieces = over_points(step, u, stage.footprint * (1 + k) + per_part * (group + 1), memory)
        state, traces, products, skewness = (torch.cat(part) for part in zip(*pieces, strict=True))
        if alone:
            at, of = torch.tensor(alone), torch.tensor([wanted.index(index) for index in alone])
            born[:, at[:, None], at] = products[:, of[:, None], of]
    return traces, products, born, skewness


def _through(
    graph: Graph, k: int, n: int, labels: dict[Node, int], group: int, state: Float[Tensor, "P C *shape"]
) -> Float[Tensor, "P C2 *shape2"]:
    """Coefficients behind a map, the second-order ones of n parts apart, `group` parts at a time.

    What stems from the parts of another group is kept in one more block, and dropped.
    """
    m = len(pairs(k))
    seconds = []
    for first in range(0, max(n, 1), group):
        size = min(group, n - first)
        rest = size < n
        blocks = {node: part - first if first <= part < first + size else size for node, part in labels.items()}
        given = state
        if rest and state.shape[1] > 1 + k:
            taken = state[:, 1 + k + first * m : 1 + k + (first + size) * m]
            given = torch.cat([state[:, : 1 + k], taken, torch.zeros_like(state[:, :m])], 1)
        algebra = TensorAlgebra(blocks, max(1, size + rest))
        after = evaluated(algebra, graph, Series(given.transpose(0, 1), k)).data.transpose(0, 1)
        seconds.append(after[:, 1 + k : 1 + k + size * m])
    return torch.cat([after[:, : 1 + k], *seconds], 1)


def _shares(
    jets: Float[Tensor, "P C D"], k: int, wanted: list[int], degenerate: str, u: Tensor
) -> tuple[Float[Tensor, "P w m D"], Float[Tensor, " P"]]:
    """The parts' shares of the second fundamental form on the orthonormal frame, and the skewness of the tangents."""
    m = len(pairs(k))
    if not wanted:
        return jets.new_zeros(len(jets), 0, m, jets.shape[-1]), jets.new_ones(len(jets))
    first = torch.nn.functional.pad(jets[:, : 1 + k], (0, 0, 0, max(0, 1 + k - jets.shape[1])))
    if jets.shape[1] > 1 + k:
        second = jets[:, 1 + k :].unflatten(1, (-1, m))
    else:  # nothing bends so far
        second = jets.new_zeros(len(jets), 1 + max(wanted), m, jets.shape[-1])
    geometry = Geometry(Jet(torch.cat([first, second.sum(1)], 1), k), degenerate, u)
    return torch.stack([geometry.share(second[:, part]) for part in wanted], 1), geometry.skewness


def _traces(shares: Float[Tensor, "P n m D"], k: int) -> Float[Tensor, "P n n"]:
    diagonal = [index for index, (a, b) in enumerate(pairs(k)) if a == b]
    trace = shares[:, :, diagonal].sum(2)
    return trace @ trace.mT


def _products(shares: Float[Tensor, "P n m D"], k: int) -> Float[Tensor, "P n n"]:
    # each pair a <= b stands once or twice in a full sum over a and b
    weights = torch.tensor([1.0 if a == b else 2.0 for a, b in pairs(k)], dtype=shares.dtype, device=shares.device)
    weighted = (shares * weights[:, None].sqrt()).flatten(2)
    return weighted @ weighted.mT
