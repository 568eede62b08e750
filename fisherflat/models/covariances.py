"""What the curvature of a part is measured in, the same in tables and in certificates: the covariance of its outputs.

It is fitted to one token's outputs, over the words of the prompts or over all of their tokens, and then holds for each
token whose output counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import CovarianceError, InputError
from fisherflat.models import Encoded
from fisherflat.models.moves import pool
from fisherflat.spaces.families import Gaussian

#: by name, over which tokens, and what is kept of their covariance
COVARIANCES = {
    "words": "the mean variance of the outputs at the words",
    "all": "the mean variance of the outputs at all tokens, special ones too",
    "diagonal": "the variance of each output at the words",
    "full": "the covariance matrix of the outputs at the words",
}
#: which tokens' outputs are the surface: those of every token, or of the ones that move
OUTPUTS = ("all", "moved")

#: a key of `COVARIANCES`, a number, or a Gaussian
Covariance = str | float | Gaussian


def covariance(given: object) -> Covariance:
    """A covariance that was asked for, if it is one.

    **Raises:** `InputError` for a word that names none; `CovarianceError` for what is no covariance.
    """
    if isinstance(given, Gaussian):
        return given
    if isinstance(given, str):
        if given in COVARIANCES:
            return given
        names = ", ".join(f'"{name}"' for name in COVARIANCES)
        raise InputError(f"covariance must be {names}, a number or a Gaussian, got {given!r}")
    found = Gaussian(given)
    return found.covariance.item() if found.covariance.dim() == 0 else found


def output(given: object) -> str:
    """Which outputs were asked for. **Raises:** `InputError` for others than `OUTPUTS`."""
    if not isinstance(given, str) or given not in OUTPUTS:
        raise InputError(f'output must be "all", of every token, or "moved", of those that move, got {given!r}')
    return given


def called(what: Covariance) -> str | float:
    """A covariance for tables and settings: its name, its number, or its kind and what tells it apart."""
    if not isinstance(what, Gaussian):
        return what
    if what.covariance.dim() == 0:
        return what.covariance.item()
    return f"{what!r} {sha256(what.covariance.cpu().numpy().tobytes()).hexdigest()[:16]}"


def fitted(what: Covariance, outputs: Sequence[Float[Tensor, "_ m"]], prompts: Sequence[Encoded]) -> Gaussian:
    """The covariance of one token's outputs.

    **Args:** `what`; `outputs` of a part on each of the prompts.

    **Raises:** `CovarianceError` where the outputs do not vary, or a matrix is asked for and there are too few words.
    """
    if isinstance(what, Gaussian):
        return what
    if not isinstance(what, str):
        return Gaussian(what)
    if what == "all":
        return Gaussian.calibrated(torch.cat(list(outputs)))
    # not of all tokens: what MLPs put out at [CLS] or an attention sink can be most of the variance
    words = pool(outputs, prompts).double()
    if what == "words":
        return Gaussian.calibrated(words)
    m, width = words.shape
    if m < 2:
        raise CovarianceError(f"a covariance needs the outputs at two words at least, there are {m}; give more prompts")
    if what == "diagonal":
        return Gaussian(words.var(0))
    if m <= width:
        raise CovarianceError(
            f'covariance="full" of {width} outputs needs more words than that, and the prompts have {m}; give more '
            'prompts, or take covariance="diagonal"'
        )
    return Gaussian(torch.cov(words.T))


def mean_variance(gaussian: Gaussian) -> float:
    """The mean variance of an output."""
    sigma = gaussian.covariance
    return (sigma.diagonal() if sigma.dim() == 2 else sigma).mean().item()


def of_tokens(one: Gaussian, width: int, count: int) -> Gaussian:
    """The covariance of the outputs of several tokens: each has that of one token, and they are uncorrelated.

    A Gaussian that is made for all of them at once, `[count · width]`, is taken as it is.

    **Raises:** `CovarianceError` where it fits neither.
    """
    if one.ambient_dim is None or one.ambient_dim == count * width:
        return one
    if one.ambient_dim != width:
        raise CovarianceError(
            f"the covariance is made for {one.ambient_dim} outputs; a token has {width} here, and {count} tokens "
            f"{count * width}"
        )
    sigma = one.covariance
    if sigma.dim() == 1:
        return Gaussian(sigma.repeat(count))
    return Gaussian(torch.block_diag(*[sigma] * count))


@dataclass(frozen=True)
class Pick:
    """Some of the outputs `[n, width]` of a part, also where these are flattened.

    **Attributes:** `width`, how many outputs a token has; `columns`, which of them, and `tokens`, of which tokens
    (`None`: all).
    """

    width: int
    columns: slice | None = None
    tokens: tuple[int, ...] | None = None

    def __call__(self, outputs: Tensor) -> Tensor:
        """The flattened outputs `[..., n · width]` -> those that are picked, flattened."""
        if self.columns is None and self.tokens is None:
            return outputs
        rows = outputs.unflatten(-1, (-1, self.width))
        if self.tokens is not None:
            rows = rows[..., list(self.tokens), :]
        return rows[..., self.columns or slice(None)].flatten(-2)

    def count(self, size: int) -> int:
        """How many of so many flattened outputs are picked."""
        tokens = size // self.width if self.tokens is None else len(self.tokens)
        return tokens * len(range(self.width)[self.columns or slice(None)])

    def of_a_token(self, outputs: Float[Tensor, "n width"]) -> Float[Tensor, "n m"]:
        """The columns of each token."""
        return outputs[:, self.columns or slice(None)]
