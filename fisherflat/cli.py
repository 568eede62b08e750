"""The command line: it reads arguments and calls what does the work."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fisherflat.errors import FisherflatError

if TYPE_CHECKING:
    from fisherflat.studies.depth import DepthStudy
    from fisherflat.studies.layers import Analysis

app = typer.Typer(
    help="The Fisher-Rao geometry of transformer layers, measured and proved.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


_MOVES = "Along what: 'principal', 'random' or random:SEED, words:cat,dog,bird, vectors:FILE or vectors:FILE#NAME."


@app.callback()
def _commands() -> None:
    # a callback keeps the name of the command in the call, also while there is only one
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the figures and the numbers.")] = Path("fisherflat-demo"),
    resolution: Annotated[int, typer.Option(help="Grid points a side.", min=2)] = 121,
) -> None:
    """Analyse the models that ship with the package: two attention classifiers of points, two small language models.

    Of the classifiers, the curvature over the plane that they classify; of the language models, that of each layer's
    attention. In both pairs one model has gated attention.
    """
    from rich import print

    from fisherflat.lab.demo import demo, language_models

    found = demo(resolution)
    files = found.save(out)
    print(found.summary())
    for name, analysis in language_models(progress=True).items():
        files += analysis.save(out / name)
        print(analysis.summary())
    for file in files:
        typer.echo(f"written: {file}")


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="Model folder (safetensors), a safetensors file, or a cached id.")],
    config: Annotated[str | None, typer.Option(help="config.json of a bare safetensors file.")] = None,
    part: Annotated[str | None, typer.Option(help="Of an encoder-decoder: encoder or decoder.")] = None,
    blocks: Annotated[str | None, typer.Option(help="Path of the list of blocks, if not the one found.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for all of it, as JSON.", dir_okay=False)] = None,
) -> None:
    """What is in a checkpoint: layers, heads, gates, norms, MLPs, and which readings make sense."""
    from rich import print

    from fisherflat.models import inspect

    found = inspect(path, config=config, part=part, blocks=blocks)
    print(found)
    if out is not None:
        typer.echo(f"written: {found.save(out)}")


@app.command()
def analyze(
    path: Annotated[str, typer.Argument(help="Hugging Face model folder (safetensors), or the id of a cached model.")],
    prompt: Annotated[list[str], typer.Option(help="Text to run the model on; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables and the figures.", file_okay=False)],
    dim: Annotated[int | None, typer.Option(help="Directions that move (default: 2).", min=2)] = None,
    moves: Annotated[str, typer.Option(help=_MOVES)] = "principal",
    layers: Annotated[str, typer.Option(help="'all', or indices such as 0,5,-1.")] = "all",
    parts: Annotated[str, typer.Option(help="Out of attention,mlp,block.")] = "attention,mlp,block",
    heads: Annotated[str, typer.Option(help="Heads of the attention: 'none', 'all', or indices such as 0,3.")] = "none",
    readings: Annotated[
        str, typer.Option(help="'all' that make sense, or such as 'live,frozen pattern,frozen pattern+gate'.")
    ] = "all",
    positions: Annotated[
        str,
        typer.Option(help="Tokens that move: 'spread', 'last', 'all', 'together', or indices such as 1,-2."),
    ] = "spread",
    points: Annotated[int, typer.Option(help="Points of each chart.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the points.")] = 0,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float64, or float32 for a rougher result.")] = "float64",
    depth: Annotated[bool, typer.Option(help="Study how curvature accumulates over the layers, too.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in the folder.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes that measure at a time.", min=1)] = 1,
) -> None:
    """Curvature of every layer of a model on prompts: attention, MLP and whole block, live and with parts frozen.

    What is done is kept as it comes. Ctrl-C ends early with exit code 130; the same command with --resume goes on.
    """
    import torch

    from fisherflat.models import load
    from fisherflat.studies.layers import analyze

    if dtype not in ("float64", "float32"):
        raise typer.BadParameter(f"{dtype!r} is neither float64 nor float32", param_hint="--dtype")
    found = analyze(
        load(path, device=_device(device)),
        prompt,
        dim,
        moves=moves,
        layers=None if layers == "all" else _indices(layers, "--layers"),
        parts=_names(parts),
        heads={"none": None, "all": "all"}[heads] if heads in ("none", "all") else _indices(heads, "--heads"),
        readings=None if readings == "all" else _names(readings),
        positions=positions if positions.isalpha() else _indices(positions, "--positions"),
        points=points,
        seed=seed,
        dtype=getattr(torch, dtype),
        depth=depth,
        folder=out,
        resume=resume,
        jobs=jobs,
    )
    _report(found, out)
    if not found.measured:
        raise typer.Exit(1)


@app.command()
def bench(
    out: Annotated[Path | None, typer.Option(help="File for the results, as JSON.", dir_okay=False)] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda (float64 and float32).")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="A small run, half a minute.")] = False,
    only: Annotated[list[str], typer.Option(help="Run this section; may be given several times.")] = [],  # noqa: B006
    map: Annotated[list[str], typer.Option(help="Measure this map; may be given several times.")] = [],  # noqa: B006
    k: Annotated[list[int], typer.Option(help="Dimension of the chart; may be given several times.")] = [],  # noqa: B006
    points: Annotated[int | None, typer.Option(help="Points; by default as many as fill the machine.")] = None,
    repeats: Annotated[int, typer.Option(help="Repeats, taken in turns.")] = 5,
    threads: Annotated[int | None, typer.Option(help="Threads of torch on the CPU.")] = None,
) -> None:
    """Time the engines next to other ways to the same numbers, and next to plain forward passes.

    `python -m fisherflat.lab.bench` is the same with torch and numpy alone installed.
    """
    from fisherflat.lab.bench import Plan, bench

    chosen = Plan(device, tuple(only), tuple(map), tuple(k), points=points, repeats=repeats, quick=quick)
    bench(chosen if threads is None else replace(chosen, threads=threads), out)


@app.command()
def reproduce(
    out: Annotated[Path, typer.Option(help="Folder for the report, the numbers and the figures.", file_okay=False)],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds, coarser grids: a minute or two.")] = False,
    only: Annotated[list[str], typer.Option(help="This section; may be given several times.")] = [],  # noqa: B006
) -> None:
    """Measure again what this project says about gates, curvature and symmetry, next to what the papers say.

    Finished sections are kept and not measured again. Ctrl-C ends early with exit code 130; the same command goes on.
    """
    from fisherflat.lab.reproduce import reproduce

    if not reproduce(out, quick, only=only, say=typer.echo):
        raise typer.Exit(130)
    typer.echo(f"written: {out / 'report.md'}")


@app.command()
def depth(
    path: Annotated[str, typer.Argument(help="Hugging Face model folder (safetensors), or the id of a cached model.")],
    prompt: Annotated[str, typer.Option(help="Text to run the model on.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables and figures.", file_okay=False)],
    dim: Annotated[int | None, typer.Option(help="Directions that move (default: 2).", min=2)] = None,
    moves: Annotated[str, typer.Option(help=_MOVES)] = "principal",
    position: Annotated[int | None, typer.Option(help="Token that moves (default: the last word).")] = None,
    points: Annotated[int, typer.Option(help="Points of the profiles.", min=1)] = 64,
    reading: Annotated[
        list[str], typer.Option(help="'live', or what is held, such as 'frozen pattern+gate'; several times.")
    ] = [],  # noqa: B006
    halves: Annotated[bool, typer.Option(help="Look within blocks too, behind the attention.")] = True,
    budget_points: Annotated[int, typer.Option(help="Points of the budgets, the first of those; 0: none.", min=0)] = 16,
    resolution: Annotated[int, typer.Option(help="Points a side of the maps; 0: none.", min=0)] = 15,
    seed: Annotated[int, typer.Option(help="Seed of the points.")] = 0,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda.")] = "cpu",
) -> None:
    """Where in the depth of a model curvature is made, by what, how it grows, and how much of it is the gates'.

    Ctrl-C ends early, keeps what was measured, and exits with code 130.
    """
    from fisherflat.models import load
    from fisherflat.studies.depth import study

    found = study(
        load(path, device=device),
        prompt,
        dim,
        points,
        moves=moves,
        position=position,
        readings=reading or None,
        halves=halves,
        budget_points=budget_points,
        resolution=resolution,
        seed=seed,
    )
    _report(found, out)


@app.command()
def symmetry(
    path: Annotated[str, typer.Argument(help="Hugging Face model folder (safetensors), or the id of a cached model.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables and the figures.", file_okay=False)],
    prompt: Annotated[
        list[str] | None, typer.Option(help="Text whose hidden states are the inputs; may be given several times.")
    ] = None,
) -> None:
    """Symmetries of every gated MLP of a model: which hold, which are broken, and how strongly, unit by unit.

    Each MLP's are proved or refuted in a certificate. Ctrl-C ends early, keeps what was done, and exits with code 130.
    """
    from rich import print

    from fisherflat.models import load
    from fisherflat.studies.symmetry import study

    default = ["The symmetries of a layer are the changes of its weights that it does not see."]
    found = study(load(path), prompt or default, typer.echo)
    files = found.save(out)
    if (table := found.summary()) is not None:
        print(table)
    for file in files:
        if file.parent == out:
            typer.echo(f"written: {file}")
    if proofs := [file for file in files if file.parent != out]:
        typer.echo(f"written: {len(proofs)} certificates; to check one: fisherflat verify {proofs[0]} {path}")
    if not found.complete:
        raise typer.Exit(130)


@app.command()
def certify(
    path: Annotated[str, typer.Argument(help="Hugging Face model folder (safetensors), or the id of a cached model.")],
    layer: Annotated[str, typer.Option(help="A layer from 0, or 'all'.")],
    out: Annotated[
        Path, typer.Option(help="File for the certificate; with 'all', one a layer, numbered.", dir_okay=False)
    ],
    part: Annotated[str, typer.Option(help="attention, mlp or block.")] = "attention",
    reading: Annotated[
        str,
        typer.Option("--reading", "--frozen", help="What is held: 'live', 'frozen pattern', 'frozen pattern+gate'."),
    ] = "live",
    prompt: Annotated[str, typer.Option(help="Text to run the model on.")] = "The cat sat on the mat.",
    moves: Annotated[str, typer.Option(help=_MOVES)] = "principal",
    position: Annotated[int | None, typer.Option(help="Token that moves (default: the last word).")] = None,
    dim: Annotated[int | None, typer.Option(help="Directions that move (default: 2).", min=1)] = None,
    precision: Annotated[int, typer.Option(help="Bits of the ball arithmetic.", min=24)] = 128,
) -> None:
    """Prove that a part of a layer is flat, or curved, and write the certificate."""
    from fisherflat.models import load
    from fisherflat.provers import certify_layer

    model = load(path)
    layers = range(len(model.blocks(prompt))) if layer == "all" else _indices(layer, "--layer")
    for index in layers:
        certificate = certify_layer(
            model,
            index,
            part,
            prompt=prompt,
            reading=reading,
            moves=moves,
            position=position,
            dim=dim,
            precision=precision,
        )
        file = out if layer != "all" else out.with_name(f"{out.stem}-{index}{out.suffix}")
        certificate.save(file)
        typer.echo(f"layer {index}, {part}: {certificate.verdict}. {certificate.claim}")
        typer.echo(f"written: {file}")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A certificate of `fisherflat certify` or `fisherflat symmetry`.")],
    path: Annotated[str, typer.Argument(help="The model that it is about.")],
) -> None:
    """Check a certificate against a model, by other code than the prover's. Exit code 1 where it does not hold."""
    from fisherflat.certificates import Certificate
    from fisherflat.models import load
    from fisherflat.verifier import verify_layer

    found = verify_layer(Certificate.load(file), load(path))
    for reason in found.reasons:
        typer.echo(f"refused: {reason}")
    if not found.ok:
        raise typer.Exit(1)
    typer.echo("the certificate holds")


def _names(text: str) -> list[str]:
    """`attention,mlp` as names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _device(name: str) -> str:
    """A device that torch has here."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"torch cannot use {name!r} here ({reason})", param_hint="--device") from None
    return name


def _report(found: Analysis | DepthStudy, out: Path) -> None:
    """Write a result and say what it is. Exit code 130 where it was interrupted."""
    from rich import print

    files = found.save(out)
    print(found.summary())
    for file in files:
        typer.echo(f"written: {file}")
    if not found.complete:
        raise typer.Exit(130)


def _indices(text: str, option: str) -> list[int]:
    """`1,4,-2` as numbers."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of indices such as 1,4,-2", param_hint=option) from None


def main() -> None:
    """Run the command line. An error of ours is one message and exit code 1; wrong usage is exit code 2."""
    try:
        app()
    except FisherflatError as error:
        print(f"fisherflat: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
