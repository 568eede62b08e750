"""The table of architectures in the docs: what the library finds in each, and whether that is what its source says.

`python tests/cases/architecture_table.py --out docs/coverage.md` writes it. Rows are kept in a file beside the
page until the page is written, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import fisherflat as ff
from cases.architectures import (
    ARCHITECTURES,
    EXCLUDED,
    IDS,
    Architecture,
    blocks,
    chart,
    disagreement,
    traced,
)
from fisherflat._files import whole
from fisherflat.jets.graph import Node
from fisherflat.jets.ops import STRUCTURAL
from fisherflat.models import Block, Part

COMMAND = "python tests/cases/architecture_table.py --out docs/coverage.md"


def row(kind: str, engines: bool = True) -> dict[str, Any]:
    """What the library finds in an architecture, as plain data; `engines`: whether to compare them."""
    return {"kind": kind, "layers": [_layer(kind, block, engines) for block in blocks(kind)]}


def _layer(kind: str, block: Block, engines: bool) -> dict[str, Any]:
    """One kind of layer."""
    sections = block.sections
    found: dict[str, Any] = {"mixer": sections.mixer, "softmax": sections.softmax, "block": _traces(block)}
    found["attention"] = _traces(block.attention) if sections.attention else "not found"
    found["mlp"] = _traces(block.mlp) if sections.mlp else "not found"
    whole = next((part for part in ("block", "attention") if found[part] == "traces"), None)
    part = block if whole == "block" else block.attention if whole == "attention" else None
    if not engines or (ARCHITECTURES[kind].costly and not sections.softmax):
        part = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ff.errors.FallbackWarning)
        found["difference"] = None if part is None else disagreement(part)
    if sections.softmax and found["attention"] == "traces":
        found["gates"] = gates(block.attention)
        roles = ("pattern", *ARCHITECTURES[kind].also)
        frozen = ff.freeze(traced(block.attention), block.attention_input, roles)
        found["verdict"] = ff.certify(frozen, chart(block.attention_input)).verdict
    return found


def _traces(part: Part) -> str:
    try:
        traced(part)
    except ff.errors.TraceError as error:
        return str(error)
    return "traces"


def gates(attention: Part) -> list[dict[str, str]]:
    """The gates of an attention part: where they are projected and multiplied, by what function, how finely."""
    graph = traced(attention)
    return [
        _gate(node, len(attention.input))
        for node in graph.nodes
        if node.role == "attention_gate" and not node.factor and any(source.factor for source in node.inputs)
    ]


def _gate(product: Node, tokens: int) -> dict[str, str]:
    factor = next(source for source in product.inputs if source.factor)
    before = _ancestors(factor)
    while factor.packet in STRUCTURAL and len(factor.inputs) == 1:
        factor = factor.inputs[0]  # before it was spread over what it multiplies
    entries, width = torch.Size(factor.shape).numel(), torch.Size(product.shape).numel()
    projected = [node.module_path for node in before if node.op in ("aten.mm", "aten.addmm", "aten.bmm")]
    functions = [node.op.removeprefix("aten.") for node in before if node.op in FUNCTIONS]
    return {
        "projection": projected[-1].rpartition(".")[2] if projected else "",
        "function": functions[-1] if functions else "",
        "granularity": "elementwise" if entries == width else "head-wise",
        "source": product.source,
    }


#: what gates are made with
FUNCTIONS = {f"aten.{name}" for name in ("sigmoid", "silu", "tanh", "softplus", "gelu", "relu", "_softmax", "exp")}


def _ancestors(node: Node) -> list[Node]:
    """The node and all that it is made of, in order."""
    found, frontier = {node}, [node]
    while frontier:
        fresh = set(frontier.pop().inputs) - found
        found |= fresh
        frontier += fresh
    return sorted(found, key=lambda n: n.index)


# -- the page ----------------------------------------------------------------------------------------------------------


def cells(found: dict[str, Any], said: Architecture) -> list[str]:
    """A row of the table."""
    layers = found["layers"]

    def each(cell: Callable[[dict[str, Any]], str]) -> str:
        return ", ".join(dict.fromkeys(text for text in map(cell, layers) if text)) or "—"

    attentive = [layer for layer in layers if layer["softmax"]]
    seen = [gate for layer in attentive for gate in layer.get("gates", ())]
    differences = [layer["difference"] for layer in layers if layer["difference"] is not None]
    verdicts = [layer["verdict"] for layer in attentive if "verdict" in layer]
    roles = " + ".join(("pattern", *said.also))
    return [
        f"`{found['kind']}`",
        each(lambda layer: (layer["mixer"] or "none") + ("" if layer["softmax"] else " (no softmax)")),
        _yes(layer["attention"] for layer in attentive),
        _yes(layer["mlp"] for layer in layers),
        ", ".join(dict.fromkeys(map(_named, seen))) or ("none" if any("gates" in layer for layer in layers) else "—"),
        "**no**" if not agrees(found, said) else "yes" if any("gates" in layer for layer in layers) else "—",
        f"{max(differences):.0e}" if differences else "—",
        f"{', '.join(dict.fromkeys(verdicts))} ({roles})" if verdicts else "—",
        said.missing or said.bent or said.costly,
    ]


def _named(gate: dict[str, str]) -> str:
    function = gate["function"].removeprefix("_") or "no function"
    return f"`{gate['projection']}`, {function}, {gate['granularity']}"


def _yes(states: Any) -> str:
    """ "yes", "no", or how many."""
    states = list(states)
    count = sum(state == "traces" for state in states)
    return "yes" if count == len(states) > 0 else "no" if count == 0 else f"{count} of {len(states)}"


def agrees(found: dict[str, Any], said: Architecture) -> bool:
    """Whether the gates that were found are those that the source has, none where it has none."""
    attentive = [layer["gates"] for layer in found["layers"] if "gates" in layer]
    if said.gate is None:
        return not any(attentive)
    return any(said.gate in [gate["projection"] for gate in layer] for layer in attentive)


HEADINGS = (
    "architecture", "token mixers", "attention", "MLP", "gate found", "as its source says", "engines differ by",
    "certificate (frozen)", "where not, why",
)  # fmt: skip


def page(rows: list[dict[str, Any]]) -> str:
    """The page of the docs."""
    import transformers

    gated = [found for found in rows if ARCHITECTURES[found["kind"]].gate]
    lines = [
        "# Coverage",
        "",
        f"{len(rows)} architectures of transformers {transformers.__version__} with self-attention, {len(gated)} of "
        f"them gated, in small random configurations on {len(IDS)} tokens (torch "
        f"{torch.__version__.partition('+')[0]}, float64, CPU). `{COMMAND}` writes this page; the same list is a test "
        "(`tests/models/test_architectures.py`), which compares the engines for some of them.",
        "",
        *NOTES,
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + " --- |" * len(HEADINGS),
        *("| " + " | ".join(cells(found, ARCHITECTURES[found["kind"]])) + " |" for found in rows),
        "",
        "## Not in the table",
        "",
        "Models that read pixels, sound or series of numbers instead of tokens, configurations whose model is the "
        "class of another in the table, and:",
        "",
        *(f"- {reason}: {', '.join(f'`{kind}`' for kind in kinds.split())}" for reason, kinds in EXCLUDED.items()),
        "",
    ]
    return "\n".join(lines)


NOTES = [
    "- *token mixers*: the module of each kind of layer through which tokens reach each other. Those without a softmax "
    "(linear attention, state spaces, convolutions) have no attention pattern, and are analysed as blocks.",
    "- *attention*, *MLP*: the part was found and traces. Where a kind of layer has none, that counts as no.",
    "- *gate found*: in softmax attention: where it is projected, its function, and whether it has one number for each "
    "entry or for each head.",
    "- *engines differ by*: the largest relative difference of value, Jacobian and Hessian between the Taylor engine "
    "(on the traced graph of a block) and `torch.func` (on the module itself), in two directions in which all tokens "
    "move, for eight random combinations of the outputs.",
    "- *certificate*: the verdict of `ff.certify` on the attention operator with those roles frozen. Ungated attention "
    "with a frozen pattern is flat, and a gate bends it. Where there is a norm between values and output it is frozen "
    "too, because a norm bends as well.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    kept = out.with_suffix(".rows.jsonl")
    rows = {found["kind"]: found for found in map(json.loads, kept.read_text().splitlines())} if kept.exists() else {}
    for kind in sorted(ARCHITECTURES):
        if kind not in rows:
            rows[kind] = row(kind)
            with kept.open("a") as file:
                file.write(json.dumps(rows[kind]) + "\n")
            print(f"{len(rows)} of {len(ARCHITECTURES)}: {kind}", flush=True)
            blocks.cache_clear()
            traced.cache_clear()
    with whole(out) as path:
        path.write_text(page([rows[kind] for kind in sorted(ARCHITECTURES)]))
    kept.unlink()


if __name__ == "__main__":
    main()
