"""What the experiment on the shipped models' MLPs prints."""

from __future__ import annotations

import sys

import pytest

import fisherflat as ff
from fisherflat.lab.experiments import feed_forward
from fisherflat.zoo import checkpoint


@pytest.fixture(scope="module")
def llama() -> ff.checkpoints.Model:
    return ff.load(checkpoint("python-llama"))


def test_windows_are_of_different_modules_first(llama: ff.checkpoints.Model) -> None:
    prompts = feed_forward.windows(llama, 12)
    assert [len(prompt) for prompt in prompts] == [128] * 12
    assert len({tuple(prompt) for prompt in prompts}) == 12
    assert "configparser" in llama.tokenizer.decode(prompts[0]).lower()
    assert "csv" in llama.tokenizer.decode(prompts[1]).lower()


def test_fits_are_better_than_tangents_and_neither_is_exact(llama: ff.checkpoints.Model) -> None:
    for tangent, fit, *curvatures in feed_forward.surrogates(llama, feed_forward.windows(llama, 2)):
        assert 0.01 < fit < tangent
        assert min(curvatures) > 0.01


def test_memories_are_triggered_by_single_tokens_more_often_than_by_chance(llama: ff.checkpoints.Model) -> None:
    prompts = feed_forward.windows(llama, 4)
    one, chance, said, said_by_chance = feed_forward.triggered(llama, prompts, layer=1)
    assert one > 0.05 > chance
    assert 1 > said >= said_by_chance >= 0
    # the same from the model's own activations
    table = ff.memories.triggers(llama, prompts, 1, count=feed_forward.TRIGGERS)
    tokens = table["token"].to_numpy().reshape(-1, feed_forward.TRIGGERS)
    assert one == pytest.approx((tokens == tokens[:, :1]).all(1).mean())


def test_the_command_prints_both_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(feed_forward, "CHECKPOINTS", ("python-llama",))
    monkeypatch.setattr(sys, "argv", ["feed_forward", "--windows", "1"])
    feed_forward.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4 + 1 + 2 + 4
    assert all(line.startswith("| python-llama | ") for line in lines[2:6] + lines[9:])
    monkeypatch.setattr(sys, "argv", ["feed_forward", "--windows", "0"])
    with pytest.raises(SystemExit):
        feed_forward.main()
