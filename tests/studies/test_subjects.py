"""What is studied, however it is given: models and prompts in every form, stacks as lists and as modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases.tiny_models import save_tiny, tiny_model
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.models import Model, as_prompts

U = torch.zeros(2, dtype=torch.float64)


def block(seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    made = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double().requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made


@pytest.fixture
def chart() -> Any:
    generator = torch.Generator().manual_seed(9)
    return ff.charts.affine(torch.randn(4, generator=generator), torch.randn(2, 4, generator=generator))


class Residual(nn.Sequential):
    """No mere sequence: it adds its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Sum(nn.ModuleList):
    """A list that can be called itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x + sum(module(x) for module in self)


@pytest.mark.parametrize("wrap", [nn.Sequential, lambda *blocks: nn.ModuleList(blocks), lambda *blocks: list(blocks)])
def test_a_sequence_of_modules_is_its_blocks(wrap: Any, chart: Any) -> None:
    blocks = [block(0), block(1), block(2)]
    given = wrap(*blocks)
    profile, expected = (ff.depth_profile(each, chart, U) for each in (given, blocks))
    assert torch.equal(profile.scalar_curvature, expected.scalar_curvature) and profile.depth == 3
    assert ff.curvature_budget(given, chart, U, by="layer").labels == ("layer 0", "layer 1", "layer 2")
    assert len(ff.freeze_stack(given, chart.point, ("activation",))) == 3


@pytest.mark.parametrize("kind", [Residual, lambda *blocks: Sum(blocks)])
def test_a_module_that_does_more_than_its_members_is_one_block(kind: Any, chart: Any) -> None:
    whole = kind(block(0), block(1))
    profile = ff.depth_profile(whole, chart, U)
    manifold = ff.StatisticalManifold(whole, chart, engine="autodiff")
    assert profile.depth == 1
    torch.testing.assert_close(profile.scalar_curvature[1], manifold.scalar_curvature(U), rtol=1e-9, atol=0)


def test_hooks_of_a_sequence_are_kept(chart: Any) -> None:
    first, second = block(0), block(1)
    whole = nn.Sequential(first, second)
    whole.register_forward_hook(lambda module, args, output: output**2)
    profile = ff.depth_profile(whole, chart, U)
    expected = ff.StatisticalManifold(lambda x: second(first(x)) ** 2, chart, engine="autodiff")
    torch.testing.assert_close(profile.scalar_curvature[-1], expected.scalar_curvature(U), rtol=1e-9, atol=0)


def test_models_in_every_form(tmp_path: Any) -> None:
    """Loaded, a module, a folder as a path and as text: the same numbers."""
    module, ids = tiny_model("llama"), [5, 6, 7, 8]
    folder = save_tiny(tmp_path / "model", "llama")
    options: dict[str, Any] = {"layers": [-1], "parts": ["mlp"], "points": 1, "positions": "last", "progress": False}
    tables = [ff.analyze(m, ids, **options).table for m in (Model(module), module, folder, str(folder))]
    assert set(tables[0].layer) == {1}
    for table in tables[1:]:
        assert table.scalar_curvature.tolist() == pytest.approx(tables[0].scalar_curvature.tolist(), rel=1e-4)
    for given in (module, folder):
        assert ff.depth_profile(given, prompt=ids).depth == 2
        assert ff.curvature_budget(given, prompt=ids, by="layer").labels == ("layer 0", "layer 1")
        small: dict[str, Any] = {"points": 1, "budget_points": 0, "resolution": 0, "progress": False}
        assert ff.study_depth(given, ids, **small).profiles["live"].passed[-1] == 2
        assert len(ff.symmetry.study(given, ids, progress=False).certificates) == 2
        assert ff.certify_layer(given, -1, "mlp", prompt=ids).subject["layer"] == 1


@pytest.mark.parametrize("wrong", [3, None, {"a": 1}, [nn.Linear(2, 2)]])
def test_what_is_no_model_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"a model is one of fisherflat\.load"):
        ff.analyze(wrong, [1, 2, 3], progress=False)


@pytest.mark.parametrize(
    ("position", "words"),
    [
        ({0: 1}, r"position must be an integer, got \{0: 1\}, for the prompt 'def f"),
        ({0}, r"position must be an integer, got \{0\}, for the prompt 'def f"),
        (1.5, "position must be an integer, got 1.5, for the prompt 'def f"),
        ([[1]], r"positions must be an integer, got \[1\], for the prompt 'def f"),
        ([], "positions must be a list that is not empty, got .*, for the prompt 'def f"),
        (99, "position 99 is outside the prompt 'def f"),
        ("token:zebra", "no token of the prompt 'def f.*reads 'zebra'"),
    ],
)
def test_a_position_of_a_study_of_depth_that_is_none_names_the_prompt(position: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ff.study_depth("python-llama", "def f(x):", position=position, progress=False)


def test_one_prompt_or_several() -> None:
    hidden = torch.randn(3, 8)
    for one in ("text", [1, 2, 3], (1, 2), np.array([1, 2]), torch.tensor([[1, 2]]), hidden, list(np.arange(3))):
        found = as_prompts(one)
        assert len(found) == 1 and found[0] is one
        assert [id(prompt) for prompt in as_prompts([one, one])] == [id(one)] * 2
    model = Model(tiny_model("llama"))
    studies = [ff.symmetry.study(model, p, progress=False) for p in ([5, 6, 7, 8], [[5, 6, 7, 8], [5, 6, 7, 8]])]
    # the same inputs twice have the same means
    assert studies[1].table.strength.tolist() == pytest.approx(studies[0].table.strength.tolist(), rel=1e-9)
    for nothing in ([], 3, None):
        with pytest.raises(InputError, match="prompts"):
            as_prompts(nothing)
