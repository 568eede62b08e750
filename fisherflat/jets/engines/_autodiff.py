"""The `torch.func` engine: torch's own derivatives of the map, the oracle that the other engine is tested against.

What is differentiated is the tape, the torch ops that the map called, and not the map once more: so custom autograd
functions, `detach` and derivatives inside the map are what they compute, the user's code runs in no transform, and
nothing of torch is patched. It shares no decomposition and no rule with the other engine.

Second derivatives are reverse over reverse: each output's gradient, differentiated in reverse again. Forward mode is
left out on purpose. Nested, it returns wrong second derivatives through fused norms without saying so (PyTorch issues
196700, 196699, 198017), over reverse mode it still does through `cholesky_inverse`, and many ops do not have it. The
cost grows with the number D of outputs, which are differentiated one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property

import torch
from torch.func import jacrev, vjp, vmap

from fisherflat._typing import Float, Tensor
from fisherflat.errors import FisherflatError, TraceError, UnsupportedOpError
from fisherflat.jets.engines._chunks import is_out_of_memory, memory_budget
from fisherflat.jets.engines._derivatives import check
from fisherflat.jets.engines._fallback import padded
from fisherflat.jets.engines._trust import EQUALITIES, trusted
from fisherflat.jets.graph import Constants
from fisherflat.jets.recording import Tape
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.jets import pairs

aten = torch.ops.aten


class AutodiffEngine:
    """2-jets of `mean(chart(u))` by nested transforms of `torch.func`.

    As in a traced graph, casts to a lower precision are dropped, and `detach` and `no_grad` inside the map do not hide
    what it depends on: the derivatives are those of the function that the map computes. Those of each op are compared
    with differences of its values once, and its values at several points at once with those at each. Where jets do not
    fit the map's values nearby, as at a singularity that can be lifted, the ops are compared there too.

    **Args:** `tape`, of the map, and `points` where it was checked; `chart`, on the device to run on; `dim`, the number
    D of outputs; `memory`, a budget in bytes (default: a share of what is free), within which outputs are taken
    together; `program`, how constants are made of live weights: then jets have gradients where these are recorded.

    **Raises:** `UnsupportedOpError` for an op whose second derivative torch does not know, or third where jets have
    gradients.
    """

    def __init__(
        self,
        tape: Tape,
        points: Sequence[Tensor],
        chart: Chart,
        dim: int,
        memory: int | None = None,
        program: Constants | None = None,
    ) -> None:
        self._chart, self._dim, self._memory, self.program = chart, dim, memory, program
        self._dtype, self._tape = points[0].dtype, tape
        self._map = tape.raised(self._dtype)
        self.chunk_memory = memory
        with _differentiating():
            self._batches = check(tape, points, chart)
        if program is not None:
            self._probe(program)

    @property
    def bytes_per_point(self) -> int:
        """An estimate: what one reverse pass keeps, times outputs, times derivatives, times 2 (measured: 1 to 1.9)."""
        return self._bytes_per_output * (1 + self._together)

    @property
    def tape_per_point(self) -> int:
        """The same again for third derivatives."""
        return 4 * self.bytes_per_point

    @cached_property
    def _bytes_per_output(self) -> int:
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() * tensor.element_size()
            return tensor

        point = self._chart.point.to(self._dtype, copy=True).requires_grad_()
        hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
        with _differentiating(), hooks:
            self._map(point.clone())
        return 2 * max(kept, point.numel() * point.element_size()) * (1 + self._chart.k)

    @property
    def _together(self) -> int:
        """How many outputs are differentiated at a time: all, or what fits for one point."""
        if not self._batches:
            return 1
        budget = memory_budget(self._chart.point.device, self._memory)
        return max(1, min(self._dim, budget // self._bytes_per_output - 1))

    def jet(self, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"] | None = None) -> Float[Tensor, "P S D"]:
        """The coefficients of the 2-jets at the points `u`, along the chart's directions or others at each point."""
        if self.program is None:
            return self._jet(u, basis, taping=False)
        live = copy(self)
        live._map = self._tape.live(self._dtype, self.program.constants())
        return live._jet(u, basis, taping=torch.is_grad_enabled())

    def _jet(self, u: Tensor, basis: Tensor | None, taping: bool) -> Tensor:
        if basis is None:
            return self._along_chart(u, taping)
        points, origin = self._chart(u), u.new_zeros(1, self._chart.k)
        charts = (Chart(*at) for at in zip(points, basis, strict=True))
        return torch.cat([self.on(c.taped if taping else c)._along_chart(origin, taping) for c in charts])

    def _probe(self, program: Constants) -> None:
        """Whether torch has third derivatives in reverse mode, and those of jets: compared with differences once."""
        probe = copy(self)
        probe._chart = Chart(self._chart.point.detach(), self._chart.basis.detach())
        with torch.no_grad():
            constants = program.constants()
        point = torch.zeros(1, self._chart.k, dtype=self._dtype, device=self._chart.point.device)
        given: dict[int | None, Tensor] = {None: point + 2.0**-4}
        given |= {i: t for i, t in constants.items() if t.is_floating_point()}
        generator = torch.Generator().manual_seed(6)
        along = {i: torch.randn(t.shape, generator=generator).to(t) for i, t in given.items()}

        def jet(at: dict[int | None, Tensor]) -> Tensor:
            probe._map = self._tape.live(self._dtype, constants | {i: t for i, t in at.items() if i is not None})
            return probe._jet(at[None], None, taping=torch.is_grad_enabled())

        try:
            with torch.enable_grad():
                leaves = {i: t.detach().clone().requires_grad_() for i, t in given.items()}
                found = jet(leaves)
                weights = torch.randn(found.shape, generator=generator).to(found)
                total = (found.nan_to_num() * weights).sum()
                slopes = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
            with torch.no_grad():
                for (i, v), slope in zip(along.items(), slopes, strict=True):
                    mine = 0.0 if slope is None else float((slope * v).sum())
                    steps = [s * torch.finfo(self._dtype).eps ** 0.25 / v.norm().clamp_min(1) for s in (1.0, 0.5)]
                    ahead, behind = ([jet({**given, i: given[i] + s * h * v}) for h in steps] for s in (1, -1))
                    said = [((a - b) * weights).sum() / (2 * h) for a, b, h in zip(ahead, behind, steps, strict=True)]
                    doubt = 10 * abs(said[0] - said[1]) + 1e-3 * abs(said[1]) + 1e-3 * abs(mine)
                    if said[1].isfinite() and abs(mine - said[1]) > doubt + 1e-4 * found.abs().nan_to_num().amax():
                        raise NotImplementedError("what it returns is not the slope of second derivatives")
        except (RuntimeError, NotImplementedError) as error:
            if isinstance(error, FisherflatError) or is_out_of_memory(error):
                raise
            raise UnsupportedOpError(
                f"torch has no third derivative in reverse mode of an op of this map ({error}), which gradients of "
                'curvature need; write that step in simpler ops, or use engine="taylor"'
            ) from error

    def on(self, chart: Chart) -> AutodiffEngine:
        """The same engine along other directions, those of `chart`."""
        other = copy(self)
        if chart.k != self._chart.k:
            vars(other).pop("_bytes_per_output", None)
        other._chart = chart
        return other

    def _along_chart(self, u: Tensor, taping: bool) -> Tensor:
        k = self._chart.k

        def f(v: Tensor) -> Tensor:
            return self._map(self._chart(v)).reshape(-1).to(v.dtype)

        with _differentiating():
            # a view for each point: torch's batch_norm cannot be differentiated twice where only one of two is batched
            cotangents = torch.eye(self._dim, dtype=u.dtype, device=u.device).expand(u.shape[0], -1, -1)
            chunk = None if self._batches else 1
            jets = vmap(_two_jet(f, self._together, chunk), chunk_size=chunk)
            value, jacobian, hessian = jets(u.clone(), cotangents)
        first, second = torch.tensor(pairs(k), device=u.device).T
        out = torch.cat([value[:, None], jacobian.mT, hessian[..., first, second].mT], 1)
        found = out.detach().clone()
        self._check(u.detach(), found, f)
        if not taping:
            return found
        # what the check has taken for no number
        return out if found[:, 1:].isnan().equal(out[:, 1:].isnan()) else out.masked_fill(found.isnan(), torch.nan)

    def _check(self, u: Tensor, found: Tensor, f: Callable[[Tensor], Tensor]) -> None:
        """Raises `UnsupportedOpError` where jets are not those of the map, and an op can be named that is why.

        Where an equality may be why, which holds there and not nearby, derivatives are no number.
        """
        k = self._chart.k
        identity = torch.cat([u[None], torch.eye(k).to(u)[:, None].expand(-1, len(u), -1)])
        data, jets = padded(identity, found.shape[1]), found.transpose(0, 1)

        def values(x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            with torch.no_grad():
                return (vmap(f, chunk_size=None if self._batches else 1)(x[0]),)

        equalities = any(node.packet in (*EQUALITIES, aten.nan_to_num) for node in self._tape.nodes)
        if trusted(values, [data], [jets], k, equalities):
            return
        for i, point in enumerate(self._chart(u).detach().to(self._dtype)):
            with _differentiating():
                check(self._tape, [point], self._chart)
            at = slice(i, i + 1)
            if equalities and not trusted(values, [data[:, at]], [jets[:, at]], k, equalities):
                found[i, 1:] = torch.nan


def _two_jet(
    f: Callable[[Tensor], Tensor], together: int, chunk: int | None
) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """From `u` and the unit vectors of the output to `f`, gradients and Hessians, so many outputs at a time.

    `chunk`: how many rows of a Hessian at a time. They have the shapes `[D]`, `[D, k]` and `[D, k, k]`.
    """

    def row(cotangent: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        def gradient(v: Tensor) -> tuple[Tensor, Tensor]:
            (slope,) = vjp(f, v)[1](cotangent)
            return slope, slope

        hessian, slope = jacrev(gradient, has_aux=True, chunk_size=chunk)(u)
        return slope, hessian

    return lambda u, cotangents: (f(u), *vmap(row, in_dims=(0, None), chunk_size=together)(cotangents, u))


@contextmanager
def _differentiating() -> Iterator[None]:
    """Where torch differentiates the map, with errors of ours."""
    try:
        # outside grad mode torch takes shortcuts that leave second derivatives wrong (linalg.solve, det) or undefined
        with torch.inference_mode(False), torch.enable_grad():
            yield
    except FisherflatError:
        raise
    except NotImplementedError as error:
        raise UnsupportedOpError(
            f"torch has no second derivative of an op of this map ({error}); write that step in simpler ops, or use "
            'engine="taylor"'
        ) from error
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise TraceError(f"torch cannot differentiate this map: {error}. Write it in simpler ops") from error
