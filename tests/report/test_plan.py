"""What a run would take: rows as they come out, and times of the right size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from cases.tiny_models import save_word_tokenizer, tiny_model
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.cli import app
from fisherflat.errors import InputError
from fisherflat.models import Model
from fisherflat.studies.layers import Plan


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bert", {"points": 2}),
        ("afmoe", {"points": 1, "layers": [1], "positions": [1, -1]}),
        ("llama", {"points": 1, "heads": "all", "parts": ["attention"], "positions": "last"}),
        ("llama", {"points": 1, "layers": [-1], "parts": ["mlp"], "readings": ["live"], "dim": 3}),
        ("llama", {"points": 1, "layers": [0], "positions": "together"}),
        ("llama", {"points": 1, "layers": [0], "moves": "words:12,7,30", "positions": [2]}),
        ("llama", {"points": 2, "dim": 40}),  # each task fails: one token's states span no plane
    ],
)
def test_rows_are_those_of_the_analysis(kind: str, options: dict[str, Any]) -> None:
    model, prompts = Model(tiny_model(kind)), [[5, 6, 7, 8, 9], [9, 8, 7]]
    planned = ff.plan(model, prompts, **options)
    found = ff.analyze(model, prompts, progress=False, **options)
    assert planned.rows == len(found.rows)
    assert planned.tasks == len({(row["layer"], row["part"].split()[0], row["prompt"]) for row in found.rows})


def test_time_and_memory_are_of_the_right_size() -> None:
    prompt = "def mean(values):\n    return sum(values) / len(values)\n"
    options: dict[str, Any] = {"parts": ["mlp", "block"], "layers": [0, 3], "points": 4}
    model = ff.load("python-llama")
    planned = ff.plan(model, prompt, **options)
    started = time.perf_counter()
    ff.analyze(model, prompt, progress=False, **options)
    taken = time.perf_counter() - started
    assert taken / 6 < planned.seconds < taken * 6  # cores are shared
    assert 2**27 < planned.memory < 2**33
    assert str(planned).startswith(f"{planned.tasks:,} tasks, {planned.rows:,} rows: about ")


@pytest.mark.parametrize("wrong", [{"points": 0}, {"layers": [9]}, {"colour": 1}, {"positions": [99]}])
def test_wrong_input(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ff.plan(Model(tiny_model("llama")), [[5, 6, 7]], **wrong)


def test_from_the_shell_nothing_is_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for seed, step in enumerate((1, 2, 3)):
        tiny_model("llama", seed=seed).float().save_pretrained(run / f"checkpoint-{step}")
        save_word_tokenizer(run / f"checkpoint-{step}")
    options = ["--prompt", "the cat sat", "--points", "2", "--part", "mlp", "--out", str(tmp_path / "out"), "--plan"]
    rows = ff.plan(run / "checkpoint-1", "the cat sat", points=2, parts=["mlp"]).rows
    first, second = run / "checkpoint-1", run / "checkpoint-2"
    for command, count in (
        (["analyze", first], 1),
        (["compare", first, second], 2),
        (["track", run], 3),
    ):
        given = ["--prompt-file", "-", *options[2:]]  # which can be read but once, for all models
        done = CliRunner().invoke(app, [*map(str, command), *given], input="the cat sat\n")
        assert done.exit_code == 0, done.output
        assert f"{count * rows:,} rows" in done.stdout and not (tmp_path / "out").exists()


def test_several_workers_take_their_share_and_no_less_than_a_task() -> None:
    plan = Plan(1, 10, 100, 600.0, 2**30, 5.0)
    assert plan.seconds_with(1) == 600 and plan.seconds_with(4) == 150 and plan.seconds_with(50) == 60
    assert plan.in_words() == str(plan)
    assert plan.in_words(4) == f"{plan} With 4 workers about 2 min and 4.0 GiB together."
