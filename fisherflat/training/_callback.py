"""A callback that watches curvature while a model is trained, for the Trainer of transformers and for Lightning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fisherflat._arrays import integer, number
from fisherflat._display import displayed
from fisherflat.errors import InputError
from fisherflat.spaces.charts import Chart
from fisherflat.training._watch import Watch, Where

#: what is called at other times, besides whatever begins with `on_`
_HOOKS = ("setup", "teardown")


@displayed
class CurvatureCallback:
    """Curvature of chosen parts of a model, every so many steps, in the run's own logger.

    One object for both: it goes into `callbacks` of Lightning's `Trainer`; for the `Trainer` of transformers call
    `attach(trainer)`, whose `log` it then uses, and with it TensorBoard, Weights & Biases or what else the run reports
    to. Neither package is imported. Training is not disturbed: a copy in eval mode is measured, no random number of the
    run is drawn, and no gradient, hook or flag is touched; the weights come out bit for bit as without.

    **Args:**

    - `parts`, and all others of `fisherflat.training.Watch`: `prompt`, `tokenizer`, `layers`, `k`, `quantities`,
      `readings`, `attribution`, `points`, `family`.
    - `every`: how many steps lie between two measurements, at least.
    - `share`: of the run's time, what measuring may take at most (1: no limit). Where it takes more, steps are left
      out until it does not; the first measurement, before which nobody knows how long one takes, is at step `every`.
    - `prefix`: of the names in the logger.

    **Attributes:** `history`: a list of steps and what was measured there; `seconds`, that it took altogether.

    >>> import torch, fisherflat as ff
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    >>> callback = ff.training.CurvatureCallback({"all": (lambda model: model, ff.charts.identity(2))}, every=10)
    >>> callback.step(model, 10)  # what the hooks of both packages call
    >>> list(callback.history[0][1])
    ['curvature/all/live/scalar_curvature']
    """

    def __init__(
        self,
        parts: Mapping[str, tuple[Where, Chart]] | None = None,
        *,
        every: int = 100,
        share: float = 0.05,
        prefix: str = "curvature/",
        **options: Any,
    ) -> None:
        self._watch = Watch(parts, **options)
        self._every, self._share, self._prefix = integer(every, "every", 1), number(share, "share"), prefix
        if not 0 < self._share <= 1:
            raise InputError(f"share is a part of the run's time, above 0 and at most 1; got {share!r}")
        self.history: list[tuple[int, dict[str, float]]] = []
        self.seconds = self._longest = 0.0
        self._started, self._next = time.perf_counter(), self._every
        self._log: Callable[[dict[str, float]], Any] | None = None

    def attach(self, trainer: Any) -> CurvatureCallback:
        """Adds it to a `Trainer` of transformers, through whose `log` it reports. Returns itself."""
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        self._log = trainer.log
        return self

    def step(self, model: nn.Module, step: int, log: Callable[[dict[str, float]], Any] | None = None) -> None:
        """Measures where it is time to, and hands what it finds to `log`. Both packages' hooks come here."""
        if step < self._next:
            return
        began = time.perf_counter()
        elapsed = began - self._started
        if self._share < 1 and self._longest and self.seconds + self._longest > self._share * elapsed:
            return
        found = {self._prefix + name: value for name, value in self._watch.measure(model).items()}
        self._longest = time.perf_counter() - began
        self.seconds += self._longest
        self._next = self._after(step)
        self.history.append((step, found))
        if log is not None:
            log({name: value for name, value in found.items() if math.isfinite(value)})

    # -- transformers --------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any = None, state: Any = None, *others: Any, **kwargs: Any) -> None:
        """Of transformers: the run's time begins, at the step at which a checkpoint left it."""
        self._begin(getattr(state, "global_step", 0))

    def _begin(self, step: int) -> None:
        self._started, self.seconds, self._longest = time.perf_counter(), 0.0, 0.0
        self._next = self._after(step)

    def _after(self, step: int) -> int:
        """The next step at which it is time to measure."""
        return step - step % self._every + self._every

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Of transformers: after a step of the optimiser."""
        if getattr(state, "is_world_process_zero", True):
            asked = getattr(control, "should_log", False)
            self.step(model, state.global_step, self._log)
            control.should_log = asked  # which a log of ours would have answered

    # -- Lightning -----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Of Lightning: the run's time begins, at the step at which a checkpoint left it."""
        self._begin(trainer.global_step)

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any, **kwargs: Any) -> None:
        """Of Lightning: after a batch."""
        if not getattr(trainer, "is_global_zero", True):
            return

        def log(found: dict[str, float]) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(found, step=trainer.global_step)

        self.step(module, trainer.global_step, log)

    @property
    def state_key(self) -> str:
        """Under which Lightning keeps a callback's state."""
        return type(self).__name__

    _legacy_state_key = state_key

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far, for a checkpoint."""
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.history = list(state["history"])

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The hooks at which nothing happens."""
        if name.startswith("on_") or name in _HOOKS:
            return _nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"CurvatureCallback(every={self._every}, share={self._share:g}, measured={len(self.history)})"


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None
