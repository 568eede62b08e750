"""Controls: a model that keeps its architecture and loses what it learned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fisherflat._arrays import integer
from fisherflat.errors import CheckpointWarning, InputError, without
from fisherflat.models._drawn import drawn_from
from fisherflat.models._loading import as_model
from fisherflat.models._model import Model
from fisherflat.models._prompts import Encoded

REINITIALISED, SHUFFLED_WEIGHTS, SHUFFLED_TOKENS = "reinitialised", "shuffled weights", "shuffled tokens"
CONTROLS = (REINITIALISED, SHUFFLED_WEIGHTS, SHUFFLED_TOKENS)


def control(model: Any, kind: str = REINITIALISED, *, keep_embeddings: bool = True, seed: int = 0) -> Model:
    """A model that has lost what the claim is about, to measure beside it with the same code.

    **Args:**

    - `model`: with its weights in memory, or what `fisherflat.load` takes; it is left as it is.
    - `kind`: `"reinitialised"`, weights drawn anew as the architecture draws them before training; `"shuffled
      weights"`, the entries of each weight in another order, so that its histogram stays and its structure goes;
      `"shuffled tokens"`, the model as it is, reading the ordinary tokens of each prompt in another order.
    - `keep_embeddings`: tables of embeddings, of positions too, stay bit for bit (of the first two kinds).
    - `seed`: of the draw; the user's random state is not touched.

    **Returns:** a model whose name says so in every title, such as `python-llama (reinitialised)`, and tables in their
    column `control`.

    **Raises:** `InputError` for an unknown kind, for a model whose weights stay on disk, and for a weight of which
    nobody says how it is initialised.

    >>> import fisherflat as ff
    >>> ff.control("python-llama", "shuffled weights").name
    'python-llama (shuffled weights)'
    """
    if kind not in CONTROLS:
        raise InputError(f"a control is one of {', '.join(map(repr, CONTROLS))}, got {kind!r}")
    model, seed = as_model(model), integer(seed, "seed", 0)
    if kind != SHUFFLED_TOKENS and model.weights.lazy:
        raise InputError(f"the weights of {model.name} stay on disk; load it with lazy=False for a control of it")
    with without(CheckpointWarning):  # said when the model was loaded
        made = model.again()
    if kind == SHUFFLED_TOKENS:
        made.reorder = partial(_shuffled, seed)
    else:
        _replace(made.module, kind, keep_embeddings, seed, model.name)
    made.name, made.control = f"{model.name} ({kind})", kind
    made.again = partial(_once_more, model.again, kind, keep_embeddings, seed)
    return made


def _once_more(again: Callable[[], Model], kind: str, keep_embeddings: bool, seed: int) -> Model:
    """The same control in another process."""
    return control(again(), kind, keep_embeddings=keep_embeddings, seed=seed)


def _shuffled(seed: int, encoded: Encoded) -> Tensor:
    """The ids of a prompt, its ordinary tokens in another order that depends on the prompt and the seed."""
    places = torch.tensor(
        [i for i in range(encoded.lead, len(encoded.ids)) if not encoded.special[i]], dtype=torch.long
    )
    ids = encoded.ids.clone()
    # by the prompt, so that one of many does not depend on the others
    drawn = hashlib.sha256(f"{seed} {ids.tolist()}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(drawn[:7], "big"))
    ids[places] = ids[places[torch.randperm(len(places), generator=generator)]]
    return ids


@torch.no_grad()
def _replace(root: nn.Module, kind: str, keep_embeddings: bool, seed: int, name: str) -> None:
    """Give a model of its own that shares its weights with another other ones, tied ones once."""
    generator = torch.Generator().manual_seed(integer(seed, "seed"))
    kept = {id(p) for m in root.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    made: dict[int, nn.Parameter] = {}
    for module in root.modules():
        for leaf, old in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if keep_embeddings and id(old) in kept:
                continue
            if id(old) not in made:
                new = old.detach().clone()
                if kind == SHUFFLED_WEIGHTS:
                    order = torch.randperm(new.numel(), generator=generator).to(new.device)
                    new = new.reshape(-1)[order].reshape(new.shape)
                else:
                    new.fill_(torch.nan)  # what nobody draws is found by it
                made[id(old)] = nn.Parameter(new, requires_grad=False)
            setattr(module, leaf, made[id(old)])
    if kind != REINITIALISED:
        return
    new_ones = {id(parameter) for parameter in made.values()}
    tensors = [tensor for tensor in (*root.parameters(), *root.buffers()) if id(tensor) not in new_ones]
    before = [tensor.clone() for tensor in tensors]
    with drawn_from(generator):
        for module, initialise in _initialisers(root, None):
            initialise(module)
    for tensor, value in zip(tensors, before, strict=True):  # embeddings that stay, and tables, which are not learned
        tensor.copy_(value)
    if left := [path for path, parameter in root.named_parameters() if parameter.isnan().any()]:
        raise InputError(
            f"nobody says how {left[0]} of {name} is initialised"
            + (f", and {len(left) - 1} other weights" if len(left) > 1 else "")
            + f'; its module has no reset_parameters. Take "{SHUFFLED_WEIGHTS}" as a control'
        )


def _initialisers(
    module: nn.Module, owner: Callable[[nn.Module], Any] | None
) -> Iterator[tuple[nn.Module, Callable[[nn.Module], Any]]]:
    """Modules, the innermost first, and what draws their weights: the model of transformers around them, or they."""
    own = getattr(module, "_init_weights", None)
    owner = own if callable(own) else owner
    for child in module.children():
        yield from _initialisers(child, owner)
    if owner is not None:
        yield module, owner
    elif callable(reset := getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))):
        yield module, lambda _: reset()
