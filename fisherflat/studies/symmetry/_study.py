"""The symmetries of all MLPs of a checkpoint, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fisherflat.certificates import SymmetryCertificate
from fisherflat.errors import CheckpointError, InputError, TraceError
from fisherflat.gated_mlp import GatedUnits, broken_scaling, conserved_charges, exchange_defect, experts, units_of_graph
from fisherflat.parts import trace
from fisherflat.provers import certify_symmetry
from fisherflat.studies.symmetry._result import SymmetryStudy

if TYPE_CHECKING:
    import pandas as pd

    from fisherflat.models import Model


@dataclass
class _Found:
    """What is kept of the layers that are done: numbers, no weights."""

    tables: list[pd.DataFrame] = field(default_factory=list)
    certificates: list[SymmetryCertificate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def study(model: Model, prompts: Any, say: Callable[[str], Any] | None = None) -> SymmetryStudy:
    """The symmetries of every gated MLP of a model, and how strongly they are broken on what enters it on the prompts.

    Layer by layer: the weights are read from the traced graph, the rewriting as bilinear attention is compared with it,
    the symmetries are proved or refuted, and each unit is measured. Nothing but numbers is kept, so that a model whose
    weights stay on disk needs the memory of one layer. A mixture is studied expert by expert, each on the tokens that
    the router gives it.

    The columns of `.table`: `layer`; `expert`, where there are mixtures; `unit`; `positive` and `negative`, the
    eigenvalues `(g·u ± |g||u|) / 2` of the unit's form; `exchange_defect`, of its scores; `strength`, `eigenvalue` and
    `effective_degree`, of the broken inverse scaling (`BrokenScaling`); `inverse_charge` and `output_charge`
    (`Charges`). What depends on inputs is NaN for an expert without any.

    **Args:** `model`, from `fisherflat.load`; `prompts`: a text, token ids, or a list of texts; `say`, called with each
    note when it is made. Ctrl-C ends early and keeps the layers that are done.

    **Raises:** what `Model.blocks` raises. An MLP that is not gated, or cannot be read, is a note.
    """
    import pandas as pd

    texts = prompts if isinstance(prompts, list) and all(isinstance(text, str) for text in prompts) else [prompts]
    encoded = [model.encode(text) for text in texts]
    found, complete = _Found(), True
    try:
        stacks = [model.blocks(text) for text in encoded]
        for layer in range(len(stacks[0])):
            before = len(found.notes)
            # slices, so that the stacks do not hold on to the layer
            _study_layer([stack[layer : layer + 1] for stack in stacks], encoded[0].ids.tolist(), found)
            for note in found.notes[before:] if say else ():
                say(note)  # type: ignore[misc]
    except KeyboardInterrupt:
        complete = False
    table = pd.concat(found.tables, ignore_index=True) if found.tables else pd.DataFrame()
    return SymmetryStudy(model.name, table, found.certificates, found.notes, complete)


def _study_layer(stacks: Sequence[Any], ids: list[int], found: _Found) -> None:
    """One layer, on all prompts: its MLP, or the experts of it."""
    blocks = [stack[0] for stack in stacks]
    index = blocks[0].index
    subject = {"layer": index, "part": "mlp", "token_ids": ids}
    try:
        mixtures = [experts(block.mlp) for block in blocks]
        if not mixtures[0]:
            inputs = torch.cat([block.mlp_input.double() for block in blocks])
            _study_mlp(f"layer {index}", blocks[0].mlp, blocks[0].mlp_input, inputs, subject, found)
    except (InputError, TraceError, CheckpointError) as failure:
        found.notes.append(f"layer {index}: {failure}")
        return
    for routes in zip(*mixtures, strict=True):
        expert, place = routes[0], f"layer {index}, expert {routes[0].index}"
        inputs = torch.cat([route.routed.double() for route in routes])
        try:
            _study_mlp(place, expert, expert.input, inputs, {**subject, "expert": expert.index}, found)
        except (InputError, TraceError) as failure:
            found.notes.append(f"{place}: {failure}")
            return  # the others are of the same form


def _study_mlp(place: str, mlp: Any, at: Tensor, inputs: Tensor, subject: dict[str, Any], found: _Found) -> None:
    at = at.double()
    graph = trace(mlp, at)
    units = units_of_graph(graph, at)
    with torch.no_grad():
        expected = graph(at)
        error = float((units.as_bilinear_attention()(at) - expected).abs().max() / expected.abs().max())
    table = _units_table(units, inputs)
    for name in ("expert", "layer"):
        if name in subject:
            table.insert(0, name, subject[name])
    found.tables.append(table)
    found.certificates.append(replace(certify_symmetry(units), subject=subject))
    routed = "" if len(inputs) else ", to which no token of the prompts is routed"
    found.notes.append(f"{place}: {len(table)} gated units{routed}, rewritten with a relative error of {error:.1e}")


def _units_table(units: GatedUnits, inputs: Tensor) -> pd.DataFrame:
    """A row for each unit of one MLP."""
    import pandas as pd

    charges = conserved_charges(units)
    dot, norms = (units.gate * units.up).sum(1), units.gate.norm(dim=1) * units.up.norm(dim=1)
    columns = {"positive": (dot + norms) / 2, "negative": (dot - norms) / 2}
    if len(inputs):
        broken = broken_scaling(units, inputs)
        columns["exchange_defect"] = exchange_defect(units, inputs, by_unit=True)
        columns |= {name: getattr(broken, name) for name in _BROKEN}
    else:
        columns |= dict.fromkeys(("exchange_defect", *_BROKEN), torch.full_like(dot, torch.nan))
    columns |= {"inverse_charge": charges.inverse_scaling, "output_charge": charges.output_scaling}
    numbers = {name: column.cpu().numpy() for name, column in columns.items()}
    return pd.DataFrame({"unit": range(len(dot)), **numbers})


_BROKEN = ("strength", "eigenvalue", "effective_degree")
