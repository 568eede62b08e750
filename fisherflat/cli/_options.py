"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisherflat._files import content
from fisherflat.cli._moves import moves
from fisherflat.errors import InputError

if TYPE_CHECKING:
    from fisherflat.models import Model
    from fisherflat.runners import Runner

SEVERAL = "may be given several times, or hold several between commas"

DIM_HELP = "Directions that move (default: 2); of layers and of depth also 'full': all of them, sampled."
READINGS_HELP = f"'live', or what is held, such as 'frozen pattern+gate'; {SEVERAL}."

ModelPath = Annotated[
    str,
    typer.Argument(
        help="Hugging Face model folder (safetensors), a safetensors file, the id of a model, or python-llama or "
        "python-qwen3-next, which ship with the package.",
    ),
]
ModelPaths = Annotated[
    list[str],
    typer.Argument(help="Models as for `analyze`, or folders with saved analyses; all are compared with the first."),
]
Runs = Annotated[list[str], typer.Argument(help="Folders of training runs, each with its checkpoints.")]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder for the tables and the figures.", file_okay=False)]


def _formats(given: Sequence[str]) -> list[str]:
    from fisherflat.report import checked_formats

    try:
        return list(checked_formats(words(given)))
    except InputError as error:
        raise typer.BadParameter(str(error)) from error


Formats = Annotated[
    list[str],
    typer.Option(
        "--format",
        "--formats",
        help=f"What figures are written as, out of png, pdf, svg; {SEVERAL}.",
        callback=_formats,
    ),
]
PNG = ["png"]
#: what a model runs on where nothing is given: the same for all commands, so that their numbers can be compared
PROMPT = ["The cat sat on the mat."]
#: bytes of a file of prompts
MAX_PROMPTS = 2**24
Dim = Annotated[int | None, typer.Option("--dim", help=DIM_HELP, min=1)]
FullDim = Annotated[
    str | None,
    typer.Option("--dim", help=DIM_HELP, metavar="K|full"),
]
Moves = Annotated[
    list[str],
    typer.Option(
        "--moves",
        help="Along what: 'principal', 'random' or random:SEED, words:cat,dog,bird, vectors:FILE or vectors:FILE#NAME; "
        "commands that make tables take several, between commas, where words take all that follows.",
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
MoreBits = Annotated[bool, typer.Option("--more-bits", help="Compute points of which few digits are right once more.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float64, or float32 for a rougher result.")]
Points = Annotated[int, typer.Option("--points", help="Points of each chart.", min=1)]
Jobs = Annotated[int, typer.Option("--jobs", help="Processes that measure at a time.", min=1)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what is in the folder.")]
Quick = Annotated[bool, typer.Option("--quick", help="Less of everything: a minute or two.")]
Only = Annotated[list[str] | None, typer.Option("--only", help=f"This section; {SEVERAL}.")]
Family = Annotated[
    str | None,
    typer.Option("--family", help="What states are read as: next-token, class or direction; default: a Gaussian."),
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Say how many rows, how much time and memory it would take, and end.")
]
Covariance = Annotated[
    str,
    typer.Option(
        "--covariance",
        help="Of a token's outputs: words, all, diagonal, full, or a number.",
    ),
]
Output = Annotated[str, typer.Option("--output", help="Outputs that count: of all tokens, or of those that moved.")]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda.")]


@dataclass(frozen=True)
class Prompts:
    """What a model runs on."""

    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="Text to run the model on; may be given several times.", show_default=PROMPT[0]),
    ] = None
    prompt_file: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt-file", help="File of prompts, one a line; - for the standard input; may be given several times."
        ),
    ] = None
    ids: Annotated[
        list[str] | None,
        typer.Option("--ids", help="A prompt as token ids between commas, such as 5,17,3; may be given several times."),
    ] = None

    def given(self) -> list[Any]:
        """All of them: texts, then those of files, then token ids; the default text where there are none."""
        texts = [*(self.prompt or ()), *(line for name in self.prompt_file or () for line in _lines(name))]
        return [*texts, *map(_token_ids, self.ids or ())] or list(PROMPT)


@dataclass(frozen=True)
class Loading:
    """How a model is loaded."""

    device: Device = "cpu"
    side: Annotated[str | None, typer.Option("--side", help="Of an encoder-decoder: encoder (default) or decoder.")] = (
        None
    )
    blocks: Annotated[
        str | None, typer.Option("--blocks", help="Path of the list of blocks in the model, if not the one found.")
    ] = None
    config: Annotated[str | None, typer.Option("--config", help="config.json of a bare safetensors file.")] = None
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a model from the Hugging Face Hub if it is not in the cache.")
    ] = False

    def arguments(self) -> dict[str, Any]:
        """The same as arguments of `fisherflat.load`."""
        return {
            "config": self.config,
            "blocks": self.blocks,
            "part": self.side,
            "device": checked_device(self.device),
            "download": self.download,
        }

    def load(self, path: str) -> Model:
        """The model that the options name."""
        return load_model(path, self.arguments())


@dataclass(frozen=True)
class Measuring:
    """What is measured of each layer: the options of `analyze`, and of whatever analyses."""

    layer: Layers = field(default_factory=lambda: ["all"])
    part: Parts = field(default_factory=lambda: ["attention,mlp,block"])
    head: Heads = field(default_factory=lambda: ["none"])
    reading: Readings = None
    position: Positions = None
    moves: Moves = field(default_factory=lambda: ["principal"])
    dim: FullDim = None
    points: Points = 16
    seed: Seed = 0
    dtype: Dtype = "float64"
    errors: Errors = "sample"
    more_bits: MoreBits = False
    family: Family = None
    covariance: Covariance = "words"
    output: Output = "all"

    def arguments(self) -> dict[str, Any]:
        """The same as arguments of `fisherflat.analyze`."""
        import torch

        if self.dtype not in ("float64", "float32"):
            raise typer.BadParameter(f"{self.dtype!r} is neither float64 nor float32", param_hint="--dtype")
        layers = indices(self.layer, "--layer", instead=["all"])
        heads = indices(self.head, "--head", instead=["none", "all"])
        where = positions(self.position)
        return {
            "dim": directions(self.dim),
            "moves": moves(self.moves),
            "layers": None if layers == "all" else layers,
            "parts": words(self.part),
            "heads": None if heads == "none" else heads,
            "readings": readings(self.reading),
            "positions": "spread" if where is None else where,
            "points": self.points,
            "seed": self.seed,
            "dtype": getattr(torch, self.dtype),
            "errors": self.errors,
            "precision": precision(self.more_bits),
            "family": self.family,
            "covariance": covariance(self.covariance),
            "output": self.output,
        }


@dataclass(frozen=True)
class Running:
    """What carries out the tasks of a study."""

    jobs: Jobs = 1
    runner: Annotated[
        str | None,
        typer.Option("--runner", help="What measures: 'processes' of this machine (--jobs; the default), or 'ray'."),
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            help="Of a Ray cluster: HOST:PORT, ray://HOST:PORT or auto; default: an instance of its own, here.",
        ),
    ] = None
    ray_cpus: Annotated[float, typer.Option("--ray-cpus", help="CPUs, and threads of torch, that a task takes.")] = 1
    ray_gpus: Annotated[float, typer.Option("--ray-gpus", help="GPUs that a task takes, such as 1 or 0.5.")] = 0

    def runner_or_none(self) -> Runner | None:
        """What is asked for; `None` for this process alone."""
        from fisherflat.runners import processes, ray

        if self.runner == "ray":
            if self.jobs != 1:
                raise typer.BadParameter("Ray knows how many tasks a machine takes: --ray-cpus", param_hint="--jobs")
            return ray(self.ray_address, self.ray_cpus, self.ray_gpus)
        if self.runner not in (None, "processes"):
            raise typer.BadParameter(f"{self.runner!r} is neither processes nor ray", param_hint="--runner")
        if (self.ray_address, self.ray_cpus, self.ray_gpus) != (None, 1, 0):
            raise typer.BadParameter("an option of --runner ray, which is not asked for", param_hint="--ray-...")
        return processes(self.jobs) if self.jobs > 1 else None


_RANGE = re.compile(r"(-?\d+)(?:-(-?\d+))?")


def load_model(path: str, how: Mapping[str, Any]) -> Model:
    """A model, loaded as the options say."""
    from fisherflat.models import load

    return load(path, **how)


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


def precision(more_bits: bool) -> str:
    """In how many bits."""
    return "auto" if more_bits else "working"


def covariance(given: str) -> str | float:
    """A covariance: a number, or the name of one."""
    try:
        return float(given)
    except ValueError:
        return given


def _lines(name: str) -> list[str]:
    """The lines of a file, or of the standard input, that are not blank."""
    if name == "-":
        found = sys.stdin.buffer.read(MAX_PROMPTS + 1)
        if len(found) > MAX_PROMPTS:
            raise InputError(f"--prompt-file -: there are more than the {MAX_PROMPTS} bytes that are read")
    else:
        found = content(name, limit=MAX_PROMPTS)
    try:
        lines = [line.removesuffix("\r") for line in found.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"--prompt-file {name}: it is no text in UTF-8 ({error})") from error
    if not (given := [line for line in lines if line.strip()]):
        raise InputError(f"--prompt-file {name}: it holds no prompts; give one a line")
    return given


def _token_ids(text: str) -> list[int]:
    parts = re.split(r"[\s,]+", text.strip(" ,[]"))
    if not all(re.fullmatch("[0-9]{1,18}", part) for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of token ids, such as 5,17,3", param_hint="--ids")
    return [int(part) for part in parts]


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


def directions(given: str | None) -> int | str | None:
    """How many directions move: a number, or `full`."""
    if given is None or given == "full":
        return given
    if not given.isdecimal() or int(given) < 1:
        raise typer.BadParameter(f"{given!r} is neither a number from 1 on nor 'full'", param_hint="--dim")
    return int(given)
