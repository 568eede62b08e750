"""Bilinear attention over static keys and values, and its form with an activation on the query factor."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from fisherflat._arrays import flag, tensors
from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.layers._activations import MLP_ACTIVATIONS, Activation, named
from fisherflat.layers._rank_one import form_spectra, matrix_spectra, rank_one


@displayed
class RankOne(NamedTuple):
    """The best gated unit for each slot; see `BilinearAttention.rank_one`.

    **Attributes:** `attention`, of rank 1; `error` and `gaussian_error`, relative, `[h]` each.
    """

    attention: BilinearAttention
    error: Tensor
    gaussian_error: Tensor


class BilinearAttention(nn.Module):
    """Attention to h static slots, `y = b + Σ_i v_i Σ_r φ(q_ir·x) (k_ir·x)`, bilinear for φ = identity.

    Then the score of slot i is `xᵀ W_i x` with `W_i = Σ_r q_ir k_irᵀ`. There is no softmax, and only the symmetric part
    of each `W_i` acts. The Hessian of the map is constant: its curvature can be read from the weights. A gated MLP is
    the case of rank 1, and an activation on its gate is φ, which breaks the symmetry between the two factors
    (arXiv 2606.22172).

    **Args:**

    - `query`, `key`: the factors `q_ir` and `k_ir`, `[h, rank, d]`.
    - `value`: the static values `v_i`, `[h, d]`. All three are copied and become parameters.
    - `activation`: φ, by name or as a callable that acts entry by entry.
    - `constant`: whether a coordinate 1 is appended to each input, so that `query` and `key` are `[h, rank, d + 1]` and
      hold the biases of the factors in their last column.
    - `bias`: b, `[d]`, or `None`.

    **Raises:** `InputError` where the shapes do not fit, or the tensors are not of one floating dtype.

    >>> import torch, fisherflat as ff
    >>> layer = ff.layers.BilinearAttention(torch.ones(1, 1, 2), torch.ones(1, 1, 2), torch.eye(2)[:1])
    >>> layer(torch.tensor([2.0, 1.0])).tolist()  # (2 + 1)² on the first axis
    [9.0, 0.0]
    """

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        activation: str | Activation = "identity",
        *,
        constant: bool = False,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        tensors(query=query, key=key, value=value, **({} if bias is None else {"bias": bias}))
        constant = flag(constant, "constant")
        width = query.shape[-1] - constant if query.dim() == 3 else 0
        if query.dim() != 3 or key.shape != query.shape or tuple(value.shape) != (query.shape[0], width):
            coordinates = "d + 1" if constant else "d"
            raise InputError(
                f"bilinear attention needs query and key [h, rank, {coordinates}] and value [h, d], "
                f"got query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}"
            )
        if bias is not None and tuple(bias.shape) != (width,):
            raise InputError(f"the bias of bilinear attention of width {width} has shape {list(bias.shape)}")
        dtypes = {tensor.dtype for tensor in (query, key, value, bias) if tensor is not None}
        if not query.is_floating_point() or len(dtypes) > 1:
            raise InputError(f"bilinear attention needs one floating dtype, got {', '.join(sorted(map(str, dtypes)))}")
        self._activation = named(activation, MLP_ACTIVATIONS, functions=True)
        self.activation = activation
        self.constant = constant
        self.query = nn.Parameter(query.detach().clone())
        self.key = nn.Parameter(key.detach().clone())
        self.value = nn.Parameter(value.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Apply the layer to each vector of the last axis.

        **Raises:** `InputError` where the last axis of `x` is not of the layer's width.
        """
        slots, rank, _ = self.query.shape
        width = self.value.shape[-1]
        if x.dim() < 1 or x.shape[-1] != width:
            raise InputError(f"bilinear attention of width {width} expects [..., {width}], got {list(x.shape)}")
        factors = self._activation(self._scores(x, self.query)) * self._scores(x, self.key)
        y = factors.unflatten(-1, (slots, rank)).sum(-1) @ self.value
        return y if self.bias is None else y + self.bias

    def matrices(self) -> Float[Tensor, "h n n"]:
        """The interaction matrices `W_i = Σ_r q_ir k_irᵀ`, n = d, or d + 1 with the constant coordinate.

        Their symmetric part is all that acts where there is no activation.
        """
        return self.query.mT @ self.key

    def rank_profile(self) -> Float[Tensor, "h r"]:
        """The singular values of each `W_i`, descending: how far the layer is from one gated unit a slot."""
        return matrix_spectra(self.query.detach(), self.key.detach())

    def form_spectrum(self) -> Float[Tensor, "h m"]:
        """The eigenvalues of the symmetric part of each `W_i` on the span of its factors, ascending, m = min(2r, n).

        All others are zero. For rank 1 they are `(g·u ± |g||u|) / 2`: an indefinite form of rank 2.
        """
        return form_spectra(self.query.detach(), self.key.detach())

    def rank_one(self, sense: str = "function") -> RankOne:
        """The best approximation of each slot by one gated unit, in one of the two senses of "rank 1".

        - `"matrix"`: of `W_i` by a matrix `g uᵀ`: its leading singular triple (Eckart & Young 1936). It is exact where
          `W_i` has rank 1.
        - `"function"`: of the quadratic form, by that of a gated unit, `sym(g uᵀ)`, which has at most one positive and
          one negative eigenvalue: keeps the largest positive and the most negative one. It is exact where the symmetric
          part has no more than these, which may be so for a `W_i` of any rank, as antisymmetric parts do not act.

        Both minimise the Frobenius norm, the first of `W_i - g uᵀ`, the second of its symmetric part.

        **Returns:** `RankOne`: `.attention`, of rank 1; `.error` `[h]`, the norm of the difference in that sense,
        relative to that of what is approximated; `.gaussian_error` `[h]`, the relative root mean square error of the
        score `xᵀ W_i x` over standard Gaussian inputs, `E[(xᵀ ΔS x)²] = 2‖ΔS‖² + (tr ΔS)²`. With a constant coordinate
        that coordinate counts as Gaussian too.

        **Raises:** `InputError` for another sense, or where there is an activation, so that `W_i` does not act.
        """
        if self._activation is not MLP_ACTIVATIONS["identity"]:
            raise InputError("rank_one approximates bilinear scores; this layer has an activation on its query factor")
        gate, up, error, gaussian = rank_one(self.query.detach(), self.key.detach(), sense)
        attention = BilinearAttention(gate[:, None], up[:, None], self.value, constant=self.constant, bias=self.bias)
        return RankOne(attention, error, gaussian)

    def _scores(self, x: Tensor, factor: Tensor) -> Tensor:
        weight = factor.flatten(0, 1)
        return x @ weight[:, :-1].T + weight[:, -1] if self.constant else x @ weight.T

    def extra_repr(self) -> str:
        """The sizes, for `print`."""
        slots, rank, _ = self.query.shape
        extra = "" if self.activation == "identity" else f", activation={self.activation!r}"
        return f"slots={slots}, rank={rank}, width={self.value.shape[-1]}{extra}"
