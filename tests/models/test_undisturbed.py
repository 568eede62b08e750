"""What loading leaves alone: other threads that build modules and train, settings, random numbers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.tiny_models import save_tiny
from cases.training import undisturbed
from torch import nn
from transformers.utils import logging

import fisherflat as ff


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint, one with linear attention, and an adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    place = tmp_path_factory.mktemp("models")
    found = {kind: save_tiny(place / kind, kind) for kind in ("llama", "minimax")}
    options: Any = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    base = AutoModelForCausalLM.from_pretrained(found["llama"])
    get_peft_model(base, LoraConfig(**options)).save_pretrained(str(place / "adapter"))
    return found | {"adapter": place / "adapter"}


def settings() -> tuple[Any, ...]:
    functions = (nn.Module.register_parameter, torch.autograd.Function.apply, torch.set_default_dtype)
    return torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state().tolist(), *functions


@pytest.mark.parametrize("kind", ["llama", "minimax", "adapter"])
@pytest.mark.parametrize("lazy", [False, True])
def test_training_in_another_thread_is_undisturbed(folders: dict[str, Path], kind: str, lazy: bool) -> None:
    first, *others = undisturbed(lambda: ff.load(folders[kind], lazy=lazy).blocks([5, 6, 7])[1].input, rounds=2)
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["llama", "adapter"])
def test_nothing_that_others_see_changes(folders: dict[str, Path], kind: str) -> None:
    ff.load(folders[kind])  # what is imported draws its random numbers
    before, seen, watching = settings(), [], threading.Event()

    def watch() -> None:
        while not watching.wait(0.002):
            seen.append(settings())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        ff.analyze(ff.load(folders[kind]), [5, 6, 7], layers=[0], points=1, parts=["mlp"], progress=False)
    finally:
        watching.set()
        thread.join()
    assert len(seen) > 10 and all(found == before for found in seen) and settings() == before


def test_two_threads_load_at_once(folders: dict[str, Path]) -> None:
    """What one of them changes, and puts back, the other does not take for what it found."""
    before = torch.get_default_dtype(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    expected = ff.load(folders["llama"]).module.state_dict()
    found: list[dict[str, Any]] = []
    work = lambda: found.extend(ff.load(folders["llama"], lazy=False).module.state_dict() for _ in range(5))  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 15
    for state in found:
        assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)
    assert (torch.get_default_dtype(), logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
