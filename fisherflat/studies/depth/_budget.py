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
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import ERRORS, Geometry, carried
from fisherflat.jets import Jet, pairs
from fisherflat.jets.engines import Noise, TensorAlgebra, evaluated, in_chunks, memory_budget, spread, start
from fisherflat.jets.graph import ROLES, Graph, Node
from fisherflat.jets.rules import Series
from fisherflat.parts.readings import LIVE
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian
from fisherflat.studies.depth._stack import Stack, Stage, over_points
from fisherflat.studies.depth._subject import read_stack

if TYPE_CHECKING:
    import pandas


#: of what a budget knows the error
ERRED = ("matrix", "attributed", "own", "interaction", "scalar_curvature")
#: how often they are estimated
_RUNS = 2
#: what a budget can be split by
SPLITS = ("role", "layer", "layer-role")


@dataclass(frozen=True)
class Part:
    """What a label stands for: a layer (or half of one), a role, or a role in a layer."""

    layer: str | None = None
    role: str | None = None

    @property
    def label(self) -> str:
        """Such as `layer 3`, `norm`, `3 mlp: norm`."""
        return ": ".join(name for name in (self.layer, self.role) if name)


@dataclass(frozen=True, eq=False)
class CurvatureBudget:
    """The scalar curvature, attributed to the parts in which its second-order terms are born.

    **Attributes:**

    - `parts`, n of them; `layers`, the names of all maps of the stack.
    - `traces` and `products` `[*batch, n, n]`, symmetric: `tr II_a . tr II_b` and `<II_a, II_b>` after the last map, in
      units of 1 / covariance.
    - `born` `[*batch, n, n]`, symmetric: `<II_a, II_b>` after the map in which the sources of a and of b are born, zero
      where these are two maps, and NaN on the diagonal where those of a are born in several.
    - `again`: these three at the first s points from arithmetic with noise, for `error`; `None` in older files.
    """

    parts: tuple[Part, ...]
    layers: tuple[str, ...]
    traces: Float[Tensor, "*batch n n"]
    products: Float[Tensor, "*batch n n"]
    born: Float[Tensor, "*batch n n"]
    again: Float[Tensor, "3 runs s n n"] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the parts."""
        return tuple(part.label for part in self.parts)

    @property
    def matrix(self) -> Float[Tensor, "*batch n n"]:
        """`B_ab = tr II_a . tr II_b - <II_a, II_b>`, whose sum is the scalar curvature."""
        return self.traces - self.products

    @property
    def scalar_curvature(self) -> Float[Tensor, "*batch"]:
        """The sum of the matrix."""
        return self.matrix.sum((-2, -1))

    @property
    def attributed(self) -> Float[Tensor, "*batch n"]:
        """What is attributed to each part, `own + interaction`; it sums to the scalar curvature."""
        return self.matrix.sum(-1)

    @property
    def own(self) -> Float[Tensor, "*batch n"]:
        """The diagonal: what each part would make alone, the others' sources taken away."""
        return self.matrix.diagonal(dim1=-2, dim2=-1)

    @property
    def interaction(self) -> Float[Tensor, "*batch n"]:
        """Each part's half of what it makes together with others: row sums without the diagonal."""
        return self.attributed - self.own

    @property
    def share(self) -> Float[Tensor, "*batch n"]:
        """`attributed / scal`, with sign; NaN where the scalar curvature vanishes."""
        total = self.scalar_curvature
        return self.attributed / total.masked_fill(total == 0, float("nan")).unsqueeze(-1)

    @property
    def created(self) -> Float[Tensor, "*batch n"]:
        """`|II_a|` after the map in which its sources are born; NaN for a part with sources in several maps."""
        return self.born.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()

    @property
    def surviving(self) -> Float[Tensor, "*batch n"]:
        """`|II_a|` after the last map."""
        return self.products.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()

    @property
    def transport(self) -> Float[Tensor, "*batch n"]:
        """`surviving / created`: above 1 where later maps amplify what a part made; NaN where it made nothing."""
        return self.surviving / self.created.masked_fill(self.created == 0, float("nan"))

    def error(self, name: str = "attributed") -> Tensor:
        """How far off rounding may have put what is attributed, by entry: it loses digits before its total does.

        **Args:** `name`: `"matrix"`, `"attributed"`, `"own"`, `"interaction"` or `"scalar_curvature"`, the sum.

        **Returns:** a tensor of its shape: estimated at a sample of the points (see docs/precision.md), carried over to
        the others.

        **Raises:** `InputError` for another name, and for a budget that was made without.
        """
        if name not in ERRED:
            raise InputError(f"errors are known of {', '.join(ERRED)}, not of {name!r}")
        if self.again is None:
            raise InputError("this budget was made without errors; make it anew")
        traces, products, born = self.again
        noisy = getattr(replace(self, traces=traces, products=products, born=born, again=None), name)
        found, batch = getattr(self, name), self.traces.shape[:-2]
        flat, sampled = found.reshape(-1, *found.shape[len(batch) :]), noisy.shape[1]
        scale = (self.traces.abs() + self.products.abs()).sum((-2, -1)).reshape(-1).nan_to_num()
        own = spread(flat[:sampled], noisy)
        error = carried(own, scale[:sampled], scale)
        error[:sampled] = torch.where(own.isnan(), error[:sampled], own)
        return torch.where(flat.isnan(), flat, error).reshape(found.shape)

    def by(self, split: str) -> CurvatureBudget:
        """The same budget for coarser parts, `"role"` or `"layer"`: exact, since shares of `II` add up.

        **Raises:** `InputError` where this budget does not tell them apart.
        """
        if split == "layer":
            parts: tuple[Part, ...] = tuple(Part(layer=layer) for layer in self.layers)
            owners = [Part(layer=part.layer) for part in self.parts]
        elif split == "role":
            parts = tuple(Part(role=role) for role in ROLES)
            owners = [Part(role=part.role) for part in self.parts]
        else:
            raise InputError(f'a budget can be made coarser by "role" or "layer", got {split!r}')
        if not set(owners) <= set(parts):
            raise InputError(f'this budget is not split by {split}; make it with by="layer-role"')
        member = torch.tensor([[owner == part for part in parts] for owner in owners]).reshape(-1, len(parts))
        member = member.to(self.traces)
        traces, products, born = (member.T @ m @ member for m in (self.traces, self.products, self.born))
        again = None if self.again is None else member.T @ self.again @ member
        layers = [{part.layer for part, owner in zip(self.parts, owners, strict=True) if owner == one} for one in parts]
        several = torch.tensor([len(some) > 1 for some in layers], dtype=torch.bool, device=born.device)
        return CurvatureBudget(parts, self.layers, traces, products, _without(born, several), again)

    @property
    def table(self) -> pandas.DataFrame:
        """The matrix with its labels, averaged over the points that have a geometry."""
        import pandas

        n = len(self.labels)
        points = self.matrix.shape[:-2].numel()
        mean = self.matrix.reshape(points, n, n).nanmean(0).cpu().numpy()
        return pandas.DataFrame(mean, index=list(self.labels), columns=list(self.labels))


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

    traces, products, born = (placed(matrices, *points.shape[:-1]) for matrices in zip(*pieces, strict=True))
    sample = points.reshape(-1, k)[: -(-points[..., 0].numel() // ERRORS["sample"])]
    with Noise(0):
        noisy = _measure(stack, sample.repeat(_RUNS, 1), by, births, "nan", memory)
    again = torch.stack([placed([matrices], _RUNS, len(sample)) for matrices in noisy])
    several = torch.tensor([births[part] > 1 for part in parts], dtype=torch.bool, device=born.device)
    return CurvatureBudget(tuple(parts), stack.labels, traces, products, _without(born, several), again)


def _bending(stage: Stage, by: str) -> list[Part]:
    """The parts that have sources in a map."""
    return list(dict.fromkeys(_part(by, stage, role) for role in ROLES if role in stage.bending))


def _part(by: str, stage: Stage, role: str) -> Part:
    return Part(None if by == "role" else stage.label, None if by == "layer" else role)


def _without(born: Float[Tensor, "*batch n n"], several: Tensor) -> Float[Tensor, "*batch n n"]:
    """`born` with NaN on the diagonal of parts that are born in several maps."""
    return born.masked_fill(torch.diag(several), float("nan"))


def _measure(
    stack: Stack, u: Float[Tensor, "P k"], by: str, births: Counter[Part], degenerate: str, memory: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`traces`, `products` and `born` `[P, n, n]` of all parts with sources, in the order of `births`."""
    k, m, parts = stack.chart.k, len(pairs(stack.chart.k)), list(births)
    born = u.new_zeros(len(u), len(parts), len(parts))
    traces = products = torch.zeros_like(born)
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
        ) -> tuple[Tensor, Tensor, Tensor]:
            after = through(state[chunk])
            shares = _shares(family.whiten(after.flatten(2)), k, wanted, degenerate, u[chunk])
            return after, _traces(shares, k), _products(shares, k)

        pieces = over_points(step, u, stage.footprint * (1 + k) + per_part * (group + 1), memory)
        state, traces, products = (torch.cat(part) for part in zip(*pieces, strict=True))
        if alone:
            at, of = torch.tensor(alone), torch.tensor([wanted.index(index) for index in alone])
            born[:, at[:, None], at] = products[:, of[:, None], of]
    return traces, products, born


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
) -> Float[Tensor, "P w m D"]:
    """The parts' shares of the second fundamental form on the orthonormal frame."""
    m = len(pairs(k))
    if not wanted:
        return jets.new_zeros(len(jets), 0, m, jets.shape[-1])
    first = torch.nn.functional.pad(jets[:, : 1 + k], (0, 0, 0, max(0, 1 + k - jets.shape[1])))
    if jets.shape[1] > 1 + k:
        second = jets[:, 1 + k :].unflatten(1, (-1, m))
    else:  # nothing bends so far
        second = jets.new_zeros(len(jets), 1 + max(wanted), m, jets.shape[-1])
    geometry = Geometry(Jet(torch.cat([first, second.sum(1)], 1), k), degenerate, u)
    return torch.stack([geometry.share(second[:, part]) for part in wanted], 1)


def _traces(shares: Float[Tensor, "P n m D"], k: int) -> Float[Tensor, "P n n"]:
    diagonal = [index for index, (a, b) in enumerate(pairs(k)) if a == b]
    trace = shares[:, :, diagonal].sum(2)
    return trace @ trace.mT


def _products(shares: Float[Tensor, "P n m D"], k: int) -> Float[Tensor, "P n n"]:
    # each pair a <= b stands once or twice in a full sum over a and b
    weights = torch.tensor([1.0 if a == b else 2.0 for a, b in pairs(k)], dtype=shares.dtype, device=shares.device)
    weighted = (shares * weights[:, None].sqrt()).flatten(2)
    return weighted @ weighted.mT
