"""The checkpoints of a training run: found by their names, and looked at before anything is built from them."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fisherflat.errors import CheckpointError, InputError
from fisherflat.models._folder import ELSEWHERE, READ, is_adapter, read_config, read_header, stored_tensors
from fisherflat.zoo import CHECKPOINTS, checkpoint

#: words before the number of a step, the one that counts most first
_WORDS = ("step", "checkpoint", "ckpt", "iter", "iteration", "batch", "samples", "tokens", "epoch")
_NUMBERED = re.compile(rf"({'|'.join(_WORDS)})s?[-_=. ]*([0-9]{{1,18}})(?![0-9])", re.IGNORECASE)
#: a name that is nothing else: a number in the name of a model, such as qwen3, is no step
_BARE = re.compile(r"[0-9]{1,18}")
#: bytes that are read at a time
_PIECE = 2**20


class Checkpoint(NamedTuple):
    """A checkpoint of a training run. **Attributes:** `step`, from its name; `path`, its folder."""

    step: int
    path: Path


class Architecture(NamedTuple):
    """What a checkpoint is a checkpoint of.

    **Attributes:** `kind`, as its configuration calls it; `shapes`, a digest of the names and shapes of its weights.
    """

    kind: str
    shapes: str


def checkpoints(folder: str | Path) -> list[Checkpoint]:
    """The checkpoints of a training run, by their steps.

    They are the folders in `folder` with a step in their name: `checkpoint-100`, `step_000200`, `epoch3`,
    `epoch=1-step=300`; also `0400`, where it holds weights or a configuration. A folder that holds none of them and is
    a checkpoint itself, or the name of a model that ships with the package, is a run of one, of step 0 where its name
    says none.

    **Raises:** `InputError` where there is no such folder, no checkpoint in it, or two of one step.
    """
    place = Path(folder).expanduser()
    if str(folder) in CHECKPOINTS and not place.exists():
        place = checkpoint(str(folder))
    try:
        inside = sorted(path for path in place.iterdir() if path.is_dir())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise InputError(f"the folder {str(folder)[:200]} of a training run cannot be read ({reason})") from error
    found: dict[int, Path] = {}
    words: dict[str, Path] = {}
    for path in inside:
        named = _step(path.name)
        holds = _looks_like_one(path)
        if named is None or not (holds or _NUMBERED.search(path.name)):
            continue
        word, step = named
        if holds:
            words.setdefault(word, path)
        if step in found:
            raise InputError(f"{found[step]} and {path} are both of step {step}; leave one of them out")
        found[step] = path
    if len(words) > 1:
        first, second = list(words.values())[:2]
        raise InputError(
            f"{first} and {second} count differently, so that they have no order; give a folder of one kind"
        )
    if not found and _looks_like_one(place):
        return [Checkpoint((_step(place.name) or ("", 0))[1], place)]
    if not found:
        raise InputError(
            f"{place} holds no checkpoints: no folder with weights and a step in its name, such as checkpoint-100, "
            "step_000200 or epoch3"
        )
    return [Checkpoint(step, found[step]) for step in sorted(found)]


def _step(name: str) -> tuple[str, int] | None:
    """The word that counts and the step in the name of a folder."""
    numbered = {word.lower(): int(number) for word, number in _NUMBERED.findall(name)}
    for word in _WORDS:
        if word in numbered:
            # of one kind: these all count updates
            return ("step" if word in ("step", "checkpoint", "ckpt", "iter", "iteration") else word), numbered[word]
    return ("step", int(name)) if _BARE.fullmatch(name) else None


def _looks_like_one(path: Path) -> bool:
    """Whether a folder holds a configuration or weights, in whatever format."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    formats = [pattern for pattern, _ in ELSEWHERE if "." in pattern]
    return any(
        name in ("config.json", "adapter_config.json") or any(re.fullmatch(p, name, re.IGNORECASE) for p in formats)
        for name in names
    )


def architecture(path: Path) -> Architecture:
    """What a checkpoint is one of, from its configuration and the headers of its weights alone.

    **Raises:** `CheckpointError` where it cannot be read.
    """
    if is_adapter(path):
        shapes = {
            name: tuple(entry["shape"]) for name, entry in read_header(path / "adapter_model.safetensors").items()
        }
        return Architecture("adapter", _digest(shapes))
    kind = read_config(path).get("model_type")
    return Architecture(str(kind), _digest({name: tensor.shape for name, tensor in stored_tensors(path).items()}))


def common(found: Sequence[Architecture]) -> Architecture:
    """The one that most have; the first of several."""
    return Counter(found).most_common(1)[0][0]


def fingerprint(path: Path) -> str:
    """A digest of all that is read of a checkpoint: its files, by name and content.

    **Raises:** `CheckpointError` where one of them cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for file in sorted(file for file in path.iterdir() if file.suffix in READ and file.is_file()):
            digest.update(f"{len(file.name)} {file.stat().st_size} ".encode() + os.fsencode(file.name))
            with file.open("rb") as content:
                while piece := content.read(_PIECE):
                    digest.update(piece)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _digest(shapes: Any) -> str:
    return hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()[:16]
