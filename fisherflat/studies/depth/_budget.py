"""A split of the scalar curvature over the parts to which it is attributed; see `_attribution`, which makes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fisherflat._display import Card, displayed
from fisherflat._typing import Bool, Float, Int, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import ERRORS, Verdict, carried, decided, turn
from fisherflat.jets.engines import spread
from fisherflat.jets.graph import ROLES

if TYPE_CHECKING:
    import pandas


#: of what a budget knows the error
ERRED = ("matrix", "attributed", "own", "interaction", "scalar_curvature", "second_fundamental_form_norm")
#: the parts of a family with a metric of its own: its second-order terms, and the curvature of its space
EXTRAS = ("family", "ambient")
_UNDECIDED = list(Verdict).index(Verdict.UNDECIDED)


@displayed
@dataclass(frozen=True)
class Part:
    """What a label stands for: a layer (or half of one), a role, or a role in a layer."""

    layer: str | None = None
    role: str | None = None

    @property
    def label(self) -> str:
        """Such as `layer 3`, `norm`, `3 mlp: norm`."""
        return ": ".join(name for name in (self.layer, self.role) if name)


@displayed
@dataclass(frozen=True, eq=False)
class CurvatureBudget:
    """The scalar curvature, attributed to the parts in which its second-order terms are born.

    **Attributes:**

    - `parts`, n of them; `layers`, the names of all maps of the stack. With a family of its own metric `family` and
      `ambient` are among the parts, and `readout`, a model's final norm and head, among the maps.
    - `traces` and `products` `[*batch, n, n]`, symmetric: `tr II_a . tr II_b` and `<II_a, II_b>` after the last map, in
      units of 1 / covariance.
    - `born` `[*batch, n, n]`, symmetric: `<II_a, II_b>` after the map in which the sources of a and of b are born, zero
      where these are two maps, and NaN on the diagonal where those of a are born in several.
    - `again`: these three at s points from arithmetic with noise, for `error`; `sampled` `[s]`, at which, as positions
      among all points in one row (`None`: the first). `size` `[*batch]`: the length of what comes out, in standard
      deviations. Older files lack these.
    """

    parts: tuple[Part, ...]
    layers: tuple[str, ...]
    traces: Float[Tensor, "*batch n n"]
    products: Float[Tensor, "*batch n n"]
    born: Float[Tensor, "*batch n n"]
    again: Float[Tensor, "3 runs s n n"] | None = None
    sampled: Int[Tensor, " s"] | None = None
    size: Float[Tensor, "*batch"] | None = None

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
    def second_fundamental_form_norm(self) -> Float[Tensor, "*batch"]:
        """`|II|` after the last map."""
        return self.products.sum((-2, -1)).clamp_min(0).sqrt()

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

        **Args:** `name`: `"matrix"`, `"attributed"`, `"own"`, `"interaction"`, `"scalar_curvature"`, the sum, or
        `"second_fundamental_form_norm"`.

        **Returns:** a tensor of its shape: estimated at a sample of the points (see docs/precision.md), carried over to
        the others.

        **Raises:** `InputError` for another name, and for a budget that was made without.
        """
        if name not in ERRED:
            raise InputError(f"errors are known of {', '.join(ERRED)}, not of {name!r}")
        if self.again is None:
            raise InputError("this budget was made without errors; make it anew")
        traces, products, born = self.again
        noisy = getattr(replace(self, traces=traces, products=products, born=born, again=None, size=None), name)
        found, batch = getattr(self, name), self.traces.shape[:-2]
        flat = found.reshape(-1, *found.shape[len(batch) :])
        sampled = torch.arange(noisy.shape[1]) if self.sampled is None else self.sampled
        scale = (self.traces.abs() + self.products.abs()).sum((-2, -1)).reshape(-1).nan_to_num()
        scale = scale.sqrt() if name == ERRED[-1] else scale
        own = spread(flat[sampled], noisy)
        first = -(
            -len(flat) // ERRORS["sample"]
        )  # those behind them are exceptional, and nothing is carried from there
        error = carried(own[:first], scale[sampled[:first]], scale)
        error[sampled] = torch.where(own.isnan(), error[sampled], own)
        return torch.where(flat.isnan(), flat, error).reshape(found.shape)

    @property
    def undecided(self) -> Bool[Tensor, "*batch"]:
        """Where the error of the scalar curvature exceeds its value and is not small, see docs/precision.md."""
        return self.verdicts == _UNDECIDED

    @property
    def verdicts(self) -> Int[Tensor, "*batch"]:
        """What is known of the scalar curvature, as positions among `fisherflat.geometry.Verdict`, -1 where nothing."""
        total = self.scalar_curvature
        if self.again is None:
            return torch.full_like(total, -1, dtype=torch.int64)
        scale = (self.traces + self.products).sum((-2, -1))
        bend = torch.full_like(total, torch.inf)
        if self.parts and self.parts[-1].role == EXTRAS[-1]:  # which may be negative
            scale = scale + 2 * self.traces[..., -1, -1].clamp_max(0).abs()
        elif self.size is not None:
            bend = turn(self.second_fundamental_form_norm, self.error("second_fundamental_form_norm"), self.size)
        return decided(total, self.error("scalar_curvature"), scale, bend)

    @property
    def decided(self) -> CurvatureBudget:
        """The same with NaN at the undecided points, so that they enter no mean."""
        away = self.undecided[..., None, None]
        if not away.any():
            return self
        tensors = (self.traces, self.products, self.born)
        traces, products, born = (tensor.masked_fill(away, float("nan")) for tensor in tensors)
        return replace(self, traces=traces, products=products, born=born)

    def mean(self, name: str) -> Float[Tensor, "*rest"]:
        """The mean of a property, such as `"attributed"`, over the points that have a geometry and are decided."""
        return self._averaged(getattr(self.decided, name))

    def mean_error(self, name: str = "attributed") -> Float[Tensor, "*rest"]:
        """The mean error over these points, which that of the mean does not exceed; NaN where none is known.

        **Args:** `name`, as in `error`.
        """
        found = getattr(self, name)
        away = self.undecided.reshape((*self.undecided.shape, *(1,) * (found.dim() - self.undecided.dim())))
        errors = torch.full_like(found, torch.nan) if self.again is None else self.error(name)
        return self._averaged(errors.masked_fill(away, float("nan")))

    def _averaged(self, values: Tensor) -> Tensor:
        return values.flatten(0, self.traces.dim() - 3).nanmean(0) if self.traces.dim() > 2 else values

    def by(self, split: str) -> CurvatureBudget:
        """The same budget for coarser parts, `"role"` or `"layer"`: exact, since shares of `II` add up.

        **Raises:** `InputError` where this budget does not tell them apart.
        """
        extras = tuple(part for part in self.parts if part.role in EXTRAS)
        if split == "layer":
            parts: tuple[Part, ...] = (*(Part(layer=layer) for layer in self.layers), *extras)
            owners = [part if part in extras else Part(layer=part.layer) for part in self.parts]
        elif split == "role":
            parts = (*(Part(role=role) for role in ROLES), *extras)
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
        mixed = [len(some) > 1 or part in extras for part, some in zip(parts, layers, strict=True)]
        several = torch.tensor(mixed, dtype=torch.bool, device=born.device)
        born = without(born, several)
        return CurvatureBudget(parts, self.layers, traces, products, born, again, self.sampled, self.size)

    @property
    def table(self) -> pandas.DataFrame:
        """The matrix with its labels, averaged over the points that have a geometry and are decided."""
        return self._labelled(self.mean("matrix"))

    @property
    def error_table(self) -> pandas.DataFrame:
        """How far off rounding may have put the entries of `table`."""
        return self._labelled(self.mean_error("matrix"))

    def _labelled(self, matrix: Tensor) -> pandas.DataFrame:
        import pandas

        return pandas.DataFrame(matrix.cpu().numpy(), index=list(self.labels), columns=list(self.labels))

    def _card(self) -> Card:
        each = self.matrix.reshape(-1, len(self.parts), len(self.parts))
        matrix = each.nanmean(0)
        rows = list(zip(self.labels, matrix.sum(1).tolist(), matrix.diagonal().tolist(), strict=True))
        about = {"mean scalar curvature": matrix.sum().item(), "points": len(each)}
        return Card("CurvatureBudget", about, ("part", "attributed", "alone"), rows)


def without(born: Float[Tensor, "*batch n n"], several: Tensor) -> Float[Tensor, "*batch n n"]:
    """`born` with NaN on the diagonal of parts that are born in several maps."""
    return born.masked_fill(torch.diag(several), float("nan"))
