"""Depth in all directions: profiles from random planes, and to which parts they are attributed."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.stacks import Alone, Bypassed, Stack
from cases.surfaces import random
from torch import Tensor, nn
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat import cli
from fisherflat.errors import DegenerateImmersionError, InputError

D, N, K = 8, 4, 6
STATES = random(N, D, seed=5)
CHART = ff.charts.token(STATES, 1, torch.linalg.qr(random(D, D, seed=6)).Q[:K])


def layers() -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = [ff.layers.SelfAttention(D, heads=2), ff.layers.GatedMLP(D, 12), ff.layers.SelfAttention(D)]
    return [Bypassed(layer.double()) for layer in found]


LAYERS = layers()
ZERO = torch.zeros(K)


# -- attribution -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["role", "layer", "layer-role"])
def test_sampled_attribution_is_unbiased(by: str) -> None:
    """Traces, products and what follows from them, beside the exact budget of the same chart."""
    exact = ff.curvature_budget(LAYERS, CHART, ZERO, by=by)
    found = ff.curvature_budget(LAYERS, CHART, ZERO, by=by, planes=6000, seed=1)
    assert found.labels == exact.labels
    for name in ("traces", "products", "matrix", "attributed", "own", "interaction", "scalar_curvature"):
        each, truth = getattr(found, name), getattr(exact, name)
        error = each.std(0) / len(each) ** 0.5
        assert ((each.mean(0) - truth).abs() <= 4 * error + 1e-12 * truth.abs().max()).all(), name
        if name != "interaction":  # the test could fail
            big = truth.abs() > truth.abs().max() / 10
            assert (error[big] < truth.abs()[big] / 3).all(), name


def test_it_sums_to_the_estimate_plane_by_plane() -> None:
    def whole(x: Tensor) -> Tensor:
        for layer in LAYERS:
            x = layer(x)
        return x

    sampled = ff.StatisticalManifold(whole, CHART).sampled_scalar_curvature(ZERO, seed=7, error=0.2)
    found = ff.curvature_budget(LAYERS, CHART, ZERO, planes=sampled.pairs, seed=7)
    torch.testing.assert_close(found.scalar_curvature, K * (K - 1) * sampled.planes, rtol=1e-9, atol=1e-11)


def test_a_part_that_is_held_gets_nothing() -> None:
    found = ff.curvature_budget(LAYERS, CHART, ZERO, planes=10, reading="frozen pattern")
    traces = dict(zip(found.labels, found.traces.abs().sum((0, 1)).tolist(), strict=True))
    assert traces["pattern"] == 0 and traces["mlp_gate"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"planes": 1}, "planes must be at least 2"),
        ({"planes": 8, "u": torch.zeros(2, K)}, "at one point"),
        ({"planes": 8, "u": torch.zeros(1), "chart": ff.charts.token(STATES, 1, torch.eye(D)[:1])}, "a curve has no"),
    ],
)
def test_what_planes_cannot_be_asked_for(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ff.curvature_budget(LAYERS, **{"chart": CHART, "u": ZERO, **options})


def test_a_degenerate_end_has_no_budget() -> None:
    norm = nn.LayerNorm(D, elementwise_affine=False, eps=0.0).double()
    chart = ff.charts.affine(STATES[0], torch.eye(D, dtype=torch.float64))
    with pytest.raises(DegenerateImmersionError, match="tells 6 directions apart"):
        ff.curvature_budget([norm], chart, torch.zeros(D), planes=8)


# -- the study ---------------------------------------------------------------------------------------------------------


def studied(*maps: nn.Module, position: Any = 1, **options: Any) -> ff.DepthStudy:
    return ff.study_depth(
        Stack(*maps).double(), STATES, k="full", position=position, readings=["live"], halves=False, progress=False,
        **options,
    )  # fmt: skip


def test_every_depth_has_its_curvature_and_the_interval(tmp_path: Path) -> None:
    found = studied(*LAYERS)
    profile = found.profiles["live"]
    chart, x = ff.charts.token(STATES, 1, torch.eye(D, dtype=torch.float64)), STATES
    assert profile.k == D and profile.scalar_curvature.shape == (4, 1)
    for depth, layer in enumerate(LAYERS, 1):
        x = layer(x).detach()

        def after(y: Tensor, depth: int = depth) -> Tensor:
            for one in LAYERS[:depth]:
                y = one(y)
            return y

        truth = ff.StatisticalManifold(after, chart, ff.Gaussian.calibrated(x)).scalar_curvature(torch.zeros(D)).item()
        low, high = profile.scalar_curvature_low[depth].item(), profile.scalar_curvature_high[depth].item()
        assert low - (high - low) / 2 < truth < high + (high - low) / 2
    # the chart itself is flat by structure, and nothing was measured there
    assert profile.planes[0].item() == 0 and "proved by structure" in profile.said[0]
    rows = found.estimates[found.estimates["unit"] == "calibrated"].iloc[1:]
    assert (
        set(rows["level"]) == {"plane"} and (rows["low"] < rows["mean"]).all() and (rows["mean"] < rows["high"]).all()
    )
    # the attribution adds up to about the same number, by layers and by parts
    total = found.budgets["layer"].scalar_curvature
    spread = 4 * total.std() / len(total) ** 0.5 + (high - low)
    assert abs(total.mean() - profile.scalar_curvature[-1].item()) < spread
    assert any("256 random planes" in said for said in found.sentences())
    found.save(tmp_path)
    again = ff.DepthStudy.load(tmp_path)
    assert again.sentences() == found.sentences() and again.table.equals(found.table)
    page = unescape(re.sub(r"<[^>]+>", "", (tmp_path / "report.html").read_text()))
    assert "over 256 random planes" in page and "(seed 0) until the standard error is 5%" in page
    assert "the space of all states that enters the first block" in page and "manifold is most curved" in page
    assert not re.search(r"plane of states|the surface is|\d points? of|points are degenerate|points of one", page)
    assert {found.drawn, found.over} == {"random planes", "256 random planes"}


def test_behind_a_norm_it_says_what_is_left() -> None:
    """A token alone before a norm: as many outputs as directions, two of which are lost."""
    found = studied(nn.LayerNorm(D, eps=0.0), Alone(D))
    profile = found.profiles["live"]
    assert profile.verdicts.flatten().tolist() == [0, -1, -1] and profile.scalar_curvature[1:].isnan().all()
    assert "8 directions: the output tells 6 of them apart" in profile.said[1]
    assert not found.budgets and any("tells 6 of them apart" in said for said in found.sentences())


def test_as_many_outputs_as_directions_are_flat_whatever_the_map_is() -> None:
    profile = studied(Alone(D), Alone(D)).profiles["live"]
    assert profile.scalar_curvature.flatten().tolist() == [0, 0, 0] and "open piece of space" in profile.said[1]


def test_the_shell_takes_full(tmp_path: Path) -> None:
    options = ["--ids", "1,2,3", "--dim", "full", "--position", "0", "--reading", "live", "--no-halves"]
    done = CliRunner().invoke(cli.app, ["depth", "python-llama", *options, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "in all k = 96 directions (95 % interval" in (tmp_path / "out" / "depth.json").read_text()
    assert "--dim full" in (tmp_path / "out" / "report.html").read_text()  # the command that repeats it


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": "most"}, "or \"full\" for all of them; got 'most'"),
        ({"k": "full", "moves": "random"}, "no choice of moves"),
        ({"k": "full", "family": "next-token"}, "a family needs a few directions"),
    ],
)
def test_what_does_not_go_with_all_directions_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ff.study_depth("python-llama", [1, 2, 3], progress=False, **options)
