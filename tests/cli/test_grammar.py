"""All commands, walked through: one grammar, one voice, examples that run, exit codes that are documented."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from cases.tiny_models import save_tiny, save_word_tokenizer
from conftest import ROOT
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.cli import CODES, app
from fisherflat.cli import _options as options

GROUP: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = GROUP.commands
#: the options that take indices
INDICES = {"--layer", "--head", "--position", "--k"}
#: what every command can be told
VOICE = {"--json", "--quiet", "--verbose"}


def parameters() -> list[tuple[str, Any]]:
    return [(name, one) for name, command in COMMANDS.items() for one in command.params if one.name != "help"]


def help_of(*command: str) -> str:
    found = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"})
    assert found.exit_code == 0, found.output
    return found.output


# -- one grammar -------------------------------------------------------------------------------------------------------


def test_an_option_is_spelled_and_means_the_same_everywhere() -> None:
    """Its spellings, its kind, whether it may be repeated; and its help, but for where a result goes."""
    found: dict[str, set[tuple[Any, ...]]] = {}
    for _, one in parameters():
        if one.param_type_name == "option":
            spelled = tuple(name for name in one.opts if name != "--frozen")
            kind = (spelled, tuple(one.secondary_opts), one.multiple, one.is_flag)
            found.setdefault(spelled[0], set()).add(kind if spelled[0] == "--out" else (*kind, one.help))
    assert {"--layer", "--part", "--reading", "--position", "--prompt-file", "--download"} <= set(found)
    assert not {name: kinds for name, kinds in found.items() if len(kinds) > 1}


def test_options_have_long_names_of_words_with_dashes_and_a_help_that_is_a_sentence() -> None:
    for command, one in parameters():
        assert one.help, (command, one.name)
        if one.param_type_name == "option":
            # but for names of files and values, it begins as sentences do
            assert one.help[0].isupper() or re.match(r"'|config\.json|float64", one.help), one.help
            assert one.help[-1] == "."
            assert all(re.fullmatch(r"--[a-z]+(-[a-z]+)*", name) for name in [*one.opts, *one.secondary_opts])


def test_every_command_can_be_told_how_much_to_say() -> None:
    for name, command in COMMANDS.items():
        assert {opt for one in command.params for opt in one.opts} >= VOICE, name


def test_whatever_takes_a_prompt_takes_it_in_every_way_and_whatever_takes_a_model_loads_it_so() -> None:
    alike = [
        {"--prompt", "--prompt-file", "--ids"},
        {"--device", "--side", "--blocks", "--config", "--download"},
    ]
    for name, command in COMMANDS.items():
        spelled = {opt for one in command.params for opt in one.opts}
        arguments = {one.name for one in command.params if one.param_type_name == "argument"}
        for group in alike:
            assert name == "bench" or not group & spelled or group <= spelled, (name, group - spelled)
        if arguments & {"path", "paths"}:
            assert alike[1] <= spelled, name


@pytest.mark.parametrize(
    "wrong",
    [
        ["analyze", "python-llama", "--layer"],
        ["analyze", "python-llama", "--head"],
        ["analyze", "python-llama", "--position"],
        ["depth", "python-llama", "--position"],
        ["certify", "python-llama", "--layer"],
        ["certify", "python-llama", "--layer", "0", "--position"],
        ["bench", "--k"],
    ],
)
def test_indices_may_be_ranges_wherever_they_are_taken(wrong: list[str], tmp_path: Path) -> None:
    """They are read by one function, before a model is loaded, and what is none is wrong usage."""
    done = CliRunner().invoke(app, [*wrong, "0-1;2", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and "no index" in " ".join(done.output.replace("│", " ").split()), done.output
    table = {(one[0], one[-1]) for one in [["analyze", "--layer"], ["analyze", "--head"], ["analyze", "--position"]]}
    table |= {("depth", "--position"), ("certify", "--layer"), ("certify", "--position"), ("bench", "--k")}
    taken = {(command, one.opts[0]) for command, one in parameters() if one.opts[0] in INDICES}
    assert {pair for pair in taken if pair[0] not in ("compare", "track")} == table


def test_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.output == f"fisherflat {ff.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_options(shell: str) -> None:
    def completed(*typed: str) -> str:
        line = " ".join(["fisherflat", *typed])
        about = {"COMP_WORDS": line, "COMP_CWORD": str(len(typed)), "_TYPER_COMPLETE_ARGS": line}
        about |= {"_FISHERFLAT_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        code = "import sys; sys.argv = ['fisherflat']; from fisherflat.cli import main; main()"
        environment = {**os.environ, **about, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout

    assert "analyze" in completed("ana") and "certify" not in completed("ana")
    assert "--prompt-file" in completed("analyze", "x", "--promp")


# -- help and examples -------------------------------------------------------------------------------------------------


def test_exit_codes_are_documented() -> None:
    """In the help and on the page, all of them and no others."""
    page = (ROOT / "docs" / "shell.md").read_text()
    of_page = {int(code): what for code, what in re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)}
    of_help = {int(code): what for code, what in re.findall(r"^ *(\d+)  (\S.*?) *$", help_of(), re.MULTILINE)}
    assert of_page == of_help == CODES
    for name in COMMANDS:
        codes = re.search(r"Exit codes: ([\d, ]+);", help_of(name))
        assert codes and [int(code) for code in codes[1].split(",")] == list(CODES)


def examples(name: str) -> list[str]:
    """The examples of a command as a user would copy them from its help."""
    lines = [line.strip() for line in help_of(name).partition("Example")[2].splitlines()[1:]]
    text = "\n".join(lines[: next(i for i, line in enumerate(lines) if line.startswith("Exit codes"))])
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


def test_every_help_has_examples_of_its_command() -> None:
    for name in COMMANDS:
        found = examples(name)
        assert found and all(line.startswith("fisherflat ") for line in found), (name, found)
        assert any(line.startswith(f"fisherflat {name} ") for line in found), name


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_the_help_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are printed, one after the other; what they say was written is all that was, and no name has a space."""
    monkeypatch.chdir(tmp_path)
    said: set[Path] = set()
    for line in examples(name):
        done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert done.exit_code == 0, (line, done.output)
        said |= {tmp_path / one for one in re.findall(r"^written: (.*)$", done.stdout, re.MULTILINE)}
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert files == said
    assert not [path for path in files if re.search(r"[^\w./-]", str(path.relative_to(tmp_path)))]
    for path in files:
        if path.suffix == ".csv":
            assert path.read_text().partition("\n")[0].strip(), f"{path} has no header"


# -- what is said, and where -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = save_tiny(tmp_path_factory.mktemp("tiny") / "model", "bert")
    save_word_tokenizer(made)
    return made


SMALL = ["--prompt", "the cat sat"]
RUNS: dict[str, list[str]] = {
    "inspect": [],
    "analyze": [*SMALL, "--layer", "0", "--points", "1"],
    "depth": [*SMALL, "--points", "1", "--budget-points", "0", "--resolution", "0", "--reading", "live"],
    "symmetry": SMALL,
    "certify": [*SMALL, "--layer", "0-1", "--reading", "frozen pattern"],
    "compare": [*SMALL, "--layer", "0", "--part", "mlp", "--points", "1"],
    "track": [*SMALL, "--layer", "0", "--part", "mlp", "--points", "1"],
}


def run(name: str, folder: Path, out: Path, *more: str) -> Any:
    target = out / ("one.json" if name in ("inspect", "certify") else "folder")
    out.mkdir(exist_ok=True)
    models = [str(folder)] * (2 if name == "compare" else 1)
    return CliRunner().invoke(app, [name, *models, *RUNS[name], "--out", str(target), *more])


@pytest.mark.parametrize("name", RUNS)
def test_results_are_one_json_each_on_the_standard_output_and_nothing_else(
    name: str, folder: Path, tmp_path: Path
) -> None:
    done = run(name, folder, tmp_path, "--json")
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == (3 if name == "certify" else 1)  # two certificates, and the page of all that are there
    for one in found:
        assert one["kind"] and all(Path(file).is_file() for file in one["files"])
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path(file) for one in found for file in one["files"]} == written
    assert all(str(path) in done.stderr for path in written)
    for path in tmp_path.rglob("*.csv"):  # also a table without rows says what its columns are
        assert len(path.read_text().partition("\n")[0].split(",")) > 2, path


@pytest.mark.parametrize("name", RUNS)
def test_quiet_says_nothing(name: str, folder: Path, tmp_path: Path) -> None:
    done = run(name, folder, tmp_path, "--quiet")
    assert done.exit_code == 0 and done.stdout == ""
    assert not [line for line in done.stderr.splitlines() if not line.startswith("fisherflat: warning: ")]


def test_json_holds_the_numbers_of_python(folder: Path, tmp_path: Path) -> None:
    found = json.loads(run("analyze", folder, tmp_path, "--json", "--quiet").stdout)
    table = ff.analyze(folder, "the cat sat", layers=[0], points=1, progress=False).table
    numbers = [row["scalar_curvature"] for row in found["tables"]["table"]]
    assert numbers == pytest.approx(list(table["scalar_curvature"]), rel=1e-9)
    assert found["complete"] and found["summary"]


def test_by_default_a_headline_and_one_table_and_on_request_all(folder: Path, tmp_path: Path) -> None:
    short = run("analyze", folder, tmp_path / "a").stdout
    long = run("analyze", folder, tmp_path / "b", "--verbose").stdout
    assert short.count("┃ layer") == 1 and long.count("┃ layer") == 3
    assert "Attention with its pattern frozen: flat, by structure alone, in" in " ".join(short.split())
    assert "So, where it was measured, the softmax pattern alone bends this attention." in " ".join(long.split())


def test_a_name_that_is_no_folder_is_not_fetched_unless_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[bool] = []

    def fetch(name: str, *, local_files_only: bool, **more: Any) -> str:
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    done = CliRunner().invoke(app, ["inspect", "somebody/some-model"])
    assert asked == [True] and "is not a folder" in str(done.exception) and "--download" in str(done.exception)
    CliRunner().invoke(app, ["inspect", "somebody/some-model", "--download"])
    assert asked == [True, False]


def test_certify_and_analyze_speak_of_the_same_prompt_point_and_covariance(folder: Path, tmp_path: Path) -> None:
    """With nothing but the model and the layer: the proved number is that of a row of the table."""
    arguments = [str(folder), "--layer", "0", "--part", "attention", "--reading", "live"]
    assert CliRunner().invoke(app, ["certify", *arguments, "--out", str(tmp_path / "c.json")]).exit_code == 0
    assert CliRunner().invoke(app, ["analyze", *arguments, "--out", str(tmp_path / "a")]).exit_code == 0
    certificate, table = ff.Certificate.load(tmp_path / "c.json"), ff.Analysis.load(tmp_path / "a").table
    assert set(table["text"]) == set(options.PROMPT)
    rows = table[(table["position"] == table["position"].max()) & (table["point"] == 0)]
    assert rows["scalar_curvature"].item() / 2 == pytest.approx(float(certificate.enclosure[0]), rel=1e-8)
