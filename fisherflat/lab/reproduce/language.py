"""The trained language models: do they predict what they are said to, and what did training do to their curvature?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fisherflat import plot
from fisherflat.lab.experiments.language import CONSTANT_GATE, LLAMA, PROMPTS, QWEN3_NEXT
from fisherflat.lab.experiments.language_curvature import attention_curvature, by_layer
from fisherflat.lab.experiments.language_loss import bits_per_byte, causal
from fisherflat.lab.experiments.python_text import standard_library
from fisherflat.lab.experiments.train import interval
from fisherflat.lab.reproduce._section import GATING, OWN, Claim, Section, verdict
from fisherflat.models import load
from fisherflat.parts import readings
from fisherflat.report import Figure, blank, write
from fisherflat.zoo import CHECKPOINTS, checkpoint, checkpoint_provenance

PATTERN = readings.name(["pattern"])
#: how far the loss may be from that of training where the held-out file is that of another release of Python
AGREEMENT = 0.1


@dataclass(frozen=True)
class Settings:
    """`models` that ship, `layers` of them (default: all), `points` of each chart; held-out `files` to test them on."""

    models: tuple[str, ...] = CHECKPOINTS
    layers: tuple[int, ...] | None = None
    points: int = 4
    files: tuple[str, ...] = ("csv.py", "fractions.py", "shlex.py", "textwrap.py")


QUICK = Settings(points=1, files=("textwrap.py",))


def measure(settings: Settings, folder: Path) -> Section:
    """Test and analyse the shipped models again; what other seeds say is read from the record of training."""
    record = checkpoint_provenance()
    seed = str(record["shipped_seed"])
    losses, curvature = [], []
    for name in settings.models:
        said = record["runs"][name][seed]
        module, tokenizer = causal(checkpoint(name))
        for file, text in standard_library(settings.files).items():
            found = bits_per_byte(module, tokenizer, text)
            then = said["trained"]["held_out_files"][file]
            losses.append({"model": name, "file": file, "bits per byte": found, "when trained": then})
        again = by_layer(attention_curvature(load(checkpoint(name)), points=settings.points, layers=settings.layers))
        curvature += _curvature(name, again, said)
    write({"curvature.png": figure(curvature)}, folder)
    return Section(
        "Language models: what training made of the gate",
        f"Two small language models of Python source code that ship with the package, {LLAMA} (ungated) and "
        f"{QWEN3_NEXT} (gated attention; layer 0 is linear attention and has no pattern), and {CONSTANT_GATE}, the "
        "same with gates held at a half, which does not ship. Losses and curvature of other seeds are those that "
        f"`{record['command']}` wrote down. Curvature: the median of |scal| over points and then over {len(PROMPTS)} "
        "prompts, the last token moving, per mean variance of the layer's own outputs. Intervals: 95 %, Student's t "
        "over seeds.",
        [_reproduced(losses), _helps(record), *_trained(record), _where(record)],
        {"losses": losses, "held_out_over_seeds": _over_seeds(record), "curvature": curvature},
        ("curvature.png",),
        asdict(settings),
    )


def _curvature(name: str, again: Mapping[str, Any], said: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "model": name,
            "reading": reading,
            "layer": layer,
            "trained": value,
            "when trained": said["trained"]["attention_curvature"][reading][layer],
            "untrained": said["untrained"]["attention_curvature"][reading][layer],
        }
        for reading, layers in again.items()
        for layer, value in layers.items()
    ]


def _over_seeds(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, found in record["summary"]["held_out_bits_per_byte"].items():
        low, high = found["interval_95"]
        seeds = len(found["values"])
        rows.append({"bits per byte": name, "mean": found["mean"], "low": low, "high": high, "seeds": seeds})
    return rows


def _reproduced(losses: list[dict[str, Any]]) -> Claim:
    off = max(abs(row["bits per byte"] / row["when trained"] - 1) for row in losses)
    statement = "The shipped models predict files they have never seen as well as was written down"
    return Claim(OWN, statement, f"off by at most {100 * off:.2g} % on {len(losses)} files", verdict(off < AGREEMENT))


def _helps(record: Mapping[str, Any]) -> Claim:
    runs, better = record["runs"], None
    losses = [
        [run["trained"]["held_out_bits_per_byte"] for run in (runs[QWEN3_NEXT][seed], runs[CONSTANT_GATE][seed])]
        for seed in sorted(runs[QWEN3_NEXT].keys() & runs[CONSTANT_GATE].keys())
    ]
    differences = [gated - held for gated, held in losses]
    if len(differences) > 1:
        found = interval(differences)
        low, high = found["interval_95"]
        words = f"{found['mean']:+.4f} bits per byte ({low:+.4f} to {high:+.4f}, {len(differences)} seeds)"
        better = True if high < 0 else False if low > 0 else None
    else:
        words = "".join(f"{difference:+.4f} bits per byte, for one seed" for difference in differences)
    statement = "Gated attention does better on language (a gate against the same gate held constant)"
    return Claim(GATING, statement, words, verdict(better))


def _trained(record: Mapping[str, Any]) -> list[Claim]:
    """By how much training multiplies what gates bend, geometric mean over layers, for each seed."""
    ratios = []
    for run in record["runs"][QWEN3_NEXT].values():
        after, before = (run[when]["attention_curvature"][PATTERN] for when in ("trained", "untrained"))
        ratios.append(statistics.geometric_mean(after[layer] / before[layer] for layer in after))
    if len(ratios) < 2:
        return []
    found = interval(ratios)
    low, high = found["interval_95"]
    words = f"times {found['mean']:.2f} ({low:.2f} to {high:.2f}, {len(ratios)} seeds), geometric mean over layers"
    return [
        Claim(OWN, "Training makes gates bend more than at random weights", words,
              verdict(True if low > 1 else False if high < 1 else None))
    ]  # fmt: skip


def _where(record: Mapping[str, Any]) -> Claim:
    most = {}
    for seed, run in record["runs"][QWEN3_NEXT].items():
        layers = run["trained"]["attention_curvature"][PATTERN]
        most[seed] = max(layers, key=layers.get)
    words = ", ".join(f"layer {layer} for seed {seed}" for seed, layer in most.items())
    same = None if len(most) < 2 else len(set(most.values())) == 1
    return Claim(OWN, "The gate bends most in the same layer whatever the seed", words, verdict(same))


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Curvature against layer, a panel a reading, trained and untrained."""
    return Figure(lambda: _drawn(rows))


def _drawn(rows: list[dict[str, Any]]) -> Any:
    kinds = list(dict.fromkeys(row["reading"] for row in rows))
    canvas = blank(plot.COLUMN * len(kinds), 2.8)
    panels = canvas.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    sizes = np.array([row[when] for row in rows for when in ("trained", "untrained")])
    for ax, reading in zip(panels, kinds, strict=True):
        # the axis before the lines, so that it makes no legend: one for all panels follows
        plot.profile_axis(ax, sizes, "layer", "median |scal| [1/σ²]")
        for number, name in enumerate(dict.fromkeys(row["model"] for row in rows)):
            mine = [row for row in rows if (row["model"], row["reading"]) == (name, reading)]
            for when, line in (("trained", "-"), ("untrained", ":")):
                ax.plot(
                    [int(row["layer"]) for row in mine], [row[when] for row in mine], line,
                    color=plot.OKABE_ITO[number], marker=plot.MARKERS[number], ms=4, lw=1.2, label=f"{name}, {when}",
                )  # fmt: skip
        ax.set_title(reading, fontsize=9)
        ax.label_outer()
    canvas.legend(handles=panels[0].get_lines()[1:], loc="outside lower center", ncols=2, frameon=False, fontsize=7)
    about = [
        f"{', '.join(dict.fromkeys(row['model'] for row in rows))}: curvature of the attention by layer",
        f"medians over points, then over {len(PROMPTS)} prompts of Python code, of which the last token moves",
        "σ²: mean variance of the layer's own outputs",
    ]
    plot.caption(canvas, about)
    return canvas
