"""MLPs of the shipped language models, from their weights: `python -m fisherflat.lab.experiments.feed_forward`.

On windows of modules of Python's standard library that the models have not seen. Two tables: how well a bilinear MLP
stands in for each trained gated one, and what triggers their memories and what the values say.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor

from fisherflat.gated_mlp import bilinear_surrogate, memories
from fisherflat.lab.experiments.language import CONTEXT
from fisherflat.lab.experiments.language_loss import encode
from fisherflat.lab.experiments.python_text import HELD_OUT, standard_library
from fisherflat.models import Model, load
from fisherflat.spaces import charts
from fisherflat.zoo import CHECKPOINTS, checkpoint

#: how many of the strongest triggers have to agree for a memory to be one of a single token
TRIGGERS = 5


def windows(model: Model, count: int) -> list[list[int]]:
    """Token ids of `count` windows of full context, from the beginnings of the held-out modules in turn."""
    streams = [encode(model.tokenizer, [text]).tolist() for text in standard_library(HELD_OUT).values()]
    starts = range(0, max(map(len, streams)) - CONTEXT, CONTEXT)
    cut = (stream[start : start + CONTEXT] for start in starts for stream in streams if start + CONTEXT <= len(stream))
    return [window for window, _ in zip(cut, range(count), strict=False)]


def surrogates(model: Model, prompts: list[list[int]]) -> Iterator[tuple[float, ...]]:
    """For each layer: error of the outputs and of the curvature, of the tangent and of the fit."""
    inputs = [torch.cat(rows) for rows in zip(*(_mlp_inputs(model, prompt) for prompt in prompts), strict=True)]
    for block, x in zip(model.blocks(prompts[0]), inputs, strict=True):
        basis = charts.principal(x, -1, 2).basis[:, -1]
        found = [bilinear_surrogate(block.mlp, x, how=how) for how in ("tangent", "fit")]
        yield (*(s.output_error for s in found), *(s.curvature_error(basis) for s in found))


def triggered(model: Model, prompts: list[list[int]], layer: int, seed: int = 0) -> tuple[float, ...]:
    """Shares of the memories of a layer, each followed by what it is when the tokens of the text change places.

    Whose strongest triggers are all one token; whose value, with the sign of its coefficient, says the token that
    follows the strongest trigger.
    """
    table = memories.triggers(model, prompts, layer, count=TRIGGERS)
    memory, head = memories.extract(model.blocks(prompts[0])[layer].mlp), memories.unembedding(model)
    places, coefficient = (
        torch.tensor(table[names].to_numpy()).unflatten(0, (-1, TRIGGERS))
        for names in (["prompt", "position"], "coefficient")
    )
    said = ((memory.value * coefficient[:, :1].sign()) @ head.T).argmax(-1)
    text = torch.tensor(prompts)
    shuffled = text.flatten()[torch.randperm(text.numel(), generator=torch.Generator().manual_seed(seed))]
    one, agreeing = [], []
    for tokens in (text, shuffled.view_as(text)):
        found = tokens[places[..., 0], places[..., 1]]
        one.append(_share((found == found[:, :1]).all(1)))
        inside = places[:, 0, 1] + 1 < text.shape[1]
        following = tokens[places[inside, 0, 0], places[inside, 0, 1] + 1]
        agreeing.append(_share(said[inside] == following))
    return (*one, *agreeing)


def _mlp_inputs(model: Model, prompt: list[int]) -> list[Tensor]:
    return [block.mlp_input.double() for block in model.blocks(prompt)]


def _share(matches: Tensor) -> float:
    return matches.double().mean().item()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=64, help=f"windows of {CONTEXT} tokens (default: 64)")
    count = parser.parse_args().windows
    if count < 1:
        parser.error("--windows must be at least 1")
    torch.set_num_threads(1)
    models = {name: load(checkpoint(name)) for name in CHECKPOINTS}
    heads = ["output, tangent", "output, fit", "curvature, tangent", "curvature, fit"]
    print(f"| model | layer | {' | '.join(heads)} |\n|---|---|---|---|---|---|")
    for name, model in models.items():
        for layer, errors in enumerate(surrogates(model, windows(model, count))):
            print(f"| {name} | {layer} | {' | '.join(f'{error:.2f}' for error in errors)} |", flush=True)
    heads = ["one token", "by chance", "value says what follows", "by chance"]
    print(f"\n| model | layer | {' | '.join(heads)} |\n|---|---|---|---|---|---|")
    for name, model in models.items():
        prompts = windows(model, count)
        for layer in range(len(model.blocks(prompts[0]))):
            shares = " | ".join(f"{100 * share:.1f} %" for share in triggered(model, prompts, layer))
            print(f"| {name} | {layer} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
