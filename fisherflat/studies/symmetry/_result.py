"""What a study of a model's gated MLPs found: tables, certificates, notes, and the files they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat._files import made, write_all
from fisherflat.certificates import SymmetryCertificate

if TYPE_CHECKING:
    import pandas as pd


class SymmetryStudy:
    """What `study` found.

    **Attributes:** `model`, its name; `table`, a row for each unit of each gated MLP; `certificates`, of their
    symmetries, one an MLP; `notes`: which MLPs are not gated, and how exact the rewriting of the others is; `complete`,
    false where it was interrupted.
    """

    def __init__(
        self,
        model: str,
        table: pd.DataFrame,
        certificates: Sequence[SymmetryCertificate],
        notes: Sequence[str],
        complete: bool = True,
    ) -> None:
        self.model, self.table, self.certificates, self.notes = model, table, list(certificates), list(notes)
        self.complete = complete

    @property
    def symmetries(self) -> pd.DataFrame:
        """The tables of `fisherflat.symmetry.symmetries`, with columns `layer` and, for a mixture, `expert`."""
        import pandas as pd

        return pd.DataFrame([{**_place(c), **row} for c in self.certificates for row in c.rows()])

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

    def summary(self) -> Any:
        """A table for the terminal, by MLP; `None` where there is no gated MLP."""
        from rich.table import Table

        if not len(self.table):
            return None
        table = Table(title="Inverse scaling of units: how broken (0 to √2)", title_justify="left")
        mixed = "expert" in self.table
        for name in ("layer", *(["expert"] if mixed else []), "units", "median", "90 %", "effective degree, median"):
            table.add_column(name, justify="right")
        for row in self.layers.itertuples():
            cells = [str(row.layer), *([f"{row.expert:g}"] if mixed else []), str(row.units)]
            numbers = (row.strength_median, row.strength_90, row.degree_median)
            table.add_row(*cells, *("-" if number != number else f"{number:.3f}" for number in numbers))
        return table

    def save(self, folder: str | Path) -> list[Path]:
        """Write the files: units.csv, symmetries.csv, notes.txt, and, where there is a gated MLP, figures and proofs.

        The figures are strength.png and forms.png; the proofs are one certificate an MLP,
        `certificates/layer-000.json`, for `fisherflat verify`.

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

        symmetries = self.symmetries
        files: dict[str, Callable[[Path], Any]] = {
            "units.csv": lambda path: self.table.to_csv(path, index=False),
            "symmetries.csv": lambda path: symmetries.to_csv(path, index=False),
            "notes.txt": lambda path: path.write_text("\n".join(self.notes) + "\n", encoding="utf-8"),
        }
        if len(self.table):
            files |= {"strength.png": figure(plot.broken_strength), "forms.png": figure(plot.unit_forms)}
        written = write_all(folder, files)
        for certificate in self.certificates:
            place = _place(certificate)
            expert = f"-expert-{place['expert']:03}" if "expert" in place else ""
            written.append(made(Path(folder) / "certificates") / f"layer-{place['layer']:03}{expert}.json")
            certificate.save(written[-1])
        return written


def _place(certificate: SymmetryCertificate) -> dict[str, int]:
    """Which MLP of the model it is about."""
    subject = certificate.subject or {}
    return {name: subject[name] for name in ("layer", "expert") if name in subject}
