"""What the states of a model say by its own head: next tokens, classes, a direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fisherflat._display import displayed
from fisherflat.errors import CheckpointError, InputError
from fisherflat.jets.recording import alone, evaluating
from fisherflat.models._forward import Way, is_pretrained
from fisherflat.models._prompts import Encoded
from fisherflat.models._recorded_calls import Call, first_tensor
from fisherflat.models._tail import Reach, Tail
from fisherflat.models._task import Task, completed
from fisherflat.spaces.families import Bernoulli, Categorical, NextToken, ParametricFamily, VonMisesFisher

#: what states can be read as, and what that is called
READOUTS = {
    "next-token": "the distribution of the next token",
    "class": "the distribution of the class",
    "direction": "the direction of the embedding",
}


@displayed
@dataclass(frozen=True, eq=False)
class Readout:
    """What a model makes of hidden states on a prompt, and of which family that are the parameters.

    **Attributes:** `kind`, a key of `READOUTS`, or `"given"`; `lens`, from the states `[n, d]` after a block to the
    parameters, by the model's own final norm, pooling and head; `family`; `per_token`: whether there is a row a token.
    """

    kind: str
    lens: Callable[[Tensor], Tensor]
    family: ParametricFamily
    per_token: bool

    def of(self, tokens: Sequence[int]) -> nn.Module:
        """The lens, for some of the tokens where there is a row for each."""
        return _Of(self.lens, list(tokens) if self.per_token else None)


class _Of(nn.Module):
    """Some rows of what a lens makes of states."""

    def __init__(self, lens: Any, rows: list[int] | None) -> None:
        super().__init__()
        self.lens, self._rows = lens, rows

    def forward(self, states: Tensor) -> Tensor:
        """The parameters."""
        found = self.lens(states)
        return found if self._rows is None else found[self._rows]


class _PerToken(nn.Module):
    """One row a token."""

    def __init__(self, tail: Tail) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, states: Tensor) -> Tensor:
        """`[n, d]` to `[n, m]`."""
        return self.tail(states).reshape(len(states), -1)


class _Pooled(nn.Module):
    """One row for all tokens."""

    def __init__(self, lens: nn.Module, how: str) -> None:
        super().__init__()
        self.lens, self._how = lens, how

    def forward(self, states: Tensor) -> Tensor:
        """`[n, d]` to `[d]`."""
        found = self.lens(states)
        return found.mean(0) if self._how == "mean" else found[0 if self._how == "cls" else -1]


class _Logits(Reach):
    """In place of an unembedding: logits that are given."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self._logits = (logits,)

    def forward(self, given: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The same for all tokens."""
        return self._logits[0].expand(*given.shape[:-1], -1)


class Readouts:
    """Finds the head of a `Model`, and what it makes of states."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._family: NextToken | None = None
        self._whole: tuple[nn.Module | None] | None = None

    def find(self, kind: str | ParametricFamily, encoded: Encoded) -> Readout:
        """See `Model.readout`."""
        if isinstance(kind, ParametricFamily):
            try:
                root = self._root(encoded)
            except CheckpointError:  # without its head, which is given
                root = self._callee(encoded)
            return Readout("given", self._states(encoded, root), kind, True)
        found = {"next-token": self._next_token, "class": self._class, "direction": self._direction}.get(kind)
        if found is None:
            raise InputError(f"family must be one of {', '.join(READOUTS)}, or one of ff.families; got {kind!r}")
        return found(encoded)

    # -- next tokens ---------------------------------------------------------------------------------------------------

    def _next_token(self, encoded: Encoded) -> Readout:
        root = self._root(encoded)
        if not is_pretrained(root):
            return self._own_logits(encoded)
        if _unembedding(root) is None:
            raise self._without("unembedding")
        lens = self._states(encoded, root)
        if self._family is None:
            self._family = self._tokens(encoded)
        return Readout("next-token", lens, self._family, True)

    def _states(self, encoded: Encoded, root: Any) -> nn.Module:
        """The states that reach the unembedding, or that a model without one returns."""
        head = _unembedding(root) if is_pretrained(root) else None
        return _PerToken(self._tail(encoded, root, () if head is None else ((head, Reach()),)))

    def _tokens(self, encoded: Encoded) -> NextToken:
        head: Any = _unembedding(self._root(encoded))
        softcap = _number(self._text_config, "final_logit_softcapping")
        weight = self._task.rows if self._task is not None and head is _unembedding(self._task.module) else head.weight
        family = NextToken(weight, getattr(head, "bias", None), softcap, self._scale)
        self._probe(encoded, head, family)
        return family

    def _probe(self, encoded: Encoded, head: nn.Module, family: NextToken) -> None:
        """**Raises:** `CheckpointError` where the model does something to logits that the family does not."""
        given = torch.linspace(-40, 40, family.tokens, dtype=torch.float64, device=self._model.device)
        call = self._tail(encoded, self._root(encoded), ((head, _Logits(given)),))
        with torch.no_grad():
            found = call(self._last(encoded)).reshape(-1, family.tokens)[-1]
        right = given * family.scale
        right = right if family.softcap is None else family.softcap * (right / family.softcap).tanh()
        if not torch.allclose(found.double(), right, rtol=1e-5, atol=1e-5):
            raise CheckpointError(
                f"{self._model.name} changes its logits in a way that is not known; give the map of hidden states to "
                "logits yourself: family=ff.families.NextToken(weight, bias, softcap, scale)"
            )

    @property
    def _scale(self) -> float:
        multiplied, divided = (_number(self._text_config, name) for name in ("logit_scale", "logits_scaling"))
        return (multiplied or 1.0) / (divided or 1.0)

    @property
    def _text_config(self) -> Any:
        config = self._model.config
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    def _own_logits(self, encoded: Encoded) -> Readout:
        """Of a module of any kind that returns a row of logits for each token."""
        root = self._root(encoded)
        tail = _PerToken(self._tail(encoded, root))
        states = self._last(encoded)
        with torch.no_grad():
            found = tail(states)
        if found.shape == states.shape and torch.equal(found, states):
            raise self._without("unembedding")
        return Readout("next-token", tail, Categorical(), True)

    # -- classes -------------------------------------------------------------------------------------------------------

    def _class(self, encoded: Encoded) -> Readout:
        root = self._root(encoded)
        if _is_bare(root) or _unembedding(root) is not None:
            raise self._without("head for classes")
        tail = self._tail(encoded, root)
        with torch.no_grad():
            found = tail(self._last(encoded))
        several = getattr(self._model.config, "problem_type", None) == "multi_label_classification"
        family = Bernoulli() if several or found.shape[-1] == 1 else Categorical()
        per_token = found.dim() > 1 and found.shape[0] == len(encoded.ids)
        return Readout("class", tail, family, per_token)

    # -- directions ----------------------------------------------------------------------------------------------------

    def _direction(self, encoded: Encoded) -> Readout:
        callee = self._callee(encoded)
        base: Any = callee
        root = base.base_model if is_pretrained(callee) else callee
        tail: nn.Module = self._tail(encoded, root)
        with torch.no_grad():
            found = tail(self._last(encoded))
        if found.dim() > 1:
            how, behind = ("mean", nn.Identity()) if self._task is None else self._task.sentence
            tail = nn.Sequential(_Pooled(tail, how), behind)
            try:
                with torch.no_grad():
                    found = tail(self._last(encoded))
            except RuntimeError as error:
                raise CheckpointError(
                    f"the dense layers of {self._model.name} do not fit its states: {error}"
                ) from error
        return Readout("direction", tail, VonMisesFisher.of_radius(1.0, found.shape[-1]), False)

    @property
    def _task(self) -> Task | None:
        """The checkpoint with its head, which does not read what an encoder alone makes."""
        return None if self._model.part == "encoder" else self._model.task

    # -- the model -----------------------------------------------------------------------------------------------------

    def _callee(self, encoded: Encoded) -> nn.Module:
        self._model._forward.run(encoded)
        return self._model._forward.way(encoded).callee

    def _root(self, encoded: Encoded) -> Any:
        """What runs to the end: the model with its head, where it has one."""
        if self._task is not None and not _is_bare(self._task.module):
            return self._task.module
        callee: Any = self._callee(encoded)
        if _is_bare(callee):
            if self._whole is None:
                self._whole = (completed(callee),)
            return self._whole[0] or callee
        return callee

    def _tail(self, encoded: Encoded, root: nn.Module, instead: Sequence[tuple[nn.Module, nn.Module]] = ()) -> Tail:
        calls, outputs = self._outputs(encoded)
        task, forward = self._task, self._model._forward
        way = forward.way(encoded)
        modules = [call.module for call in calls]
        if root is not way.callee and task is not None and root is task.module:
            modules = [task.block(call.path, self._model.part) for call in calls]
        way = replace(way, enters=False)

        def called(copy: nn.Module, way: Way = way) -> Any:
            args, kwargs = forward.arguments(replace(way, callee=copy), encoded)
            return copy(*args, **kwargs)

        return Tail(root, called, calls, modules, outputs, instead)

    def _last(self, encoded: Encoded) -> Tensor:
        """The states `[n, d]` after the last block."""
        calls, outputs = self._outputs(encoded)
        found = first_tensor(outputs[-1], calls[-1].arguments.hidden if calls[-1].arguments else None)
        if found is None:
            raise CheckpointError(f"the last block of {self._model.name} returned no tensor")
        return found.reshape(len(encoded.ids), -1)

    def _outputs(self, encoded: Encoded) -> tuple[list[Call], list[Any]]:
        """The calls of the blocks, and all that they returned."""
        key = encoded.key
        if getattr(self, "_kept", (None,))[0] != key:
            forward, found = self._model._forward, list[Any]()
            calls = forward.run(encoded)
            with alone, ExitStack() as hooks, evaluating(self._model.module):
                for module in dict.fromkeys(call.module for call in calls):
                    hooks.callback(module.register_forward_hook(partial(_noted, found)).remove)
                forward.run(encoded)
            self._kept = (key, (calls, found[-len(calls) :]))
        return self._kept[1]

    def _without(self, what: str) -> CheckpointError:
        heads = "AutoModelForSequenceClassification" if "class" in what else "AutoModelForCausalLM"
        return CheckpointError(
            f"{self._model.name} ({type(self._model.module).__name__}) has no {what} that could be found; load the "
            f"model with it, such as load({heads}.from_pretrained(...)), or say yourself what its last states are: "
            "family=ff.families.NextToken(weight) with a matrix [V, d] that makes logits of them"
        )


def _unembedding(root: Any) -> nn.Module | None:
    try:
        return root.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def _is_bare(root: Any) -> bool:
    """Whether it is a model of transformers without a head."""
    return is_pretrained(root) and root.base_model is root and _unembedding(root) is None


def _noted(found: list[Any], module: nn.Module, args: Any, output: Any) -> None:
    found.append(output)


def _number(config: Any, name: str) -> float | None:
    found = getattr(config, name, None)
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) and found else None
