"""Distances between prompts: what is known of paths, and the ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fisherflat as ff
from fisherflat.errors import InputError

A, B, LONGER = "a = [1, 2]", "a = [1, 1]", "def mean(values): return"


@pytest.fixture(scope="module")
def model() -> Any:
    return ff.load("python-llama")


def length_of(found: Any) -> float:
    """Of the path, by chords of what the map makes of its points: no metric, no derivatives."""
    manifold, chart = found.manifold, found.manifold.chart
    fine = manifold.geodesic(found.path[0], found.path[-1], points=101)
    outputs = torch.stack([manifold.mean(chart(u)).flatten() for u in fine])
    white = manifold.family.whiten(outputs) if isinstance(manifold.family, ff.Gaussian) else None
    if white is None:  # twice the angle between square roots of probabilities
        root = (manifold.family.logits(outputs).log_softmax(-1) / 2).exp()
        return float((2 * (root[1:] - root[:-1])).norm(dim=-1).sum())
    return float((white[1:] - white[:-1]).norm(dim=-1).sum())


@pytest.mark.parametrize("family", [None, "next-token"])
def test_the_length_is_that_of_the_path(model: Any, family: str | None) -> None:
    found = ff.geometry_between(model, A, B, 1, family=family)
    assert found.distance == pytest.approx(length_of(found), rel=2e-3)
    assert 0 < found.distance <= found.straight
    assert found.error < 1e-6 * found.distance
    ends = found.path[[0, -1]]
    torch.testing.assert_close(ends, torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64), rtol=0, atol=1e-8)


def test_the_ends_are_the_states_of_the_prompts(model: Any) -> None:
    found = ff.geometry_between(model, A, B, 2)
    chart = found.manifold.chart
    for u, prompt in zip(found.path[[0, -1]], (A, B), strict=True):
        torch.testing.assert_close(chart(u), model.blocks(prompt)[2].input, rtol=0, atol=1e-7)


def test_prompts_of_different_lengths(model: Any) -> None:
    found = ff.geometry_between(model, A, LONGER, -3)
    assert "second prompt" in found.moving
    assert found.distance <= found.straight
    first, second = (model.blocks(prompt)[1].input for prompt in (A, LONGER))
    end = found.manifold.chart(found.path[-1])
    torch.testing.assert_close(end[-1], second[-1], rtol=0, atol=1e-7)
    torch.testing.assert_close(end[:-1], first[:-1], rtol=0, atol=1e-7)


def test_along_a_line_alone_the_line_is_the_path(model: Any) -> None:
    found = ff.geometry_between(model, A, B, 0, k=1)
    assert found.distance == pytest.approx(found.straight, rel=1e-7)
    assert ff.geometry_between(model, A, B, 0).distance <= found.distance * (1 + 1e-9)


def test_the_way_back_is_as_long(model: Any) -> None:
    there, back = (ff.geometry_between(model, *pair, 0, k=1).straight for pair in ((A, B), (B, A)))
    assert there == pytest.approx(back, rel=1e-9)


def test_what_is_refused(model: Any) -> None:
    for arguments, said in (
        ((model, A, A, 0), "the same for both"),
        ((model, A, B, 9), "there is no layer 9"),
    ):
        with pytest.raises(InputError, match=said):
            ff.geometry_between(*arguments)
    with pytest.raises(InputError, match="next-token"):
        ff.geometry_between(model, A, B, 0, family="verse")
