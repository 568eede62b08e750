"""Errors of geometric quantities, and what they leave to be said."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import torch

from fisherflat._display import displayed
from fisherflat._modes import lasting, lazy, unrounded
from fisherflat._typing import Float, Int, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry._words import decided, turn
from fisherflat.jets.engines import Noise, spread
from fisherflat.spaces.families import Ambient
from fisherflat.spaces.jets import Jet

#: what some quantities are the length of; their errors are its own, since near zero noise turns it rather than
#: stretches it
_VECTORS = {
    "second_fundamental_form_norm": "_form",
    "mean_curvature_norm": "mean_curvature",
    "efron_curvature": "_efron",
}
#: how often an error is estimated, of which the largest counts
_RUNS = 2


@cache
def kept(of: type) -> tuple[str, ...]:
    """The names of what an object of a class computes when it is asked for, and keeps."""
    found = [(name, thing) for base in of.__mro__ for name, thing in vars(base).items()]
    return tuple(name for name, thing in found if isinstance(thing, cached_property))


def quantities_of(of: type) -> list[str]:
    """The names of what an object of a class computes for its users."""
    return [name for name in kept(of) if name[0] != "_"]


@displayed
class Errors:
    """The part of `Geometry` that computes everything again, with noise."""

    if TYPE_CHECKING:  # what `Geometry` has
        k: int
        working: Jet
        again: Callable[[int], Any] | None
        _ambient: Ambient

        @lazy
        def _triangular(self) -> Tensor: ...

        @lazy
        def scalar_curvature(self) -> Tensor: ...
        @lazy
        def second_fundamental_form_norm(self) -> Tensor: ...
        @lazy
        def cancellation_scale(self) -> Tensor: ...

    @lazy
    def _perturbed(self) -> tuple[Noise, Any]:
        """The same geometry from arithmetic with noise, a few times."""
        if self.again is None:
            raise InputError(
                "an error is estimated by computing the jet once more, and this Geometry was made of a jet alone; ask "
                'one that StatisticalManifold.at returns, or measure(u, ["scalar_curvature"], error=True)'
            )
        with torch.no_grad(), Noise(0) as noise:
            return noise, self.again(_RUNS)

    @lasting()
    @unrounded
    def error(self, name: str) -> Tensor:
        """How far a quantity may be from its exact value because of rounding: an estimate, in the quantity's own units.

        Everything is computed twice more with a noise of a few last places in all arithmetic, from the jet to the
        quantity; the larger difference counts. See docs/precision.md for how often that covers the true error.

        **Args:**

        - `name`: a quantity of this class, as in `StatisticalManifold.measure`.

        **Returns:** a tensor of the quantity's shape; infinite where noise alone makes the point degenerate, NaN where
        the quantity is.

        **Raises:** `InputError` for another name, or where this geometry was made of a jet alone.

        >>> import torch, fisherflat as ff
        >>> M = ff.StatisticalManifold(lambda u: torch.cat([u, u.square().sum()[None]]), ff.charts.identity(2))
        >>> bool(M.at([0.3, 0.4]).error("scalar_curvature") < 1e-13)
        True
        """
        known = quantities_of(type(self))
        if name not in known:
            raise InputError(f"{name!r} is not a quantity of Geometry; the known ones are {', '.join(known)}")

        noise, geometry = self._perturbed
        found, vector = getattr(self, name).detach(), _VECTORS.get(name)
        with torch.no_grad(), noise:
            again = getattr(geometry, vector or name)
        if vector is not None:
            again = found + (again - getattr(self, vector).detach()).norm(dim=-1)
        return spread(found, again)

    @property
    def size(self) -> Float[Tensor, "*batch"]:
        """The length of the whitened value."""
        return self.working.value.norm(dim=-1)

    def verdicts(self, *, proved: bool = False) -> Int[Tensor, "*batch"]:
        """What is known of the scalar curvature at each point, as positions among `fisherflat.geometry.Verdict`."""
        bend = turn(self.second_fundamental_form_norm, self.error("second_fundamental_form_norm"), self.size)
        if self._ambient.curvature is not None:  # what does not bend is as curved as the space
            bend = bend + float("inf")
        flat = proved or self.k == 1 or (self.k == self._ambient.ambient_dim and self._ambient.curvature is None)
        return decided(
            self.scalar_curvature, self.error("scalar_curvature"), self.cancellation_scale, bend, proved=flat
        )
