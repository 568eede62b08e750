"""Models that people bring: any module and what wraps one, in three lines, with numbers that differences confirm."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cases.romberg import Estimate, truth
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import CheckpointError, CheckpointWarning, InputError

D, N = 16, 5
IDS = [5, 6, 7, 8, 9]
CAUSAL = torch.ones(N, N).triu(1).bool()


def rows(n: int = N, d: int = D) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def encoder(batch_first: bool = True, **options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(D, 2, 24, batch_first=batch_first, activation="gelu")
    return nn.TransformerEncoder(layer, 2, **options)


class Inline(nn.Module):
    """An attention block with a batch axis, written out."""

    def __init__(self, axis: bool = True) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(D), nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        if self.axis:
            b, _, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, -1, 3, 2, D // 2).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 3, -1) @ v
        return x + self.out(mixed.transpose(1, 2).reshape(x.shape))


class Attention(nn.Module):
    """Causal, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(D), ff.layers.SelfAttention(D, heads=2, causal=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.norm(x)[0])[None]


class Pairs(nn.Module):
    """Blocks that are lists of their pieces; the residual is added where the list is run."""

    def __init__(self, ids: bool = False, hidden_way: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, D) if ids else nn.Identity()
        mlps = (nn.Sequential(nn.LayerNorm(D), nn.Linear(D, 24), nn.GELU(), nn.Linear(24, D)) for _ in range(2))
        self.layers = nn.ModuleList(nn.ModuleList([Attention(), mlp]) for mlp in mlps)
        self.norm, self.hidden_way = nn.LayerNorm(D), hidden_way

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.embedding(x)
        for attention, mlp in self.layers:
            x = x + attention(x)
            x = mlp(x) + x + (first if self.hidden_way else 0)
        return self.norm(x)


class Embedded(nn.Module):
    """Token ids into something, with a mask made from them."""

    def __init__(self, body: nn.Module, mask: str = "") -> None:
        super().__init__()
        self.embedding, self.positions, self.body, self.mask = nn.Embedding(20, D), nn.Embedding(12, D), body, mask

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) + self.positions(torch.arange(ids.shape[-1]))
        if self.mask == "causal":
            return self.body(x, mask=nn.Transformer.generate_square_subsequent_mask(ids.shape[-1]), is_causal=True)
        return self.body(x, src_key_padding_mask=ids == 7) if self.mask else self.body(x)


class Named(nn.Module):
    """Blocks that are attributes, with a mask before the hidden state and something else before the result."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = encoder().layers

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


class Positionwise(nn.Module):
    """What runs on a batch as on one long prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.LayerNorm(D), nn.Linear(D, D), nn.Tanh()) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, D)
        for block in self.blocks:
            flat = flat + block(flat)
        return flat.reshape(x.shape)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = encoder().layers[0]

    def forward(self, mask: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return mask.sum(), {"state": self.inner(x, src_mask=mask)}


class Outputs(nn.Module):
    """Blocks that take a float mask first and return something else first."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({"a": Masked(), "b": Masked()})

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks.values():
            x = block(torch.full((x.shape[-2],) * 2, 0.1).tril(), x)[1]["state"]
        return x


class Single(nn.Module):
    """Insists on single precision, and keeps constants that are no buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = encoder(), torch.linspace(0.5, 1.5, D)
        self.turn = torch.eye(D).flip(0)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise TypeError("single precision only")
        return self.body((x.type("torch.FloatTensor") * self.scale) @ self.turn)


def named(kind: str) -> tuple[Any, Any]:
    """A model of `transformers` by name and what it reads."""
    import transformers as t

    sizes = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    if kind == "vit":
        return t.ViTModel(t.ViTConfig(**sizes, image_size=16, patch_size=8)), torch.rand(1, 3, 16, 16)
    if kind == "wav2vec2":
        convolutions = {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_feat_extract_layers": 2}
        config = t.Wav2Vec2Config(**sizes, **convolutions, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
        return t.Wav2Vec2Model(config), torch.rand(1, 120)
    config = t.WhisperConfig(
        vocab_size=20, d_model=D, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, num_mel_bins=4,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_source_positions=N, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return t.WhisperModel(config), torch.rand(1, 4, 2 * N)


def x_transformers(kind: str) -> tuple[nn.Module, Any]:
    import x_transformers as x

    inner = {"dim": D, "depth": 2, "heads": 2, "attn_dim_head": 8}
    if kind == "gated":
        modern = {"rotary_pos_emb": True, "rotary_emb_dim": 8, "ff_glu": True, "ff_swish": True, "use_rmsnorm": True}
        return x.TransformerWrapper(num_tokens=20, max_seq_len=12, attn_layers=x.Decoder(**inner, **modern)), IDS
    if kind == "decoder":
        return x.TransformerWrapper(num_tokens=20, max_seq_len=12, attn_layers=x.Decoder(**inner)), IDS
    if kind == "continuous":
        layers = x.Encoder(**inner, pre_norm=False)
        return x.ContinuousTransformerWrapper(dim_in=6, dim_out=6, max_seq_len=12, attn_layers=layers), rows(N, 6)
    return x.Encoder(**inner), rows()


ALL = ("attention", "mlp", "block")
#: what is brought, with what, and which parts are found in every block
BROUGHT: dict[str, tuple[Callable[[], tuple[Any, Any]], tuple[str, ...]]] = {
    "encoder": (lambda: (encoder(), rows()), ALL),
    "encoder, sequence first": (lambda: (encoder(False), rows()), ALL),
    "encoder, sequence first, batch of one": (lambda: (encoder(False), rows()[:, None]), ALL),
    "encoder, batch of one": (lambda: (encoder(), rows()[None]), ALL),
    "encoder, without the fast path": (lambda: (encoder(enable_nested_tensor=False), rows()), ALL),
    "encoder, NumPy": (lambda: (encoder(), rows().numpy()), ALL),
    "encoder, lists": (lambda: (encoder(), rows().tolist()), ALL),
    "encoder, its own arguments": (lambda: (encoder(), {"src": rows()[None], "mask": CAUSAL}), ALL),
    "one layer": (lambda: (encoder().layers[0], rows()), ALL),
    "a list": (lambda: (encoder().layers, rows()), ALL),
    "a sequence": (lambda: (nn.Sequential(*encoder().layers), rows()), ALL),
    "a sequence with embedding and head": (
        lambda: (nn.Sequential(nn.Embedding(20, D), *encoder().layers, nn.Linear(D, 20)), IDS),
        ALL,
    ),
    "a sequence of sequences": (
        lambda: (nn.Sequential(*(nn.Sequential(nn.Linear(D, D), nn.GELU(), nn.Linear(D, D)) for _ in "ab")), rows()),
        ("mlp", "block"),
    ),
    "ids, sequence first": (lambda: (Embedded(encoder(False)), IDS), ALL),
    "ids, causal": (lambda: (Embedded(encoder(), "causal"), IDS), ALL),
    "ids, padding": (lambda: (Embedded(encoder(), "padding"), IDS), ALL),
    "a batch axis": (lambda: (nn.ModuleDict({"0": Inline(), "1": Inline()}), rows()), ("block",)),
    "a batch axis that is guessed": (lambda: (nn.Sequential(Inline(False), Inline(False)), rows()), ("block",)),
    "blocks as attributes": (lambda: (Named(), rows()), ALL),
    "blocks as lists of pieces": (lambda: (Pairs(), rows()), ALL),
    "blocks as lists of pieces, ids": (lambda: (Pairs(True), IDS), ALL),
    "masks first, results last": (lambda: (Outputs(), rows()), ALL),
    "single precision": (lambda: (Single(), rows()), ALL),
    "compiled": (lambda: (torch.compile(encoder()), rows()), ALL),
    "in parallel": (lambda: (nn.DataParallel(encoder()), rows()), ALL),
    "an object that holds one": (lambda: (SimpleNamespace(net=encoder(), name="mine"), rows()), ALL),
    "vision, pixels": (lambda: named("vit"), ALL),
    "vision, hidden states": (lambda: (named("vit")[0], rows()), ALL),
    "audio, samples": (lambda: named("wav2vec2"), ALL),
    "audio, hidden states": (lambda: (named("wav2vec2")[0], rows()), ALL),
    "audio, features": (lambda: named("whisper"), ALL),
    "audio, features by name": (lambda: (named("whisper")[0], {"input_features": named("whisper")[1]}), ALL),
    "x-transformers, encoder": (lambda: x_transformers("encoder"), ALL),
    "x-transformers, decoder": (lambda: x_transformers("decoder"), ALL),
    "x-transformers, gated": (lambda: x_transformers("gated"), ALL),
    "x-transformers, continuous": (lambda: x_transformers("continuous"), ALL),
}  # fmt: skip


@pytest.mark.parametrize("what", BROUGHT)
def test_three_lines(what: str) -> None:
    """The blocks are found, run one into the next, and have the 2-jets that differences of their values say."""
    make, parts = BROUGHT[what]
    torch.manual_seed(0)
    module, prompt = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        blocks = ff.load(module).blocks(prompt)
    assert len(blocks) == (1 if what == "one layer" else 2)
    for block, following in pairwise(blocks):
        torch.testing.assert_close(block(block.input), following.input, rtol=1e-10, atol=1e-10)
    block = blocks[-1]
    found = {"block": block} | {name: getattr(block, name) for name in parts if name != "block"}
    for name, part in found.items():
        basis = torch.randn(2, part.input.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        chart = ff.charts.token(part.input, 1, basis)
        jet = ff.StatisticalManifold(part, chart).jet(torch.zeros(2))
        with torch.no_grad():
            said = truth(lambda u, f=part, c=chart: f(c(u)).reshape(-1), torch.zeros(2, dtype=torch.float64))
        d, dd = jet.jacobian, jet.hessian
        for mine, theirs in zip((d[0], d[1], dd[0, 0], dd[0, 1], dd[1, 1]), said.jet[1:], strict=True):
            assert not Estimate(mine, torch.zeros_like(mine)).contradicts(theirs).any(), name
            assert float(theirs.error.max()) < 1e-5 * float(dd.abs().max() + d.abs().max())  # so that it can fail
        if name == "attention":
            moved = part(part.input + torch.eye(len(part.input), dtype=torch.float64)[:, :1])
            assert float((moved - part(part.input))[1:].abs().max()) > 1e-6, "tokens do not reach each other"


TAILS: dict[str, tuple[Callable[[], tuple[Any, Any]], Callable[[Any, Tensor], Tensor]]] = {
    "encoder": (lambda: (encoder(False), rows()), lambda module, x: x),
    "pieces": (lambda: (Pairs(), rows()[None]), lambda module, x: module.norm(x)),
    "x-transformers": (lambda: (x_transformers("encoder")[0], rows()[None]), lambda module, x: module.final_norm(x)),
    "x-transformers, ids": (
        lambda: (x_transformers("gated")[0], torch.tensor([IDS])),
        lambda module, x: module.to_logits(module.attn_layers.final_norm(x)),
    ),
    "single precision": (lambda: (Single().body, rows()[None]), lambda module, x: x),
}


@pytest.mark.parametrize("what", TAILS)
def test_the_last_block_is_that_of_the_model(what: str) -> None:
    """What it returns, and what the model does with it, is what the model itself returns."""
    make, tail = TAILS[what]
    torch.manual_seed(0)
    module, prompt = make()
    module = module.eval().double()
    last = ff.load(module).blocks(prompt)[-1]
    with torch.no_grad():
        expected = module(prompt if not prompt.is_floating_point() else prompt.double())
        found = tail(module, last(last.input)[None])
    tolerance = 1e-6 if "x-transformers" in what else 1e-9  # whose patterns are in single precision, also in double
    torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def test_a_state_that_goes_another_way_is_seen() -> None:
    """Blocks whose pieces depend on more than what the last one handed on are no maps of it: they are refused."""
    torch.manual_seed(0)
    with pytest.raises(CheckpointError, match=r"no list of blocks that take and return hidden states"):
        ff.load(Pairs(hidden_way=True), blocks="layers").blocks(rows())


def test_blocks_alone_are_said_to_be_so() -> None:
    with pytest.warns(CheckpointWarning, match=r"takes no hidden states.*its blocks run on them one after the other"):
        ff.load(named("vit")[0]).blocks(rows())


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert() -> ff.Model:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return ff.load(BertModel(BertConfig(vocab_size=20, max_position_embeddings=8, **sizes)))


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_is_dropped(bert: ff.Model, side: str) -> None:
    """A padded batch is its prompts without the padding."""
    short, long = [5, 6, 7, 8], [5, 9, 7, 6, 5, 4]
    padded = [*short, 0, 0] if side == "right" else [0, 0, *short]
    batch = {"input_ids": torch.tensor([padded, long]), "attention_mask": (torch.tensor([padded, long]) > 0).long()}
    batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    found = ff.analyze(bert, batch, layers=[0], parts=["block"], points=1, positions=[2], progress=False).table
    expected = ff.analyze(
        bert, [short, long], layers=[0], parts=["block"], points=1, positions=[2], progress=False
    ).table
    torch.testing.assert_close(
        torch.tensor(found["scalar_curvature"].values), torch.tensor(expected["scalar_curvature"].values)
    )
    assert list(found["text"]) == list(expected["text"]) and found["prompt"].nunique() == 2


def test_a_mask_that_is_no_padding(bert: ff.Model) -> None:
    """It is given to the model as it is: the masked token reaches nothing, and the others' outputs are the model's."""
    ids, mask = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[1, 0, 1, 1]])
    block = bert.blocks({"input_ids": ids, "attention_mask": mask})[0]
    with torch.no_grad():
        states = bert.module(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    torch.testing.assert_close(block(block.input), states[1][0], rtol=1e-10, atol=1e-10)
    moved = block.attention(block.attention_input + torch.eye(4, dtype=torch.float64)[:, 1:2])
    assert float((moved - block.attention(block.attention_input))[[0, 2, 3]].abs().max()) == 0


def test_ids_in_any_form(bert: ff.Model) -> None:
    import numpy as np

    for prompt in (
        IDS,
        torch.tensor(IDS),
        torch.tensor([IDS]),
        np.array(IDS),
        [np.int64(i) for i in IDS],
        {"input_ids": [IDS]},
    ):
        assert torch.equal(bert.encode(prompt).ids, torch.tensor(IDS)), type(prompt)


def test_a_batch_of_states_is_so_many_prompts(bert: ff.Model) -> None:
    """As a batch of token ids is, in any form; also where the model itself could run on all of it at once."""
    torch.manual_seed(0)
    states = torch.stack([rows(), rows().flip(0), 2 * rows()])
    for model in (bert, Named().eval(), Positionwise().eval()):
        options = {"layers": [0], "parts": ["block"], "readings": ["live"], "points": 1, "positions": "last"}
        found = [
            list(ff.analyze(model, given, progress=False, **options).table["scalar_curvature"])
            for given in (list(states), states, states.numpy(), states.tolist(), states.float())
        ]
        assert len(found[0]) == 3
        for other in found[1:]:
            assert other == pytest.approx(found[0], rel=1e-5)
        for one in (ff.inspect, ff.models.as_model(model).blocks):
            with pytest.raises(InputError, match="batch of 3 prompts"):
                one(*([model] if one is ff.inspect else []), states)


def test_other_inputs_are_another_prompt(bert: ff.Model, tmp_path: Path) -> None:
    """A run is not resumed with a mask that is another one."""
    ids, quick = [[5, 6, 7, 8]], {"layers": [0], "parts": ["block"], "points": 1, "positions": [2], "progress": False}
    first = {"input_ids": ids, "attention_mask": [[1, 0, 1, 1]]}
    plain = ff.analyze(bert, first, folder=tmp_path, **quick).table["scalar_curvature"]
    again = ff.analyze(bert, first, folder=tmp_path, resume=True, **quick).table["scalar_curvature"]
    assert list(plain) == list(again)
    with pytest.raises(InputError):
        ff.analyze(bert, first | {"attention_mask": [[1, 1, 0, 1]]}, folder=tmp_path, resume=True, **quick)


def test_all_that_takes_a_model(bert: ff.Model) -> None:
    """Each in one line, of a module and of what wraps it."""
    holder = SimpleNamespace(model=Named().eval())
    torch.manual_seed(0)
    for source in (Named(), holder):
        assert len(ff.inspect(source, rows()).layers) == 2
        assert ff.depth_profile(source, prompt=rows(), u=torch.zeros(2)).scalar_curvature.shape[0] >= 3
    module = Embedded(encoder())
    assert ff.certify_layer(module, 0, prompt=IDS, reading="frozen pattern").verdict == "flat"


class _Words:
    """A tokenizer that knows more words than a model."""

    all_special_ids = ()
    unk_token_id = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [len(word) * 6 for word in text.split()]}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"<{i}>" for i in ids]

    def decode(self, ids: list[int]) -> str:
        return str(ids)


def test_what_is_wrong_is_named(bert: ff.Model) -> None:
    """The advice fits: not "shorten the prompt" for a token that the model does not have."""
    torch.manual_seed(0)
    mine = ff.load(Embedded(encoder()), tokenizer=_Words())
    with pytest.raises(InputError, match=r"token id 24 is outside the table of 20 tokens"):
        mine.blocks("a word that")
    with pytest.raises(InputError, match=r"gives '<24>' the id 24, outside the table of 20 tokens"):
        ff.load(bert.module, tokenizer=_Words()).blocks("a word that")
    with pytest.raises(InputError, match=r"13 tokens do not fit .*shorten the prompt"):
        mine.blocks([1] * 13)
    with pytest.raises(CheckpointError, match=r"missing 1 required positional argument: 'memory'.* tgt, memory"):
        ff.load(nn.TransformerDecoder(nn.TransformerDecoderLayer(D, 2, 24, batch_first=True), 2)).blocks(rows())
    with pytest.raises(InputError, match=r"numbers \[2, 5, 16\] are a batch of 2 prompts, and one is asked for"):
        bert.blocks(torch.stack([rows(), rows()]))
    with pytest.raises(InputError, match=r"attention mask leaves no token"):
        bert.blocks({"input_ids": [[5, 6]], "attention_mask": [[0, 0]]})
    with pytest.raises(InputError, match=r"holds at least one tensor"):
        bert.blocks({"input_ids": None})
    with pytest.raises(InputError, match=r"give several as prompts"):
        bert.blocks({"input_ids": [[5, 6], [7, 8]]})


# -- what wraps a model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [None, 3, [1, 2], SimpleNamespace(a=nn.Linear(2, 2), b=nn.Linear(2, 2)), dict])
def test_what_is_no_model(source: Any) -> None:
    with pytest.raises(InputError, match=r"a model is one of fisherflat\.load"):
        ff.load(source)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "meta", torch.device("meta")])
def test_a_device_that_is_not_there(device: Any) -> None:
    with pytest.raises(InputError, match=r"torch cannot use the device"):
        ff.load(encoder(), device=device)


@pytest.mark.parametrize("compiled", [torch.jit.script, lambda module: torch.jit.trace(module, torch.ones(2, 4))])
@pytest.mark.parametrize("inside", [False, True])
def test_what_torchscript_made_is_refused(compiled: Any, inside: bool) -> None:
    made = compiled(nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    with pytest.raises(CheckpointError, match="compiled by TorchScript"):
        ff.load(nn.Sequential(made, nn.Linear(4, 4)) if inside else made)


def test_integers_where_states_are_meant() -> None:
    with pytest.raises(InputError, match="token id -1 is negative; give states in floating point"):
        ff.load(encoder()).encode([3, -1])


class _View(nn.Module):
    """Shows parts of a module that is not registered in it, as libraries of interpretability do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.__dict__["inner"], self.first = inner, inner.layers[0]


class _InPlaceOfForward:
    """Calls the forward of a module, as an object that other libraries put in its place."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return type(self.module).forward(self.module, *args, **kwargs)


def test_views_and_objects_in_the_place_of_forward() -> None:
    torch.manual_seed(0)
    module = encoder()
    expected = ff.load(module).blocks(rows())[1]
    wrapped = encoder()
    wrapped.load_state_dict(module.state_dict())
    for part in wrapped.modules():
        part.__dict__["forward"] = _InPlaceOfForward(part)
    for source in (_View(module), wrapped):
        block = ff.load(source).blocks(rows())[1]
        torch.testing.assert_close(block(block.input), expected(expected.input), rtol=0, atol=1e-12)
