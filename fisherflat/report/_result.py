"""The protocol of a result: tables, sentences and figures by name, and the files that they become."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fisherflat._display import Card, displayed
from fisherflat._files import claimed, read_json, visible, whole
from fisherflat._version import __version__
from fisherflat.errors import FisherflatError, InputError
from fisherflat.pages import Facts, Page, Section, html
from fisherflat.report._drawn import Drawn
from fisherflat.report._page import PAGE, certified, proofs_in
from fisherflat.report._writer import Content, Figure, in_formats, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

    from fisherflat.certificates import Certificate
    from fisherflat.pages import Item


@displayed
class Result(ABC):
    """What a study found, as people read and keep it.

    **Attributes:** `model`, the name of what was studied; `complete`, false after an interrupt: then it holds what was
    done until then; `versions`, it was made with, by program.
    """

    model: str
    complete: bool
    versions: dict[str, str]
    #: what it is, as the heading of its page
    kind: ClassVar[str]
    #: the file that says what the others of a folder hold
    document: ClassVar[str]

    @abstractmethod
    def sentences(self) -> list[str]:
        """What the numbers say, in words."""

    @property
    def path(self) -> str:
        """What stands for the model in a command."""
        return self.model

    @property
    def proofs(self) -> dict[str, Certificate]:
        """The certificates that it holds itself, by the names of their files."""
        return {}

    @abstractmethod
    def opening(self) -> list[str]:
        """Three sentences for who knows PyTorch and no geometry: what is flat, what is most curved, what makes it."""

    def scale(self) -> list[str]:
        """What it takes to judge the numbers of the headline."""
        return []

    @abstractmethod
    def sections(self) -> list[Section]:
        """What is to be read of it, from what matters most; with figures and tables."""

    @abstractmethod
    def methods(self) -> list[Item]:
        """How it was made, with what it takes to make it again."""

    @abstractmethod
    def overview(self) -> list[Table]:
        """The most important numbers, for the terminal."""

    @abstractmethod
    def files(self) -> Mapping[str, Content]:
        """What `save` writes, by the names of the files: tables, figures as recipes, and all that `load` needs."""

    @classmethod
    @abstractmethod
    def load(cls, folder: str | Path) -> Self:
        """The result that `save` wrote into a folder.

        **Raises:** `InputError` where its files are not there or not whole.
        """

    def headline(self) -> str:
        """What matters most, in a sentence or two."""
        return "".join(self.sentences()[:1])

    def caveats(self) -> list[str]:
        """What limits what the numbers say, such as an interrupt; among the sentences."""
        return []

    def glance(self) -> list[Table]:
        """The one table that belongs to the headline, if there is any."""
        return self.overview()[:1]

    def content(self) -> dict[str, Any]:
        """All of it, fit for JSON: its kind, what its document holds, and the rows of its tables by name."""
        tables = {name: _rows(table) for name, table in self.tables.items()}
        return {"kind": type(self).__name__, **self.files()[self.document], "tables": tables}

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables, by the names of their files without the suffix."""
        files = {name.removesuffix(".csv"): made for name, made in self.files().items() if name.endswith(".csv")}
        return {name: table for name, table in files.items() if not callable(table)}  # what writes itself is none

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures, by the names of their files without the suffix: `.draw()` makes one of matplotlib."""
        return {name.removesuffix(".png"): made for name, made in self.files().items() if isinstance(made, Figure)}

    def plot(self, *names: str) -> Drawn:
        """The figures, drawn: all of them, or those of some `names` out of `figures`.

        **Returns:** figures of matplotlib by name, which a notebook displays, and `save` writes. **Raises:**
        `InputError` for a name that is none of a figure.
        """
        made = self.figures
        if unknown := [name for name in names if name not in made]:
            raise InputError(f"there is no figure {unknown[0]!r}; there are {', '.join(made) or 'none'}")
        return Drawn({name: made[name] for name in names or made})

    def save(self, folder: str | Path, *, formats: Any = ("png",)) -> list[Path]:
        """Write the tables, the sentences, the figures and the page, as far as there is something to show.

        Each file is there as a whole or not at all, and takes the place of one of that name; `load` reads them again.
        What a result that was saved there before has beyond these is removed, and nothing else.

        **Args:** `formats`, what figures are written as, out of `png`, `pdf` and `svg`, one or several.

        **Returns:** the files. **Raises:** `InputError` where the folder cannot be made or written to, or another run
        writes to it, or there is no such format.
        """
        files = in_formats({**self.files(), PAGE: self.report}, formats)
        about = files.pop(self.document)
        about = {**about, "files": sorted([*files, self.document]), "folders": list(self.folders)}
        files[self.document] = about  # comes last: what it says is there is there
        with claimed(folder) as place:
            _discard(place, place / self.document, about)
            return write(files, folder)

    def report(self, path: str | Path) -> Path:
        """Write the whole result as one page that needs nothing else: HTML, with its figures in it.

        Certificates that lie in the same folder are on it.

        **Returns:** the file. **Raises:** `InputError` where it cannot be written.
        """
        path = Path(path)
        text = html(page_of(self, proofs_in(path.parent)))
        with whole(path) as part:
            part.write_text(text, encoding="utf-8")
        return path

    @property
    def folders(self) -> Sequence[str]:
        """Folders beside the files that hold results of their own, by name."""
        return ()

    def summary(self, *, verbose: bool = True) -> RenderableType:
        """The most important numbers as tables, and the sentences; for `rich.print`.

        **Args:** `verbose`: all of them; otherwise the headline, one table, and what limits what they say.
        """
        from rich.console import Group
        from rich.markup import escape

        if verbose:
            before, tables, after = [], self.overview(), self.sentences()
        else:
            before, tables, after = [self.headline()], self.glance(), self.caveats()
        name, *said = (escape(visible(text)) for text in (self.model, *before, *after) if text)
        return Group(name, *said[: len(before)], *tables, *said[len(before) :])

    def _card(self) -> Card:
        """The headline and a small table, of numbers that are there."""
        about = {"kind": type(self).__name__, "complete": "yes" if self.complete else "no, it was interrupted"}
        return Card(self.model, about)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}{'' if self.complete else ', incomplete'})"


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, with `None` where there is nothing."""
    whole = table.astype(object)
    rows: list[dict[str, Any]] = whole.where(whole.notna(), None).to_dict("records")
    return rows


def page_of(found: Result, proofs: Mapping[str, Certificate]) -> Page:
    """A result as a page, whatever it is of; `proofs`, certificates that lie beside it, by the names of their files."""
    proofs = {**found.proofs, **proofs}
    shown_proofs = [certified(proofs, found.path)] if proofs else []
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    made = [*found.methods(), Facts({"versions": versions})]
    return Page(
        title=found.model,
        kind=found.kind,
        headline=found.opening(),
        scale=found.scale(),
        sections=[*found.sections(), *shown_proofs, Section("How it was made", made)],
        complete=found.complete,
        maker=f"fisherflat {__version__}",
    )


@contextmanager
def room_for(kind: type[Result], folder: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder for a result of a kind, made if it is not there and held until the end.

    **Raises:** `InputError` where another run holds it, or it holds a finished result of that kind and `overwrite` is
    false.
    """
    with claimed(folder) as place:
        if not overwrite and _finished(place / kind.document):
            raise InputError(f"{folder} holds a finished {kind.__name__}; overwrite it, or choose another folder")
        yield place


def _finished(document: Path) -> bool:
    """Whether a study that was saved is whole, as it may be where its document is damaged."""
    try:
        return document.exists() and read_json(document).get("complete") is not False
    except InputError:
        return True


def _discard(folder: Path, document: Path, kept: Mapping[str, Sequence[str]]) -> None:
    """Remove what a document says that its result wrote into a folder, but for files and folders that are kept."""
    try:
        before = read_json(document)
    except InputError:  # there was none, or nobody can tell what it wrote
        return
    for place in _named(folder, before.get("folders"), kept["folders"]):
        for beneath in place.glob("*.json"):
            _discard(place, beneath, _NOTHING)
        _remove_empty(place, folder)
    for place in _named(folder, before.get("files"), kept["files"]):
        with suppress(OSError):  # what is no file, or is gone
            place.unlink()
        _remove_empty(place.parent, folder)


_NOTHING: Mapping[str, Sequence[str]] = {"files": (), "folders": ()}


def _named(folder: Path, names: object, kept: Sequence[str]) -> list[Path]:
    """What names, which anyone may have written, mean within a folder: not above it, and behind no link."""
    found = [Path(name) for name in names if isinstance(name, str)] if isinstance(names, list) else []
    within = [name for name in found if name.parts and not name.is_absolute() and ".." not in name.parts]
    real = folder.resolve()
    return [folder / name for name in within if name.as_posix() not in kept and _is_real(real / name)]


def _is_real(place: Path) -> bool:
    with suppress(OSError, ValueError):
        return place.parent.resolve() == place.parent
    return False


def _remove_empty(place: Path, above: Path) -> None:
    with suppress(OSError):  # it holds something else
        while place != above:
            place.rmdir()
            place = place.parent


@contextmanager
def reading(folder: str | Path, what: str) -> Iterator[Path]:
    """The folder of a saved result, while it is read; `what` it is, with its article.

    **Raises:** `InputError` where its files are not there or not whole.
    """
    try:
        yield Path(folder)
    except FisherflatError as error:
        if not isinstance(error, InputError):
            raise
        raise InputError(f"{folder} does not hold the files of {what} ({error})") from error
    except Exception as error:  # whatever readers of tables and tensors make of damaged files
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{folder} does not hold the files of {what} ({reason})") from error
