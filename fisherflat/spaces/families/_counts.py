"""Families of counts and classes: categorical, Bernoulli, Poisson.

Each is a surface in a space of constant curvature once the square roots of its probabilities are taken (Amari,
*Information Geometry and Its Applications*, 2016, section 2.3), so that its ambient curvature is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from fisherflat._typing import Tensor
from fisherflat.spaces.families._parametric import (
    Ambient,
    Framed,
    ParametricFamily,
    Sheet,
    gram,
    jointly,
    last,
    leading,
    places,
    remarks,
    rows,
    spheres,
)
from fisherflat.spaces.jets import Jet


class Categorical(ParametricFamily):
    """Class probabilities `softmax(z)`, the outputs z being logits `[..., V]`; leading axes are independent.

    The Fisher metric is `g(x, y) = E[x y] - E[x] E[y]` under the probabilities, which makes the simplex a piece of the
    sphere of radius 2 in V dimensions (`2 sqrt p`), of curvature 1/4. A layer that reaches every class freely has that
    curvature; "flat" is what bends exactly against it. Where one class takes all the probability, curvature grows like
    `1 / (1 - p_max)`: read it beside `1 - p_max`.

    **Raises:** `InputError`, when a manifold is made, for fewer than two classes.

    >>> import torch, fisherflat as ff
    >>> chart = ff.charts.affine(torch.zeros(4), torch.eye(4)[:3])
    >>> M = ff.StatisticalManifold(lambda z: z, chart, ff.families.Categorical())
    >>> round(M.scalar_curvature([0.2, -0.1, 0.5]).item(), 12)  # k (k - 1) / 4
    1.5
    """

    def ambient_dim(self, shape: tuple[int, ...]) -> int:
        """Leading axes times V - 1."""
        return leading(shape) * (last(shape, self, 2, "the logits of the classes") - 1)

    def framed(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        """`sqrt p (x - E x)`, and `sqrt p (w - E w)` with `w = (s_i s_j) / 2 + z_ij`, s centred first derivatives."""
        value, first, second = rows(jet, shape)
        sheet, logarithm = Sheet(jet, leading(shape), shape[-1]), value.log_softmax(-1)
        p, root = logarithm.exp(), (logarithm / 2).exp()
        top = value.argmax(-1, keepdim=True)

        def apart(x: Tensor) -> tuple[Tensor, Tensor]:
            # relative to the likeliest class: of a probability of nearly 1 the differences keep their digits
            there = x.gather(-1, top.expand(*x.shape[:-1], 1))
            x, there = x.transpose(1, 2), there.transpose(1, 2)
            found = torch.sub(x, there, out=sheet.room(x))
            return found, found @ p[:, 0, ..., None]

        x, mean = apart(first)
        s = torch.sub(x, mean, out=sheet.over(x)).transpose(1, 2)
        tangents = torch.mul(root, s, out=sheet.first[0])
        x, mean = apart(second)
        i, j = places(jet.k)
        mean = mean + gram(tangents)[..., i, j, None] / 2
        x = torch.sub(x, mean, out=sheet.over(x)).transpose(1, 2)
        seconds = sheet.plus(torch.mul(root, x, out=sheet.second[0]), tangents, s, 0.5)
        small = root[:, 0].masked_fill(root[:, 0] == 0, torch.inf)

        def curvature(x: Tensor) -> Tensor:
            return spheres(gram(x.unflatten(-1, root.shape[2:])), 0.25)

        def cubic(x: Tensor, y: Tensor) -> Tensor:
            x, y = (v.unflatten(-1, root.shape[2:]) for v in (x, y))
            return (x * (y / small) - root[:, 0] * (x * y).sum(-1, keepdim=True)).flatten(1)

        rest = p.scatter(-1, top, 0.0).sum(-1)
        ambient = Ambient(self.ambient_dim(shape), curvature, cubic, jointly(rest))
        return Framed(sheet.joined([tangents], [seconds]), ambient)


class Bernoulli(ParametricFamily):
    """Independent yes-no variables with probabilities `sigmoid(z)`, the outputs z being logits of any shape.

    The metric of one is `p (1 - p) dz^2`, which is flat: `f = 2 arctan(e^(z / 2))` (Amari 2016, section 2.3).

    >>> import torch, fisherflat as ff
    >>> M = ff.StatisticalManifold(lambda z: z, ff.charts.identity(2), ff.families.Bernoulli())
    >>> M.metric([0.0, 0.0]).tolist()
    [[0.25, 0.0], [0.0, 0.25]]
    """

    @property
    def several(self) -> tuple[str, Callable[[list[int]], bool]]:
        """Any number."""
        return "several that are alike but for their last axis", lambda _: True

    def ambient_dim(self, shape: tuple[int, ...]) -> int:
        """As many as there are outputs."""
        return leading(shape) * last(shape, self, 1, "logits")

    def framed(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        """`f' z_i` and `f' z_ij + f'' z_i z_j`."""
        value, first, second = rows(jet, shape)
        sheet = Sheet(jet, *first.shape[2:])
        root = (value * torch.where(value < 0, 0.5, -0.5)).exp()  # with all its derivatives, unlike a modulus
        slope, tilt = root / (1 + root * root), -(value / 2).tanh()
        inverse = tilt[:, 0] / slope[:, 0].masked_fill(slope[:, 0] == 0, torch.inf)
        tangents = torch.mul(slope, first, out=sheet.first[0])
        seconds = sheet.plus(torch.mul(slope, second, out=sheet.second[0]), tilt * tangents, first, 0.5)
        ambient = Ambient(self.ambient_dim(shape), None, _entrywise(inverse), jointly(root * slope))
        return Framed(sheet.joined([tangents], [seconds]), ambient)


class Poisson(ParametricFamily):
    """Independent counts with rates `e^z`, the outputs z being logarithms of rates, of any shape.

    The metric of one is `e^z dz^2`, which is flat: `f = 2 e^(z / 2)`.

    >>> import torch, fisherflat as ff
    >>> M = ff.StatisticalManifold(lambda z: z, ff.charts.identity(2), ff.families.Poisson())
    >>> M.metric([0.0, 0.0]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    @property
    def several(self) -> tuple[str, Callable[[list[int]], bool]]:
        """Any number."""
        return "several that are alike but for their last axis", lambda _: True

    def ambient_dim(self, shape: tuple[int, ...]) -> int:
        """As many as there are outputs."""
        return leading(shape) * last(shape, self, 1, "logarithms of rates")

    def framed(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        """`f' z_i` and `f' z_ij + f'' z_i z_j`."""
        value, first, second = rows(jet, shape)
        sheet, possible = Sheet(jet, *first.shape[2:]), value.exp().isfinite()
        slope = (value / 2).exp().masked_fill(~possible, math.nan)
        inverse = 1 / slope[:, 0].masked_fill(slope[:, 0] == 0, torch.inf)
        tangents = torch.mul(slope, first, out=sheet.first[0])
        seconds = sheet.plus(torch.mul(slope, second, out=sheet.second[0]), tangents, first, 0.5)
        said = remarks(value, "a rate", possible)
        ambient = Ambient(self.ambient_dim(shape), None, _entrywise(inverse), **said)
        return Framed(sheet.joined([tangents], [seconds]), ambient)


def _entrywise(factor: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """`factor x y`, entry by entry: variables that are independent."""
    return lambda x, y: factor.flatten(1) * x * y
