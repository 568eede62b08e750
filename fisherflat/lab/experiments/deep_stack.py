"""A checkpoint of the shape of Llama 7B's, its curvature layer by layer and through its depth, measured.

`python -m fisherflat.lab.experiments.deep_stack --out DIR` writes random weights in bfloat16, a shard for each layer,
loads them lazily, measures each block by itself and all of them one after the other, and prints what that takes:
seconds, and how much memory.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

#: of Llama 7B
LAYERS, WIDTH, HIDDEN, HEADS, WORDS = 32, 4096, 11008, 32, 32000
#: the prompt, by its tokens
TOKENS = (1, 450, 4996, 17354, 1701, 29916, 432, 17204)


#: what may be measured
MEASURES = ("blocks", "depth")


@dataclass(frozen=True)
class Shape:
    """How many layers, how wide they and their MLPs are, how many heads, how many words."""

    layers: int = LAYERS
    width: int = WIDTH
    hidden: int = HIDDEN
    heads: int = HEADS
    words: int = WORDS

    @property
    def config(self) -> dict[str, object]:
        """As transformers reads it."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": self.words,
        }

    @property
    def shards(self) -> Iterator[dict[str, tuple[int, ...]]]:
        """What is in each file: names and shapes; the first has what comes before and after the layers."""
        outer = (self.words, self.width)
        yield {"model.embed_tokens.weight": outer, "lm_head.weight": outer, "model.norm.weight": (self.width,)}
        square, up, down = (self.width, self.width), (self.hidden, self.width), (self.width, self.hidden)
        for layer in range(self.layers):
            start = f"model.layers.{layer}"
            attention = {f"{start}.self_attn.{name}_proj.weight": square for name in "qkvo"}
            mlp = {f"{start}.mlp.{name}_proj.weight": up for name in ("gate", "up")}
            norms = {f"{start}.{name}_layernorm.weight": (self.width,) for name in ("input", "post_attention")}
            yield {**attention, **mlp, f"{start}.mlp.down_proj.weight": down, **norms}


def write(shape: Shape, folder: Path, seed: int = 0) -> Path:
    """A checkpoint of random weights in bfloat16, of variance one over the inputs, norms of ones; a file at a time.

    A folder that has it already stays as it is.
    """
    from safetensors.torch import save_file

    index, generator = folder / "model.safetensors.index.json", torch.Generator().manual_seed(seed)
    if index.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, str] = {}
    for number, named in enumerate(shape.shards):
        file = f"model-{number:05d}-of-{shape.layers + 1:05d}.safetensors"
        places |= dict.fromkeys(named, file)
        save_file({name: _drawn(size, generator) for name, size in named.items()}, folder / file, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(shape.config, indent=1) + "\n", encoding="utf-8")
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}) + "\n", encoding="utf-8")
    return folder


def _drawn(size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(size) == 1:
        return torch.ones(size, dtype=torch.bfloat16)
    return (torch.randn(size, generator=generator) / math.sqrt(size[1])).bfloat16()


@contextmanager
def _timed(what: str) -> Iterator[None]:
    """Print how long it took, and the most that the process has held until now."""
    wall, worked = time.perf_counter(), time.process_time()
    yield
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    took = f"{time.perf_counter() - wall:.0f} s ({time.process_time() - worked:.0f} s of work)"
    print(f"{what}: {took}, at most {held:.2f} GiB", flush=True)


def main() -> int:
    """Parse the arguments, write the checkpoint and measure."""
    import fisherflat as ff

    parser = argparse.ArgumentParser(
        prog="python -m fisherflat.lab.experiments.deep_stack", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"how many (default: {LAYERS})")
    parser.add_argument("--points", type=int, default=2, help="points of the chart (default: 2)")
    parser.add_argument("--k", type=int, default=2, help="directions in which the last token moves (default: 2)")
    parser.add_argument("--measure", nargs="+", choices=MEASURES, default=MEASURES, help="what (default: both)")
    given = parser.parse_args()
    with _timed("weights written"):
        write(Shape(layers=given.layers), given.out)
    with _timed("loaded"):
        model = ff.load(given.out, lazy=True)
    shown = ["point", "scalar_curvature", "scalar_curvature_error", "verdict"]
    moving: dict[str, Any] = {"moves": "random", "readings": ["live"], "points": given.points}
    if "blocks" in given.measure:
        with _timed("each block by itself"):
            alone = ff.analyze(model, [list(TOKENS)], parts=["block"], positions="last", dim=given.k, **moving)
        print(alone.table[["layer", *shown, "error"]].to_string(index=False))
    if "depth" in given.measure:
        with _timed("through the depth"):
            stacked = ff.study_depth(
                model, list(TOKENS), position="last", k=given.k, halves=False, budget_points=0, resolution=0, **moving
            )
        print(stacked.profiles["live"].table[["depth", *shown]].to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
