"""Half-blocks: two maps that make up the block, cut between attention and MLP."""

from __future__ import annotations

import pytest
import torch
from cases.closeness import assert_same
from cases.tiny_models import tiny_model

import fisherflat as ff
from fisherflat.models import Model
from fisherflat.studies.depth import curvature_budget

IDS = [5, 6, 7, 8, 9, 11]
SEQUENTIAL = ["bert", "llama", "gpt2", "gemma2", "afmoe"]
POST_NORM = {"bert"}


def blocks_of(kind: str):
    return Model(tiny_model(kind)).blocks(IDS)


@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_two_halves_make_the_block(kind: str) -> None:
    for block in blocks_of(kind):
        graph = ff.trace(block, block.input)
        first, second = block.halves
        noise = torch.randn(block.input.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for x in (block.input, block.input + 0.1 * noise):
            torch.testing.assert_close(second(first(x)), graph(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_the_cut_is_between_attention_and_mlp(kind: str) -> None:
    """Tokens mix in the first half alone, and without a post-norm it is the residual sum with the attention's input."""
    for block in blocks_of(kind):
        first, second = block.halves
        roles = [{node.role for node in half.nodes} for half in (first, second)]
        assert "pattern" in roles[0] and "pattern" not in roles[1]
        middle = first(block.input)
        moved = middle.clone()
        moved[0] += 1
        assert_same(second(moved)[1:], second(middle)[1:])
        if kind in ("llama", "gpt2"):
            torch.testing.assert_close(
                middle, block.input + block.attention(block.attention_input), rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("kind", ["gptj", "phi", "cohere"])
def test_parallel_blocks_have_no_halves(kind: str) -> None:
    assert [block.halves for block in blocks_of(kind)] == [None, None]


@pytest.fixture(scope="module")
def llama():
    blocks = blocks_of("llama")
    chart = ff.charts.principal(blocks[0].hidden_states, -1, 2)
    return blocks, chart, torch.tensor([[0.0, 0.0], [0.3, -0.5]], dtype=torch.float64)


def test_a_profile_after_every_half_passes_through_that_after_every_block(llama) -> None:
    fine, coarse = (ff.depth_profile(*llama, family="calibrated", halves=halves) for halves in (True, False))
    assert fine.labels == ("0 attention", "0 mlp", "1 attention", "1 mlp")
    assert fine.passed.tolist() == [0, 0.5, 1, 1.5, 2]
    for found in (
        fine.blocks,
        ff.depth_profile([half for block in llama[0] for half in block.halves], *llama[1:], family="calibrated"),
    ):
        depths = slice(None) if found.depth == 2 else slice(None, None, 2)
        torch.testing.assert_close(found.scalar_curvature[depths], coarse.scalar_curvature, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(found.covariance[depths], coarse.covariance, rtol=1e-9, atol=0)
    assert fine.blocks.labels == coarse.labels == ("layer 0", "layer 1")


def test_the_first_half_ends_where_the_attention_is_added(llama) -> None:
    """The profile behind a first half is the geometry of `x + attention(norm(x))`, put together by hand."""
    (block, _), chart, u = llama
    norm = block.root.input_layernorm

    def half(x: torch.Tensor) -> torch.Tensor:
        return x + block.attention(norm(x))

    found = ff.depth_profile([block], chart, u, halves=True)
    expected = ff.StatisticalManifold(half, chart, engine="autodiff").scalar_curvature(u)
    torch.testing.assert_close(found.scalar_curvature[1], expected, rtol=1e-4, atol=1e-12)  # float32 inside the norm


def test_the_budget_by_halves_is_that_of_the_whole(llama) -> None:
    whole, split = (curvature_budget(*llama, halves=halves) for halves in (False, True))
    torch.testing.assert_close(split.matrix, whole.matrix, rtol=1e-8, atol=1e-13)
    by_layer, by_half = (curvature_budget(*llama, by="layer", halves=halves) for halves in (False, True))
    assert by_half.labels == ("0 attention", "0 mlp", "1 attention", "1 mlp")
    pairs = by_half.matrix.unflatten(1, (2, 2)).sum(2).unflatten(2, (2, 2)).sum(3)
    torch.testing.assert_close(pairs, by_layer.matrix, rtol=1e-8, atol=1e-13)


def test_what_does_not_come_apart_stays_whole() -> None:
    blocks = blocks_of("phi")
    chart = ff.charts.principal(blocks[0].hidden_states, -1, 2)
    found = ff.depth_profile(blocks, chart, halves=True)
    assert found.labels == ("layer 0", "layer 1")
