"""A study of depth measured in the covariance that was asked for: as an analysis, and as manifolds made by hand."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import fisherflat as ff
from fisherflat.errors import CovarianceError, FisherflatError, InputError
from fisherflat.models.moves import pool

PROMPT = "for key in sorted(table):\n    return sum(table[key])"
POSITION = 4
FEW: dict[str, Any] = {"position": POSITION, "points": 2, "readings": ["live"], "halves": False, "progress": False}
DIAGONAL = ff.Gaussian(torch.linspace(0.5, 2.0, 96))
CHOICES: list[tuple[Any, str]] = [
    ("words", "moved"), ("all", "all"), ("diagonal", "moved"), (DIAGONAL, "all"),
]  # fmt: skip

pytestmark = pytest.mark.xdist_group("covariances in depth")  # what is made once in a process


@cache
def model() -> ff.Model:
    return ff.load("python-llama")


@cache
def study(what: Any, output: str) -> ff.DepthStudy:
    return ff.study_depth(model(), PROMPT, covariance=what, output=output, budget_points=1, resolution=2, **FEW)


def measured(found: ff.DepthStudy, depth: int) -> Any:
    """The rows of the unit that was asked for."""
    table = found.table
    return table[(table["unit"] == found.kinds[0][0]) & (table["depth"] == depth)]


def whitened(outputs: torch.Tensor, what: Any, words: torch.Tensor, every: torch.Tensor, rows: list[int]) -> Any:
    deviation = {
        "words": lambda: words.var(0).mean().sqrt(),
        "all": lambda: every.var(0).mean().sqrt(),
        "diagonal": lambda: words.std(0),
    }
    sigma = (
        deviation[what]() if isinstance(what, str)
        else what.covariance.sqrt() if isinstance(what, ff.Gaussian) else what**0.5
    )  # fmt: skip
    return outputs[rows] / sigma


@pytest.mark.parametrize(("what", "output"), CHOICES)
def test_after_the_first_block_it_is_the_number_of_an_analysis(what: Any, output: str) -> None:
    table = ff.analyze(
        model(), PROMPT, layers=[0], parts=["block"], readings=["live"], positions=[POSITION], points=2,
        covariance=what, output=output, progress=False,
    ).table  # fmt: skip
    rows = measured(study(what, output), 1)
    for name in ("scalar_curvature", "second_fundamental_form_norm", "volume_density", "variance"):
        assert rows[name].tolist() == pytest.approx(table[name].tolist(), rel=1e-7), name
    for name in ("covariance", "output", "moves"):
        assert set(rows[name]) == set(table[name]), name


@pytest.mark.parametrize(("what", "output"), CHOICES)
def test_after_two_blocks_it_is_that_of_a_manifold_by_hand_and_of_the_other_engine(what: Any, output: str) -> None:
    blocks = model().blocks(PROMPT)[:2]
    encoded, at = model().encode(PROMPT), blocks[0].hidden_states
    after = [blocks[0](at).detach()]
    after.append(blocks[1](after[0]).detach())
    rows = [POSITION] if output == "moved" else list(range(len(at)))
    words = pool(after[1:], [encoded])
    directions = ff.charts.principal_directions(pool([at], [encoded], 2), 2)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return whitened(blocks[1](blocks[0](x)), what, words, after[1], rows)

    engine = "autodiff" if output == "moved" else "taylor"  # of all outputs that one takes minutes
    by_hand = ff.StatisticalManifold(mean, ff.charts.token(at, [POSITION], directions), engine=engine)
    first = measured(study(what, output), 2)["scalar_curvature"].iloc[0]
    assert first == pytest.approx(by_hand.scalar_curvature(torch.zeros(2)).item(), rel=1e-6)
    profile = ff.depth_profile(
        model(), ff.charts.token(at, [POSITION], directions), prompt=PROMPT, covariance=what, output=output
    )
    assert profile.scalar_curvature[2].item() == pytest.approx(first, rel=1e-7)
    assert (profile.table["covariance"] == study(what, output).covariance).all()


@pytest.mark.parametrize(("what", "output"), CHOICES)
def test_budget_maps_and_profile_are_of_the_same_surface(what: Any, output: str) -> None:
    found = study(what, output)
    profile = found.profiles["live"]
    budget = found.budgets["role"]
    total = budget.scalar_curvature[0].item()
    assert total == pytest.approx(profile.scalar_curvature[-1, 0].item(), rel=1e-6)
    chart_at_hand = ff.curvature_budget(
        model(), ff.charts.token(*_moving()), prompt=PROMPT, covariance=what, output=output
    )
    assert chart_at_hand.scalar_curvature.item() == pytest.approx(total, rel=1e-6)
    last = list(found.maps)[-1]
    u = found.maps[last].u.reshape(-1, 2)
    chart = ff.charts.token(*_moving())
    again = ff.depth_profile(model(), chart, u, prompt=PROMPT, covariance=what, output=output)
    assert found.maps[last].scalar_curvature.flatten().tolist() == pytest.approx(
        again.scalar_curvature[-1].tolist(), rel=1e-6
    )


def _moving() -> tuple[torch.Tensor, list[int], torch.Tensor]:
    encoded, at = model().encode(PROMPT), model().blocks(PROMPT)[0].hidden_states
    return at, [POSITION], ff.charts.principal_directions(pool([at], [encoded], 2), 2)


def test_in_all_directions_the_outputs_that_move_are_a_part_of_the_others() -> None:
    """With the token's own state alone as the surface as many outputs move as there are directions: it is open."""
    small: dict[str, Any] = {"budget_points": 0, "progress": False, "readings": ["live"], "halves": False}
    found = ff.study_depth(model(), PROMPT, k="full", position=POSITION, output="moved", **small)
    profile = found.profiles["live"]
    assert found.output == "moved"
    assert set(profile.decided[1:].flatten().nan_to_num(nan=0.0).tolist()) == {0.0}, profile.said


@pytest.mark.parametrize(("what", "output"), CHOICES[:2])
def test_over_prompts_attribution_has_the_same_choice(what: str, output: str) -> None:
    found = ff.attribution(model(), [PROMPT], positions=[POSITION], covariance=what, output=output)
    total = found[found["quantity"] == "attributed"]["mean"].sum()
    assert total == pytest.approx(study(what, output).profiles["live"].scalar_curvature[-1, 0].item(), rel=1e-6)


def test_units_are_those_that_there_are() -> None:
    units = {what: [unit for unit, _ in study(what, output).kinds] for what, output in CHOICES}
    assert units == {
        "words": ["calibrated", "fixed"], "all": ["calibrated", "fixed"], "diagonal": ["calibrated"],
        DIAGONAL: ["fixed"],
    }  # fmt: skip


def test_of_a_batch_of_plain_maps() -> None:
    """Of blocks without a model: the rows that the chart moves."""
    generator = torch.Generator().manual_seed(0)
    at, basis = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4, 3), (2, 3)))
    mixed = torch.randn(4, 4, generator=generator, dtype=torch.float64)

    def block(x: torch.Tensor) -> torch.Tensor:
        return x + mixed @ x**2

    profile = ff.depth_profile([block], ff.charts.token(at, [2], basis), covariance=2.0, output="moved")
    alone = ff.StatisticalManifold(lambda x: block(x)[2], ff.charts.token(at, [2], basis), ff.Gaussian(2.0))
    assert profile.second_fundamental_form_norm[1].item() == pytest.approx(
        alone.measure(torch.zeros(2), ["second_fundamental_form_norm"])["second_fundamental_form_norm"].item(), rel=1e-9
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"covariance": "word"}, "covariance must be"),
        ({"covariance": -1.0}, "covariance"),
        ({"output": "token"}, "output must be"),
        ({"family": "next-token", "covariance": "all"}, "a family has its own metric"),
        ({"family": "next-token", "output": "moved"}, "a family has its own metric"),
        ({"covariance": ff.Gaussian([1.0, 2.0])}, "made for 2 outputs"),
        ({"covariance": "full"}, "needs more words"),
    ],
)
def test_what_cannot_be_measured_in_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises((CovarianceError, InputError), match=match):
        ff.study_depth(model(), PROMPT, **FEW, **options)


def test_tokens_that_move_need_rows() -> None:
    chart = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    with pytest.raises(FisherflatError, match='output="all"'):
        ff.depth_profile([lambda x: x + x**2], chart, output="moved")
