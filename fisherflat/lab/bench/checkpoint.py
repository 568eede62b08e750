"""Peak memory of the block-by-block analysis of a checkpoint whose weights stay on disk.

A checkpoint of the shape of a Llama with random weights is written in bfloat16, a shard a block, to a temporary folder,
and its first four blocks are analysed on one prompt of token ids. That happens in a process of its own, whose resident
set is what is measured: its peak, less what it was with everything imported and nothing loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

#: a billion parameters; of a quick run, 30 million
FULL = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 128_256, "heads": 32}
QUICK = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "vocab_size": 8192, "heads": 8}
LAYERS = [0, 1, 2, 3]
IDS = list(range(100, 116))


def write(
    folder: Path, hidden_size: int, intermediate_size: int, num_hidden_layers: int, vocab_size: int, heads: int
) -> tuple[int, int]:
    """Write the checkpoint, with no more than one shard in memory; returns the numbers of its parameters.

    All of them, and those of a block.
    """
    from safetensors.torch import save_file

    d, kv = hidden_size, hidden_size // 4
    shapes: dict[str, tuple[int, ...]] = {}
    shapes |= {f"self_attn.{name}_proj.weight": (rows, d) for name, rows in (("q", d), ("k", kv), ("v", kv), ("o", d))}
    shapes |= {f"mlp.{name}_proj.weight": (intermediate_size, d) for name in ("gate", "up")}
    shapes |= {"mlp.down_proj.weight": (d, intermediate_size)}
    shapes |= {f"{name}_layernorm.weight": (d,) for name in ("input", "post_attention")}
    generator = torch.Generator().manual_seed(0)

    def random(shape: tuple[int, ...]) -> torch.Tensor:
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0, shape[-1] ** -0.5, generator=generator)

    index: dict[str, str] = {}
    parts = [{"embed_tokens.weight": (vocab_size, d), "norm.weight": (d,)}]
    parts += [{f"layers.{i}.{name}": shape for name, shape in shapes.items()} for i in range(num_hidden_layers)]
    for number, part in enumerate(parts):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        save_file({name: random(shape) for name, shape in part.items()}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaModel"],
        "hidden_size": d,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 4,
        "vocab_size": vocab_size,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    block, total = (sum(torch.Size(s).numel() for part in ps for s in part.values()) for ps in (parts[1:2], parts))
    return total, block


def over_block(quick: bool, threads: int) -> dict[str, Any]:
    """Peak memory of the analysis, in bytes and in blocks in float64; sizes, and what of it are other things."""
    sizes = QUICK if quick else FULL
    with TemporaryDirectory(prefix="fisherflat-bench-") as folder:
        total, block = write(Path(folder), **sizes)
        command = [sys.executable, "-m", "fisherflat.lab.bench.checkpoint", folder, str(threads)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return {
        "parameters": total,
        "block_bytes": 8 * block,
        "layers": LAYERS,
        "tokens": len(IDS),
        **found,
        "peak_over_block": found["peak_bytes"] / (8 * block),
        "peak_over_model": found["peak_bytes"] / (8 * total),
    }


def _resident(field: str) -> int:
    """A line of the process's own status, in bytes: VmRSS, the resident set, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def _analyse(folder: str, threads: int) -> dict[str, Any]:
    import fisherflat as ff

    torch.set_num_threads(threads)
    with TemporaryDirectory() as small:  # what is imported and set up once is not counted
        write(Path(small), 64, 128, 2, 256, 4)
        ff.analyze(ff.load(small, lazy=True), IDS, layers=[0], points=1, progress=False)
    before, started = _resident("VmRSS"), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    model = ff.load(folder, lazy=True)
    found = ff.analyze(model, IDS, layers=LAYERS, positions="last", points=1, progress=False)
    errors = found.table["error"].dropna().unique().tolist()
    if errors:
        raise RuntimeError(f"the analysis failed: {errors[0]}")
    return {
        "before_bytes": before,
        "peak_bytes": _resident("VmHWM") - before,
        "rows": len(found.table),
        "seconds": time.perf_counter() - started,
    }


if __name__ == "__main__":
    print(json.dumps(_analyse(sys.argv[1], int(sys.argv[2]))))
