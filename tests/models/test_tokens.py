"""What tokens read as, what they are, and choosing positions by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cases.tiny_models import tiny_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.models import Encoded, Model, moves


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """One of each of the three kinds that models come with, of the words below."""
    words = ["the", "river", "bank", "it", "s", "don", "t", "un", "believ", "able", "猫", "не", "мир"]
    special = ["<s>", "<unk>"]
    if kind == "WordPiece":
        vocabulary = special + words + ["##" + word for word in words] + list("'.,!\u2019")
        made = Tokenizer(
            models.WordPiece(dict(zip(vocabulary, range(len(vocabulary)), strict=True)), unk_token="<unk>")
        )
        made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        made.normalizer = normalizers.Lowercase()
    else:
        marked = "▁" if kind == "SentencePiece" else "Ġ"
        pieces = [marked, *special, *words, *(marked + word for word in words), *"'.,!"]
        if kind == "SentencePiece":
            pieces += ["\n", *(f"<0x{byte:02X}>" for byte in range(256))]
            scored = [(piece, -9.0 if piece in special or piece.startswith("<0x") else -1.0) for piece in pieces]
            made = Tokenizer(models.Unigram(scored, unk_id=pieces.index("<unk>"), byte_fallback=True))
            made.pre_tokenizer = pre_tokenizers.Metaspace()
            made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        else:
            letters = sorted(pre_tokenizers.ByteLevel.alphabet())
            merges: list[tuple[str, str]] = []
            known = list(dict.fromkeys([*special, *letters]))
            for word in words[:10]:
                for full in ("Ġ" + word, word):  # the blank first, or it stays alone
                    for end in range(2, len(full) + 1):
                        if full[:end] not in known:
                            known.append(full[:end])
                            merges.append((full[: end - 1], full[end - 1]))
            made = Tokenizer(models.BPE(dict(zip(known, range(len(known)), strict=True)), merges))
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")


@pytest.fixture(scope="module", params=["byte-level", "WordPiece", "SentencePiece"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama", vocab_size=600).save_pretrained(folder)
    tokenizer(request.param).save_pretrained(folder)
    return ff.load(folder)


def read(model: Model, text: str) -> list[tuple[str, str | None]]:
    return [(token.label, token.kind) for token in model.encode(text).read]


def test_words_punctuation_and_function_words_in_every_kind_of_tokenizer(model: Model) -> None:
    found = read(model, "the river bank.")
    assert found == [("the", "stop"), ("river", "content"), ("bank", "content"), (".", "punctuation")]


def test_pieces_belong_to_their_word(model: Model) -> None:
    found = read(model, "unbelievable it")
    assert found == [("un", "content"), ("believ", "content"), ("able", "content"), ("it", "stop")]
    assert dict(read(model, "it un"))["un"] == "content"  # which alone, in a word of its own, is none of the list


def test_what_contractions_leave_is_no_word(model: Model) -> None:
    kinds = [kind for label, kind in read(model, "it's the bank") if label.strip("'") == "s"]
    assert kinds == ["stop"]


def test_other_scripts(model: Model) -> None:
    found = read(model, "мир не")
    letters = [(label, kind) for label, kind in found if kind != "punctuation"]
    assert {kind for _, kind in letters} == {"content"}
    assert "Ð" not in "".join(label for label, _ in letters)  # nobody reads bytes


def test_a_newline_is_no_letter(tmp_path: Path) -> None:
    prompt = ff.load("python-llama").encode("def f(x):\n    return x")
    (newline,) = [i for i, raw in enumerate(prompt.tokens) if "Ċ" in raw]
    assert prompt.read[newline].label.startswith("\\n") and prompt.read[newline].kind == "punctuation"
    assert moves.label(prompt, newline) == prompt.read[newline].label


def test_parts_of_characters_are_counted() -> None:
    labels = [token.label for token in ff.load("python-llama").encode("# 猫").read]
    assert labels[-3:] == ["猫 1/3", "猫 2/3", "猫 3/3"]


# -- positions ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm(minilm_path: Path) -> Model:
    return ff.load(minilm_path)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("last", ["."]),
        ("last content", ["river"]),
        ("last stop", ["the"]),
        ("content", ["old", "bank", "near", "bank", "river"]),
        ("punctuation", [",", "."]),
        ("special", ["[CLS]", "[SEP]"]),
        ("last special", ["[SEP]"]),
        ("token:bank", ["bank", "bank"]),
        ("token:Bank", ["bank", "bank"]),
        ("token:[CLS]", ["[CLS]"]),
        (lambda prompt: [i for i, token in enumerate(prompt.read) if token.label == "old"], ["old"]),
    ],
)
def test_positions_by_name(minilm: Model, where: Any, expected: list[str]) -> None:
    prompt = minilm.encode("The old bank is near, the bank of the river.")
    expected = [word for word in expected if word != "near"]
    assert [moves.label(prompt, at) for at in moves.positions(prompt, where)] == expected


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("token:bnak", "no token of the prompt 'the bank' reads 'bnak'; it has 'bank'"),
        ("token:", "no token of the prompt"),
        ("punctuation", "has no punctuation token; those that it has are content, special, stop"),
        ("verb", 'positions must be "spread"'),
        ("last verb", 'positions must be "spread"'),
        (lambda prompt: [99], "position 99 is outside the prompt"),
        (lambda prompt: None, "positions must be a list of integers"),
    ],
)
def test_names_that_match_nothing(minilm: Model, where: Any, said: str) -> None:
    with pytest.raises(InputError) as found:
        moves.positions(minilm.encode("the bank"), where)
    assert said in str(found.value)


def test_classes_need_a_tokenizer() -> None:
    prompt = Encoded("[1, 2]", ff.load("python-llama").encode([1, 2]).ids, ["1", "2"], [False, False])
    with pytest.raises(InputError, match="cannot be told: there is no tokenizer"):
        moves.positions(prompt, "content")


OPTIONS: dict[str, Any] = {"layers": [0], "parts": ["mlp"], "readings": ["live"], "points": 1, "progress": False}
PROMPTS = ["for key in list(names):", "def mean(values):"]


def test_each_prompt_has_positions_of_its_own() -> None:
    found = ff.analyze("python-llama", PROMPTS, positions=[[2], [-1, 1]], **OPTIONS)
    assert found.table[["prompt", "position"]].to_numpy().tolist() == [[0, 2], [1, 6], [1, 1]]
    assert found.settings["positions"] == [[2], [6, 1]] and found.settings["asked"]["positions"] == [[2], [-1, 1]]
    alone = [ff.analyze("python-llama", PROMPTS[i], positions=at, **OPTIONS) for i, at in enumerate(([2], [-1, 1]))]
    assert found.table["token"].tolist() == [token for one in alone for token in one.table["token"]]
    mixed = ff.analyze("python-llama", PROMPTS, positions=["token:key", lambda prompt: [0]], **OPTIONS)
    assert mixed.table[["token", "token_class"]].to_numpy().tolist() == [["key", "content"], ["def", "content"]]
    assert mixed.table["raw_token"].tolist() == ["Ġkey", "def"] and mixed.settings["positions"] == [[1], [0]]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({0: [2], 1: [3]}, "a list with one entry a prompt, in their order, such as [[2], [3]]; got a dict"),
        ({2, 3}, "got a set"),
        ([[2]], "there are 2 prompts and 1 entries"),
        ([[2], [3], [4]], "there are 2 prompts and 3 entries"),
        ([[2], 3], "positions are indices, or one list for each prompt; these are both"),
        ([[2], []], "positions must be a list that is not empty"),
        ([[2], [0.5]], "each of positions must be an integer"),
        ([["last"], [2]], "each of positions must be an integer"),
    ],
)
def test_positions_that_do_not_fit_the_prompts(where: Any, said: str) -> None:
    with pytest.raises(InputError) as found:
        ff.analyze("python-llama", PROMPTS, positions=where, **OPTIONS)
    assert said in str(found.value)


def test_a_function_works_in_other_processes() -> None:
    found = ff.analyze("python-llama", PROMPTS, positions=lambda prompt: [len(prompt.ids) - 1], jobs=2, **OPTIONS)
    assert found.table["token"].tolist() == ["):", "):"]
