"""The callback measures and leaves a run as it was, bit for bit, in both trainers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.training import CurvatureCallback, Watch

PLANE = ff.charts.identity(2)


def tiny(seed: int = 0) -> Any:
    """A small language model of transformers, with dropout."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=32, attention_dropout=0.1,
        )
    )  # fmt: skip


class Sentences(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = torch.randint(0, 17, (8,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids, "labels": ids}


def run(path: Any, callback: CurvatureCallback | None) -> Any:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        str(path), max_steps=6, per_device_train_batch_size=4, logging_steps=2, report_to=[], use_cpu=True,
        disable_tqdm=True, save_strategy="no", seed=3,
    )  # fmt: skip
    trainer = Trainer(tiny(), arguments, train_dataset=Sentences())
    if callback is not None:
        callback.attach(trainer)
    trainer.train()
    return trainer


def test_a_run_of_transformers_is_the_same_bit_for_bit(tmp_path: Any) -> None:
    callback = CurvatureCallback(
        prompt=torch.arange(8), every=2, share=1.0, readings=["live", "frozen pattern"], attribution=True, points=2
    )
    with_it, without_it = run(tmp_path / "a", callback), run(tmp_path / "b", None)
    for one, other in zip(with_it.model.parameters(), without_it.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [step for step, _ in callback.history] == [2, 4, 6]
    names = set(callback.history[0][1])
    assert {"curvature/layer 0/live/scalar_curvature", "curvature/layer 1/frozen pattern/scalar_curvature"} <= names
    assert any(name.startswith("curvature/layer 0/live/attributed/") for name in names)
    logged = [entry for entry in with_it.state.log_history if "curvature/layer 0/live/scalar_curvature" in entry]
    assert [entry["step"] for entry in logged] == [2, 4, 6]
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (with_it, without_it)]
    assert losses[0] == losses[1] and len(losses[0]) == 3  # its own logs do not take the place of the trainer's
    first, last = (found["curvature/layer 0/live/scalar_curvature"] for _, found in callback.history[::2])
    assert first != last


def test_what_it_logs_is_what_the_model_has(tmp_path: Any) -> None:
    model = tiny()
    found = Watch(prompt=torch.arange(8), layers=[1], points=3).measure(model)
    block = ff.load(model).blocks(torch.arange(8))[1]
    chart = ff.charts.principal(block.hidden_states, -1, 2)
    u = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u[0] = 0
    family = ff.Gaussian.calibrated(torch.stack([block(x) for x in chart(u)]).detach())
    want = ff.StatisticalManifold(block, chart, family).scalar_curvature(u).mean().item()
    assert found["layer 1/live/scalar_curvature"] == pytest.approx(want, rel=1e-9)


def module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)).double()


def fitted(path: Any, callback: CurvatureCallback | None, steps: int, checkpoint: str | None = None) -> Any:
    """A trainer of Lightning that has trained, and that logs into a file."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import CSVLogger

    class Squares(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = module()

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    points = torch.utils.data.TensorDataset(torch.randn(80, 2, dtype=torch.float64))
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=CSVLogger(path), callbacks=[callback] if callback else [],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(Squares(), torch.utils.data.DataLoader(points, batch_size=8, shuffle=True), ckpt_path=checkpoint)
    return trainer


def watching() -> CurvatureCallback:
    return CurvatureCallback({"net": (lambda model: model.net, PLANE)}, every=3, share=1.0)


@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_run_of_lightning_is_the_same_bit_for_bit(tmp_path: Any) -> None:
    import pandas as pd

    found, callback = [], watching()
    for name, own in (("with", callback), ("without", None)):
        trainer = fitted(tmp_path / name, own, 9)
        drawn = torch.tensor([random.random(), np.random.rand()])  # noqa: NPY002
        found.append([*trainer.model.parameters(), torch.rand(3), drawn])
        assert all(part.training for part in trainer.model.net.modules())
        assert all(p.grad is not None and not p.grad.isnan().any() for p in trainer.model.parameters())
        if own is not None:
            trainer.save_checkpoint(tmp_path / "run.ckpt")
            (path,) = (tmp_path / name).rglob("metrics.csv")
            logged = pd.read_csv(path).set_index("step")["curvature/net/live/scalar_curvature"].dropna()
            assert logged.to_dict() == {step: pytest.approx(next(iter(v.values()))) for step, v in own.history}
    assert [step for step, _ in callback.history] == [3, 6, 9]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    again = watching()  # goes on with what was measured, at the steps at which it would have been
    fitted(tmp_path / "again", again, 13, tmp_path / "run.ckpt")
    assert again.history[:3] == callback.history
    assert [step for step, _ in again.history] == [3, 6, 9, 12]


def test_it_takes_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("fisherflat.training._callback.time.perf_counter", lambda: clock[0])
    callback = CurvatureCallback({"net": (lambda model: model, PLANE)}, every=10)

    class Slow:
        def measure(self, model: nn.Module) -> dict[str, float]:
            clock[0] += 2.0  # as long as twenty steps
            return {"x": 1.0}

    callback._watch, net = Slow(), module()
    callback.on_train_begin()
    for step in range(1, 5001):
        clock[0] += 0.1
        callback.step(net, step)
    assert callback.history[0][0] == 10
    assert 8 <= len(callback.history) <= 13
    assert callback.seconds <= 0.05 * clock[0] + 2.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either parts"),
        ({"parts": {}, "prompt": "a"}, "either parts"),
        ({"parts": {}, "share": 0.0}, "share"),
        ({"parts": {}, "every": 0}, "at least 1"),
        ({"parts": {}, "readings": ["dead"]}, "dead"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ff.errors.InputError, match=said):
        CurvatureCallback(**options)
