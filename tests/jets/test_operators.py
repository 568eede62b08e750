"""Operators of torch's own database, one sample of each, against differences of values; and those differences.

`tests/cases/operators.py` runs the whole database and writes docs/operators.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import mpmath
import pytest
import torch
from cases.operator_maps import differentiable, maps
from cases.operator_verdicts import Found, judge, verdicts
from cases.romberg import Truth, truth
from torch import Tensor

GROUPS = 12
#: samples of an operator among which one is chosen
MOST = 16

pytestmark = pytest.mark.xdist_group("operators")  # torch's database, which takes seconds to import


def drawn(name: str) -> dict[str, dict[str, Found]]:
    """The verdicts on one map of an operator, chosen by its name."""
    number = zlib.crc32(name.encode())
    found = list(maps(name, lambda count: [number % count], MOST))
    if any(one.point.numel() > 10_000 for one in found):  # an operator has samples that take half a minute
        found = list(maps(name, lambda count: [0], 1))
    return {one.name: verdicts(one) for one in found[number % max(len(found), 1) :][:1]}


@pytest.mark.parametrize("group", range(GROUPS))
def test_no_operator_is_wrong(group: int) -> None:
    names = [name for name in differentiable() if zlib.crc32(name.encode()) % GROUPS == group]
    assert len(names) > 30
    found = {map_: verdict for name in names for map_, verdict in drawn(name).items()}
    faults = [
        f"{map_}, {engine}: {one.verdict}, {one.detail}"
        for map_, verdict in found.items()
        for engine, one in verdict.items()
        if one.verdict in ("wrong", "memory", "foreign")
    ]
    assert not faults, "\n".join(faults)
    right = sum(verdict["taylor"].verdict in ("rules", "fallback") for verdict in found.values())
    assert right >= 0.8 * len(found)


# -- the truth ---------------------------------------------------------------------------------------------------------

BASIS = torch.tensor([[0.8, -0.5, 0.3], [0.2, 0.7, -0.9]], dtype=torch.float64)
POINT = torch.tensor([0.3, -1.2, 2.1], dtype=torch.float64)


def of_entries(f: Callable[[Tensor], Tensor], point: Tensor = POINT) -> Truth:
    return truth(lambda u: f(point + u @ BASIS), torch.zeros(2, dtype=torch.float64))


def exact(f: Callable[[mpmath.mpf], mpmath.mpf], point: Tensor = POINT) -> Tensor:
    """The 2-jet `[6, D]` of a function of single entries, from derivatives in 50 digits."""
    with mpmath.workdps(50):
        slopes = [[mpmath.diff(f, mpmath.mpf(x), n) for x in point.tolist()] for n in (0, 1, 2)]
    value, slope, bend = (torch.tensor([float(s) for s in some], dtype=torch.float64) for some in slopes)
    one, two = BASIS
    return torch.stack([value, slope * one, slope * two, bend * one * one, bend * one * two, bend * two * two])


@pytest.mark.parametrize(
    ("f", "g", "point"),
    [
        (torch.sin, mpmath.sin, POINT),
        (lambda x: (5 * x).exp(), lambda x: mpmath.exp(5 * x), POINT),
        (torch.reciprocal, lambda x: 1 / x, POINT),
        (torch.lgamma, lambda x: mpmath.log(abs(mpmath.gamma(x))), POINT),
        (lambda x: x * 1e6 + 1e9, lambda x: x * 10**6 + 10**9, POINT),
        (torch.sinc, lambda x: mpmath.sincpi(x), POINT * 0 + 1e-9),
        (lambda x: (x - POINT - 0.002).relu() + x.sin(), lambda x: mpmath.sin(x), POINT),  # a kink nearby
        (lambda x: (x > POINT + 0.01) + x.exp(), lambda x: mpmath.exp(x), POINT),  # a jump
        (lambda x: x.sqrt(), mpmath.sqrt, POINT * 0 + 0.05),  # the end of the domain
    ],
)
def test_differences_cover_their_errors(f: Callable[[Tensor], Tensor], g: Callable, point: Tensor) -> None:
    found, want = of_entries(f, point), exact(g, point)
    assert found.smooth.all() and not found.kink.any()
    for estimate, right in zip(found.jet, want, strict=True):
        assert ((estimate.value - right).abs() <= estimate.error).all()
    size = want.abs().amax(0)
    assert all((estimate.error <= 1e-4 * size + 1e-7).all() for estimate in found.jet)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x - POINT).abs(),
        lambda x: (x - POINT).relu() ** 2 + x.sin(),  # once differentiable
        lambda x: (x - POINT - 1e-7).abs(),  # nearer than the smallest step
        lambda x: (x - POINT)[:2].prod() ** 3 / ((x - POINT)[:2] ** 2).sum().square().clamp(min=1e-300) + x,  # a cone
    ],
)
def test_kinks_are_seen(f: Callable[[Tensor], Tensor]) -> None:
    found = of_entries(f)
    assert found.kink.all() and not found.smooth.any()


@pytest.mark.parametrize("f", [lambda x: (x >= POINT).double(), lambda x: (x - POINT).abs().sqrt(), torch.floor])
def test_nothing_is_known_at_jumps_and_cusps(f: Callable[[Tensor], Tensor]) -> None:
    found = of_entries(f, POINT if f is not torch.floor else POINT.round())
    assert not found.smooth.any()


def test_a_verdict_is_wrong_where_a_number_is() -> None:
    found, right = of_entries(torch.sin), exact(mpmath.sin)
    assert judge(right, found, "rules").verdict == "rules"
    for row in range(6):
        for off, verdict in ((1e-5, "wrong"), (float("nan"), "refused" if row else "wrong")):  # geometry refuses NaN
            jet = right.clone()
            jet[row, 1] += off
            assert judge(jet, found, "rules").verdict == verdict
    at_a_kink = of_entries(lambda x: (x - POINT).abs())
    assert judge(right * 0, at_a_kink, "rules").verdict == "kink"
    assert judge(right * 0 + 1, at_a_kink, "rules").verdict == "wrong"  # the value is known
