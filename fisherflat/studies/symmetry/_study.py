"""The symmetries of all MLPs of a checkpoint, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fisherflat._progress import progress as bar
from fisherflat.certificates import SymmetryCertificate, named_prompt
from fisherflat.certificates import versions as made_with
from fisherflat.errors import CheckpointError, InputError, TraceError
from fisherflat.gated_mlp import GatedUnits, broken_scaling, conserved_charges, exchange_defect, experts, units_of_graph
from fisherflat.jets.engines import Noise, spread
from fisherflat.models import Model, as_prompts
from fisherflat.parts import trace
from fisherflat.provers import certify_symmetry
from fisherflat.studies._prompts import plain_prompt

if TYPE_CHECKING:
    import pandas as pd


#: the numbers of a unit
_OF_UNITS = (
    "positive", "negative", "exchange_defect", "strength", "eigenvalue", "effective_degree", "inverse_charge",
    "output_charge",
)  # fmt: skip
#: the columns of the table; `expert` stands second where there are mixtures
COLUMNS = ("layer", "unit", *_OF_UNITS, *(f"{name}_error" for name in _OF_UNITS))
#: how often errors are estimated
_RUNS = 2


@dataclass(eq=False)
class Symmetries:
    """The symmetries of the gated MLPs of a model: numbers, no weights.

    **Attributes:** `model`, its name; `table`, a row for each unit of each gated MLP; `certificates`, of their
    symmetries, one an MLP; `notes`: which MLPs are not gated, and how exact the rewriting of the others is; `complete`,
    false after an interrupt; `settings`, the prompts, fit for JSON; `versions`, it was made with.
    """

    model: str
    table: pd.DataFrame
    certificates: list[SymmetryCertificate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=made_with)

    @property
    def symmetries(self) -> pd.DataFrame:
        """The tables of `fisherflat.symmetry.symmetries`, with columns `layer` and, for a mixture, `expert`."""
        import pandas as pd

        rows = [{**place(c), **row} for c in self.certificates for row in c.rows()]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["layer", *_EVIDENCE])

    @property
    def layers(self) -> pd.DataFrame:
        """The table by MLP: units, median and 90th percentile of the broken strength, median effective degree."""
        import pandas as pd

        by = [name for name in ("layer", "expert") if name in self.table]
        groups = self.table.groupby(by, dropna=False)
        columns = {
            "units": groups["unit"].count(),
            "strength_median": groups["strength"].median(),
            "strength_90": groups["strength"].quantile(0.9),
            "degree_median": groups["effective_degree"].median(),
            "exchange_median": groups["exchange_defect"].median(),
        }
        return pd.DataFrame(columns).reset_index()


def place(certificate: SymmetryCertificate) -> dict[str, int]:
    """Which MLP of the model a certificate is about: its `layer` and, in a mixture, its `expert`."""
    subject = certificate.subject or {}
    return {name: subject[name] for name in ("layer", "expert") if name in subject}


def study(model: Model, prompts: Any, *, progress: bool = True) -> Symmetries:
    """The symmetries of every gated MLP of a model, and how strongly they are broken on what enters it on the prompts.

    Layer by layer: the weights are read from the traced graph, the rewriting as bilinear attention is compared with it,
    the symmetries are proved or refuted, and each unit is measured. A model whose weights stay on disk needs the memory
    of one layer. A mixture is studied expert by expert, each on the tokens that the router gives it.

    **Args:** `model`; `prompts`, one or several (`fisherflat.models.as_prompts`); `progress`: show a bar with the time
    left, on the error stream. Ctrl-C ends early and keeps the layers that are done.

    **Raises:** what `Model.blocks` raises. An MLP that is not gated, or cannot be read, is a note.
    """
    import pandas as pd

    encoded = [model.encode(prompt) for prompt in as_prompts(prompts)]
    about = {"prompts": [plain_prompt(prompt) for prompt in encoded], "texts": [prompt.text for prompt in encoded]}
    found, tables = Symmetries(model.name, pd.DataFrame(columns=list(COLUMNS)), settings=about), []
    try:
        with bar(progress) as advance:
            advance("running the model", 0, None)
            stacks = [model.blocks(prompt) for prompt in encoded]
            for layer in range(len(stacks[0])):
                advance(f"layer {layer}", layer, len(stacks[0]))
                # slices, so that the stacks do not hold on to the layer
                tables += _study_layer([stack[layer : layer + 1] for stack in stacks], named_prompt(encoded[0]), found)
        found.complete = True
    except KeyboardInterrupt:
        pass
    if tables:
        found.table = pd.concat(tables, ignore_index=True)
    return found


def _study_layer(stacks: Sequence[Any], prompt: dict[str, Any], found: Symmetries) -> list[pd.DataFrame]:
    """One layer, on all prompts: the units of its MLP, or of the experts of it."""
    blocks = [stack[0] for stack in stacks]
    index = blocks[0].index
    subject = {"layer": index, "part": "mlp", **prompt}
    try:
        mixtures = [experts(block.mlp) for block in blocks]
        if not mixtures[0]:
            inputs = torch.cat([block.mlp_input.double() for block in blocks])
            return [_study_mlp(f"layer {index}", blocks[0].mlp, blocks[0].mlp_input, inputs, subject, found)]
    except (InputError, TraceError, CheckpointError) as failure:
        found.notes.append(f"layer {index}: {failure}")
        return []
    tables = []
    for routes in zip(*mixtures, strict=True):
        expert, where = routes[0], f"layer {index}, expert {routes[0].index}"
        inputs = torch.cat([route.routed.double() for route in routes])
        try:
            tables.append(_study_mlp(where, expert, expert.input, inputs, {**subject, "expert": expert.index}, found))
        except (InputError, TraceError) as failure:
            found.notes.append(f"{where}: {failure}")
            break  # the others are of the same form
    return tables


def _study_mlp(
    where: str, mlp: Any, at: Tensor, inputs: Tensor, subject: dict[str, Any], found: Symmetries
) -> pd.DataFrame:
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
    found.certificates.append(replace(certify_symmetry(units), subject=subject))
    routed = "" if len(inputs) else ", to which no token of the prompts is routed"
    found.notes.append(f"{where}: {len(table)} gated units{routed}, rewritten with a relative error of {error:.1e}")
    return table


def _units_table(units: GatedUnits, inputs: Tensor) -> pd.DataFrame:
    """A row for each unit of one MLP: its numbers, and how far off rounding may have put each."""
    import pandas as pd

    found = _numbers(units, inputs)
    with Noise(0):
        again = [_numbers(units, inputs) for _ in range(_RUNS)]
    errors = {f"{name}_error": spread(x, torch.stack([run[name] for run in again])) for name, x in found.items()}
    numbers = {name: column.cpu().numpy() for name, column in (found | errors).items()}
    return pd.DataFrame({"unit": range(len(units.gate)), **numbers})


def _numbers(units: GatedUnits, inputs: Tensor) -> dict[str, Tensor]:
    """The columns of numbers, `[h]` each."""
    charges = conserved_charges(units)
    dot, norms = (units.gate * units.up).sum(1), units.gate.norm(dim=1) * units.up.norm(dim=1)
    columns = {"positive": (dot + norms) / 2, "negative": (dot - norms) / 2}
    if len(inputs):
        broken = broken_scaling(units, inputs)
        columns["exchange_defect"] = exchange_defect(units, inputs, by_unit=True)
        columns |= {name: getattr(broken, name) for name in _BROKEN}
    else:
        columns |= dict.fromkeys(("exchange_defect", *_BROKEN), torch.full_like(dot, torch.nan))
    return columns | {"inverse_charge": charges.inverse_scaling, "output_charge": charges.output_scaling}


#: the columns of `symmetries`, after its place
_EVIDENCE = ("symmetry", "group", "transformation", "generator", "preserved", "kind", "evidence")
_BROKEN = ("strength", "eigenvalue", "effective_degree")
