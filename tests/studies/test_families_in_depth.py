"""Families in studies: budgets that sum to what the manifold of the whole map says, heads that read states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.errors import CheckpointError, InputError

D = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def block(seed: int) -> Callable[[Tensor], Tensor]:
    first, second = random(6, 5, seed=seed), random(5, 6, seed=seed + 1)
    return lambda x: x + 0.4 * torch.tanh(x @ first) @ second


BLOCKS = [block(1), block(3), block(5)]
CHART = ff.charts.affine(random(6, seed=7), random(3, 6, seed=8))
U = 0.2 * random(4, 3, seed=9)
FAMILIES: dict[str, Any] = {
    "classes": ff.families.Categorical(),
    "tokens": ff.families.NextToken(random(9, 6, seed=11), softcap=4.0),
    "bits": ff.families.Bernoulli(),
    "counts": ff.families.Poisson(),
    "diagonal": ff.families.DiagonalGaussian(),
    "isotropic": ff.families.IsotropicGaussian(),
    "direction": ff.families.VonMisesFisher(2.0),
    "vector": ff.families.VonMisesFisher(),
    "natural": ff.families.ExponentialFamily(F.softplus),
}


def whole(x: Tensor) -> Tensor:
    for one in BLOCKS:
        x = one(x)
    return x


def close(got: Tensor, want: Tensor, scale: Tensor | None = None, rtol: float = 1e-10) -> bool:
    return bool(((got - want).abs() <= rtol * (want.abs() if scale is None else scale)).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_profiles_are_the_curvature_of_the_maps(name: str) -> None:
    found = ff.depth_profile(BLOCKS, CHART, U, family=FAMILIES[name])
    for depth, mean in ((0, lambda x: x), (1, BLOCKS[0]), (3, whole)):
        manifold = ff.StatisticalManifold(mean, CHART, FAMILIES[name])
        known = manifold.measure(U, ["scalar_curvature", "cancellation_scale"])
        assert close(found.scalar_curvature[depth], known["scalar_curvature"], known["cancellation_scale"])
    assert found.family == repr(FAMILIES[name])


@pytest.mark.parametrize("by", ["role", "layer", "layer-role"])
@pytest.mark.parametrize("name", FAMILIES)
def test_budgets_sum_to_the_scalar_curvature(name: str, by: str) -> None:
    manifold = ff.StatisticalManifold(whole, CHART, FAMILIES[name])
    known = manifold.measure(U, ["scalar_curvature", "ambient_scalar_curvature", "cancellation_scale"])
    found = ff.curvature_budget(BLOCKS, CHART, U, family=FAMILIES[name], by=by)
    assert found.labels[-2:] == ("family", "ambient")
    assert close(found.scalar_curvature, known["scalar_curvature"], known["cancellation_scale"])
    assert close(found.attributed.sum(-1), known["scalar_curvature"], known["cancellation_scale"])
    assert close(found.own[..., -1], known["ambient_scalar_curvature"], known["cancellation_scale"])
    assert close(found.attributed[..., -1], found.own[..., -1], known["cancellation_scale"])
    errors = found.error("scalar_curvature")
    assert ((found.scalar_curvature - known["scalar_curvature"]).abs() <= 4 * errors + 1e-12).all()


def test_maps_that_do_not_bend_leave_it_all_to_the_family() -> None:
    """Affine logits: what curvature there is, is the family's."""
    matrix = random(6, 6, seed=12)
    found = ff.curvature_budget([lambda x: x @ matrix], CHART, U, family=ff.families.Categorical(), by="layer")
    rows = dict(zip(found.labels, found.attributed.unbind(-1), strict=True))
    assert (rows["layer 0"] == 0).all()
    manifold = ff.StatisticalManifold(lambda x: x @ matrix, CHART, ff.families.Categorical())
    assert close(rows["family"] + rows["ambient"], manifold.scalar_curvature(U))


def test_a_budget_without_a_metric_of_its_own_has_no_extra_parts() -> None:
    assert "ambient" not in ff.curvature_budget(BLOCKS, CHART, U).labels


# -- models ------------------------------------------------------------------------------------------------------------

PROMPT = "def mean(values):"


@pytest.fixture(scope="module")
def model() -> Any:
    return ff.load("python-llama")


def by_hand(model: Any, depth: int) -> Any:
    """The distribution of the token that follows the last one, of all logits, in plain torch."""
    blocks = list(model.blocks(PROMPT))
    words = model.module.embed_tokens.weight

    def logits(x: Tensor) -> Tensor:
        for one in blocks[:depth]:
            x = one(x)
        h = x[-1]
        h = h * (h.square().mean() + model.config.rms_norm_eps).rsqrt() * model.module.norm.weight
        return words @ h

    chart = ff.charts.principal(blocks[0].input, index=-1)
    return ff.StatisticalManifold(logits, chart, ff.families.Categorical()), chart


def test_next_tokens_through_depth(model: Any) -> None:
    _, chart = by_hand(model, 0)
    u = torch.tensor([[0.0, 0.0], [0.3, -0.2]], dtype=D)
    found = ff.depth_profile(model, chart, u, family="next-token", prompt=PROMPT)
    for depth in (0, 2, 4):
        manifold, _ = by_hand(model, depth)
        known = manifold.measure(u, ["scalar_curvature", "uncertainty", "relative_curvature", "cancellation_scale"])
        assert close(found.scalar_curvature[depth], known["scalar_curvature"], known["cancellation_scale"], 1e-8)
        assert found.uncertainty is not None and found.relative_curvature is not None
        assert close(found.uncertainty[depth], known["uncertainty"], rtol=1e-8)
    assert found.family == "next-token"
    assert found.table["relative_curvature"].notna().all()


def test_a_budget_of_next_tokens(model: Any) -> None:
    manifold, chart = by_hand(model, 4)
    u = torch.zeros(2, dtype=D)
    found = ff.curvature_budget(model, chart, u, family="next-token", prompt=PROMPT, by="layer-role")
    known = manifold.measure(u, ["scalar_curvature", "cancellation_scale"])
    assert close(found.scalar_curvature, known["scalar_curvature"], known["cancellation_scale"], 1e-8)
    assert "readout: norm" in found.labels
    assert found.by("layer").labels[-3:] == ("readout", "family", "ambient")


def test_next_tokens_layer_by_layer(model: Any) -> None:
    found = ff.analyze(model, PROMPT, family="next-token", layers=[1], points=2, positions="last", readings=["live"],
                       progress=False)  # fmt: skip
    row = found.table.iloc[1]
    assert (row["family"], row["part"]) == ("next-token", "block")
    one = model.blocks(PROMPT)[1]
    words, norm = model.module.embed_tokens.weight, model.module.norm.weight

    def logits(x: Tensor) -> Tensor:
        h = one(x)[-1]
        return words @ (h * (h.square().mean() + model.config.rms_norm_eps).rsqrt() * norm)

    chart = ff.charts.principal(one.input, index=-1)
    manifold = ff.StatisticalManifold(logits, chart, ff.families.Categorical())
    states = torch.cat([model.blocks(PROMPT)[1].input])
    assert torch.allclose(chart.point, states)
    known = manifold.measure(row["u"], ["scalar_curvature", "cancellation_scale", "relative_curvature"])
    assert abs(row["scalar_curvature"] - known["scalar_curvature"]) <= 1e-8 * known["cancellation_scale"]
    assert row["relative_curvature"] == pytest.approx(known["relative_curvature"].item(), rel=1e-6)
    assert any("the next token" in said for said in found.sentences())
    assert found.settings["family"] == "next-token"


def test_a_study_of_next_tokens_is_saved_and_loaded(model: Any, tmp_path: Any) -> None:
    found = ff.study_depth(model, PROMPT, family="next-token", points=2, budget_points=2, resolution=3, progress=False)
    found.save(tmp_path / "depth")
    again = type(found).load(tmp_path / "depth")
    assert again.family == "next-token" == found.family
    assert again.sentences() == found.sentences()
    assert any("the next token" in said for said in found.sentences())
    assert not any("σ" in said for said in found.sentences())
    assert set(found.table["family"]) == {"next-token"}


@pytest.mark.parametrize(("kind", "parts"), [("next-token", ["attention"]), ("next-token", ["block", "mlp"])])
def test_parts_that_have_no_distribution(model: Any, kind: str, parts: list[str]) -> None:
    with pytest.raises(InputError, match="parts are"):
        ff.analyze(model, PROMPT, family=kind, parts=parts, progress=False)


def test_what_there_is_no_head_for(model: Any) -> None:
    with pytest.raises(CheckpointError, match="no head for classes"):
        ff.depth_profile(model, prompt=PROMPT, family="class")
    with pytest.raises(InputError, match="give the model itself"):
        ff.depth_profile(BLOCKS, CHART, U, family="next-token")
    with pytest.raises(InputError, match="next-token"):
        ff.analyze(model, PROMPT, family="poetry", progress=False)
    with pytest.raises(InputError, match="odd length"):
        ff.depth_profile([lambda x: x[:5]], CHART, U, family=ff.families.DiagonalGaussian())
