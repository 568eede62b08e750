"""Whether an activation is homogeneous: proved for the known ones, tested for others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional as F

from fisherflat._display import displayed
from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.layers import MLP_ACTIVATIONS, Activation

_FROM_ZERO = "degree 0 is forced by φ(0) = {}, but then φ would be constant on each ray, and it is strictly increasing"
_SLOPES = "φ(z)/z is 1/2 at 0 and tends to 1 for large z, but the φ of degree p has φ(z)/z proportional to z^(p-1)"

#: name -> degree (None: not homogeneous) and proof
PROOFS: dict[str, tuple[int | None, str]] = {
    "identity": (1, "φ(λz) = λz"),
    "relu": (1, "max(λz, 0) = λ max(z, 0) for λ > 0"),
    "relu2": (2, "max(λz, 0)² = λ² max(z, 0)² for λ > 0"),
    "sigmoid": (None, _FROM_ZERO.format("1/2")),
    "softplus": (None, _FROM_ZERO.format("log 2")),
    "tanh": (None, "φ(z)/z is 1 at 0, which forces degree 1 and φ(z) = z for z > 0, but φ is bounded"),
    "silu": (None, _SLOPES),
    "gelu": (None, _SLOPES),
    "gelu_tanh": (None, _SLOPES),
}
_NAMES: dict[Callable[..., Tensor], str] = {
    **{function: name for name, function in MLP_ACTIVATIONS.items() if name != "gelu"},
    F.relu: "relu",
    torch.Tensor.relu: "relu",
    F.sigmoid: "sigmoid",
    F.tanh: "tanh",
}
_FACTORS = (2.0, 3.0)
#: relative; above the rounding of any one activation, below what bends
_TOLERANCE = 1e-9


@displayed
class Homogeneity(NamedTuple):
    """What is known of `φ(λz) = λ^p φ(z)` for all λ > 0, from `homogeneity_evidence`.

    **Attributes:**

    - `degree`: p, or `None` where there is none.
    - `proved`: whether it is known by proof rather than by test.
    - `evidence`: the proof, or the test with its counterexample in numbers.
    """

    degree: float | None
    proved: bool
    evidence: str


def homogeneity(activation: str | Activation) -> float | None:
    """The degree p with `φ(λz) = λ^p φ(z)` for all z and all λ > 0, or `None` where there is none.

    It is known by proof for the activations of `fisherflat.layers` (given by name, or as the function itself), and
    found by test for other callables: `homogeneity_evidence` also says why.

    **Args:**

    - `activation`: a name, or a callable that maps a float64 tensor entry by entry.

    **Returns:** p, or `None`.

    **Raises:** `InputError` for an unknown name, or a callable that cannot be tested.

    >>> import fisherflat as ff
    >>> ff.symmetry.homogeneity("relu2"), ff.symmetry.homogeneity("silu")
    (2, None)
    """
    return homogeneity_evidence(activation).degree


def homogeneity_evidence(activation: str | Activation) -> Homogeneity:
    """The degree of an activation, and how it is known.

    A test compares the ratios `φ(λz)/φ(z)`, which for a homogeneous function are the same for all z, at |z| from 1/64
    to 1024 and of both signs, for λ = 2 and 3. It can refute for certain (a counterexample is given), but not prove.

    **Args:**

    - `activation`: a name, or a callable that maps a float64 tensor entry by entry.

    **Returns:** a `Homogeneity`.

    **Raises:** `InputError` for an unknown name, and for a callable that fails, does not keep the shape, or is zero
    everywhere.

    >>> import fisherflat as ff
    >>> ff.symmetry.homogeneity_evidence("relu").evidence
    'max(λz, 0) = λ max(z, 0) for λ > 0'
    """
    name = activation if isinstance(activation, str) else _NAMES.get(activation)
    if name is not None:
        if name not in PROOFS:
            raise InputError(f"unknown activation {name!r}; known are {', '.join(PROOFS)}, or pass a callable")
        return Homogeneity(PROOFS[name][0], True, PROOFS[name][1])
    assert not isinstance(activation, str)
    return _tested(activation)


def is_named(activation: Activation, name: str) -> bool:
    """Whether a function has the values of the activation of that name: a name is no proof of what a function does.

    They are compared at |z| from 1/64 to 32 and at both signs, to 1e-9 of the larger.
    """
    size = 2.0 ** torch.arange(-6, 5.5, 0.5, dtype=torch.float64)
    z = torch.cat([size, -size])
    known = (lambda z: F.gelu(z, approximate="tanh")) if name == "gelu_tanh" else MLP_ACTIVATIONS.get(name)
    if known is None:
        return False
    expected = known(z)
    return bool(torch.allclose(_call(activation, z), expected, rtol=_TOLERANCE, atol=1e-15))


def _tested(activation: Activation) -> Homogeneity:
    size = 2.0 ** torch.arange(-6, 11, 0.5, dtype=torch.float64)
    z = torch.cat([size, -size])
    values = [_call(activation, factor * z) for factor in (1.0, *_FACTORS)]
    degrees = []
    for factor, scaled in zip(_FACTORS, values[1:], strict=True):
        finite = values[0].isfinite() & scaled.isfinite()
        at, before, after = z[finite], values[0][finite], scaled[finite]
        zero = before == 0
        if (after[zero] != 0).any():
            where = at[zero][after[zero] != 0][0].item()
            return _refuted(f"φ({where:g}) = 0 but φ({factor * where:g}) ≠ 0")
        if zero.all():
            raise InputError("the activation is zero wherever it was tested, so that its degree is arbitrary")
        ratios, at = (after / before)[~zero], at[~zero]
        low, high = int(ratios.argmin()), int(ratios.argmax())
        if ratios[low] <= 0 or ratios[high] - ratios[low] > _TOLERANCE * ratios[high]:
            (a, b), (r, s) = at[[low, high]].tolist(), ratios[[low, high]].tolist()
            return _refuted(f"φ({factor:g}z)/φ(z) is {r:.6g} at z = {a:.6g} and {s:.6g} at z = {b:.6g}")
        degrees.append(math.log(ratios.median().item()) / math.log(factor))
    if abs(degrees[0] - degrees[1]) > 1e-8:
        return _refuted(f"the factors {_FACTORS} scale φ with the degrees {degrees[0]:.6g} and {degrees[1]:.6g}")
    degree = round(degrees[0], 9)
    found = int(degree) if degree == int(degree) else degree
    return Homogeneity(found, False, f"φ(λz) = λ^{found:g} φ(z) at {len(z)} points for λ = 2 and 3, to 1e-9")


def _refuted(counterexample: str) -> Homogeneity:
    return Homogeneity(None, False, counterexample)


def _call(activation: Activation, z: Tensor) -> Tensor:
    try:
        value = activation(z).detach()
    except Exception as error:  # whatever a function of someone else raises
        raise InputError(f"the activation failed on a float64 tensor: {type(error).__name__}: {error}") from error
    if value.shape != z.shape:
        raise InputError(f"an activation acts entry by entry; this one took {list(z.shape)} to {list(value.shape)}")
    return value
