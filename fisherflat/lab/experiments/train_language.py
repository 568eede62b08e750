"""Train the two language models: `python -m fisherflat.lab.experiments.train_language`.

A Llama and a Qwen3-Next-like with gated attention learn to predict the sources of Python's standard library, a few
minutes each on one thread. Those of seed 0 are shipped, as Hugging Face folders in bfloat16; the other seeds, and the
model whose gates are held constant, are there to say what of the difference is luck and what is the gate. All
measurements go into `python.json` beside the weights, run by run: a run that is in it is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fisherflat._files import made, whole
from fisherflat._typing import Int, Tensor
from fisherflat._versions import versions
from fisherflat.lab.experiments.language import (
    CONSTANT_GATE,
    CONTEXT,
    LLAMA,
    QWEN3_NEXT,
    hold_gates,
    train_tokenizer,
    untrained,
)
from fisherflat.lab.experiments.language_curvature import attention_curvature, by_layer, in_memory
from fisherflat.lab.experiments.language_loss import bits_per_byte, encode, nats, unigram_bits_per_byte
from fisherflat.lab.experiments.python_text import HELD_OUT, TRAINING, standard_library
from fisherflat.lab.experiments.train import interval
from fisherflat.studies import kept
from fisherflat.zoo import CHECKPOINTS, FOLDER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

COMPARED = (LLAMA, QWEN3_NEXT, CONSTANT_GATE)
#: a file of the training text on which the loss is measured too
SEEN = "argparse.py"
SHIPPED_SEED = 0


@dataclass(frozen=True)
class LanguageRecipe:
    """AdamW on random windows of the training text; linear warm-up, then a cosine schedule down to zero.

    Weight decay is for matrices alone. `steps` of `batch` windows are about 60 % of the text.
    """

    steps: int = 1200
    batch: int = 8
    warm_up: int = 60
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    clip: float = 1.0


def train(
    name: str, seed: int, stream: Int[Tensor, " tokens"], recipe: LanguageRecipe = LanguageRecipe()
) -> PreTrainedModel:
    """A trained model, float32. `seed` fixes the initial weights and the order of the windows of the token stream."""
    model = untrained(name, seed).train()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, recipe.learning_rate, (0.9, 0.95), weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / recipe.warm_up, (1 + math.cos(math.pi * step / recipe.steps)) / 2),
    )
    generator = torch.Generator().manual_seed(seed)
    for step in range(recipe.steps):
        starts = torch.randint(len(stream) - CONTEXT, (recipe.batch, 1), generator=generator)
        windows = stream[starts + torch.arange(CONTEXT + 1)]
        loss = nats(model, windows).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        schedule.step()
        if name == CONSTANT_GATE:
            hold_gates(model)
        if (step + 1) % 100 == 0:
            print(f"{name}, seed {seed}, step {step + 1}: {loss.item():.3f} nats a token", flush=True)
    return model.eval()


@torch.no_grad()
def rounded(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its weights rounded to bfloat16, as they are shipped, in float32 to compute with."""
    for weight in model.parameters():  # not model.bfloat16(), which would round the rotary frequencies as well
        weight.copy_(weight.bfloat16())
    return model


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, held_out: dict[str, str], seen: str
) -> dict[str, Any]:
    """Losses of a model in bits per byte, on held-out files and on a text it was trained on; curvature by layer.

    The model is in eval mode, in float64, from then on.
    """
    model.eval()
    return {
        "held_out_bits_per_byte": bits_per_byte(model, tokenizer, "".join(held_out.values())),
        "training_bits_per_byte": bits_per_byte(model, tokenizer, seen),
        "held_out_files": {file: bits_per_byte(model, tokenizer, text) for file, text in held_out.items()},
        "attention_curvature": by_layer(attention_curvature(in_memory(model, tokenizer, "model"))),
    }


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a Hugging Face folder, weights in bfloat16. The model is in bfloat16 from then on."""
    tokenizer.save_pretrained(folder)
    model.bfloat16().save_pretrained(folder)


def digest(folder: Path) -> str:
    """SHA-256 of a folder's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def summary(runs: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Held-out losses over seeds, and the differences between models of one seed; from two seeds on."""
    losses = {
        name: {seed: run["trained"]["held_out_bits_per_byte"] for seed, run in found.items()}
        for name, found in runs.items()
    }
    result = {name: interval(list(values.values())) for name, values in losses.items() if len(values) > 1}
    for other in (CONSTANT_GATE, LLAMA):
        both = sorted(losses.get(QWEN3_NEXT, {}).keys() & losses.get(other, {}).keys())
        if len(both) > 1:
            result[f"{QWEN3_NEXT} minus {other}"] = interval([losses[QWEN3_NEXT][s] - losses[other][s] for s in both])
    return {"held_out_bits_per_byte": result}


def blank(tokenizer: PreTrainedTokenizerFast, tokens: int, recipe: LanguageRecipe) -> dict[str, Any]:
    """The record before any run: recipe and text, which a run depends on besides its name and seed."""
    training, held_out = standard_library(TRAINING), standard_library(HELD_OUT)
    return {
        "about": "A Llama and a Qwen3-Next-like with gated attention, trained on sources of Python's standard library.",
        "command": "python -m fisherflat.lab.experiments.train_language",
        "recipe": asdict(recipe),
        "text": {
            "training_modules": len(training),
            "training_bytes": sum(len(text.encode()) for text in training.values()),
            "training_tokens": tokens,
            "training_sha256": _sha256(training),
            "held_out_modules": list(held_out),
            "held_out_bytes": sum(len(text.encode()) for text in held_out.values()),
            "held_out_sha256": _sha256(held_out),
            "held_out_unigram_bits_per_byte": unigram_bits_per_byte(tokenizer, "".join(held_out.values())),
            "training_loss_on": SEEN,
        },
        "shipped_seed": SHIPPED_SEED,
        "shipped": {},
        "runs": {name: {} for name in COMPARED},
    }


def resumed(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """The record with the runs of the one at `path`, if that is of the same recipe and text."""
    before = kept(path, {key: record[key] for key in ("recipe", "text")})
    return record if before is None else record | {key: before[key] for key in ("shipped", "runs")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure and write the weights and their provenance."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the weights (default: in the package)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the comparison (default: 3)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipe = LanguageRecipe()
    training = standard_library(TRAINING)
    tokenizer = train_tokenizer(training.values())
    stream = encode(tokenizer, training.values())
    path = made(options.out) / "python.json"
    record = resumed(blank(tokenizer, len(stream), recipe), path)
    for seed, name in product(range(options.seeds), COMPARED):
        if str(seed) in record["runs"][name]:
            continue
        start = time.perf_counter()
        model = rounded(train(name, seed, stream, recipe))
        seconds = round(time.perf_counter() - start)
        found: dict[str, Any] = {"seconds": seconds, "versions": versions("torch", "transformers")} | {
            when: measure(chosen, tokenizer, standard_library(HELD_OUT), training[SEEN])
            for when, chosen in (("trained", model), ("untrained", untrained(name, seed)))
        }
        print(f"{name}, seed {seed}: {found['trained']['held_out_bits_per_byte']:.4f} bits per byte", flush=True)
        record["runs"][name][str(seed)] = found
        if name in CHECKPOINTS and seed == SHIPPED_SEED:
            save(model, tokenizer, options.out / name)
            parameters = sum(p.numel() for p in model.parameters())
            record["shipped"][name] = {"parameters": parameters, "sha256": digest(options.out / name)}
        record["summary"] = summary(record["runs"])
        with whole(path) as part:
            part.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


def _sha256(texts: dict[str, str]) -> str:
    return hashlib.sha256("".join(texts.values()).encode()).hexdigest()


if __name__ == "__main__":
    main()
