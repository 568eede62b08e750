"""Next tokens: classes too many to hold all their logits at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fisherflat._arrays import as_float64
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.spaces.families._counts import Categorical
from fisherflat.spaces.families._parametric import (
    Ambient,
    Framed,
    ParametricFamily,
    gram,
    joined,
    jointly,
    last,
    leading,
    places,
    products,
    spheres,
)
from fisherflat.spaces.jets import Jet, pair_index

#: numbers in double precision that a block may take, weights and logits together
_BLOCK = 2**21


class NextToken(ParametricFamily):
    """Next tokens `softmax(W h + b)`, the outputs h being hidden states `[..., d]`; leading axes are independent.

    The same distributions as `Categorical` makes of the logits, and the same numbers, but only so many logits are there
    at a time: memory does not grow with the number V of tokens. Three passes over W give the logarithm of the sum and
    the likeliest token, the means, and the QR factorisation of `sqrt p (1, z_i, z_ij, s_i s_j)`, whose small factor is
    all that geometry needs: it is the surface in an orthonormal frame of what it touches of the sphere `2 sqrt p`.

    **Args:**

    - `weight`: W `[V, d]`, in its own precision, converted piece by piece: a tensor, or anything with a `shape` whose
      rows are read by slices.
    - `bias`: b `[V]`. `scale`: a factor of the logits. `softcap`: c of `c tanh(z / c)`, after the scale (Gemma 2).

    **Raises:** `InputError` for a weight that is no matrix of at least two rows, or a bias, scale or softcap that does
    not fit; when a manifold is made, for outputs that are not of width d.

    >>> import torch, fisherflat as ff
    >>> words = torch.cat([torch.eye(3), torch.zeros(1, 3)])
    >>> M = ff.StatisticalManifold(lambda h: h, ff.charts.identity(3), ff.families.NextToken(words))
    >>> round(M.scalar_curvature([0.2, -0.1, 0.5]).item(), 12)  # all of the simplex: k (k - 1) / 4
    1.5
    """

    def __init__(self, weight: Any, bias: Any = None, softcap: Any = None, scale: Any = 1.0) -> None:
        shape = tuple(getattr(weight, "shape", ()))
        if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
            raise InputError(
                "weight is the matrix [V, d] that makes logits of hidden states, V at least 2; got "
                f"{type(weight).__name__} of shape {list(shape)}"
            )
        if isinstance(weight, Tensor) and not weight.is_floating_point():
            raise InputError(f"weight must hold floating-point numbers, got {weight.dtype}; is it quantised?")
        self.weight, (self.tokens, self.width) = weight, shape
        if isinstance(bias, Tensor) and bias.is_floating_point():  # as exact as the weight beside it
            bias = bias.detach().double()
        self.bias = None if bias is None else as_float64(bias, "bias")
        if self.bias is not None and tuple(self.bias.shape) != (self.tokens,):
            raise InputError(
                f"bias must have shape [{self.tokens}], a number for each row of weight; got {list(self.bias.shape)}"
            )
        self.softcap = None if softcap is None else _positive(softcap, "softcap")
        self.scale = _positive(scale, "scale")

    def ambient_dim(self, shape: tuple[int, ...]) -> int:
        """Leading axes times V - 1."""
        if last(shape, self, 1, "hidden states") != self.width:
            raise InputError(
                f"{self!r} takes hidden states of width {self.width} in the last axis; the map's outputs have shape "
                f"{list(shape)}"
            )
        return leading(shape) * (self.tokens - 1)

    def logits(self, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch V"]:
        """All logits of hidden states."""
        flat = hidden.reshape(1, 1, -1, self.width)
        found = [block[0, 0] for block in self._blocks(flat, 0)]
        return torch.cat(found, -1).reshape(*hidden.shape[:-1], self.tokens)

    def framed(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        """The parts of `apart`, of which there is one, and their sum.

        With a tape all logits are there at once, as for `Categorical`: a factorisation of columns that depend on each
        other has no gradient. Vectors, such as the mean curvature, are then in that family's frame.
        """
        if torch.is_grad_enabled() and jet.coefficients.requires_grad:
            return self._whole(jet, shape)
        k, found = jet.k, self.apart(jet.coefficients, jet.k, shape)
        first, second, own = found.coefficients.tensor_split(
            [1 + k, found.coefficients.shape[1] - len(places(k)[0])], 1
        )
        return Framed(torch.cat([first, second + own], 1), found.ambient)

    def _whole(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        k, m = jet.k, len(places(jet.k)[0])
        states = jet.coefficients.reshape(*jet.coefficients.shape[:2], leading(shape), shape[-1])
        rows = self._logits(0, self.tokens, states, k)
        count = states.shape[1]
        if rows.shape[1] > count:  # what a softcap adds
            rows = torch.cat([rows[:, : count - m], rows[:, count - m : count] + rows[:, count:]], 1)
        return Categorical().framed(Jet(rows.flatten(2), k), (leading(shape), self.tokens))

    def apart(self, coefficients: Tensor, k: int, shape: tuple[int, ...]) -> Framed:
        """`R` of the columns `sqrt p (1, x_i, x_ij, s_i s_j)`, x relative to the likeliest token; the first centres.

        The family's own second derivatives are those of `s_i s_j / 2`, and with a softcap what that adds.
        """
        m = len(places(k)[0])
        states = coefficients.reshape(*coefficients.shape[:2], leading(shape), shape[-1])  # [P, 1 + k + n m, L, d]
        total, top = self._sums(states[:, :1])
        at_top = self._at(top, states, k)
        mean, rest, start = torch.zeros_like(total), torch.zeros_like(total), 0
        for block in self._blocks(states, k):
            x = block - at_top
            p = (x[:, :1] - total).exp()
            mean = mean + (p * x[:, 1 : 1 + k]).sum(-1, keepdim=True)
            other = torch.arange(start, start + p.shape[-1], device=p.device) != top[:, None, :, None]
            rest, start = rest + (p * other).sum(-1, keepdim=True), start + p.shape[-1]
        factor = total.new_zeros(len(total), total.shape[2], 0, at_top.shape[1] + m)
        for block in self._blocks(states, k):
            x = block - at_top
            root = ((x[:, :1] - total) / 2).exp()
            squares = products(x[:, 1 : 1 + k] - mean, k)
            stacked = (root * torch.cat([torch.ones_like(root), x[:, 1:], squares], 1)).permute(0, 2, 3, 1)
            factor = torch.linalg.qr(torch.cat([factor, stacked], -2), mode="r")[1]  # [P, L, c, c]
        factor = torch.nn.functional.pad(factor, (0, 0, 0, factor.shape[-1] - factor.shape[-2]))  # of few tokens
        columns = factor[..., 1:, 1:].permute(0, 3, 1, 2)  # [P, c - 1, L, c - 1]
        first, second, third = columns.tensor_split([k, columns.shape[1] - m], 1)
        own = third / 2
        if self.softcap is not None:
            second, curl = second[:, :-m], second[:, -m:]
            own = own + curl
        triangular = factor[..., 1 : 1 + k, 1 : 1 + k]

        def curvature(x: Tensor) -> Tensor:
            return spheres(gram(x.unflatten(-1, first.shape[2:])), 0.25)

        def cubic(x: Tensor, y: Tensor) -> Tensor:
            a, b = (_on(triangular, v.unflatten(-1, first.shape[2:])[..., :k]) for v in (x, y))
            pairs = third[:, pair_index(k, third.device)]
            return torch.einsum("pli,plj,pijlf->plf", a, b, pairs).flatten(1)

        ambient = Ambient(self.ambient_dim(shape), curvature, cubic, jointly(rest))
        return Framed(joined(first, torch.cat([second, own], 1)), ambient)

    def _sums(self, value: Float[Tensor, "P 1 L d"]) -> tuple[Float[Tensor, "P 1 L 1"], Tensor]:
        """The logarithm of the sum of exponentials relative to the likeliest token, and which that is `[P, L]`."""
        shape = (*value.shape[:-1], 1)
        largest, total = value.new_full(shape, -torch.inf), value.new_zeros(shape)
        top, start = torch.zeros(shape, dtype=torch.long, device=value.device), 0
        for block in self._blocks(value, 0):
            here, place = block.max(-1, keepdim=True)
            top = torch.where(here > largest, place + start, top)
            above = torch.maximum(here, largest)
            total = total * (largest - above).exp() + (block - above).exp().sum(-1, keepdim=True)
            largest, start = above, start + block.shape[-1]
        return total.log(), top[:, 0, :, 0]

    def _at(self, top: Tensor, states: Float[Tensor, "P S L d"], k: int) -> Float[Tensor, "P c L 1"]:
        """The jets of the logits of some tokens, one for each point and member."""
        tokens, index = torch.unique(top, return_inverse=True)
        found = [self._logits(n, n + 1, states, k) for n in tokens.tolist()]
        every = torch.cat(found, -1)
        return every.gather(-1, index[:, None, :, None].expand(*every.shape[:-1], 1))

    def _blocks(self, states: Float[Tensor, "P S L d"], k: int) -> Iterator[Float[Tensor, "P c L B"]]:
        """The jets of the logits, so many tokens at a time: with a softcap what it adds to second derivatives last."""
        taken = self.width + 4 * states[..., 0].numel()
        size = max(64, _BLOCK // taken)
        for start in range(0, self.tokens, size):
            yield self._logits(start, min(start + size, self.tokens), states, k)

    def _logits(self, start: int, stop: int, states: Float[Tensor, "P S L d"], k: int) -> Float[Tensor, "P c L B"]:
        weight = torch.as_tensor(self.weight[start:stop]).to(states.device).to(states.dtype)
        found = states @ weight.mT
        if self.bias is not None:
            found = torch.cat([found[:, :1] + self.bias[start:stop].to(found), found[:, 1:]], 1)
        found = found * self.scale if self.scale != 1 else found
        if self.softcap is None:
            return found
        capped = (found[:, :1] / self.softcap).tanh()
        slope = 1 - capped * capped
        parts = [self.softcap * capped, slope * found[:, 1:]]
        if k:
            parts.append((-2 / self.softcap) * capped * slope * products(found[:, 1 : 1 + k], k))
        return torch.cat(parts, 1)

    def __repr__(self) -> str:
        more = "" if self.softcap is None else f", softcap={self.softcap:.6g}"
        return f"NextToken({self.tokens} tokens, d={self.width}{more})"


def _on(triangular: Float[Tensor, "P L k k"], x: Float[Tensor, "P L k"]) -> Float[Tensor, "P L k"]:
    """Coefficients of tangents by the first derivatives, zero along one that is zero."""
    flat = triangular.diagonal(dim1=-2, dim2=-1)
    safe = triangular + torch.diag_embed(torch.where(flat == 0, torch.inf, 0.0))
    return torch.linalg.solve_triangular(safe, x[..., None], upper=True)[..., 0]


def _positive(given: Any, name: str) -> float:
    try:
        found = float(given)
    except (TypeError, ValueError):
        found = float("nan")
    if not 0 < found < float("inf"):
        raise InputError(f"{name} must be a positive number, got {given!r}")
    return found
