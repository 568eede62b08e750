"""Heads before the output projection, against the whole attention part and against attention computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases.closeness import assert_same
from cases.tiny_models import tiny_model

import fisherflat as ff
from fisherflat.errors import CheckpointError
from fisherflat.models import Model

IDS = [5, 6, 7, 8, 9]
LATENT = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}
LATENT |= {"v_head_dim": 6, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}

#: grouped queries; one key for all; gated; projection elsewhere; fused projections; positions in the scores; latent;
#: windows; sinks; a norm before the projection
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt_bigcode": {},
    "afmoe": {},
    "bert": {},
    "gpt2": {},
    "bloom": {},
    "t5": {},
    "deberta-v2": {},
    "deepseek_v3": LATENT,
    "gemma3_text": {"sliding_window": 2},
    "gpt_oss": {},
    "bitnet": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_the_sum_of_its_heads(kind: str) -> None:
    block = Model(tiny_model(kind, **KINDS[kind])).blocks(IDS)[1]
    heads, x = block.heads, block.attention_input
    assert len(heads) == 4
    moved = x + torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    for rows in (x, moved):
        whole = sum(head(rows) @ heads.projection(i) for i, head in enumerate(heads)) + heads.bias
        torch.testing.assert_close(whole, ff.trace(block.attention, x)(rows), rtol=1e-12, atol=1e-12)
        assert_same(torch.cat([head(rows) for head in heads], 1), heads.together(rows))
    assert heads.projection(0).shape == (heads.width, 32) and heads[-1](x).shape == (len(IDS), heads.width)


def test_a_head_is_its_own_attention() -> None:
    """By hand: the values of the head's group, weighed by the softmax of its own scores."""
    block = Model(tiny_model("qwen2", use_sliding_window=False)).blocks(IDS)[0]
    module: Any = block.root
    x = block.attention_input
    n, width = len(IDS), 8
    angles = torch.arange(n)[:, None] * module_frequencies(width)
    cos, sin = torch.cat([angles.cos()] * 2, 1), torch.cat([angles.sin()] * 2, 1)

    def rotated(rows: torch.Tensor) -> torch.Tensor:
        turned = torch.cat([-rows[:, width // 2 :], rows[:, : width // 2]], 1)
        return rows * cos + turned * sin

    query, key, value = (getattr(module.self_attn, f"{name}_proj")(x) for name in "qkv")
    for head in range(4):
        group = head // 2
        q = rotated(query[:, head * width : (head + 1) * width])
        k, v = (rows[:, group * width : (group + 1) * width] for rows in (key, value))
        scores = q @ rotated(k).T / width**0.5
        pattern = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(-1)
        torch.testing.assert_close(block.heads[head](x), pattern @ v, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(block.heads[head].pattern, pattern, rtol=1e-6, atol=1e-6)
        assert torch.equal(block.heads[head].input, x)


def module_frequencies(width: int) -> torch.Tensor:
    return 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


@pytest.mark.parametrize("kind", ["bert", "gpt_bigcode", "gpt2", "llama", "qwen2", "bloom", "t5"])
def test_patterns_are_those_that_the_model_itself_returns(kind: str) -> None:
    module = tiny_model(kind)
    blocks = Model(module).blocks(IDS)
    encoder = module.encoder if kind == "t5" else module
    with torch.no_grad():
        theirs = encoder(input_ids=torch.tensor([IDS]), output_attentions=True, use_cache=False).attentions
    for block, patterns in zip(blocks, theirs, strict=True):
        ours = torch.stack([head.pattern for head in block.heads])
        torch.testing.assert_close(ours, patterns[0].double(), rtol=1e-4, atol=1e-5)


def test_a_head_fits_what_parts_fit() -> None:
    block = Model(tiny_model("llama")).blocks(IDS)[0]
    head = block.heads[-1]
    assert head.index == 3
    assert str(ff.trace(head, head.input)) == str(head.graph)
    chart = ff.charts.principal(head.input, -1, 2)
    certificate = ff.certify(ff.freeze(head, head.input), chart)
    assert certificate.verdict == "flat" and ff.verify(certificate, ff.freeze(head, head.input), chart).ok
    live = ff.certify(head, chart, at=[0.0, 0.0])
    low, high = map(float, live.enclosure)
    scal = ff.StatisticalManifold(head, chart).scalar_curvature(torch.zeros(2)).item()
    assert scal / 2 == pytest.approx((low + high) / 2, rel=1e-6)


def test_heads_are_maps_with_roles() -> None:
    block = Model(tiny_model("qwen3_next")).blocks(IDS)[1]
    head, x = block.heads[2], block.attention_input
    assert {"pattern", "attention_gate"} <= {node.role for node in head.nodes}
    frozen = ff.freeze(head, x, roles=("pattern", "attention_gate"))
    direction = torch.ones_like(x)
    steps = [frozen(x + t * direction) for t in (0.0, 1.0, 2.0)]
    torch.testing.assert_close(steps[2] - steps[1], steps[1] - steps[0], rtol=1e-9, atol=1e-9)  # affine
    chart = ff.charts.principal(x, -1, 2)
    scal, truth = (
        ff.StatisticalManifold(f, chart).scalar_curvature(torch.zeros(2))
        for f in (head, lambda rows: block.heads.together(rows)[:, block.heads.columns(2)])
    )
    torch.testing.assert_close(scal, truth, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("kind", "message"), [("fnet", "no attention part"), ("qwen3_next", "cannot be told apart")])
def test_where_there_are_no_heads(kind: str, message: str) -> None:
    block = Model(tiny_model(kind)).blocks(IDS)[0]
    with pytest.raises(CheckpointError, match=message):
        _ = block.heads
