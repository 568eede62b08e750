"""Every notebook runs from a clean kernel, ships with its outputs, and says in prose what its outputs say."""

from __future__ import annotations

import re
import runpy
from functools import cache

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = ROOT / "notebooks"
NAMES = ["01_quickstart", "02_flat_or_curved", "03_your_checkpoint", "04_depth", "05_gated_mlp", "06_papers"]
notebooks = pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.ipynb")))


@cache
def shipped(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


@cache
def executed(name: str) -> NotebookNode:
    """The notebook, run from a clean kernel."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    environment = runpy.run_path(str(ROOT / ".ci" / "notebooks.py"))["ENVIRONMENT"]
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        resources = {"metadata": {"path": FOLDER}}
        return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def texts(notebook: NotebookNode) -> list[str]:
    """What the outputs say, as plain text."""
    found = []
    for output in outputs(notebook):
        data = output.get("data", {})
        said = output.get("text") or data.get("text/html") or data.get("text/plain") or data.get("text/markdown") or ""
        found.append(re.sub(r"<style.*?</style>|<[^>]+>|\x1b\[[\d;]*m", " ", said, flags=re.DOTALL))
    return found


def decimals(text: str) -> list[tuple[float, float]]:
    """The numbers with a decimal point in a text, each with half a unit of its last place."""
    found = re.findall(r"(?<![\w.])([-+]?\d+\.(\d+)(?:e[-+]\d+)?)(?![\w.]*\d)", text.replace("−", "-"))
    return [(float(number), 0.5 * 10.0 ** -len(places)) for number, places in found]


def claimed(notebook: NotebookNode) -> list[tuple[float, float]]:
    """The numbers with a decimal point in the prose of a notebook; those of formulas, code and papers are none."""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    prose = re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$|arXiv \d+\.\d+", " ", prose, flags=re.DOTALL)
    return decimals(re.sub(r"depth\^|exp\(", " ", prose))


def unsupported(notebook: NotebookNode, prose: NotebookNode) -> list[float]:
    """The numbers of the prose that no output rounds to."""
    said = [number for text in texts(notebook) for number, _ in decimals(re.sub(r"depth\^|exp\(|\d%", " ", text))]
    said += [float(share) for text in texts(notebook) for share in re.findall(r"([\d.]+) ?%", text) if share != "."]
    return [number for number, half in claimed(prose) if not any(abs(number - each) <= 1.001 * half for each in said)]


def test_they_are_all_there() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb"))[: len(NAMES)] == NAMES


@notebooks
def test_it_runs_from_a_clean_kernel_and_the_prose_agrees(name: str) -> None:
    assert claimed(shipped(name))
    assert not unsupported(executed(name), shipped(name))


@notebooks
def test_it_ships_with_outputs_that_the_prose_agrees_with(name: str) -> None:
    notebook = shipped(name)
    nbformat.validate(notebook)
    run = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in run] == list(range(1, len(run) + 1))
    assert sum(bool(cell.outputs) for cell in run) > len(run) / 2
    assert not unsupported(notebook, notebook)


@notebooks
def test_its_outputs_hold_no_error_and_no_path_of_a_machine(name: str) -> None:
    for output in outputs(shipped(name)):
        assert output.output_type != "error" and output.get("name") != "stderr"
        said = output.get("text", "") + " ".join(
            str(data) for kind, data in output.get("data", {}).items() if not kind.startswith("image/")
        )
        assert not re.search(
            r"(?<!\w)/(?:home|root|tmp|Users|usr|opt|work|var)/|site-packages|Traceback|\bWarning:", said
        )


def test_they_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.glob("*.ipynb")}
    assert sum(sizes.values()) < 4 * 2**20 and max(sizes.values()) < 2**20


def test_a_number_that_no_output_has_is_found() -> None:
    def cell(said: str) -> NotebookNode:
        return nbformat.v4.new_markdown_cell(said)

    run = nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("stream", text="-0.04581, 99.2%, depth^0.535")])
    notebook = nbformat.v4.new_notebook(cells=[run])
    right = nbformat.v4.new_notebook(
        cells=[cell("it is −0.0458, 99.2% and depth^0.54, see arXiv 2604.14702 and `1.5`")]
    )
    wrong = nbformat.v4.new_notebook(cells=[cell("it is 0.0458 or −0.0459")])
    assert not unsupported(notebook, right)
    assert unsupported(notebook, wrong) == [0.0458, -0.0459]
