"""Parts of blocks that are built in unusual ways, by structure: modules of our own, whose parts are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.models import Block, Model, Part
from fisherflat.models._sections import find_sections

DIM, IDS = 8, [5, 6, 7, 8]


class Attention(nn.Module):
    """Softmax attention of `[1, n, width]`, with keys and values of another state where one is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, DIM) for _ in range(3))
        self.output = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        other = x if other is None else other
        pattern = (self.query(x) @ self.key(other).mT / DIM**0.5).softmax(-1)
        return self.output(pattern @ self.value(other))


class Layer(nn.Module):
    def __init__(self, width: int = DIM) -> None:
        super().__init__()
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(DIM)
        self.attention = Attention(width)
        self.mlp = nn.Sequential(nn.Linear(DIM, 12), nn.GELU(), nn.Linear(12, DIM))


class Streams(Layer):
    """Two residual streams `[1, n, 2, d]`; parts read their sum and write into both."""

    def forward(self, state: Tensor) -> Tensor:
        state = state + self.attention(self.norm(state.sum(2))).unsqueeze(2)
        return state + self.mlp(self.mlp_norm(state.sum(2))).unsqueeze(2)


class Flat(Streams):
    """The same streams side by side, `[1, n, 2 d]`."""

    def forward(self, state: Tensor) -> Tensor:
        return super().forward(state.unflatten(-1, (2, DIM))).flatten(2)


class TwoStates(Layer):
    """Queries of the state, keys and values of another function of it."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x), x.tanh())
        return x + self.mlp(self.mlp_norm(x))


class Plain(Layer):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.mlp(self.mlp_norm(x))


class InPlace(Layer):
    """Residual sums are written into what attention and MLP returned."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(self.norm(x))
        y += x
        z = self.mlp(self.mlp_norm(y))
        z += y
        return z


class Whole(nn.Module):
    """Attention of a state and its source together, with norms and MLP around: a layer within a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Layer(2 * DIM)
        self.linear = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.shared(x))

    def shared(self, x: Tensor) -> Tensor:
        inner = self.inner
        y = inner.attention(inner.norm(torch.cat([x, torch.ones_like(x)], -1)))
        return inner.mlp(inner.mlp_norm(y))


class Stack(nn.Module):
    """Embedding, two blocks, and the shape of state that they hand on."""

    def __init__(self, block: type[nn.Module], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, DIM)
        self.blocks = nn.ModuleList(block() for _ in range(2))
        self.shape = shape

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        if self.shape:
            x = torch.stack([x, 2 * x], 2).reshape(1, len(IDS), *self.shape)
        for block in self.blocks:
            x = block(x)
        return x


def last_block(block: type[nn.Module], shape: tuple[int, ...] = ()) -> Block:
    torch.manual_seed(0)
    return Model(Stack(block, shape).double().eval().requires_grad_(False)).blocks(IDS)[1]


@pytest.mark.parametrize(("kind", "shape"), [(Streams, (2, DIM)), (Flat, (2 * DIM,))])
def test_parts_among_several_streams(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    block = last_block(kind, shape)
    assert block.input.shape == (len(IDS), 2 * DIM)
    assert block.sections.softmax and block.attention.root is block.root.attention and block.mlp.root is block.root.mlp
    streams = block.input.unflatten(-1, (2, DIM))
    torch.testing.assert_close(block.attention_input, block.root.norm(streams.sum(1)))
    middle = streams + block.attention(block.attention_input).unsqueeze(1)
    torch.testing.assert_close(block.mlp_input, block.root.mlp_norm(middle.sum(1)))
    after = middle + block.mlp(block.mlp_input).unsqueeze(1)
    torch.testing.assert_close(block(block.input), after.flatten(1))
    torch.testing.assert_close(ff.trace(block, block.input)(block.input), after.flatten(1))


def test_attention_of_two_states_is_no_map_of_one() -> None:
    block = last_block(TwoStates)
    assert block.sections.softmax and block.sections.mixer == "Attention"
    assert block.mlp.root is block.root.mlp
    with pytest.raises(ff.errors.CheckpointError, match="no attention part was found"):
        _ = block.attention


def test_parts_whose_outputs_are_written_into() -> None:
    block = last_block(InPlace)
    assert block.attention.root is block.root.attention and block.mlp.root is block.root.mlp


def test_a_module_is_tried_once_more_and_no_further() -> None:
    """It runs in its block, and once more on moved tokens; the third run of a mixer is watched for a softmax."""
    block, called = last_block(Plain), list[str]()
    for name in ("attention", "mlp"):
        block.root.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
    assert find_sections(Part(block.root, block.arguments)) == block.sections
    assert called.count("mlp") == 2 and called.count("attention") == 3


def test_a_state_that_equals_what_the_block_was_given_moves_all_the_same() -> None:
    """In the first block the state is the first one, which is handed along; keys and values are of the state."""

    class Reading(Layer):
        def forward(self, x: Tensor, start: Tensor) -> Tensor:
            x = x + self.attention(self.norm(x), x)
            return x + self.mlp(self.mlp_norm(x + start))

    class Handing(Stack):
        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.embedding(input_ids)
            start = x.clone()
            for block in self.blocks:
                x = block(x, start)
            return x

    torch.manual_seed(0)
    block = Model(Handing(Reading, ()).double().eval().requires_grad_(False)).blocks(IDS)[0]
    assert block.sections.softmax
    with pytest.raises(ff.errors.CheckpointError, match="no attention part was found"):
        _ = block.attention


def test_attention_wider_than_the_block() -> None:
    block = last_block(Whole)
    assert block.sections.softmax and block.attention.root is block.root.inner.attention
    assert block.attention_input.shape == (len(IDS), 2 * DIM)
    torch.testing.assert_close(
        block.attention(block.attention_input), block.root.inner.attention(block.attention_input[None])[0]
    )


def test_a_model_in_double_computes_in_double() -> None:
    class Rounding(Layer):
        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attention(self.norm(x.float()).to(x.dtype))  # fails where a cast to single meets a weight
            return x + self.mlp(self.mlp_norm(x)) + torch.full((), 1e-40)  # which single precision does not have

    block = last_block(Rounding)
    with torch.no_grad():
        x = block.hidden_states
        middle = x + block.attention(block.root.norm(x))
        torch.testing.assert_close(block(x), middle + block.mlp(block.root.mlp_norm(middle)), rtol=1e-14, atol=1e-14)
    assert torch.get_default_dtype() is torch.float32
