"""One covariance, the same in a table, in a manifold made by hand and in a certificate."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

import fisherflat as ff
from fisherflat.errors import CovarianceError, InputError
from fisherflat.models.moves import pool

PROMPTS = ["def mean(values):", "for key in sorted(table):\n    return sum(table[key]) / len(table[key]) + offset"]
ALONE = PROMPTS[:1]
POSITION = 5


pytestmark = pytest.mark.xdist_group("covariances")  # what is made once in a process


@cache
def model() -> ff.Model:
    return ff.load("python-llama")


def given(what: Any) -> torch.Tensor:
    return what.covariance if isinstance(what, ff.Gaussian) else torch.tensor(what, dtype=torch.float64)


def diagonal(width: int) -> ff.Gaussian:
    return ff.Gaussian(torch.linspace(0.5, 2.0, width))


#: name -> what is asked for, and in which part; a full matrix needs more words than outputs
CHOICES: dict[str, tuple[Any, str]] = {
    "words": ("words", "attention"),
    "all tokens": ("all", "mlp"),
    "diagonal": ("diagonal", "attention"),
    "full, of a head": ("full", "head 2"),
    "a number": (0.25, "head 0"),
    "a diagonal of one token": (diagonal(96), "attention"),
}


def row(part: str, prompts: list[str], **options: Any) -> Any:
    heads = [int(part.removeprefix("head "))] if part.startswith("head") else None
    found = ff.analyze(
        model(), prompts, parts=[] if heads else [part], heads=heads, layers=[1], readings=["live"],
        positions=[POSITION], points=1, progress=False, **options,
    )  # fmt: skip
    assert found.table["error"].isna().all(), found.table["error"].tolist()
    return found.table.iloc[0]


@pytest.mark.parametrize(("choice", "output"), list(zip(CHOICES, ["all", "moved"] * 3, strict=True)))
def test_the_number_of_a_certificate_is_that_of_the_table(choice: str, output: str) -> None:
    what, part = CHOICES[choice]
    table = row(part, PROMPTS, covariance=what, output=output)
    certificate = ff.certify_layer(
        model(), 1, part, prompt=PROMPTS[0], position=POSITION, covariance=what, output=output, among=PROMPTS
    )
    low, high = map(float, certificate.enclosure)
    assert table["scalar_curvature"] / 2 == pytest.approx((low + high) / 2, rel=1e-6)
    checked = ff.verify_layer(certificate, model())
    assert checked.ok, checked


@pytest.mark.parametrize("output", ["all", "moved"])
@pytest.mark.parametrize("choice", CHOICES)
def test_the_number_of_the_table_is_that_of_the_manifold_by_hand(choice: str, output: str) -> None:
    what, part = CHOICES[choice]
    parts = []
    for prompt in PROMPTS:
        block = model().blocks(prompt)[1]
        parts.append(block.heads[int(part[-1])] if part.startswith("head") else getattr(block, part))
    encoded = [model().encode(prompt) for prompt in PROMPTS]
    with torch.no_grad():
        outputs = [one(one.input) for one in parts]
    words = pool(outputs, encoded)
    made = {
        "words": lambda: words.var(0).mean(),
        "all": lambda: torch.cat(outputs).var(0).mean(),
        "diagonal": lambda: words.var(0),
        "full": lambda: torch.cov(words.T),
    }
    sigma = made[what]() if isinstance(what, str) else given(what)
    n, width = outputs[0].shape
    rows = [POSITION] if output == "moved" else list(range(n))
    factor = {0: lambda: sigma.sqrt() * torch.eye(width), 1: lambda: sigma.sqrt().diag(),
              2: lambda: torch.linalg.cholesky(sigma)}[sigma.dim()]().double()  # fmt: skip

    def whitened(x: torch.Tensor) -> torch.Tensor:
        return parts[0](x)[rows] @ torch.linalg.inv(factor).T

    directions = ff.charts.principal_directions(pool([one.input for one in parts], encoded, 2), 2)
    chart = ff.charts.token(parts[0].input, [POSITION], directions)
    scal = ff.StatisticalManifold(whitened, chart).scalar_curvature(torch.zeros(2)).item()
    assert row(part, PROMPTS, covariance=what, output=output)["scalar_curvature"] == pytest.approx(scal, rel=1e-6)


def test_columns_say_what_it_was() -> None:
    found = row("attention", ALONE, covariance=0.25, output="moved")
    assert (found["covariance"], found["variance"], found["output"]) == ("0.25", 0.25, "moved")
    default = row("attention", ALONE)
    assert (default["covariance"], default["output"]) == ("words", "all")
    assert row("attention", ALONE, covariance=default["variance"])["scalar_curvature"] == pytest.approx(
        default["scalar_curvature"], rel=1e-12
    )


def test_a_gaussian_of_all_outputs_is_one_of_each_token_side_by_side() -> None:
    n = len(model().encode(ALONE[0]).ids)
    one = diagonal(96)
    whole = ff.Gaussian(one.covariance.repeat(n))
    a, b = (row("attention", ALONE, covariance=given)["scalar_curvature"] for given in (one, whole))
    assert a == pytest.approx(b, rel=1e-12)


@pytest.mark.parametrize("given", ["word", "", "calibrated", -1.0, 0.0, float("nan")])
def test_what_is_no_covariance_is_refused_before_anything_is_measured(given: Any) -> None:
    with pytest.raises((CovarianceError, InputError), match="covariance"):
        ff.analyze(model(), ALONE, covariance=given, progress=False)


@pytest.mark.parametrize("given", ["token", ""])
def test_what_is_no_output_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="output must be"):
        ff.analyze(model(), ALONE, output=given, progress=False)


def test_too_few_words_for_a_matrix_are_named() -> None:
    found = ff.analyze(model(), ALONE, layers=[0], parts=["mlp"], covariance="full", points=1, progress=False).table
    assert found["error"].str.contains("needs more words").all()


def test_a_covariance_of_another_width_is_named() -> None:
    found = ff.analyze(
        model(), ALONE, layers=[0], parts=["mlp"], covariance=ff.Gaussian([1.0, 2.0]), points=1, progress=False
    )
    assert found.table["error"].str.contains("made for 2 outputs").all()


@cache
def certified() -> Any:
    made = ff.certify_layer(model(), 0, "attention", prompt=ALONE[0], position=POSITION, reading="frozen pattern")
    assert ff.verify_layer(made, model()).ok
    return made


@pytest.mark.parametrize(
    "change",
    [
        {"covariance": "diagonal"},
        {"covariance": 3.0},
        {"output": "moved"},
        {"output": "none"},
        {"among": [[1, 2, 3, 4]]},
        {"covariance": "nonsense"},
    ],
)
def test_a_certificate_that_names_another_is_refused(change: dict[str, Any]) -> None:
    made = certified()
    assert not ff.verify_layer(replace(made, subject={**made.subject, **change}), model()).ok


@pytest.mark.parametrize("what", ["words", "all", "diagonal", 0.25, diagonal(96)], ids=str)
def test_a_depth_is_measured_in_the_same_covariance(what: Any) -> None:
    """After the first block: the table of that block, on one prompt, at the same token."""
    table = ff.analyze(
        model(), ALONE, layers=[0], parts=["block"], readings=["live"], positions=[POSITION], points=1,
        covariance=what, progress=False,
    ).table  # fmt: skip
    encoded, states = model().encode(ALONE[0]), model().blocks(ALONE[0])[0].hidden_states
    chart = ff.charts.token(states, [POSITION], ff.charts.principal_directions(pool([states], [encoded], 2), 2))
    profile = ff.depth_profile(model(), chart, prompt=ALONE[0], covariance=what)
    assert profile.scalar_curvature[1].item() == pytest.approx(table["scalar_curvature"][0], rel=1e-6)
    budget = ff.curvature_budget(model(), chart, prompt=ALONE[0], covariance=what)
    assert budget.scalar_curvature.item() == pytest.approx(profile.scalar_curvature[-1].item(), rel=1e-6)


def test_words_need_a_prompt() -> None:
    chart = ff.charts.affine(torch.zeros(3, dtype=torch.float64), torch.eye(3)[:2])
    with pytest.raises(InputError, match="a model and its prompt"):
        ff.depth_profile([torch.sin], chart, covariance="words")
    with pytest.raises(InputError, match="not both"):
        ff.depth_profile([torch.sin], chart, covariance=1.0, family=ff.Gaussian())
