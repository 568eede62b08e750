"""What the pages of all results share: tables and numbers as they are printed, methods, commands, certificates."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat._display import shown
from fisherflat.certificates import Certificate, CurvatureCertificate
from fisherflat.errors import CertificateError
from fisherflat.geometry import FLAT_WORDS, Verdict
from fisherflat.models.covariances import COVARIANCES
from fisherflat.pages import Code, Drawing, Facts, Grid, Points, Section, Value
from fisherflat.report._writer import Content, Figure
from fisherflat.spaces.families import labelled, unit
from fisherflat.statistics import ENOUGH
from fisherflat.studies import BUDGET, ERROR

if TYPE_CHECKING:
    import pandas as pd

    from fisherflat.pages import Item

#: the name of a page in the folder of its result
PAGE = "report.html"
#: the most files of a folder that are looked into
_MOST = 200
#: the most certificates that a page shows one by one
_SHOWN = 60
#: verdict -> how a page sets it off
TONES = {**dict.fromkeys(FLAT_WORDS, "flat"), Verdict.UNDECIDED: "undecided", Verdict.CURVED: "curved"}
#: what a page says of the four words, see `fisherflat.geometry.Verdict`
WORDS = {
    "flat (proved)": "zero whatever the numbers are: what moves passes an affine map, which the structure of "
    "the graph shows",
    "flat to its error": "computed, and zero as far as its numerical error tells",
    "undecided": "the numerical error exceeds the value, so that not even the sign is known; it enters no mean",
    "curved": "the value exceeds its numerical error",
}
VERDICTS = "; ".join(f"“{word}”: {meaning}" for word, meaning in WORDS.items())
#: for who knows no geometry
CURVATURE = (
    "Scalar curvature says how much the surface bends on which the outputs lie while a token moves: zero for a plane, "
    "positive where it bulges like a sphere, negative where it bends like a saddle. σ is the spread of the outputs "
    "themselves, so that 1/σ² has no unit of the model."
)


def certified(proofs: Mapping[str, Certificate], path: str) -> Section:
    """Certificates with their verdicts, and how to check them against the model at a path."""
    items: list[Item] = []
    for file, proof in list(proofs.items())[:_SHOWN]:
        subject = proof.subject or {}
        where = [f"{name} {subject[name]}" for name in ("layer", "part", "expert", "position") if name in subject]
        facts = {
            **({"verdict": proof.verdict} if isinstance(proof, CurvatureCertificate) else {}),
            "claim": proof.claim,
            "rests on": proof.reason.splitlines()[0] if proof.reason else "–",
            "arithmetic": f"{proof.precision} bits",
        }
        check = Code(command("verify", file, path), "To check it, by other code than the prover's:")
        items.append(Section(", ".join(where) or file, [Facts(facts), check]))
    if len(proofs) > _SHOWN:
        items.append(f"These are the first {_SHOWN} of {len(proofs)}; the others are checked in the same way.")
    return Section("Certificates", items)


def proofs_in(folder: Path) -> dict[str, Certificate]:
    """The certificates of a folder by the names of their files; whatever else there is, is left out."""
    found = {}
    for path in sorted(folder.glob("*.json"))[:_MOST]:
        with suppress(CertificateError):
            found[path.name] = Certificate.load(path)
    return found


def drawings(figures: Mapping[str, Content], about: str, table: str) -> list[Item]:
    """The figures among the files of a result, called by their names; `about`, how to read them, and their table."""
    return [
        Drawing(
            name.removesuffix(".png").replace("_", ", ").replace("-", " "), about, f"The numbers are in {table}.",
            figure.draw,
        )
        for name, figure in figures.items()
        if isinstance(figure, Figure)
    ]  # fmt: skip


def second_look(notes: Sequence[str]) -> list[Section]:
    """What is to be looked at twice, where there is something."""
    return [Section("Worth a second look", [Points(notes)])] if notes else []


def largest(rows: pd.DataFrame, noun: str, place: Callable[[Any], str]) -> str:
    """Where the largest difference is that is sure, of rows with the words of `fisherflat.compare`, or why none is."""
    sure = rows[rows["word"].isin(("larger", "smaller"))]
    if len(sure):
        top = sure.loc[sure["mean"].abs().idxmax()]
        interval = f"95 % interval {top['low']:.3g} to {top['high']:.3g}"
        return f"The largest {noun} that is sure is in {place(top)}: {top['mean']:+.3g} ({interval})."
    if (rows["word"] == "too few").any():
        return f"No {noun} is sure: with fewer than {ENOUGH} prompts or positions there is no 95 % interval."
    return f"In no layer does the interval of the {noun} exclude zero by more than rounding."


def number(value: Any, error: float = math.nan, digits: int = 3, sign: str = "", tone: str = "") -> Value:
    """A number with the digits that are right."""
    value = float(value)
    text = "–" if math.isnan(value) else "0" if value == 0 else shown(value, error, digits, sign)
    if tone != "undecided" and abs(value) <= error:  # flat, as far as can be told
        text = f"0 ± {error:.1g}"
    return Value(value, "0" if value == error == 0 else text, tone)


def table(caption: str, frame: pd.DataFrame, names: Mapping[str, str] | None = None, file: str = "") -> Grid:
    """A table as a grid: numbers to three digits, and text.

    **Args:** `names`, of the columns that are shown, in order, by the names of the frame's; `file`, which holds all of
    it.
    """
    chosen = dict(names) if names is not None else {str(name): str(name) for name in frame.columns}
    rows = [[cell(value) for value in row] for row in frame[list(chosen)].itertuples(index=False)]
    return Grid(caption, list(chosen.values()), rows, file)


def cell(value: Any) -> str | Value:
    """A cell of a table, as it is printed."""
    import pandas as pd

    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, (list, tuple)):
        return " to ".join(item if isinstance(item, str) else item.text for item in map(cell, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return Value(value, str(value))
    if value is None or value is pd.NA:
        return "–"
    return number(value) if isinstance(value, float) else str(value)


def sure(found: Any, of: str | None = None) -> str:
    """How sure a mean is: its interval and what that is over.

    **Args:** `found`, with the attributes of an `Estimate`; `of`, what its clusters are.
    """
    if found.level is None or found.clusters < 2:
        return "a single value, so nothing is known of others"
    over = f"{found.low:.3g} to {found.high:.3g} over {found.clusters} {of or CLUSTERS[found.level]}"
    if found.clusters < ENOUGH:
        return f"{over}, too few for a 95 % interval"
    return f"95 % interval {over}"


def sign(found: Any) -> str:
    """What is to be said of the sign of a mean whose interval contains zero."""
    return ", so that elsewhere it may well have the other sign" if found.low <= 0 <= found.high else ""


CLUSTERS = {
    "plane": "random planes",
    "prompt": "prompts",
    "position": "positions of one prompt",
    "point": "points of one chart",
}


def off(error: float) -> str:
    """The numerical error of a mean, in words."""
    return "numerical error unknown" if math.isnan(error) else f"numerical error {power(error)}"


def power(value: float) -> str:
    """A small number with one digit, such as 3·10⁻¹⁵, which no line breaks."""
    if not 0 < value < 1e-3:
        return f"{value:.1g}"
    digit, _, exponent = f"{value:.0e}".partition("e")
    return f"{digit}·10{str(int(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def short(text: str, most: int = 48) -> str:
    """A prompt in a heading."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def unit_of(family: str | None) -> str:
    """What follows a curvature: nothing where a family has a metric of its own."""
    return unit(family).removeprefix("1")


def axis(family: str | None, what: str = "scalar curvature") -> str:
    """A quantity with its unit, as the title of an axis or a column."""
    return labelled(what, family)


def interval(low: float, high: float) -> str:
    """An interval as a cell of a table."""
    return "–" if math.isnan(low) else f"{low:.2g} to {high:.2g}"


def command(*words: str, **options: Any) -> str:
    """A command of the shell that can be copied: options by name, lists as several, `True` for a switch."""
    line = ["fisherflat", *words]
    for name, value in options.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item is not None and item is not False:  # zero is a value
                line += [f"--{name.replace('_', '-')}", *([] if item is True else [str(item)])]
    return shlex.join(line)


def given(prompts: Sequence[Any]) -> dict[str, list[str]] | None:
    """Prompts as options of a command, `None` where they were no token ids."""
    if not all(isinstance(prompt, list) for prompt in prompts):
        return None
    return {"ids": [",".join(map(str, prompt)) for prompt in prompts]}


def moved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What moves as options of a command, from the settings of `fisherflat.moves`; the file of vectors is not known."""
    kind, k = settings["kind"], settings["dim"]
    if kind == "words":
        return {"moves": f"words:{','.join(settings['words'])}"}
    if kind == "full":
        return {"dim": "full"}
    if kind == "vectors":
        return {"moves": "vectors:FILE"}
    seed = f":{settings['seed']}" if kind == "random" else ""
    return {"moves": f"{kind}{seed}" if kind != "principal" else None, "dim": k if k != 2 else None}


def as_asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they were asked for, where they were resolved since."""
    return {name: value for name, value in settings.items() if name != "asked"} | settings.get("asked", {})


def asked_in(settings: Mapping[str, Any], default: str = "words") -> tuple[dict[str, Any], list[str]]:
    """Covariance and output as options of a command, and a sentence where they can be given from Python alone.

    **Args:** `default`, the covariance of settings of an older release.
    """
    if settings.get("family") is not None:
        return {}, []
    covariance, output = str(settings.get("covariance", default)), settings.get("output", "all")
    options = {"output": None if output == "all" else output}
    try:
        plain = covariance in COVARIANCES or math.isfinite(float(covariance))
    except ValueError:
        plain = False
    if plain:
        return options | {"covariance": None if covariance == "words" else covariance}, []
    return options, [f"From Python alone: with the covariance {covariance}, besides."]


def listed(items: Iterable[str], most: int = 4) -> str:
    """Some names in a sentence."""
    found = list(dict.fromkeys(items))
    if len(found) > most:
        return f"{', '.join(found[:most])} and {len(found) - most} more"
    return " and ".join(filter(None, [", ".join(found[:-1]), *found[-1:]]))


def spans(numbers: Iterable[int]) -> str:
    """Numbers in order, those that follow each other as a span: `0-3, 5`."""
    found = sorted(set(numbers))
    runs: list[list[int]] = []
    for one in found:
        if runs and one == runs[-1][-1] + 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def layers(numbers: Iterable[int]) -> str:
    """`layer 3`, or `layers 0–3, 5`."""
    found = set(numbers)
    return f"layer{'s' if len(found) > 1 else ''} {spans(found)}"


def joint(verdicts: pd.Series[str]) -> str:
    """The word for several points: proved where all are, flat where all are flat, curved where one is."""
    words = set(verdicts)
    if Verdict.CURVED in words:
        return str(Verdict.CURVED)
    if Verdict.UNDECIDED in words:
        return str(Verdict.UNDECIDED)
    return str(Verdict.FLAT if Verdict.FLAT in words else Verdict.PROVED)


def measured_at(settings: Mapping[str, Any]) -> str:
    """At which points of a chart something is measured, or from which planes."""
    moves, seed = settings["moves"], settings["seed"]
    if moves["kind"] == "full":
        return (
            f"at the token's own state, from random planes (seed {seed}) until the standard error is {ERROR:.0%} of "
            f"the value or there are {BUDGET:,} of them"
        )
    if settings["points"] == 1:
        return "one point of each chart, the token's own state"
    return (
        f"{settings['points']} points of each chart: the token's own state, and others drawn with seed {seed} from "
        f"within one unit{', which is ' + moves['unit'] if 'unit' in moves else ''}"
    )


def estimated_at(settings: Mapping[str, Any]) -> str:
    """Where numerical errors are estimated."""
    if settings["moves"]["kind"] == "full":
        return "at each plane"
    if settings.get("errors") == "all":
        return "at each point"
    return "at a sample of points and carried over to the others"


def along(moves: dict[str, Any]) -> str:
    k = moves["dim"]
    return {
        "principal": f"along {k} principal directions of the states that enter the part",
        "full": "in all directions",
        "random": f"along {k} random directions (seed {moves.get('seed')})",
        "words": f"between the words {', '.join(map(str, moves.get('words', ())))}",
    }.get(moves["kind"], f"along {k} given vectors")
