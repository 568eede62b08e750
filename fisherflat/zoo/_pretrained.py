"""The trained models that ship with the package, and where they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fisherflat.errors import InputError
from fisherflat.layers import Gate
from fisherflat.zoo._point_classifier import PointClassifier

#: where the weights and their provenance lie, beside this file
FOLDER = Path(__file__).parent / "weights"
NAMES = ("ungated", "gated")
#: the language models, each a folder
CHECKPOINTS = ("python-llama", "python-qwen3-next")


def ring_pair() -> dict[str, PointClassifier]:
    """The trained ring classifiers `"ungated"` and `"gated"`, float64, in eval mode, on the CPU.

    They differ in the gate alone; `ring_provenance()` says how they were trained and how well they do.

    **Returns:** the two `PointClassifier`s by name.

    >>> import torch, fisherflat as ff
    >>> {name: bool(model(torch.tensor([1.2, 0.0]).double()) > 0) for name, model in ff.zoo.ring_pair().items()}
    {'ungated': True, 'gated': True}
    """
    from safetensors.torch import load_file

    record = ring_provenance()
    pair = {}
    for name in NAMES:
        model = build(name == "gated", **record["architecture"])
        model.load_state_dict(load_file(FOLDER / f"ring_{name}.safetensors"))
        pair[name] = model.requires_grad_(False).eval()
    return pair


def ring_provenance() -> dict[str, Any]:
    """Seeds, recipe, versions and what was measured on the shipped pair and its siblings, as training wrote it.

    **Returns:** the record, as read from JSON.

    >>> import fisherflat as ff
    >>> ff.zoo.ring_provenance()["architecture"]["heads"]
    1
    """
    return json.loads((FOLDER / "ring.json").read_text())


def build(
    gated: bool, gate: dict[str, str] | None = None, *, dim: int, heads: int = 1, context: int = 2
) -> PointClassifier:
    """An untrained classifier in float64, of an architecture as the records of training give it.

    **Args:**

    - `gated`: whether it has a gate; `gate`: the arguments of its `Gate`.
    - `dim`: the width of tokens and representation; `heads`; `context`: the number of context tokens.

    **Returns:** a `PointClassifier` with freshly drawn weights.

    >>> from fisherflat import zoo
    >>> zoo.build(True, **zoo.ring_provenance()["architecture"]).representation.attention.gate
    Gate(
      'sigmoid', 'elementwise', position='output'
      (projection): Linear(in_features=16, out_features=16, bias=False)
    )
    """
    return PointClassifier(dim, heads, context, Gate(**(gate or {})) if gated else None).double()


def checkpoint(name: str) -> Path:
    """The folder of a language model that ships with the package, for `fisherflat.load`.

    `"python-llama"` has ungated, `"python-qwen3-next"` gated attention (and linear attention in its first layer); both
    have 4 layers, 0.54 million parameters in bfloat16, and were trained on the sources of Python's standard library.
    `checkpoint_provenance()` says how, and how well they do.

    **Args:**

    - `name`: one of `CHECKPOINTS`.

    **Returns:** the folder. `fisherflat.load` and the shell also take the name itself.

    **Raises:** `InputError` for another name.

    >>> import fisherflat as ff
    >>> sorted(file.name for file in ff.zoo.checkpoint("python-llama").iterdir())[:2]
    ['config.json', 'generation_config.json']
    """
    if name not in CHECKPOINTS:
        raise InputError(f"no language model {name!r} ships with fisherflat; there are {' and '.join(CHECKPOINTS)}")
    return FOLDER / name


def checkpoint_provenance() -> dict[str, Any]:
    """Seeds, recipe, versions and what was measured on the language models and their siblings, as training wrote it.

    **Returns:** the record, as read from JSON.

    >>> import fisherflat as ff
    >>> sorted(ff.zoo.checkpoint_provenance())[:2]
    ['about', 'command']
    """
    return json.loads((FOLDER / "python.json").read_text())
