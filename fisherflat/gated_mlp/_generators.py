"""The generators of the continuous symmetries of a gated MLP, and how far they are from being null directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fisherflat._arrays import as_float64
from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.gated_mlp._defects import relative
from fisherflat.gated_mlp._extraction import gated_units
from fisherflat.gated_mlp._units import GatedUnits

#: inputs at a time, so that memory grows with the units and not with the inputs
_CHUNK = 1024


@displayed
@dataclass(frozen=True, eq=False)
class BrokenScaling:
    """How strongly the inverse scaling of each unit is broken on given inputs, `[h]` each; see `broken_scaling`.

    With `z = g·x` and `w = u·x`, the generator (g, -p u) moves the unit's score by `r = (φ'(z) z - p φ(z)) w`.

    **Attributes:**

    - `strength`: `(E r² / E[(φ'(z) z w)² + (p φ(z) w)²])^½`, which is 0 where the symmetry holds and at most √2, no
      matter how the unit is scaled.
    - `eigenvalue`: the Fisher information along the generator of length 1, `|v|² E r² / (|g|² + p²|u|²)`. It is what
      the zero eigenvalue is lifted to, as far as no other weight makes up for it.
    - `effective_degree`: the p for which `E r²` is least, the degree of the power that the activation resembles on the
      unit's inputs: 1 for a SiLU with large pre-activations, NaN for a unit that is silent.
    """

    strength: Float[Tensor, " h"]
    eigenvalue: Float[Tensor, " h"]
    effective_degree: Float[Tensor, " h"]


def generators(units: GatedUnits) -> Float[Tensor, "m p"]:
    """The generators of the symmetries that hold, of length 1, over all weights: gates, ups, values, unit by unit.

    Where the activation is homogeneous of degree p, the first h are those of inverse scaling, (g, -p u, 0), one a unit.
    The others are those of output scaling, (0, u, -v), which always holds (arXiv 2606.22172).

    **Args:**

    - `units`: from `gated_units`, with P weights in all.

    **Returns:** the generators `[2h, P]`, or `[h, P]` where the activation is not homogeneous.

    >>> import fisherflat as ff
    >>> ff.symmetry.generators(ff.symmetry.gated_units(ff.layers.GatedMLP(4, 6, "relu"))).shape
    torch.Size([12, 72])
    """
    zero = torch.zeros_like
    rows = [(zero(units.gate), units.up, -units.value)]
    if units.homogeneity.degree is not None:
        rows.insert(0, (units.gate, -units.degree * units.up, zero(units.value)))
    return torch.cat([_normalised(torch.cat([_apart(part) for part in row], 1)) for row in rows])


def broken_scaling(mlp: Any, inputs: Float[Tensor, "*batch d"]) -> BrokenScaling:
    """How strongly each unit's inverse scaling is broken, with p = 1 where the activation is not homogeneous.

    It costs as much as a forward pass, for an MLP of any size.

    **Args:**

    - `mlp`: anything that `gated_units` takes.
    - `inputs`: the inputs `[..., d]` over which expectations are taken.

    **Returns:** `BrokenScaling`, which has the formulas.

    **Raises:** as `gated_units`.

    >>> import torch, fisherflat as ff
    >>> inputs = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> bool(ff.symmetry.broken_scaling(ff.layers.GatedMLP(4, 6, "relu2"), inputs).strength.max() < 1e-12)
    True
    """
    inputs = as_float64(inputs, "inputs")
    units = gated_units(mlp, inputs)
    moments = torch.zeros(3, len(units.gate), dtype=torch.float64, device=units.gate.device)
    broken = torch.zeros_like(moments[0])
    count = 0
    for by_gate, by_up in _moved(units, inputs):
        moments += torch.stack([by_gate.square().sum(0), by_up.square().sum(0), (by_gate * by_up).sum(0)])
        broken += (by_gate - units.degree * by_up).square().sum(0)
        count += len(by_gate)
    gate, up, mixed = moments / count
    broken /= count
    return BrokenScaling(
        relative(broken, gate + units.degree**2 * up).sqrt(),
        relative(broken * units.value.square().sum(1), _lengths(units)),
        mixed / up,
    )


def generator_metric(mlp: Any, inputs: Float[Tensor, "*batch d"]) -> Float[Tensor, "generators generators"]:
    """The Fisher metric of the weights restricted to the 2h generators of length 1: inverse, then output scalings.

    The block of inverse scalings is `(v_i·v_j) E[r_i r_j]`, with `r` as in `BrokenScaling`, in O(N h² + h² D): no
    Jacobian, and no matrix over the weights. All else is zero, because output scaling leaves every score as it is times
    its value: `φ(z) w v - φ(z) w v`. Where the activation is homogeneous the whole matrix is zero to rounding.

    **Args:**

    - `mlp`: anything that `gated_units` takes, of any size.
    - `inputs`: the inputs `[..., d]` over which expectations are taken.

    **Returns:** the metric `[2h, 2h]`, in squared output units per squared weight.

    **Raises:** as `gated_units`.

    >>> import torch, fisherflat as ff
    >>> ff.symmetry.generator_metric(ff.layers.GatedMLP(4, 6), torch.eye(4)).shape
    torch.Size([12, 12])
    """
    inputs = as_float64(inputs, "inputs")
    units = gated_units(mlp, inputs)
    h = len(units.gate)
    metric = torch.zeros(2 * h, 2 * h, dtype=torch.float64, device=units.gate.device)
    block, count = metric[:h, :h], 0
    for by_gate, by_up in _moved(units, inputs):
        moved = by_gate - units.degree * by_up
        block += moved.T @ moved
        count += len(moved)
    lengths = _lengths(units).sqrt()
    block *= (units.value @ units.value.T) / count / lengths / lengths[:, None]
    return metric


def _moved(units: GatedUnits, inputs: Tensor) -> Any:
    """`φ'(z) z w` and `φ(z) w`, by which scaling up gate and up of a unit moves its score, some inputs at a time."""
    for x in units.inputs(inputs).reshape(-1, units.gate.shape[1]).split(_CHUNK):
        z, w = x @ units.gate.T, x @ units.up.T
        value, slope = units.activated(z)
        yield slope * z * w, value * w


def _lengths(units: GatedUnits) -> Tensor:
    """Squared lengths of the generators of inverse scaling."""
    return units.gate.square().sum(1) + units.degree**2 * units.up.square().sum(1)


def _apart(rows: Tensor) -> Tensor:
    """`[h, n]` to `[h, h n]`: row i in the i-th place of length n, and zeros."""
    return torch.einsum("in,ij->ijn", rows, torch.eye(len(rows)).to(rows)).flatten(1)


def _normalised(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)
