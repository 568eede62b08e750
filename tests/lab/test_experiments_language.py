"""The language models that ship with the package: that they are what their record says, and how they were trained."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from cases.closeness import assert_same
from safetensors.torch import load_file
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.lab.experiments import train_language
from fisherflat.lab.experiments.language import CONSTANT_GATE, CONTEXT, LLAMA, PROMPTS, QWEN3_NEXT, untrained
from fisherflat.lab.experiments.language_curvature import attention_curvature, by_layer, in_memory
from fisherflat.lab.experiments.language_loss import bits_per_byte, causal, encode, nats, unigram_bits_per_byte
from fisherflat.lab.experiments.python_text import HELD_OUT, TRAINING, standard_library
from fisherflat.models import Model
from fisherflat.provers import certify_layer
from fisherflat.verifier import verify_layer
from fisherflat.zoo import checkpoint, checkpoint_provenance

NAMES = (LLAMA, QWEN3_NEXT)


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: ff.load(checkpoint(name)) for name in NAMES}


# -- what is shipped -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_files_are_those_of_the_record(name: str) -> None:
    said, folder = checkpoint_provenance()["shipped"][name], checkpoint(name)
    assert train_language.digest(folder) == said["sha256"]
    weights = load_file(folder / "model.safetensors")
    assert sum(weight.numel() for weight in weights.values()) == said["parameters"]
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


def test_the_two_have_the_same_size_up_to_a_percent() -> None:
    one, two = (said["parameters"] for said in checkpoint_provenance()["shipped"].values())
    assert one == pytest.approx(two, rel=0.01)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="python-llama and python-qwen3-next"):
        checkpoint("python-gpt")


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_weights_are_loaded_exactly(name: str, models: dict[str, Model]) -> None:
    stored = load_file(checkpoint(name) / "model.safetensors")
    block = models[name].blocks(PROMPTS[0])[1]
    loaded = dict(block.mlp.named_parameters())
    assert loaded
    for parameter in loaded.values():
        assert parameter.dtype == torch.float64
        same = [w for w in stored.values() if w.shape == parameter.shape and torch.equal(w.double(), parameter)]
        assert len(same) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_on_a_file_never_seen_is_what_the_record_says(name: str) -> None:
    """The file's text differs a little between releases of Python, hence ten percent; without training it is 4 bits."""
    model, tokenizer = causal(checkpoint(name))
    text = standard_library(["textwrap.py"])["textwrap.py"]
    found = bits_per_byte(model, tokenizer, text)
    record = checkpoint_provenance()
    said = record["runs"][name][str(record["shipped_seed"])]
    assert found == pytest.approx(said["trained"]["held_out_files"]["textwrap.py"], rel=0.1)
    assert found < 0.85 * unigram_bits_per_byte(tokenizer, text)
    assert found < 0.7 * said["untrained"]["held_out_files"]["textwrap.py"]


# -- their geometry --------------------------------------------------------------------------------------------------


def test_ungated_attention_with_its_pattern_held_is_flat_in_every_layer_by_certificate(
    models: dict[str, Model],
) -> None:
    model = models[LLAMA]
    for layer in range(4):
        certificate = certify_layer(model, layer, prompt=PROMPTS[0], reading="frozen pattern")
        assert certificate.verdict == "flat"
        assert verify_layer(certificate, model).ok


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_trained_gate_bends_what_is_flat_without_it(layer: int, models: dict[str, Model]) -> None:
    model = models[QWEN3_NEXT]
    bent = certify_layer(model, layer, prompt=PROMPTS[0], reading="frozen pattern")
    assert bent.verdict == "curved"
    assert verify_layer(bent, model).ok
    assert certify_layer(model, layer, prompt=PROMPTS[0], reading="frozen pattern+gate").verdict == "flat"


@pytest.mark.parametrize("name", NAMES)
def test_curvature_is_that_of_the_record(name: str, models: dict[str, Model]) -> None:
    record = checkpoint_provenance()
    said = record["runs"][name][str(record["shipped_seed"])]["trained"]["attention_curvature"]
    found = by_layer(attention_curvature(models[name], layers=[2]))
    assert found.keys() == said.keys()
    for reading, layers in said.items():
        # transformers computes rotary tables and linear attention in float32 on the way to this layer
        assert found[reading] == pytest.approx({"2": layers["2"]}, rel=1e-4)
        assert (layers["2"] == 0) == (name == LLAMA and reading == "frozen pattern")


# -- what they are made from -----------------------------------------------------------------------------------------


def test_the_text_is_there_and_held_out_files_are_never_trained_on() -> None:
    assert not set(TRAINING) & set(HELD_OUT)
    assert len(TRAINING) == checkpoint_provenance()["text"]["training_modules"]
    assert all(standard_library((*TRAINING, *HELD_OUT)).values())
    with pytest.raises(InputError, match=r"no source file none/such.py"):
        standard_library(["none/such.py"])


def test_a_tokenizer_gives_back_any_text() -> None:
    _, tokenizer = causal(checkpoint(LLAMA))
    text = "def größe(λ):\n\treturn '→'  # \x00\n"
    assert tokenizer.decode(encode(tokenizer, [text]).tolist()) == text


def test_a_constant_gate_is_one_half_and_all_else_is_the_gated_model() -> None:
    gated, held = (untrained(name, 3) for name in (QWEN3_NEXT, CONSTANT_GATE))
    for (name, one), two in zip(gated.named_parameters(), held.parameters(), strict=True):
        if not name.endswith("q_proj.weight"):
            assert_same(one, two)
    attention = held.model.layers[2].self_attn
    hidden = torch.randn(5, 96, generator=torch.Generator().manual_seed(0))
    query, gate = attention.q_proj(hidden).view(5, 4, 48).chunk(2, dim=-1)
    assert_same(torch.sigmoid(gate), torch.full_like(gate, 0.5), 2.0**-22)
    live, _ = gated.model.layers[2].self_attn.q_proj(hidden).view(5, 4, 48).chunk(2, dim=-1)
    torch.testing.assert_close(query, live)


def test_the_loss_is_the_probability_of_each_next_token() -> None:
    model = untrained(LLAMA, 0).eval()
    window = torch.randint(1024, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        p = model(input_ids=window).logits.softmax(-1)
        found = nats(model, window)
    for row in range(2):
        for place in range(6):
            expected = -math.log(p[row, place, window[row, place + 1]].item())
            assert found[row, place].item() == pytest.approx(expected, rel=1e-5)


class Uniform(torch.nn.Module):
    """Knows nothing: every token is as likely as any other."""

    def forward(self, input_ids: Tensor, use_cache: bool) -> Uniform:
        self.logits = torch.zeros(*input_ids.shape, 1024)
        return self


def test_bits_per_byte_count_the_bytes_of_the_text() -> None:
    _, tokenizer = causal(checkpoint(LLAMA))
    text = "λ → größer\n" * 200
    ids = encode(tokenizer, [text])
    windows = (len(ids) - 1) // CONTEXT
    predicted = ids[1 : windows * CONTEXT + 1]
    size = len(text.encode()) - sum(
        len(tokenizer.convert_ids_to_tokens(int(i))) for i in (ids[0], *ids[windows * CONTEXT + 1 :])
    )
    assert bits_per_byte(Uniform(), tokenizer, text) == pytest.approx(10 * len(predicted) / size)
    assert bits_per_byte(Uniform(), tokenizer, text) != pytest.approx(10 * len(predicted) / len(text))


# -- training --------------------------------------------------------------------------------------------------------

QUICK = train_language.LanguageRecipe(steps=3, batch=2, warm_up=1)
STREAM = torch.arange(2000) % 11


def test_training_is_fixed_by_its_seed_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one, two, other = (train_language.train(LLAMA, seed, STREAM, QUICK).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    one, two, other = (torch.cat([weight.flatten() for weight in state.values()]) for state in (one, two, other))
    assert (one - two).norm() < 1e-3 * (one - other).norm()  # what a few steps make of the last places


def test_training_learns() -> None:
    model = train_language.train(LLAMA, 0, STREAM, replace(QUICK, steps=40, batch=4))
    with torch.no_grad():
        assert nats(model, STREAM[None, : CONTEXT + 1]).mean() < 1 < math.log(11)


def test_a_gate_that_is_held_stays_so_in_training() -> None:
    model = train_language.train(CONSTANT_GATE, 0, STREAM, QUICK)
    weight = model.model.layers[1].self_attn.q_proj.weight.view(4, 2, 24, 96)
    assert (weight[:, 1] == 0).all() and (weight[:, 0] != 0).any()


def test_the_command_writes_what_can_be_loaded_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_language, "TRAINING", ("argparse.py",))
    monkeypatch.setattr(train_language, "HELD_OUT", ("queue.py",))
    monkeypatch.setattr(train_language, "LanguageRecipe", lambda: QUICK)
    monkeypatch.setattr(train_language, "COMPARED", (LLAMA,))
    quick = partial(attention_curvature, prompts=PROMPTS[:1], layers=[1])
    monkeypatch.setattr(train_language, "attention_curvature", quick)
    train_language.main(["--out", str(tmp_path), "--seeds", "1"])
    record = json.loads((tmp_path / "python.json").read_text())
    assert set(record) == set(checkpoint_provenance())
    assert record["shipped"][LLAMA]["sha256"] == train_language.digest(tmp_path / LLAMA)
    loaded = ff.load(tmp_path / LLAMA)
    found = by_layer(quick(loaded))
    said = record["runs"][LLAMA]["0"]["trained"]["attention_curvature"]
    assert set(found) == set(said)
    for reading, layers in found.items():
        assert layers == pytest.approx(said[reading], rel=1e-4)  # norms in float32 on the way there
    # a second call trains the second seed alone
    trained = []
    monkeypatch.setattr(train_language, "train", lambda name, seed, *_: trained.append(seed) or untrained(name, seed))
    train_language.main(["--out", str(tmp_path), "--seeds", "2"])
    assert trained == [1]
    again = json.loads((tmp_path / "python.json").read_text())
    assert again["runs"][LLAMA]["0"] == record["runs"][LLAMA]["0"]
    assert len(again["summary"]["held_out_bits_per_byte"][LLAMA]["values"]) == 2


def test_a_model_in_memory_is_the_model_in_its_folder(models: dict[str, Model]) -> None:
    module, tokenizer = causal(checkpoint(QWEN3_NEXT))
    here, there = in_memory(module, tokenizer, "here").blocks(PROMPTS[1]), models[QWEN3_NEXT].blocks(PROMPTS[1])
    for one, two in zip(here, there, strict=True):
        torch.testing.assert_close(one.hidden_states, two.hidden_states, rtol=1e-12, atol=1e-12)
