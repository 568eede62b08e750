"""Next tokens in blocks: the same numbers as all logits at once, from so many rows of the matrix at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import InputError

D = torch.float64
QUANTITIES = ["metric", "christoffel", "riemann", "scalar_curvature", "ambient_scalar_curvature", "amari_chentsov"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def states(members: int, width: int) -> Any:
    first, second = random(4, 6, seed=1), random(6, members * width, seed=2)
    return lambda x: (torch.tanh(x @ first) @ second).reshape(members, width)


CHART = ff.charts.affine(random(4, seed=3), random(3, 4, seed=4))
U = 0.3 * random(5, 3, seed=5)


class Read:
    """A matrix that lets only rows be read, and remembers how many at a time."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.most = matrix, 0

    @property
    def shape(self) -> Any:
        return self.matrix.shape

    def __getitem__(self, rows: slice) -> Tensor:
        found = self.matrix[rows]
        self.most = max(self.most, len(found))
        return found


def both(tokens: int, members: int, softcap: float | None, scale: float, chart: Any = CHART) -> tuple[Any, Any]:
    """The manifold in blocks, and that of all logits."""
    width = 7
    weight, bias, hidden = random(tokens, width, seed=6), random(tokens, seed=7), states(members, width)

    def logits(x: Tensor) -> Tensor:
        z = scale * (hidden(x) @ weight.T + bias)
        return z if softcap is None else softcap * torch.tanh(z / softcap)

    blocks = ff.families.NextToken(weight, bias, softcap=softcap, scale=scale)
    return ff.StatisticalManifold(hidden, chart, blocks), ff.StatisticalManifold(
        logits, chart, ff.families.Categorical()
    )


def same(found: Any, right: Any, u: Any, quantities: list[str]) -> None:
    got, want = found.measure(u, quantities), right.measure(u, quantities)
    for name in quantities:
        assert (got[name] - want[name]).abs().max() <= 1e-12 * want[name].abs().max(), name


@pytest.mark.parametrize(
    ("tokens", "members", "softcap", "scale"),
    [(40, 1, None, 1.0), (5, 1, None, 1.0), (40, 3, None, 0.25), (40, 2, 5.0, 2.0), (9000, 2, 30.0, 1.0)],
)
def test_as_all_logits_at_once(
    tokens: int, members: int, softcap: float | None, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fisherflat.spaces.families._tokens._BLOCK", 2**17)  # several blocks
    found, right = both(tokens, members, softcap, scale)
    assert found.family.ambient_dim((members, 7)) == members * (tokens - 1)
    same(found, right, U, QUANTITIES)


def test_in_coordinates_that_are_nearly_parallel() -> None:
    """Where directions are chosen anew, frames are others."""
    first, second = random(2, 4, seed=8)
    chart = ff.charts.affine(random(4, seed=3), torch.stack([first, first + 1e-4 * second]))
    found, right = both(40, 2, None, 1.0, chart)
    assert found.at([0.1, 0.2]).changes[0].diagonal()[1] != 1
    got, want = (m.measure([0.1, 0.2], QUANTITIES) for m in (found, right))
    for name in QUANTITIES:
        assert (got[name] - want[name]).abs().max() <= 1e-9 * want[name].abs().max(), name


def test_efrons_curvature() -> None:
    line = ff.charts.affine(random(4, seed=3), random(1, 4, seed=4))
    found, right = both(40, 1, 5.0, 1.0, line)
    assert found.efron_curvature([0.2]).item() == pytest.approx(right.efron_curvature([0.2]).item(), rel=1e-12)


@pytest.mark.parametrize("excess", [5.0, 27.0, 100.0])
def test_confident_predictions_keep_their_digits(excess: float) -> None:
    """Against the metric from probabilities in 60 digits, with an offset that all logits share."""
    import mpmath

    logits = torch.tensor([excess, 0.3, -0.2, 0.1], dtype=D) + 64
    chart = ff.charts.affine(logits, torch.eye(4)[:2])
    manifold = ff.StatisticalManifold(lambda z: z, chart, ff.families.NextToken(torch.eye(4)))
    with mpmath.workdps(60):
        weights = [mpmath.e ** mpmath.mpf(z) for z in logits.tolist()]
        p = [w / mpmath.fsum(weights) for w in weights]
        right = [[float(p[i] * ((i == j) - p[j])) for j in (0, 1)] for i in (0, 1)]
    torch.testing.assert_close(manifold.metric([0.0, 0.0]), torch.tensor(right, dtype=D), rtol=1e-13, atol=0)


def test_rows_are_read_block_by_block() -> None:
    """How many at a time does not depend on how many there are."""
    most = []
    for tokens in (40_000, 160_000):
        weight = Read(random(tokens, 64, seed=9).to(torch.bfloat16))
        chart = ff.charts.affine(random(64, seed=10), random(2, 64, seed=11))
        manifold = ff.StatisticalManifold(torch.tanh, chart, ff.families.NextToken(weight))
        assert manifold.scalar_curvature([0.1, 0.2]).isfinite()
        most.append(weight.most)
    assert most[0] == most[1] < 40_000


def test_the_precision_of_the_weight_is_its_own() -> None:
    weight = random(50, 7, seed=6).to(torch.bfloat16)
    found = [
        ff.StatisticalManifold(states(1, 7), CHART, ff.families.NextToken(w)).scalar_curvature(U)
        for w in (weight, weight.double())
    ]
    torch.testing.assert_close(*found, rtol=1e-13, atol=0)


def test_logits() -> None:
    weight, bias, h = random(9, 7, seed=6), random(9, seed=7), random(3, 7, seed=8)
    z = 0.5 * (h @ weight.T + bias)
    family = ff.families.NextToken(weight, bias, softcap=2.0, scale=0.5)
    torch.testing.assert_close(family.logits(h), 2 * torch.tanh(z / 2))


def test_what_is_refused() -> None:
    weight = random(9, 7)
    for arguments, said in (
        ((weight[0],), "matrix"),
        ((weight[:1],), "at least 2"),
        ((weight.long(),), "floating-point"),
        ((weight, weight), "bias must have shape \\[9\\]"),
        ((weight, None, -1.0), "softcap"),
        ((weight, None, None, 0.0), "scale"),
        (("weights",), "matrix"),
    ):
        with pytest.raises(InputError, match=said):
            ff.families.NextToken(*arguments)
    with pytest.raises(InputError, match="width 7 in the last axis"):
        ff.StatisticalManifold(lambda u: u, ff.charts.identity(2), ff.families.NextToken(weight))
