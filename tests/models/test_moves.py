"""What moves on real data: which tokens, along what, and that the charts are what they are said to be."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases.closeness import assert_same
from cases.tiny_models import save_tiny, save_word_tokenizer, tiny_model
from safetensors.torch import save_file
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.models import Encoded, Model, moves
from fisherflat.models.moves import Moves


@pytest.fixture(scope="module")
def minilm(minilm_path: Path) -> Model:
    return ff.load(minilm_path)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny model with a tokenizer of a few words."""
    folder = save_tiny(tmp_path_factory.mktemp("bert"), "bert")
    save_word_tokenizer(folder)
    return ff.load(folder)


def prompt_of(special: str) -> Encoded:
    """A prompt with an `s` for each special token and a `w` for each word."""
    return Encoded(special, torch.arange(len(special)), [*special], [letter == "s" for letter in special])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- positions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("special", "where", "expected"),
    [
        ("swwwwwwwwwwws", "spread", [1, 3, 6, 8, 11]),  # both ends, and even distances between
        ("swwws", "spread", [1, 2, 3]),
        ("wwww", "spread", [1, 2, 3]),  # the first of the sequence is left out
        ("w", "spread", [0]),
        ("sw", "spread", [1]),
        ("swwsws", "last", [4]),
        ("swwsws", "all", [1, 2, 4]),
        ("swwsws", "together", [None]),
        ("swwsws", [-1, 0, 5], [5, 0]),
    ],
)
def test_positions(special: str, where: Any, expected: list[int | None]) -> None:
    assert moves.positions(prompt_of(special), where) == expected


def test_positions_move_the_tokens_that_they_say() -> None:
    prompt = prompt_of("swws")
    assert moves.tokens(prompt, None) == [1, 2] and moves.tokens(prompt, 3) == [3]
    assert moves.label(prompt, None) == "all words" and moves.label(prompt, 0) == "s"


@pytest.mark.parametrize(
    ("special", "where", "words"),
    [
        ("ss", "spread", "holds only special tokens; give a word"),
        ("sw", "first", "a list of indices, or a function of the prompt; got 'first'"),
        ("sw", [0, 2], "position 2 is outside the prompt 'sw' of 2 tokens"),
        ("sw", [], "positions must be a list that is not empty"),
    ],
)
def test_positions_that_are_not_there(special: str, where: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        moves.positions(prompt_of(special), where)


# -- directions --------------------------------------------------------------------------------------------------------


def test_principal_directions_are_those_of_the_words_alone() -> None:
    """Against the eigenvectors of NumPy's covariance; the special tokens lie far off along another direction."""
    prompts = [prompt_of("s" + "w" * 30), prompt_of("w" * 25 + "s")]
    scales = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1, 0.1], dtype=torch.float64)
    states = [random(31, 6) * scales, random(26, 6, seed=1) * scales]
    states[0][0, 5] = states[1][-1, 5] = 5.0  # no outliers: nearer than some words
    chart = moves.Principal(2).fit(states, prompts).chart(states[1:], [3])
    rows = np.concatenate([states[0][1:], states[1][:-1]])
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    expected = vectors[:, ::-1][:, :2].T * np.sqrt(values[::-1][:2, None])
    found = chart.basis[:, 3].numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=0, atol=1e-12)
    assert torch.equal(chart.point, states[1])
    assert (chart.basis[:, [i for i in range(26) if i != 3]] == 0).all()


def test_a_massive_state_does_not_turn_the_directions() -> None:
    """As of the token that serves as an attention sink, where nothing marks it as special."""
    states = random(20, 64)
    states[0, 7] = 800.0
    prompt = prompt_of("w" * 20)
    assert moves.ordinary(states).tolist() == [False] + [True] * 19
    found = moves.Principal(2).fit([states], [prompt]).directions
    without = moves.Principal(2).fit([states[1:]], [prompt_of("w" * 19)]).directions
    assert_same(found, without)
    assert found[:, 7].abs().max() < 2


def test_special_tokens_are_taken_in_where_there_are_too_few_words() -> None:
    states = random(4, 6)
    found = moves.Principal(2).fit([states], [prompt_of("swws")]).directions
    assert_same(found, ff.charts.principal(states, 0).basis[:, 0])


def test_in_a_trained_model_special_tokens_would_be_a_principal_direction(minilm: Model) -> None:
    """What docs/charts.md says of MiniLM: with [CLS] the second principal direction at the MLP is about [CLS]."""
    prompt = minilm.encode("A quick brown fox jumps over the lazy dog near the river bank, and the cat sleeps.")
    states = minilm.blocks(prompt, stop=3)[2].mlp_input
    words = moves.Principal(2).fit([states], [prompt]).directions
    everything = ff.charts.principal(states, 0).basis[:, 0]
    cosines = torch.linalg.svdvals(torch.linalg.qr(words.T).Q.T @ torch.linalg.qr(everything.T).Q)
    assert cosines[-1] < 0.5
    assert moves.ordinary(states[moves.tokens(prompt, None)]).all()


def test_random_directions_are_orthonormal_up_to_their_unit_and_repeat() -> None:
    states, prompt = random(40, 12) * 3, prompt_of("s" + "w" * 39)
    found = moves.Random(3, seed=5).fit([states], [prompt]).directions
    rms = np.sqrt(np.mean(np.var(states[1:].numpy(), axis=0, ddof=1)))
    np.testing.assert_allclose(found @ found.T, rms**2 * np.eye(3), atol=1e-12)
    assert_same(found, moves.Random(3, seed=5).fit([states], [prompt]).directions)
    assert not torch.allclose(found, moves.Random(3, seed=6).fit([states], [prompt]).directions)
    # the directions do not depend on the states, only their length does
    other = moves.Random(3, seed=5).fit([random(40, 12, seed=1)], [prompt]).directions
    assert torch.allclose(found / found.norm(dim=1)[:, None], other / other.norm(dim=1)[:, None], rtol=1e-12)


def test_all_words_together_move_by_the_same_vector() -> None:
    states, prompt = random(5, 3), prompt_of("swwws")
    given = random(2, 3, seed=2)
    chart = moves.vectors(given).fit([states], [prompt]).chart([states], moves.tokens(prompt, None))
    u = torch.tensor([0.3, -0.7], dtype=torch.float64)
    expected = states.clone()
    expected[1:4] += u @ given
    assert torch.allclose(chart(u), expected, rtol=1e-15)


def test_n_tokens_that_move_alike_have_an_nth_of_the_curvature_of_one() -> None:
    """For a map that treats equal tokens alike: the metric is n times as large, |II| √n times."""
    n, states = 4, random(1, 6).expand(4, 6).clone()
    mlp = ff.layers.GatedMLP(6, 8).double()
    prompt, fitted = prompt_of("w" * n), moves.vectors(random(2, 6, seed=1)).fit([states], [prompt_of("w" * n)])
    one, all_of_them = (
        ff.StatisticalManifold(mlp, fitted.chart([states], moves.tokens(prompt, position))) for position in (0, None)
    )
    u = torch.tensor([0.2, -0.1], dtype=torch.float64)
    assert all_of_them.scalar_curvature(u).item() == pytest.approx(one.scalar_curvature(u).item() / n, rel=1e-9)


@pytest.mark.parametrize("what", ["principal", "random:3"])
def test_curvature_does_not_depend_on_the_basis_of_what_moves(minilm: Model, what: str) -> None:
    """Another orthonormal basis of the same plane is another chart of the same surface, also with all words together.

    Principal directions are not equally long, so that a rotation of the coordinates is no rotation of the states.
    """
    prompt = minilm.encode("The cat sat on the mat.")
    part = minilm.blocks(prompt, stop=2)[1].attention
    tokens = moves.tokens(prompt, None)
    chart = moves.parse(what).fit([part.input], [prompt]).chart([part.input], tokens)
    turn = torch.linalg.qr(random(2, 2, seed=3)).Q
    turned = ff.charts.Chart(chart.point, torch.tensordot(turn, chart.basis, 1))
    u = torch.tensor([0.4, 0.2], dtype=torch.float64)
    first = ff.StatisticalManifold(part, chart).scalar_curvature(u)
    second = ff.StatisticalManifold(part, turned).scalar_curvature(turn @ u)
    assert first.item() == pytest.approx(second.item(), rel=1e-9) and first.item() != 0


# -- words -------------------------------------------------------------------------------------------------------------


def test_the_corners_of_a_word_simplex_are_the_real_forward_passes(minilm: Model) -> None:
    words = ["cat", "bird", "horse"]
    prompt, moving = minilm.encode("The horse slept on the warm mat."), moves.parse("words:cat, bird, horse")
    (position,) = moving.positions(minilm, prompt)
    assert position is not None and prompt.tokens[position] == "horse" and moving.k == 2
    variants = moving.variants(minilm, prompt, position)
    blocks = [minilm.blocks(variant, stop=4)[3] for variant in variants]
    chart = moving.fit([], []).chart([block.input for block in blocks], [position])
    assert torch.equal(chart.point, blocks[0].input)
    for corner, word in zip([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], words, strict=True):
        real = minilm.blocks(f"The {word} slept on the warm mat.", stop=4)[3]
        reached = chart(torch.tensor(corner, dtype=torch.float64))
        assert torch.allclose(reached, real.input, rtol=0, atol=1e-12)
        assert torch.allclose(blocks[0](reached), real(real.input), rtol=0, atol=1e-10)


def test_a_word_is_the_token_with_a_blank_before_it_where_that_is_due(tmp_path: Path) -> None:
    """A byte-level tokenizer has two tokens for a word: with a blank before it, and without."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["the", "cat", "dog", "sat", "on"]
    merges = [(word[:end], word[end]) for word in words for end in range(1, len(word))] + [
        ("Ġ", word) for word in words
    ]
    vocabulary = dict.fromkeys(["<s>", "Ġ", *"".join(words), *("".join(merge) for merge in merges)])
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    model = Model(tiny_model("gpt2", vocab_size=len(ids)), fast)
    prompt = model.encode("dog sat on the cat")
    assert prompt.tokens == ["dog", "Ġsat", "Ġon", "Ġthe", "Ġcat"]
    moving = moves.Words(("cat", "dog"))
    assert moving.positions(model, prompt) == [0, 4]
    first, last = ([v.tokens for v in moving.variants(model, prompt, i)] for i in (0, 4))
    assert [row[0] for row in first] == ["cat", "dog"] and [row[4] for row in last] == ["Ġcat", "Ġdog"]
    assert moving.variants(model, prompt, 4)[1].text == "dog sat on the dog"


def test_points_of_a_simplex_are_uniform_in_it() -> None:
    moving = moves.Words(("a", "b", "c"))
    points = moving.points(4001, seed=1)
    assert_same(points, moving.points(4001, seed=1))
    assert points[0].tolist() == [0, 0]
    inside = points[1:]
    assert (inside >= 0).all() and (inside.sum(1) <= 1).all()
    # moments of the uniform distribution on a triangle: means 1/3, variances 1/18, covariance -1/36
    np.testing.assert_allclose(inside.mean(0), [1 / 3, 1 / 3], atol=0.015)
    np.testing.assert_allclose(np.cov(inside.T), [[1 / 18, -1 / 36], [-1 / 36, 1 / 18]], atol=0.004)


def test_token_ids_serve_where_there_is_no_tokenizer() -> None:
    model = Model(tiny_model("llama"))
    prompt, moving = model.encode([5, 6, 7, 8]), moves.parse("words:7,9,11")
    assert moving.positions(model, prompt) == [2]
    assert [v.ids.tolist() for v in moving.variants(model, prompt, 1)] == [[5, 7, 7, 8], [5, 9, 7, 8], [5, 11, 7, 8]]
    with pytest.raises(InputError, match="no tokenizer; give token ids instead of the word 'cat'"):
        moves.parse("words:cat,dog").positions(model, prompt)
    with pytest.raises(InputError, match="token id 99 is outside the vocabulary of 60"):
        moves.parse("words:7,99").variants(model, prompt, 2)


@pytest.mark.parametrize(
    ("words", "where", "message"),
    [
        ("cat,giraffe", [2], "'giraffe' is not a single token of .* at position 2 of 'the cat sat'"),
        ("dogs,mat", "spread", "none of the words dogs, mat stands in 'the cat sat' as a token of its own; put one"),
        ("cat,mat", "together", "words stand at one place"),
        ("cat", "spread", "at least two words"),
        ("cat,cat", "spread", "not all different"),
    ],
)
def test_words_that_cannot_be_used(bert: Model, words: str, where: Any, message: str) -> None:
    prompt = bert.encode("the cat sat")
    with pytest.raises(InputError, match=message):
        moving = moves.parse(f"words:{words}")
        moving.variants(bert, prompt, moving.positions(bert, prompt, where)[0])


# -- points ------------------------------------------------------------------------------------------------------------


def test_points_lie_within_one_unit_and_the_first_is_the_own_state() -> None:
    moving = moves.Principal(3)
    points = moving.points(400, seed=4)
    assert_same(points, moving.points(400, seed=4))
    assert not torch.allclose(points, moving.points(400, seed=5))
    assert points[0].tolist() == [0, 0, 0]
    radius = points[1:].norm(dim=1)
    assert radius.max() <= 1
    assert (radius**3).mean().item() == pytest.approx(0.5, abs=0.05)  # uniform in the ball
    assert moving.points(1).tolist() == [[0.0, 0.0, 0.0]]


# -- vectors from files ------------------------------------------------------------------------------------------------


def test_vectors_come_from_files_and_are_told_apart_by_their_content(tmp_path: Path) -> None:
    given = random(2, 8)
    np.save(tmp_path / "steer.npy", given.numpy())
    save_file({"up": given, "down": -given}, tmp_path / "steer.safetensors")
    save_file({"only": given.float()}, tmp_path / "one.safetensors")
    npy = moves.parse(f"vectors:{tmp_path}/steer.npy")
    assert torch.equal(npy.fit([random(3, 8)], [prompt_of("www")]).directions, given)  # type: ignore[attr-defined]
    down: Any = moves.parse(f"vectors:{tmp_path}/steer.safetensors#down")
    assert torch.equal(down.vectors, -given)
    one: Any = moves.parse(f"vectors:{tmp_path}/one.safetensors")
    assert torch.equal(one.vectors, given.float().double())
    settings = [moving.settings for moving in (npy, down, one)]
    assert len({said["sha256"] for said in settings}) == 3
    assert settings[0]["file"] == "steer.npy" and str(tmp_path) not in str(settings)
    assert settings[0]["sha256"] == moves.vectors(given).settings["sha256"]
    assert moves.vectors(given[0]).k == 1


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    torch.save(random(2, 3), tmp_path / "a.pt")
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps([1.0]))
    np.save(tmp_path / "b.npy", np.ones((2, 3)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-8])
    (tmp_path / "empty.npy").touch()
    save_file({"a": random(2, 3), "b": random(2, 3)}, tmp_path / "two.safetensors")
    (tmp_path / "short.safetensors").write_bytes((tmp_path / "two.safetensors").read_bytes()[:-8])
    messages = {
        "none.npy": "there is no file",
        "a.pt": "other formats can hold pickles.*never loaded: save the vectors with",
        "objects.npy": "cannot be read as an array of numbers",
        "pickle.npy": "cannot be read as an array of numbers",
        "short.npy": "cannot be read as an array of numbers",
        "empty.npy": "cannot be read as an array of numbers",
        "short.safetensors": "cannot be read as safetensors.*is it whole",
        "two.safetensors": "holds 2 tensors, and the request does not say which; name one.*a, b",
        "two.safetensors#c": "has no 'c'",
        "b.npy#c": "one array without a name",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            moves.parse(f"vectors:{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1.0, float("nan")]], "the vectors holds 1 NaN or infinite"),
        ([[1.0, 2.0], [2.0, 4.0]], "the vectors depend on each other"),
        ([[1.0, 2.0], [0.0, 0.0]], "vector 1 is zero"),
        ([[1.0], [2.0]], "2 in a space of 1 dimensions"),
        (np.ones((1, 2, 3)), r"must be \[k, d\].*\[1, 2, 3\]"),
        (np.ones((2, 3), dtype=int), "dtype"),
        (np.ones((0, 3)), r"must be \[k, d\]"),
    ],
)
def test_vectors_that_cannot_be_used(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        moves.vectors(given)


def test_vectors_of_very_different_length_are_independent() -> None:
    assert moves.vectors([[1e-9, 0.0], [0.0, 1e9]]).k == 2


# -- descriptions ------------------------------------------------------------------------------------------------------


def test_what_moves_is_said_in_one_word() -> None:
    assert moves.parse("principal") == moves.Principal(2)
    assert moves.parse("principal", 3) == moves.Principal(3)
    assert moves.parse("random:7", 4) == moves.Random(4, 7) and moves.parse("random") == moves.Random(2, 0)
    assert moves.parse("words:a,b,c", 2).settings == {"kind": "words", "dim": 2, "words": ["a", "b", "c"]}
    given = moves.Principal(3)
    assert moves.parse(given) is given
    assert isinstance(moves.parse("principal", "full"), moves.Whole)
    assert isinstance(moves.parse(moves.Whole(), "full"), moves.Whole)
    units = {moving.unit for moving in (given, moves.Random(), moves.Words(("a", "b")), moves.vectors([[1.0, 2.0]]))}
    assert len(units) == 4


@pytest.mark.parametrize(
    ("what", "dim", "message"),
    [
        ("main", None, "'main' does not say what moves; write 'principal'"),
        ("principal:3", None, "does not say what moves"),
        ("random:x", None, "does not say what moves"),
        ("random:-1", None, "does not say what moves"),
        ("words:", None, "does not say what moves"),
        ("vectors", None, "does not say what moves"),
        (
            "words:a,b,c",
            3,
            r"3 directions .* the words \(one less than there are\) make 2; leave the number out",
        ),
        ("principal", 0, "must be at least 1"),
        (moves.Principal(3), 2, "2 directions were asked for, but principal make 3"),
        (moves.Whole(), 2, "2 directions were asked for, but moves in all directions make all"),
        ("principal", "most", "or \"full\" for all of them; got 'most'"),
        ("random", "full", "leaves no choice of moves; got 'random' besides"),
        (moves.Principal(3), "full", "leaves no choice of moves"),
    ],
)
def test_descriptions_that_are_none(what: str | Moves, dim: int | str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        moves.parse(what, dim)


@pytest.mark.parametrize("moving", [moves.Principal(3), moves.Random(2)])
def test_states_that_span_too_little(moving: Moves) -> None:
    same = random(1, 5).expand(4, 5).clone()
    with pytest.raises(InputError, match=r"principal directions|do not differ"):
        moving.fit([same], [prompt_of("wwww")])
    with pytest.raises(InputError, match="orthonormal directions"):
        moves.Random(6).fit([random(9, 5)], [prompt_of("w" * 9)])
    with pytest.raises(InputError, match="the vectors have width 3, what enters this part has width 5"):
        moves.vectors(random(2, 3)).fit([same], [prompt_of("wwww")])
