"""Commands that prove, and check proofs: certify, verify."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from fisherflat._files import tried
from fisherflat.cli import _options as options
from fisherflat.cli import _places
from fisherflat.cli._grammar import command
from fisherflat.cli._moves import movement
from fisherflat.cli._output import answer, say, written

#: a certificate does not hold
REFUTED = 3


@command(
    'fisherflat certify python-llama --layer 0 --reading "frozen pattern" \\\n'
    '    --prompt "def mean(values):" --out flat.json',
    "fisherflat certify python-qwen3-next --layer 0,-1 --out live.json",
    then="certificates that were written are whole; the same command begins anew",
)
def certify(
    path: options.ModelPath,
    layer: options.Layers,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="File for the certificate; of several, each has its layer and so on added.", dir_okay=False
        ),
    ],
    prompts: options.Prompts,
    loading: options.Loading,
    part: options.Parts = ["attention"],  # noqa: B006
    reading: Annotated[
        list[str] | None, typer.Option("--reading", "--readings", "--frozen", help=options.READINGS_HELP)
    ] = None,
    position: options.Positions = None,
    moves: options.Moves = ["principal"],  # noqa: B006
    dim: options.Dim = None,
    covariance: options.Covariance = "words",
    output: options.Output = "all",
    family: options.Family = None,
    precision: Annotated[int, typer.Option("--precision", help="Bits of the ball arithmetic.", min=24)] = 128,
) -> None:
    """Prove that a part of a layer is flat, or curved, and write the certificate.

    By default of the live attention, the last word moving; 'head 2' is a part, too, and --family reads what --part
    block makes. Of several layers, parts, readings, prompts or positions there is a certificate for each combination,
    with directions and covariance of all prompts.
    """
    from fisherflat.provers import certify_layer
    from fisherflat.report import renew

    chosen, where = options.indices(layer, "--layer", instead=["all"]), options.positions(position)
    texts, along = prompts.given(), movement(moves)
    tried(out)
    parts, readings = options.words(part), options.readings(reading) or ["live"]
    model = loading.load(path)
    places = _places.places(model, texts, where, along, dim)
    layers = options.counted(chosen, len(model.blocks(places[0].prompt)), "--layer")
    for index, what, held, place in product(layers, parts, readings, places):
        certificate = certify_layer(
            model,
            index,
            what,
            prompt=place.prompt,
            reading=held,
            moves=along,
            position=place.position,
            k=dim,
            covariance=options.covariance(covariance),
            output=output,
            family=family,
            among=texts if len(texts) > 1 else None,
            precision=precision,
        )
        names = {
            str(index): chosen == "all" or len(layers) > 1,
            what.replace(" ", "-"): len(parts) > 1,
            held.replace(" ", "-").replace("+", "-and-"): len(readings) > 1,
            place.name: bool(place.name),
        }
        added = "".join(f"-{name}" for name, several in names.items() if several)
        file = out.with_name(f"{out.stem}{added}{out.suffix}")
        certificate.save(file)
        say(f"layer {index}, {what}: {certificate.verdict}. {certificate.claim}")
        written([file])
        answer(
            {
                "kind": "Certificate",
                "verdict": certificate.verdict,
                "claim": certificate.claim,
                "subject": certificate.subject,
                "enclosure": None if certificate.enclosure is None else [str(end) for end in certificate.enclosure],
                "files": [str(file)],
            }
        )
    written(pages := renew(out.parent))
    answer({"kind": "Proofs", "files": [str(page) for page in pages]})


@command(
    "fisherflat certify python-llama --layer -1 --part mlp --out proof.json",
    "fisherflat verify proof.json python-llama",
)
def verify(
    file: Annotated[Path, typer.Argument(help="A certificate of `fisherflat certify` or `fisherflat symmetry`.")],
    path: options.ModelPath,
    loading: options.Loading,
) -> None:
    """Check a certificate against a model, by other code than the prover's. Exit code 3 where it does not hold."""
    from fisherflat.certificates import Certificate
    from fisherflat.verifier import verify_layer

    certificate = Certificate.load(file)
    found = verify_layer(certificate, loading.load(path))
    for reason in found.reasons:
        say(f"refused: {reason}")
    answer({"kind": "Verification", "ok": found.ok, "reasons": list(found.reasons), "certificate": str(file)})
    if not found.ok:
        raise typer.Exit(REFUTED)
    say("the certificate holds")
