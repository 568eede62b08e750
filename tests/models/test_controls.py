"""Controls keep what they promise, and the user's random state."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cases.tiny_models import save_tiny
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.models import CONTROLS, Model
from fisherflat.models._drawn import drawn_from

TEXT = "def mean(values):\n    return sum(values) / len(values)"


@pytest.fixture(scope="module", params=["python-llama", "python-qwen3-next"])
def model(request: pytest.FixtureRequest) -> Model:
    return ff.load(request.param)


def weights(model: Model, *, embeddings: bool = False) -> dict[str, Tensor]:
    tables = {id(m.weight) for m in model.module.modules() if isinstance(m, nn.Embedding)}
    return {name: p for name, p in model.module.named_parameters() if (id(p) in tables) == embeddings}


def test_shuffled_weights_keep_their_histogram_and_nothing_else(model: Model) -> None:
    made = weights(ff.control(model, "shuffled weights"))
    for name, weight in weights(model).items():
        assert made[name].flatten().sort().values.equal(weight.flatten().sort().values)
        if weight.dim() > 1:
            together = torch.corrcoef(torch.stack([made[name].flatten(), weight.flatten()]))[0, 1]
            assert abs(float(together)) < 5 / weight.numel() ** 0.5  # of independent ones 1 / sqrt(n)


def test_reinitialised_weights_are_those_of_an_untrained_model(model: Model) -> None:
    deviation = model.config.initializer_range
    for name, weight in weights(ff.control(model)).items():
        if name.endswith("proj.weight"):
            assert float(weight.std()) == pytest.approx(deviation, rel=5 / weight.numel() ** 0.5)
        elif "norm" in name:
            assert weight.unique().tolist() in ([0.0], [1.0])


@pytest.mark.parametrize("kind", CONTROLS)
def test_embeddings_and_the_model_itself_stay_bit_for_bit(model: Model, kind: str) -> None:
    before = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    made = ff.control(model, kind)
    assert all(weights(made, embeddings=True)[name].equal(w) for name, w in weights(model, embeddings=True).items())
    assert all(weight.equal(before[name]) for name, weight in model.module.state_dict().items())
    assert all(a.equal(b) for a, b in zip(made.module.buffers(), model.module.buffers(), strict=True))
    anew = ff.control(model, kind, keep_embeddings=False)
    changed = [not weights(anew, embeddings=True)[n].equal(w) for n, w in weights(model, embeddings=True).items()]
    assert all(changed) == (kind != "shuffled tokens")


@pytest.mark.parametrize("kind", CONTROLS)
def test_a_seed_decides_also_in_another_process(model: Model, kind: str) -> None:
    first, second = ff.control(model, kind, seed=1), ff.control(model, kind, seed=2)
    sent = pickle.loads(pickle.dumps(first))
    assert sent.name == first.name == f"{model.name} ({kind})"
    assert sent.encode(TEXT).ids.equal(first.encode(TEXT).ids)
    assert all(a.equal(b) for a, b in zip(sent.module.parameters(), first.module.parameters(), strict=True))
    alike = [a.equal(b) for a, b in zip(weights(first).values(), weights(second).values(), strict=True)]
    assert all(alike) == (kind == "shuffled tokens")


def test_shuffled_tokens_are_the_same_tokens(minilm_path: Path) -> None:
    model = ff.load(minilm_path)
    made = ff.control(model, "shuffled tokens")
    text = "The old bank of the river is near the station."
    plain, mixed = model.encode(text), made.encode(text)
    assert plain.ids.sort().values.equal(mixed.ids.sort().values) and not plain.ids.equal(mixed.ids)
    assert mixed.special == plain.special and mixed.tokens[0] == "[CLS]"  # special ones stay where they are
    assert made.encode(text).ids.equal(mixed.ids) and mixed.text != plain.text
    with pytest.raises(InputError, match="only their tokens have an order to lose"):
        made.encode(torch.zeros(3, 384, dtype=torch.float64))


@pytest.mark.parametrize("kind", CONTROLS)
def test_tables_and_titles_say_it(model: Model, kind: str) -> None:
    made = ff.control(model, kind)
    options = {"layers": [0], "parts": ["mlp"], "points": 1, "positions": "last", "progress": False}
    found = ff.analyze(made, TEXT, **options)
    assert set(found.table["control"]) == {kind} and kind in found.model
    assert any(kind in note for note in found.notes)
    assert ff.analyze(model, TEXT, **options).table["control"].isna().all()


def test_modules_of_torch() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = ff.load(nn.TransformerEncoder(layer, 2))
    made = ff.control(model)
    for name, weight in made.module.named_parameters():
        assert bool(weight.isfinite().all())
        if name.endswith("linear1.weight"):  # as nn.Linear draws: uniform within 1 / sqrt(fan in)
            assert 0.8 / 8**0.5 < float(weight.abs().max()) <= 1 / 8**0.5


class _Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(x @ self.weight)


def test_what_cannot_be_made(tmp_path: Path) -> None:
    model = ff.load(nn.Sequential(_Own(), _Own()))
    with pytest.raises(InputError, match=r"nobody says how 0.weight of Sequential is initialised, and 1 other weights"):
        ff.control(model)
    assert ff.control(model, "shuffled weights").control == "shuffled weights"
    with pytest.raises(InputError, match="a control is one of 'reinitialised'"):
        ff.control(model, "random")
    with pytest.raises(InputError, match="load it with lazy=False"):
        ff.control(ff.load(save_tiny(tmp_path, "llama"), lazy=True))


DRAWS: dict[str, Callable[[], Tensor]] = {
    "randn": lambda: torch.randn(3),
    "randint": lambda: torch.randint(9, (3,)),
    "randint from": lambda: torch.randint(2, 9, (3,)),
    "randperm": lambda: torch.randperm(5),
    "normal": lambda: torch.normal(torch.zeros(2), torch.ones(2)),
    "uniform_": lambda: torch.empty(3).uniform_(),
    "exponential_": lambda: torch.empty(3).exponential_(),
    "bernoulli": lambda: torch.bernoulli(torch.full((9,), 0.5)),
    "multinomial": lambda: torch.multinomial(torch.ones(30), 5),
    "poisson": lambda: torch.poisson(torch.full((9,), 5.0)),
    "rand_like": lambda: torch.rand_like(torch.zeros(3)),
    "dropout": lambda: nn.functional.dropout(torch.ones(30)),
    "Linear": lambda: nn.Linear(2, 2).weight.detach(),
    "trunc_normal_": lambda: nn.init.trunc_normal_(torch.empty(4)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_draws_are_from_the_generator_and_leave_the_random_state(draw: Callable[[], Tensor]) -> None:
    before, found = torch.random.get_rng_state(), []
    for seed in (3, 3, 4):
        with drawn_from(torch.Generator().manual_seed(seed)):
            found.append(draw())
    assert found[0].equal(found[1]) and not found[0].equal(found[2])
    assert torch.random.get_rng_state().equal(before)


@pytest.mark.parametrize("name", ["python-llama", "python-qwen3-next"])
def test_loading_draws_nothing_from_the_user(name: str) -> None:
    before = torch.random.get_rng_state()
    ff.control(ff.load(name))
    assert torch.random.get_rng_state().equal(before)
