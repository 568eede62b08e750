"""More ops that are not polynomial: powers, losses, grids and complex numbers; as in `cases.transcendental`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

from cases import decompositions
from cases.differences import exactly
from cases.transcendental import EXP, LOG, POW, SQRT, TANH, W4, W4_, Case, logsumexp, sigmoid, softmax

F = torch.nn.functional

LOGGAMMA, ANGLE = np.frompyfunc(mpmath.loggamma, 1, 1), np.frompyfunc(mpmath.arg, 1, 1)
SIN, COS = np.frompyfunc(mpmath.sin, 1, 1), np.frompyfunc(mpmath.cos, 1, 1)
REAL, IMAG = np.frompyfunc(mpmath.re, 1, 1), np.frompyfunc(mpmath.im, 1, 1)
SCALE, ALPHA = mpmath.mpf(1.0507009873554804934193349852946), mpmath.mpf(1.6732632423543772848170429916717)
SELU = np.frompyfunc(lambda t: SCALE * (t if t > 0 else ALPHA * mpmath.expm1(t)), 1, 1)
EXPONENTS = torch.tensor([2.5, -1.0, 0.0, 0.3], dtype=torch.float64)
EXPONENTS_ = np.array([mpmath.mpf(e) for e in EXPONENTS.tolist()])
ORDER, PAIRS = torch.tensor([1, 0, 3]), ((0, 1), (0, 2), (1, 2))
with torch.random.fork_rng():
    torch.manual_seed(0)
    GRU = torch.nn.GRU(2, 2, batch_first=True).double()

SMOOTH: dict[str, list[Case]] = {
    "pow.Tensor_Tensor": [
        ((4,), lambda x: (x + 3) ** EXPONENTS, lambda x: POW(x + 3, EXPONENTS_)),
        ((4,), lambda x: x ** torch.tensor([2.0, 3, 1, 0], dtype=torch.float64), lambda x: x ** np.array([2, 3, 1, 0])),
        ((1,), lambda x: (W4 * W4 + 0.5) ** x[0], lambda x: POW(W4_ * W4_ + mpmath.mpf(0.5), x[0])),
        ((1,), lambda x: (x[0] + 3) ** EXPONENTS, lambda x: POW(x[0] + 3, EXPONENTS_)),
        ((4,), lambda x: (W4 * W4 + 0.5) ** x, lambda x: POW(W4_ * W4_ + mpmath.mpf(0.5), x)),
        ((3, 4), lambda x: (x + 3) ** x[0], lambda x: POW(x + 3, x[0])),
    ],
    "float_power": [((3, 4), lambda x: torch.float_power(x + 3, x), lambda x: POW(x + 3, x))],
    "ldexp": [((4,), lambda x: torch.ldexp(x, x * x), lambda x: x * POW(2, x * x))],
    "logaddexp2": [
        ((3, 4), lambda x: torch.logaddexp2(x, x[0] * 2), lambda x: LOG(POW(2, x) + POW(2, x[0] * 2)) / mpmath.log(2)),
    ],
    "special_xlog1py": [
        ((3, 4), lambda x: torch.special.xlog1py(x, x * x), lambda x: x * LOG(x * x + 1)),
        ((3, 4), lambda x: torch.special.xlog1py(x * x, 3.0), lambda x: x * x * mpmath.log(4)),
        ((3, 4), lambda x: torch.special.xlog1py(torch.zeros(4), x * x) + x, lambda x: x),
    ],
    "special_entr": [((4,), lambda x: torch.special.entr(x + 3), lambda x: -(x + 3) * LOG(x + 3))],
    "mvlgamma": [
        (
            (4,),
            lambda x: torch.mvlgamma(x + 4, 3),
            lambda x: LOGGAMMA(x + 4) + LOGGAMMA(x + mpmath.mpf(3.5)) + LOGGAMMA(x + 3) + 1.5 * mpmath.log(mpmath.pi),
        ),
    ],
    "selu": [
        ((4,), lambda x: F.selu(x * 3), lambda x: SELU(x * 3)),
    ],
    # -- losses --
    "nll_loss_forward": [
        (
            (3, 4),
            lambda x: F.cross_entropy(x, ORDER),
            lambda x: -(x - logsumexp(x, -1, True))[range(3), [1, 0, 3]].sum() / 3,
        ),
        (
            (3, 4),
            lambda x: F.cross_entropy(x, ORDER, W4 * W4, reduction="sum", label_smoothing=0.25),
            lambda x: smoothed(x - logsumexp(x, -1, True)),
        ),
        (
            (3, 4),
            lambda x: F.cross_entropy(x, torch.tensor([1, -100, 3]), reduction="none"),
            lambda x: -(x - logsumexp(x, -1, True))[range(3), [1, 0, 3]] * np.array([1, 0, 1]),
        ),
        ((3, 4), lambda x: F.cross_entropy(x, torch.tensor([1, -100, 3])), lambda x: ignoring(x)),
        ((4,), lambda x: F.cross_entropy(x, torch.tensor(2)), lambda x: logsumexp(x) - x[2]),
    ],
    "nll_loss2d_forward": [
        (
            (1, 3, 2, 2),
            lambda x: F.cross_entropy(x, torch.tensor([[[0, 2], [1, 1]]])),
            lambda x: (logsumexp(x, 1).sum() - x[0, 0, 0, 0] - x[0, 2, 0, 1] - x[0, 1, 1, 0] - x[0, 1, 1, 1]) / 4,
        ),
    ],
    "kl_div": [
        (
            (3, 4),
            lambda x: F.kl_div(x.log_softmax(-1), (x * x).softmax(-1), reduction="sum"),
            lambda x: (softmax(x * x) * (LOG(softmax(x * x)) - LOG(softmax(x)))).sum(),
        ),
    ],
    "binary_cross_entropy": [
        (
            (3, 4),
            lambda x: F.binary_cross_entropy(x.sigmoid(), (x * x).sigmoid(), W4 * W4, reduction="none"),
            lambda x: -W4_ * W4_ * (sigmoid(x * x) * LOG(sigmoid(x)) + sigmoid(-x * x) * LOG(sigmoid(-x))),
        ),
    ],
    "binary_cross_entropy_with_logits": [
        (
            (3, 4),
            lambda x: F.binary_cross_entropy_with_logits(x, x[:1].expand(3, 4), pos_weight=W4 * W4, reduction="sum"),
            lambda x: -(W4_ * W4_ * x[0] * LOG(sigmoid(x)) + (1 - x[0]) * LOG(sigmoid(-x))).sum(),
        ),
    ],
    "soft_margin_loss": [
        ((3, 4), lambda x: F.soft_margin_loss(x, W4.sign()), lambda x: LOG(1 + EXP(-x * np.sign(W4_))).sum() / 12),
    ],
    "grid_sampler_2d, bicubic": [
        ((3, 4), lambda x: bicubic(x, "zeros"), lambda x: bicubic_(x, lambda i, n: i if 0 <= i < n else None)),
        ((3, 4), lambda x: bicubic(x, "border"), lambda x: bicubic_(x, lambda i, n: min(max(i, 0), n - 1))),
        (
            (3, 4),
            lambda x: bicubic(x, "reflection"),
            lambda x: bicubic_(x, lambda i, n: (n - 1) - abs(i % (2 * n - 2) - n + 1)),
        ),
    ],
    "gru": [
        ((1, 3, 2), lambda x: GRU(x)[0], lambda x: gru(x[0])[None]),
        ((3, 1, 2), lambda x: GRU(x.transpose(0, 1))[1], lambda x: gru(x[:, 0])[-1][None, None]),
    ],
    # -- complex numbers --
    "complex exp": [((3, 4), lambda x: parts(torch.exp(z(x))), lambda x: both(EXP(z_(x))))],
    "complex log": [((3, 4), lambda x: parts(torch.log(z(x) + 3)), lambda x: both(LOG(z_(x) + 3)))],
    "complex sqrt": [
        ((3, 4), lambda x: parts(torch.sqrt(z(x))), lambda x: both(SQRT(z_(x)))),
        ((3, 4), lambda x: parts(torch.sqrt(z(x) - 4)), lambda x: both(SQRT(z_(x) - 4))),
    ],
    "complex tanh": [
        ((3, 4), lambda x: parts(torch.tanh(z(x))), lambda x: both(TANH(z_(x)))),
        ((3, 4), lambda x: parts(torch.sigmoid(z(x))), lambda x: both(sigmoid(z_(x)))),
    ],
    "complex sin": [((3, 4), lambda x: parts(torch.sin(z(x)) * torch.cos(z(x))), lambda x: both(SIN(2 * z_(x)) / 2))],
    "complex tan": [((3, 4), lambda x: parts(torch.tan(z(x))), lambda x: both(SIN(z_(x)) / COS(z_(x))))],
    "complex sinh": [
        ((3, 4), lambda x: parts(torch.sinh(z(x)) + torch.cosh(z(x))), lambda x: both(EXP(z_(x)))),
    ],
    "complex pow": [
        ((3, 4), lambda x: parts((z(x) + 3) ** -3), lambda x: both((z_(x) + 3) ** -3)),
        ((3, 4), lambda x: parts((z(x) + 3) ** 0.3), lambda x: both((z_(x) + 3) ** mpmath.mpf(0.3))),
    ],
    "complex abs": [
        ((3, 4), lambda x: z(x).abs(), lambda x: abs(z_(x))),
        ((3, 4), lambda x: (z(x) + 3).angle(), lambda x: ANGLE(z_(x) + 3)),
        ((3, 4), lambda x: parts(torch.sgn(z(x))), lambda x: both(z_(x) / abs(z_(x)))),
        ((3, 4), lambda x: torch.linalg.vector_norm(z(x)), lambda x: SQRT((abs(z_(x)) ** 2).sum())),
        ((3, 4), lambda x: parts(torch.polar(x, x * x)), lambda x: both(x * EXP(x * x * mpmath.mpc(0, 1)))),
    ],
    "complex div": [
        ((3, 4), lambda x: parts(z(x) / (z(x)[0] + 3)), lambda x: both(z_(x) / (z_(x)[0] + 3))),
        ((3, 4), lambda x: parts(1j / (z(x) + 3)), lambda x: both(mpmath.mpc(0, 1) / (z_(x) + 3))),
    ],
    "fft": [
        ((5,), lambda x: torch.fft.fft(x).abs(), lambda x: abs(dft(x))),
        ((6,), lambda x: torch.fft.irfft(torch.fft.rfft(x) ** 2, n=6), lambda x: convolved(x)),
    ],
}

#: where a value is a sum of products, so many of them
SUMMANDS = {"grid_sampler_2d, bicubic": 16}


def smoothed(logarithms: np.ndarray) -> Any:
    """With a quarter of the weight on all classes alike."""
    weights = W4_ * W4_
    chosen = [-logarithms[row, label] * weights[label] for row, label in enumerate([1, 0, 3])]
    return sum(chosen) * mpmath.mpf(0.75) - (logarithms * weights).sum() * mpmath.mpf(0.25) / 4


def ignoring(x: np.ndarray) -> Any:
    """The mean over rows with a label."""
    logarithms = x - logsumexp(x, -1, True)
    return -(logarithms[0, 1] + logarithms[2, 3]) / 2


def bicubic(x: Tensor, padding: str) -> Tensor:
    return F.grid_sample(x[None, None], decompositions.grid(x), "bicubic", padding, align_corners=True)


def keys(t: Any) -> Any:
    """Keys' kernel with a = -3/4."""
    t, a = abs(t), mpmath.mpf(-0.75)
    near, far = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return near if t <= 1 else far if t < 2 else mpmath.mpf(0)


def bicubic_(x: np.ndarray, place: Callable[[int, int], int | None]) -> np.ndarray:
    """The sum of all entries, and of what the padding puts around them, times a kernel for each axis."""
    found = []
    offsets = exactly(torch.linspace(-1.1, 1.15, 8, dtype=torch.float64)).reshape(4, 2)
    for column, row in x[:2].reshape(4, 2) * mpmath.mpf(0.15) + offsets:
        along = [(row + 1) / 2 * 2, (column + 1) / 2 * 3]
        rows, columns = ([(i, weight) for i in range(-3, 8) if (weight := keys(at - i))] for at in along)
        total = mpmath.mpf(0)
        for i, above in rows:
            for j, beside in columns:
                entry = place(i, 3), place(j, 4)
                if None not in entry:
                    total += x[entry] * above * beside
        found.append(total)
    return np.array(found)


def gru(x: np.ndarray) -> np.ndarray:
    """The equations of a gated recurrent unit."""
    wi, wh, bi, bh = (exactly(weight.detach()) for weight in GRU.all_weights[0])
    h, states = np.array([mpmath.mpf(0)] * 2), []
    for token in x:
        (ri, zi, ni), (rh, zh, nh) = np.split(wi @ token + bi, 3), np.split(wh @ h + bh, 3)
        reset, update = sigmoid(ri + rh), sigmoid(zi + zh)
        h = (1 - update) * TANH(ni + reset * nh) + update * h
        states.append(h)
    return np.stack(states)


def z(x: Tensor) -> Tensor:
    """Complex numbers all of whose parts move."""
    return torch.complex(x, x.flip(0) * 0.75)


def z_(x: np.ndarray) -> np.ndarray:
    return x + x[::-1] * mpmath.mpf(0.75) * mpmath.mpc(0, 1)


def parts(y: Tensor) -> Tensor:
    return torch.view_as_real(y)


def both(y: np.ndarray) -> np.ndarray:
    return np.stack([REAL(y), IMAG(y)], -1)


def dft(x: np.ndarray) -> np.ndarray:
    n = len(x)
    return np.array([sum(x[k] * mpmath.expjpi(mpmath.mpf(-2 * j * k) / n) for k in range(n)) for j in range(n)])


def convolved(x: np.ndarray) -> np.ndarray:
    """With itself, around a circle."""
    n = len(x)
    return np.array([sum(x[k] * x[(j - k) % n] for k in range(n)) for j in range(n)])
