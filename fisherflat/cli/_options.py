"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fisherflat.errors import InputError

if TYPE_CHECKING:
    from fisherflat.models import Model

SEVERAL = "may be given several times, or hold several between commas"

READINGS_HELP = f"'live', or what is held, such as 'frozen pattern+gate'; {SEVERAL}."

ModelPath = Annotated[
    str,
    typer.Argument(help="Hugging Face model folder (safetensors), a safetensors file, or the id of a cached model."),
]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder for the tables and the figures.", file_okay=False)]
Ids = Annotated[
    list[str] | None,
    typer.Option("--ids", help="A prompt as token ids between commas, such as 5,17,3; may be given several times."),
]
Prompts = Annotated[list[str], typer.Option("--prompt", help="Text to run the model on; may be given several times.")]
#: what a model runs on where nothing is given: the same for all commands, so that their numbers can be compared
PROMPT = ["The cat sat on the mat."]
Dim = Annotated[int | None, typer.Option("--dim", help="Directions that move (default: 2).", min=1)]
MovesOption = Annotated[
    str,
    typer.Option(
        "--moves",
        help="Along what: 'principal', 'random' or random:SEED, words:cat,dog,bird, vectors:FILE or vectors:FILE#NAME.",
    ),
]
Layers = Annotated[list[str], typer.Option("--layer", "--layers", help=f"'all', or indices such as 0-3,-1; {SEVERAL}.")]
Parts = Annotated[list[str], typer.Option("--part", "--parts", help=f"Out of attention, mlp, block; {SEVERAL}.")]
Heads = Annotated[
    list[str],
    typer.Option("--head", "--heads", help=f"Of the attention: 'none', 'all', or indices such as 0-3; {SEVERAL}."),
]
Readings = Annotated[
    list[str] | None,
    typer.Option("--reading", "--readings", help=READINGS_HELP),
]
Positions = Annotated[
    list[str] | None,
    typer.Option(
        "--position",
        "--positions",
        help="Tokens that move: 'spread', 'last', 'all', 'together', a class such as 'content' or 'last content', "
        f"'token:bank', or indices such as 1,-2; {SEVERAL}.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Begin anew in a folder that holds a finished result, which is lost.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the points.")]
Errors = Annotated[str, typer.Option("--errors", help="Estimate errors at a sample of points, or at all.")]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda.")]
Side = Annotated[str | None, typer.Option("--side", help="Of an encoder-decoder: encoder (default) or decoder.")]
BlockList = Annotated[
    str | None, typer.Option("--blocks", help="Path of the list of blocks in the model, if not the one found.")
]
Config = Annotated[str | None, typer.Option("--config", help="config.json of a bare safetensors file.")]

_RANGE = re.compile(r"(-?\d+)(?:-(-?\d+))?")


def load_model(path: str, device: str, side: str | None, blocks: str | None, config: str | None) -> Model:
    """The model that the options name."""
    from fisherflat.models import load

    return load(path, config=config, blocks=blocks, part=side, device=checked_device(device))


def checked_device(name: str) -> str:
    """A device that torch has here."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"torch cannot use {name!r} here ({reason})", param_hint="--device") from None
    return name


def words(given: Iterable[str] | None) -> list[str]:
    """Names, given one by one or between commas."""
    return [name.strip() for text in given or () for name in text.split(",") if name.strip()]


def readings(given: Iterable[str] | None) -> list[str] | None:
    """Names of readings; `None` for those that make sense."""
    names = words(given)
    return None if names in ([], ["all"]) else names


def prompts(texts: Sequence[str], ids: Sequence[str] | None) -> list[Any]:
    """The prompts that were given: texts, unless they are the default and there are ids, and then token ids."""
    found: list[Any] = [] if ids and list(texts) == PROMPT else list(texts)
    for text in ids or ():
        parts = re.split(r"[\s,]+", text.strip(" ,[]"))
        if not all(part.isdecimal() for part in parts):
            raise typer.BadParameter(f"{text!r} is no list of token ids, such as 5,17,3", param_hint="--ids")
        found.append([int(part) for part in parts])
    return found


def indices(given: Sequence[str] | None, option: str, *, instead: Sequence[str] = ()) -> Any:
    """Indices, given one by one, between commas or as ranges with both ends, such as `0-3,-1`.

    **Args:** `instead`, words that may stand alone in the place of indices: such a word is returned as it is.
    """
    parts = words(given)
    if len(parts) == 1 and parts[0] in instead:
        return parts[0]
    found: list[int] = []
    for part in parts:
        match = _RANGE.fullmatch(part)
        if match is None:
            raise typer.BadParameter(
                f"{part!r} is no index, such as 1 or -2, and no range, such as 0-3", param_hint=option
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or (first < 0) != (last < 0):
            raise typer.BadParameter(
                f"{part!r} is no range: both ends count from the start, or both from the end, the smaller one first",
                param_hint=option,
            )
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


def positions(given: Sequence[str] | None) -> Any:
    """Positions, as `fisherflat.moves.positions` takes them; `None` where none are given."""
    if not given:
        return None
    alone = given[0].strip()
    return alone if len(given) == 1 and alone[:1].isalpha() else indices(given, "--position")


def counted(given: Sequence[int] | str, count: int, option: str) -> list[int]:
    """Indices of `count` things, or a word for all of them, as indices from 0."""
    if isinstance(given, str):
        return list(range(count))
    if outside := [index for index in given if not -count <= index < count]:
        raise InputError(f"{option}: there is no {outside[0]}, indices run from 0 to {count - 1}")
    return list(dict.fromkeys(index % count for index in given))


class Place(NamedTuple):
    """Where something moves. **Attributes:** `prompt`; `position`; `name`, which tells it from others, or empty."""

    prompt: Any
    position: int | str | None
    name: str


def places(model: Model, prompts: Sequence[Any], where: Any, moves: str, dim: int | None) -> list[Place]:
    """Each position of each prompt, for what is measured at one of them; by default the last word."""
    from fisherflat.models.moves import parse

    moving, found = parse(moves, dim), []
    for number, prompt in enumerate(prompts):
        name = f"prompt-{number}" if len(prompts) > 1 else ""
        at: list[Any] = [where]
        if where not in (None, "last", "together"):
            at = list(moving.positions(model, model.encode(prompt), where))
        for position in at:
            parts = [name, f"position-{position}" if len(at) > 1 else ""]
            found.append(Place(prompt, position, "-".join(filter(None, parts))))
    return found
