"""The symmetries of all MLPs of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fisherflat._files import made, whole
from fisherflat.errors import CheckpointError, InputError, TraceError
from fisherflat.jets import trace
from fisherflat.symmetry.charges import conserved_charges
from fisherflat.symmetry.defects import exchange_defect
from fisherflat.symmetry.generators import broken_scaling
from fisherflat.symmetry.table import symmetries
from fisherflat.symmetry.units import GatedUnits, gated_units

if TYPE_CHECKING:
    import pandas as pd

    from fisherflat.checkpoints import Block, Model


class SymmetryStudy:
    """What `study` found.

    **Attributes:** `table`, a row for each unit of each gated MLP; `symmetries`, the table of
    `fisherflat.symmetry.symmetries` with a column `layer`; `notes`: which MLPs are not gated, and how exact the
    rewriting of the others is.
    """

    def __init__(self, model: str, table: pd.DataFrame, symmetries: pd.DataFrame, notes: Sequence[str]) -> None:
        self.model, self.table, self.symmetries, self.notes = model, table, symmetries, list(notes)

    def save(self, folder: str | Path) -> list[Path]:
        """Write units.csv, symmetries.csv, notes.txt and, where there is a gated MLP, strength.png and forms.png.

        **Returns:** the files. **Raises:** `InputError` where the folder or a file cannot be written.
        """
        from matplotlib.figure import Figure

        from fisherflat import plot

        def figure(draw: Callable[..., Any]) -> Callable[[Path], None]:
            def write(path: Path) -> None:
                canvas = Figure(figsize=(3.4, 2.8), layout="constrained")  # not of pyplot: nothing is shown or kept
                draw(self.table, ax=canvas.subplots())
                canvas.savefig(path, dpi=200, format="png")

            return write

        files: dict[str, Callable[[Path], Any]] = {
            "units.csv": lambda path: self.table.to_csv(path, index=False),
            "symmetries.csv": lambda path: self.symmetries.to_csv(path, index=False),
            "notes.txt": lambda path: path.write_text("\n".join(self.notes) + "\n", encoding="utf-8"),
        }
        if len(self.table):
            files |= {"strength.png": figure(plot.broken_strength), "forms.png": figure(plot.unit_forms)}
        folder = made(folder)
        for name, write in files.items():
            with whole(folder / name) as part:
                write(part)
        return [folder / name for name in files]


def study(model: Model, prompts: Any) -> SymmetryStudy:
    """The symmetries of every gated MLP of a model, and how strongly they are broken on what enters it on the prompts.

    The columns of `.table`: `layer`; `unit`; `positive` and `negative`, the eigenvalues `(g·u ± |g||u|) / 2` of the
    unit's form; `exchange_defect`, of its scores; `strength`, `eigenvalue` and `effective_degree`, of the broken
    inverse scaling (`BrokenScaling`); `inverse_charge` and `output_charge` (`Charges`).

    **Args:** `model`, from `fisherflat.load`; `prompts`: a text, token ids, or a list of texts.

    **Raises:** what `Model.blocks` raises. An MLP that is not gated, or cannot be read, is a note.
    """
    import pandas as pd

    texts = prompts if isinstance(prompts, list) and all(isinstance(text, str) for text in prompts) else [prompts]
    tables, found, notes = [], [], []
    for blocks in zip(*(model.blocks(text) for text in texts), strict=True):
        index = blocks[0].index
        try:
            units = gated_units(blocks[0].mlp)
            error = _error(units, blocks[0])
        except (InputError, TraceError, CheckpointError) as failure:
            notes.append(f"layer {index}: {failure}")
            continue
        table = _units_table(units, torch.cat([block.mlp_input.double() for block in blocks]))
        table.insert(0, "layer", index)
        tables.append(table)
        found.append(symmetries(units).assign(layer=index))
        notes.append(f"layer {index}: {len(table)} gated units, rewritten with a relative error of {error:.1e}")
    empty = pd.DataFrame()
    return SymmetryStudy(
        model.name,
        pd.concat(tables, ignore_index=True) if tables else empty,
        pd.concat(found, ignore_index=True) if found else empty,
        notes,
    )


def _error(units: GatedUnits, block: Block) -> float:
    """The relative error of the MLP rewritten as bilinear attention, against its own graph in float64."""
    x = block.mlp_input.double()
    with torch.no_grad():
        expected = trace(block.mlp, x)(x)
        return float((units.as_bilinear_attention()(x) - expected).abs().max() / expected.abs().max())


def _units_table(units: GatedUnits, inputs: Tensor) -> pd.DataFrame:
    """A row for each unit of one MLP."""
    import pandas as pd

    broken, charges = broken_scaling(units, inputs), conserved_charges(units)
    dot, norms = (units.gate * units.up).sum(1), units.gate.norm(dim=1) * units.up.norm(dim=1)
    columns = {
        "positive": (dot + norms) / 2,
        "negative": (dot - norms) / 2,
        "exchange_defect": exchange_defect(units, inputs, by_unit=True),
        "strength": broken.strength,
        "eigenvalue": broken.eigenvalue,
        "effective_degree": broken.effective_degree,
        "inverse_charge": charges.inverse_scaling,
        "output_charge": charges.output_scaling,
    }
    numbers = {name: column.cpu().numpy() for name, column in columns.items()}
    return pd.DataFrame({"unit": range(len(dot)), **numbers})
