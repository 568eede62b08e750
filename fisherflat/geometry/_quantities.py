"""Geometry from a 2-jet: pure linear algebra in an orthonormal frame, no automatic differentiation.

The surface lies in the manifold of a family's parameters, and its jet is in an orthonormal frame of that: for
Gaussians of one covariance the whitened mean, in Euclidean space. A QR factorisation of its Jacobian gives an
orthonormal frame of the tangent space; (covariant) Hessians are split into their tangential part (the Christoffel
symbols) and their normal part (the second fundamental form), and the Gauss equation gives all curvature from the second
and from that of the manifold around. No inverse of the metric is formed, and second derivatives are all that is needed.

Signs are Lee's (*Introduction to Riemannian Manifolds*, 2nd ed., 2018, chapters 7 and 8): the sphere of radius r in
k + 1 dimensions has `scal = k (k - 1) / r^2 > 0` and `R_0110 > 0`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch

from fisherflat._arrays import choice
from fisherflat._modes import lazy, unrounded
from fisherflat._renamed import former
from fisherflat._typing import Float, Tensor
from fisherflat.geometry import _bending as bending
from fisherflat.geometry._dual import DualConnections
from fisherflat.geometry._errors import Errors, kept, quantities_of
from fisherflat.geometry._frame import inverse, meet, orthonormal_frame
from fisherflat.geometry._sectional import extremes, orthonormal
from fisherflat.geometry._taped import smooth
from fisherflat.jets import Jet, pair_index, pairs
from fisherflat.spaces.families import Ambient

#: what to do with points that have no geometry
POLICIES = ("raise", "nan")


class Geometry(DualConnections, Errors):
    """All geometric quantities of a surface at a batch of points, computed from its 2-jet when they are asked for.

    `StatisticalManifold.at` makes one. The formulas are those of docs/conventions.md.

    **Args:**

    - `jet`: of the whitened map, `[*batch, S, D]`, or what stands for it in a curved family (`families.Framed`).
    - `degenerate`: `"raise"`, or `"nan"` for NaN at degenerate or non-finite points.
    - `u`: `[*batch, k]`, only to name points in errors.
    - `scale`: `[k]` or `[*batch, k]`, the lengths of the coordinates' directions, in which the columns of the
      Jacobian are compared; default the columns' own. Either way rank does not depend on the coordinates' units.
    - `change`: `[*batch, k, k]`, lower triangular, where the jet is in other coordinates v of the same points, with
      `d/dv_a = sum_i change[a, i] d/du_i`. All quantities are in the coordinates u. `back`: its inverse, and `normal`
      `[*batch, m, D]`, the normal parts of the second derivatives, where they are known better than from the jet.
    - `ambient`: the manifold of the family's parameters (default: Euclidean space).

    **Attributes:** `degenerate` `[*batch]`, whether a point has no geometry; `nearly_degenerate` `[*batch]`, whether
    it is within a factor of a thousand of that; `working`, the jet as it was given; `skewness` `[*batch]` of its
    Jacobian, 1 over the sine of the smallest angle between a column and those before it; `k`; `ambient_dim`, D.

    **Raises:** `DegenerateImmersionError` where the Jacobian has rank below k (singular values, its columns scaled,
    under `8 sqrt(D) eps` of the largest), `MapError` where the jet is not finite, both only under `"raise"`.

    >>> import torch, fisherflat as ff
    >>> M = ff.StatisticalManifold(lambda u: torch.cat([u, u.square().sum()[None]]), ff.charts.identity(2))
    >>> M.at([0.0, 0.0]).mean_curvature.tolist()  # of z = x² + y² at its lowest point
    [0.0, 0.0, 2.0]
    """

    degenerate: Tensor
    nearly_degenerate: Tensor
    #: the same geometry, computed so many times more, `[runs, *batch]`; `None` where all that is known is a jet
    again: Callable[[int], Geometry] | None = None

    dim = former("ambient_dim")

    def __init__(
        self,
        jet: Jet,
        degenerate: str = "raise",
        u: Tensor | None = None,
        *,
        scale: Tensor | None = None,
        change: Tensor | None = None,
        back: Tensor | None = None,
        normal: Tensor | None = None,
        ambient: Ambient | None = None,
    ) -> None:
        choice(degenerate, "degenerate", POLICIES)
        self.working, self.k, self.ambient_dim = jet, jet.k, jet.coefficients.shape[-1]
        self._back = None if change is None else (inverse(change) if back is None else back).to(jet.coefficients)
        self._normal, self._scale = normal, scale
        self._ambient = ambient or Ambient(self.ambient_dim)
        self._forth = None if change is None else change.to(jet.coefficients)
        frame = orthonormal_frame(jet, degenerate, u, scale, self._ambient)
        self._frame, self.working_triangular = frame.vectors, frame.triangular
        self.degenerate, self.nearly_degenerate, self.skewness = frame.degenerate, frame.nearly, frame.skewness

    def reshaped(self, batch: Sequence[int]) -> Geometry:
        """The same geometry with its points in another shape."""

        def shaped(tensor: Tensor | None, axes: int) -> Any:
            return tensor if tensor is None else tensor.reshape((*batch, *tensor.shape[tensor.dim() - axes :]))

        found = copy(self)
        for name in kept(Geometry):
            vars(found).pop(name, None)
        found._scale = self.scale.reshape((*batch, self.k))
        found.working = Jet(shaped(self.working.coefficients, 2), self.k)
        for name in ("_frame", "working_triangular", "_back", "_forth", "_normal"):
            setattr(found, name, shaped(getattr(self, name), 2))
        for name in ("degenerate", "nearly_degenerate", "skewness"):
            setattr(found, name, shaped(getattr(self, name), 0))
        found._ambient = self._ambient.reshaped(self.degenerate.numel(), tuple(batch))
        if self.again is not None:
            again = self.again
            found.again = lambda runs: again(runs).reshaped((runs, *batch))
        return found

    def __repr__(self) -> str:
        return f"Geometry(points={list(self.degenerate.shape)}, k={self.k}, D={self.ambient_dim})"

    # -- coordinates ---------------------------------------------------------------------------------------------------

    def _carried(self, second: Float[Tensor, "*batch k k X"]) -> Float[Tensor, "*batch k k X"]:
        """What has two lower indices, from the coordinates of the jet to u."""
        back = self._back
        return second if back is None else torch.einsum("...ia,...jb,...abx->...ijx", back, back, second)

    @property
    def jet(self) -> Jet:
        """The jet in the coordinates u."""
        return self._jet

    @lazy
    def _jet(self) -> Jet:
        if self._back is None:
            return self.working
        first, second = torch.tensor(pairs(self.k), device=self._back.device).T
        rows = [self.working.coefficients[..., :1, :], self._back @ self.working.jacobian]
        return Jet(torch.cat([*rows, self._carried(self.working.hessian)[..., first, second, :]], -2), self.k)

    @lazy
    def _triangular(self) -> Float[Tensor, "*batch k k"]:
        """`R` of the Jacobian in the coordinates u."""
        inner = self.working_triangular
        return inner if self._back is None else inner @ self._back.transpose(-1, -2)

    # -- first order ---------------------------------------------------------------------------------------------------

    @lazy
    def metric(self) -> Float[Tensor, "*batch k k"]:
        """`g_ij = d_i f . d_j f`, the Fisher information, per squared unit of the coordinates; NaN beyond numbers."""
        found = self.jet.jacobian @ self.jet.jacobian.transpose(-1, -2)
        return found.masked_fill(~found.isfinite().all(-1, keepdim=True).all(-2, keepdim=True), float("nan"))

    @lazy
    def volume_density(self) -> Float[Tensor, "*batch"]:
        """`sqrt(det g)`."""
        return self._triangular.diagonal(dim1=-2, dim2=-1).prod(-1).abs()

    @lazy
    def singular_values(self) -> Float[Tensor, "*batch k"]:
        """Singular values of the Jacobian, descending: the semi-axes of the image of a unit ball of coordinates."""
        found = self._singular_values
        return smooth(found, lambda: meet(found[..., :-1], found[..., 1:]).any(-1), "two singular values are equal")

    @lazy
    def _singular_values(self) -> Float[Tensor, "*batch k"]:
        lost = self._triangular.isnan().any(-1)
        return torch.linalg.svdvals(self._triangular.nan_to_num()).masked_fill(lost, float("nan"))

    @lazy
    def condition_number(self) -> Float[Tensor, "*batch"]:
        """The condition number of the metric (the square of the Jacobian's)."""
        found = self._singular_values
        value = (found[..., 0] / found[..., -1]) ** 2
        if self.k == 1:
            return value

        def equal() -> Tensor:
            return meet(found[..., 0], found[..., 1]) | meet(found[..., -2], found[..., -1])

        return smooth(value, equal, "an extreme singular value is attained twice")

    @lazy
    def effective_rank(self) -> Float[Tensor, "*batch"]:
        """`exp(-sum_i p_i log p_i)`, p the eigenvalues of the metric divided by their sum: from 1 to k.

        How many directions of the chart the output tells apart (Roy & Vetterli, *The effective rank: a measure of
        effective dimensionality*, EUSIPCO 2007).
        """
        share = self._singular_values.square()
        share = share / share.sum(-1, keepdim=True)
        return torch.special.entr(share).sum(-1).exp()

    # -- second order --------------------------------------------------------------------------------------------------

    def _projected(self, second: Tensor) -> tuple[Tensor, Tensor]:
        """Tangential coefficients `[..., m, k]` in the frame and normal parts of vectors `[..., m, D]`."""
        q = self._frame
        tangential = second @ q
        if self.k == self._ambient.ambient_dim:
            return tangential, torch.zeros_like(second)  # no normal directions are left
        return tangential, (tangential @ -q.transpose(-1, -2)).add_(second)

    def _project(self, second: Tensor) -> tuple[Tensor, Tensor]:
        """The same, once more: one projection leaves eps |second| in the tangent space, and twice is enough."""
        tangential, normal = self._projected(second)
        again, normal = self._projected(normal)
        return tangential + again, normal

    @lazy
    def _bent(self) -> Tensor:
        """The normal parts of the second derivatives, as good as products of them need."""
        if self._normal is not None:
            return self._normal
        normal = self._projected(self.working.second)[1]
        return self._projected(normal)[1] if bending.hardly(normal, self.working.second) else normal

    @lazy
    def _split(self) -> tuple[Tensor, Tensor]:
        """The second derivatives, split."""
        tangential, normal = self._project(self.working.second)
        return tangential, normal if self._normal is None else self._normal

    @property
    def normal(self) -> Float[Tensor, "*batch m D"]:
        """The normal parts of the second derivatives in the coordinates of the jet, a pair `i <= j` each."""
        return self._split[1]

    @property
    def scale(self) -> Float[Tensor, "*batch k"]:
        """In which lengths the columns of the Jacobian are compared."""
        columns = self.working.jacobian.norm(dim=-1)
        return columns if self._scale is None else self._scale.expand_as(columns)

    @property
    def changes(self) -> tuple[Float[Tensor, "*batch k k"], Float[Tensor, "*batch k k"]]:
        """From the coordinates u to those of the jet, and back."""
        if self._forth is None or self._back is None:
            identity = torch.eye(self.k, dtype=self.working_triangular.dtype, device=self.working_triangular.device)
            return (identity.expand_as(self.working_triangular),) * 2
        return self._forth, self._back

    @lazy
    def christoffel(self) -> Float[Tensor, "*batch k k k"]:
        """`[..., m, i, j] = g^ml (d_l f . d_i d_j f)`, the Levi-Civita connection, symmetric in i and j."""
        symbols = torch.linalg.solve_triangular(self.working_triangular, self._split[0].transpose(-1, -2), upper=True)
        symbols = symbols[..., pair_index(self.k, symbols.device)]
        if self._forth is None:
            return symbols
        return torch.einsum("...cm,...ijc->...mij", self._forth, self._carried(symbols.movedim(-3, -1)))

    @lazy
    def second_fundamental_form(self) -> Float[Tensor, "*batch k k D"]:
        """`[..., i, j, :] = d_i d_j f - Gamma^m_ij d_m f`, vectors normal to the surface."""
        normal = self._split[1] + 0 * self.working_triangular[..., :1, :1]
        return self._carried(normal[..., pair_index(self.k, normal.device), :])

    @lazy
    def _framed(self) -> Float[Tensor, "*batch m D"]:
        """The second fundamental form on the orthonormal frame, one vector for each pair `a <= b`."""
        return bending.on_frame(self.working_triangular, self._bent)

    @lazy
    def _sums(self) -> bending.Sums:
        known = self._normal is not None or "_framed" in vars(self)  # better than by the jet, or on the frame already
        found = None if known else bending.streamed(self.working_triangular, self._frame, self.working.second)
        return found or bending.summed(self._framed, self.k)

    @unrounded
    def share(self, second: Float[Tensor, "*batch m D"]) -> Float[Tensor, "*batch m D"]:
        """What a summand of the second derivatives adds to the second fundamental form on the orthonormal frame.

        The second fundamental form is linear in the second derivatives, so the shares of summands add up to it exactly.
        """
        return bending.on_frame(self._triangular, self._project(second)[1])

    @lazy
    def _gram(self) -> Float[Tensor, "*batch k k k k"]:
        """`[..., a, b, c, d] = II_ab . II_cd` on the orthonormal frame."""
        gram = self._framed @ self._framed.transpose(-1, -2)
        index = pair_index(self.k, gram.device)
        return gram[..., index[:, :, None, None], index[None, None, :, :]]

    @lazy
    def mean_curvature(self) -> Float[Tensor, "*batch D"]:
        """`H = (1/k) g^ij II_ij`, the mean curvature vector."""
        mean, q = bending.diagonal(self._framed, self.k).mean(-2, keepdim=True), self._frame
        return (mean - mean @ q @ q.transpose(-1, -2)).squeeze(-2)

    @lazy
    def mean_curvature_norm(self) -> Float[Tensor, "*batch"]:
        """`|H|`, in units of 1 / standard deviation."""
        found = self.mean_curvature.norm(dim=-1)
        return smooth(found, lambda: self._vanishes(found), "the mean curvature is zero")

    @lazy
    def second_fundamental_form_norm(self) -> Float[Tensor, "*batch"]:
        """`|II| = sqrt(g^il g^jm II_ij . II_lm)`; zero exactly where the surface is totally geodesic."""
        found = self._sums.square.sqrt()
        return smooth(found, lambda: self._vanishes(found), "the second fundamental form is zero")

    @lazy
    def _form(self) -> Float[Tensor, "*batch entries"]:
        return bending.entries(self._framed, self.working_triangular)

    def _vanishes(self, length: Float[Tensor, "*batch"]) -> Tensor:
        """Where it is no more than what rounding leaves of the second derivatives."""
        second = bending.on_frame(self.working_triangular, self.working.second).flatten(-2).norm(dim=-1)
        return length <= 64 * torch.finfo(length.dtype).eps * second

    @lazy
    def cancellation_scale(self) -> Float[Tensor, "*batch"]:
        """`|tr II|^2 + |II|^2`: the size of the terms whose difference is the scalar curvature.

        And the size of what the family's own curvature adds. Rounding in the scalar curvature is relative to this, not
        to the scalar curvature itself.
        """
        return self._sums.trace_square + self._sums.square + self.ambient_scalar_curvature.abs()

    # -- curvature -----------------------------------------------------------------------------------------------------

    @lazy
    def _ambient_riemann(self) -> Float[Tensor, "*batch k k k k"] | None:
        """The curvature of the family's parameters on the frame, `None` where they are flat."""
        if self._ambient.curvature is None or self.k == 1:
            return None
        unknown = 0 * self.working_triangular[..., :1, :1, None, None]
        return self._ambient.curvature(self._frame.transpose(-1, -2)) + unknown

    @lazy
    def ambient_scalar_curvature(self) -> Float[Tensor, "*batch"]:
        """What the curvature of the family itself adds to the scalar one: zero for Gaussians of one covariance."""
        if self._ambient_riemann is None:
            return 0 * self.working_triangular[..., 0, 0]
        return torch.einsum("...abba->...", self._ambient_riemann)

    @lazy
    def _framed_riemann(self) -> Float[Tensor, "*batch k k k k"]:
        # Gauss: R_abcd = R^N_abcd + II_ad . II_bc - II_ac . II_bd
        bent = torch.einsum("...adbc->...abcd", self._gram) - torch.einsum("...acbd->...abcd", self._gram)
        return bent if self._ambient_riemann is None else bent + self._ambient_riemann

    @lazy
    def riemann(self) -> Float[Tensor, "*batch k k k k"]:
        """`R_ijlm = <R(d_i, d_j) d_l, d_m> = II_im . II_jl - II_il . II_jm` (the Gauss equation)."""
        r = self._triangular
        return torch.einsum("...abcd,...ai,...bj,...cl,...dm->...ijlm", self._framed_riemann, r, r, r, r)

    @lazy
    def _framed_ricci(self) -> Float[Tensor, "*batch k k"]:
        if self.k < bending.MANY or self._ambient_riemann is not None:
            return torch.einsum("...abca->...bc", self._framed_riemann)
        return bending.ricci(self._framed, self.k)

    @lazy
    def ricci(self) -> Float[Tensor, "*batch k k"]:
        """`Ric_jl = g^im R_ijlm`."""
        r = self._triangular
        return r.transpose(-1, -2) @ self._framed_ricci @ r

    @lazy
    def scalar_curvature(self) -> Float[Tensor, "*batch"]:
        """`scal = g^jl Ric_jl`, in units of 1 / covariance; twice the Gauss curvature for k = 2, zero for k = 1."""
        return self._sums.scalar + self.ambient_scalar_curvature

    @lazy
    def sectional_extremes(self) -> Float[Tensor, "*batch 2"]:
        """The smallest and the largest sectional curvature over all planes; NaN for k = 1, where there is no plane.

        Exact for k = 2 (the one plane) and for k = 3, where every 2-vector is a plane's, so that they are the extreme
        eigenvalues of the curvature operator. For k >= 4 they are what alternating maximisation finds from several
        starts. Both are attained by a plane, so the true range is at least as wide: the largest is a lower bound of the
        maximum, the smallest an upper bound of the minimum.
        """
        if self.k == 1:
            return torch.full_like(self._triangular[..., 0], float("nan")).expand(*self.degenerate.shape, 2)
        if self.k == 2:
            return (self.scalar_curvature / 2).unsqueeze(-1).expand(*self.degenerate.shape, 2)
        lost = self.degenerate
        riemann = self._framed_riemann.masked_fill(lost[..., None, None, None, None], 0.0)
        return extremes(riemann).masked_fill(lost[..., None], float("nan"))

    @unrounded
    def sectional_curvature(self, x: Tensor, y: Tensor) -> Float[Tensor, "*batch"]:
        """`K(x, y)` of the plane spanned by the tangent vectors `x` and `y` `[*batch, k]`, in coordinates.

        **Raises:** `InputError` where `x` and `y` are parallel or zero, as they always are for k = 1.
        """
        r = self._triangular
        x, y = (torch.einsum("...ai,...i->...a", r, vector.to(r)) for vector in (x, y))
        x, y = orthonormal(x, y)
        bent, around = bending.of_plane(self._framed, x, y), self._ambient_riemann
        return bent if around is None else bent + torch.einsum("...abcd,...a,...b,...c,...d->...", around, x, y, y, x)


def quantities() -> list[str]:
    """The names of what `Geometry` computes when it is asked for."""
    return quantities_of(Geometry)
