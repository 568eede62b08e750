"""A study of a model's symmetries: its sentences, its figures, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat import plot
from fisherflat._display import Card
from fisherflat._files import read_json, regular
from fisherflat._version import __version__
from fisherflat.certificates import Certificate, SymmetryCertificate
from fisherflat.models import as_model
from fisherflat.pages import Section
from fisherflat.report import _symmetry_page as page
from fisherflat.report._captions import caption
from fisherflat.report._result import Result, reading
from fisherflat.report._writer import Content, Figure
from fisherflat.studies.symmetry import Symmetries, place, study

if TYPE_CHECKING:
    from rich.table import Table


class SymmetryStudy(Symmetries, Result):
    """The symmetries of the gated MLPs of a model: what `fisherflat.symmetry.study` returns.

    **Attributes:** `model`, its name; `table`, a row for each unit of each gated MLP; `certificates`, of their
    symmetries, one an MLP; `notes`: which MLPs are not gated, and how exact the rewriting of the others is; `complete`,
    false after an interrupt; `settings`, the prompts, fit for JSON; `versions`, it was made with.
    """

    document = "symmetry.json"
    kind = "The symmetries of a model's gated MLPs"

    def sentences(self) -> list[str]:
        """The notes: which MLPs are not gated and why, and how exact the rewriting of the others is."""
        return self.notes if self.complete else [*self.notes, "Interrupted: this is all that was done until then."]

    def headline(self) -> str:
        """How many units there are, and how strongly their inverse scaling is broken."""
        if not len(self.table):
            return super().headline()
        median = self.table["strength"].median()
        broken = "" if median != median else (
            f", whose inverse scaling is broken by {median:.2g} in the median, on a scale from 0 to √2"
        )  # fmt: skip
        return f"{len(self.table)} units in {len(self.certificates)} gated MLPs{broken}."

    def caveats(self) -> list[str]:
        """That it was interrupted, where it was."""
        return [] if self.complete else self.sentences()[-1:]

    @property
    def proofs(self) -> dict[str, Certificate]:
        """The certificates, by the names of their files."""
        return {_file(certificate): certificate for certificate in self.certificates}

    def opening(self) -> list[str]:
        """Which symmetries are proved to hold, what is most broken and how far, and what breaks it."""
        return page.opening(self)

    def sections(self) -> list[Section]:
        """The page of a study of symmetries, from what matters most."""
        return page.sections(self)

    def methods(self) -> list[Any]:
        """How it was made."""
        return page.methods(self)

    def overview(self) -> list[Table]:
        """How broken the inverse scaling of units is, a row an MLP."""
        from rich.table import Table

        if not len(self.table):
            return []
        table = Table(title="How strongly the inverse scaling of units is broken (0 to √2)", title_justify="left")
        mixed = "expert" in self.table
        for name in ("layer", *(["expert"] if mixed else []), "units", "median", "90 %", "effective degree, median"):
            table.add_column(name, justify="right")
        for row in self.layers.itertuples():
            cells = [str(row.layer), *([f"{row.expert:g}"] if mixed else []), str(row.units)]
            numbers = (row.strength_median, row.strength_90, row.degree_median)
            table.add_row(*cells, *("-" if number != number else f"{number:.3f}" for number in numbers))
        return [table]

    def files(self) -> dict[str, Content]:
        """`units.csv`, `symmetries.csv`, `notes.txt`, `symmetry.json`, and, where a MLP is gated, figures and proofs.

        The figures are `strength.png` and `forms.png`; the proofs are one certificate an MLP,
        `certificates/layer-000.json`, for `fisherflat verify`.
        """
        proofs = {file: certificate.save for file, certificate in self.proofs.items()}
        files: dict[str, Content] = {
            "units.csv": self.table,
            "symmetries.csv": self.symmetries,
            "notes.txt": self.notes,
            self.document: {
                "fisherflat": __version__,
                "versions": self.versions,
                "settings": self.settings,
                "model": self.model,
                "complete": self.complete,
                "notes": self.notes,
                "certificates": list(proofs),
            },
        }
        if len(self.table):
            strength = caption(
                self.model, "how broken inverse scaling is", self.settings.get("texts", []),
                "a line a layer: its units, in order; no mean, no σ",
            )  # fmt: skip
            forms = caption(
                self.model, "gate and up vectors of units", [], "a point a unit; of the weights alone, no mean, no σ"
            )
            files["strength.png"] = Figure.of(lambda ax: plot.broken_strength(self.table, ax=ax), 2.8, about=strength)
            files["forms.png"] = Figure.of(lambda ax: plot.unit_forms(self.table, ax=ax), 2.8, about=forms)
        return files | proofs

    @classmethod
    def load(cls, folder: str | Path) -> SymmetryStudy:
        """The study that `save` wrote into a folder.

        **Raises:** `InputError` where its files are not there or not whole, `CertificateError` for a damaged proof.
        """
        import pandas as pd

        with reading(folder, "a saved study of symmetries") as path:
            about = read_json(path / cls.document)
            table = pd.read_csv(regular(path / "units.csv"), dtype=str).apply(lambda column: column.map(_number))
            proofs = [Certificate.load(path / name) for name in about["certificates"]]
            versions = about.get("versions", {"fisherflat": about["fisherflat"]})
            more = {"settings": about.get("settings", {}), "versions": versions}
            return cls(about["model"], table, proofs, about["notes"], about["complete"], **more)  # type: ignore[arg-type]

    def _card(self) -> Card:
        """How broken inverse scaling is, a row an MLP."""
        about = {"units": len(self.table), "certificates": len(self.certificates), **super()._card().facts}
        found = self.layers if len(self.table) else self.table
        columns = [name for name in ("layer", "expert", "units", "strength_median", "strength_90") if name in found]
        rows = found[columns].to_numpy().tolist()
        return Card(
            f"{self.model}: symmetries of gated MLPs", about, [name.replace("_", " ") for name in columns], rows
        )

    def __repr__(self) -> str:
        units = f"{len(self.table)} units in {len(self.certificates)} MLPs"
        return f"SymmetryStudy({self.model!r}, {units}{'' if self.complete else ', incomplete'})"


def _number(cell: Any) -> float:
    """A cell as it was written: Python reads all digits, whatever pandas does by default."""
    return cell if not isinstance(cell, str) else int(cell) if cell.isdecimal() else float(cell)


def _file(certificate: SymmetryCertificate) -> str:
    where = place(certificate)
    expert = f"-expert-{where['expert']:03}" if "expert" in where else ""
    return f"certificates/layer-{where['layer']:03}{expert}.json"


def study_symmetry(model: Any, prompts: Any, *, progress: bool = True) -> SymmetryStudy:
    """The symmetries of every gated MLP of a model, and how strongly they are broken on what enters it on the prompts.

    Layer by layer: the weights are read from the traced graph, the rewriting as bilinear attention is compared with it
    (*Gated MLPs as Symmetry-Broken Rank-1 Bilinear Attention*, arXiv 2606.22172), the symmetries are proved or refuted,
    and each unit is measured. Nothing but numbers is kept, so that a model whose weights stay on disk needs the memory
    of one layer. A mixture is studied expert by expert, each on the tokens that the router gives it.

    **Args:**

    - `model`, loaded, a module with a list of blocks, or what `fisherflat.load` takes.
    - `prompts`: a text, token ids `[n]`, hidden states `[n, d]`, or a sequence of those.
    - `progress`: show a bar with the time left, on the error stream.

    **Returns:** a `SymmetryStudy`. The columns of its `table`: `layer`; `expert`, where there are mixtures; `unit`;
    `positive` and `negative`, the eigenvalues `(g·u ± |g||u|) / 2` of its form; `exchange_defect`, of its scores;
    `strength`, `eigenvalue` and `effective_degree`, of the broken inverse scaling (`BrokenScaling`); `inverse_charge`
    and `output_charge` (`Charges`); and for each of them, as `positive_error` and so on, how far off rounding may have
    put it. What depends on inputs is NaN for an expert without any. Ctrl-C ends early: `.complete` is false, and the
    layers that were done are there.

    **Raises:** `CheckpointError` and `InputError` for a model or prompts that cannot be used. An MLP that is not gated,
    or cannot be read, is a note.

    >>> import fisherflat as ff
    >>> found = ff.symmetry.study("python-llama", [1, 2, 3, 4], progress=False)
    >>> found.layers[["layer", "units"]].values.tolist()
    [[0, 288], [1, 288], [2, 288], [3, 288]]
    """
    return SymmetryStudy(**vars(study(as_model(model), prompts, progress=progress)))
