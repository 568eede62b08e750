"""Half-blocks: two maps that make up the block, cut between attention and MLP."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model

import fisherflat as ff
from fisherflat.checkpoints import Model
from fisherflat.depth import curvature_budget

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
        assert torch.equal(second(moved)[1:], second(middle)[1:])
        if kind in ("llama", "gpt2"):
            torch.testing.assert_close(
                middle, block.input + block.attention(block.attention_input), rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("kind", ["gptj", "phi", "cohere"])
def test_parallel_blocks_have_no_halves(kind: str) -> None:
    assert [block.halves for block in blocks_of(kind)] == [None, None]


def test_a_profile_after_every_half_passes_through_that_after_every_block() -> None:
    blocks = blocks_of("llama")
    chart = ff.charts.principal(blocks[0].hidden_states, -1, 2)
    u = torch.tensor([[0.0, 0.0], [0.3, -0.5]], dtype=torch.float64)
    parts = [half for block in blocks for half in block.halves]
    fine, coarse = (ff.depth_profile(stack, chart, u, "calibrated") for stack in (parts, blocks))
    torch.testing.assert_close(fine.scalar_curvature[::2], coarse.scalar_curvature, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(fine.covariance[::2], coarse.covariance, rtol=1e-9, atol=0)
    whole, split = (curvature_budget(stack, chart, u) for stack in (blocks, parts))
    torch.testing.assert_close(split.matrix, whole.matrix, rtol=1e-8, atol=1e-13)
