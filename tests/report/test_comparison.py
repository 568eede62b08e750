"""Comparisons: simulated analyses with known effect and with none, the same numbers by the long way, bad input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.tiny_models import save_word_tokenizer, tiny_model
from matplotlib.text import Text
from rich.console import Console
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.cli import app
from fisherflat.errors import InputError
from fisherflat.models import Model
from fisherflat.pages import Points
from fisherflat.studies.layers._study import Study

PROMPTS = [f"prompt {number}" for number in range(12)]
QUANTITIES = dict.fromkeys(
    ["mean_sectional_curvature", "smallest_sectional_curvature", "largest_sectional_curvature", "volume_density"], 1.0
)


def simulated(
    rng: np.random.Generator,
    *,
    effect: Sequence[float] = (0.0, 0.0, 0.0),
    shared: np.ndarray | None = None,
    name: str = "simulated",
    **change: Any,
) -> ff.Analysis:
    """An analysis with a made-up curvature: what all share on a prompt, an effect by layer, and noise."""
    rows = []
    for layer, more in enumerate(effect):
        for number, text in enumerate(PROMPTS):
            for position in (2, 4):
                common = 0.0 if shared is None else shared[number]
                rows.append(
                    {
                        "layer": layer, "part": "mlp", "roles": "mlp gate", "reading": "live", "prompt": number,
                        "text": text, "position": position, "token": f"t{position}", "point": 0, "u": [0.0, 0.0],
                        "scalar_curvature": 1.0 + layer + common + more + rng.normal(0, 0.1),
                        "scalar_curvature_error": 1e-9, "verdict": "curved", **QUANTITIES,
                    } | change
                )  # fmt: skip
    return ff.Analysis(rows, model=name, settings={"points": 1}, complete=True)


def test_a_known_effect_is_found_with_its_sign_and_size_and_none_where_there_is_none() -> None:
    """What both share varies ten times as much as the effect, and cancels in the pairs."""
    found = {"larger": 0, "smaller": 0, "uncertain": 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shared = rng.normal(0, 2, len(PROMPTS))
        a = simulated(rng, shared=shared, name="a")
        b = simulated(rng, shared=shared, effect=(0.2, -0.2, 0.0), name="b")
        table = ff.compare(a, b).table.set_index("layer")
        assert list(table["word"])[:2] == ["larger", "smaller"]
        assert table.loc[0, "low"] <= 0.3 and table["mean"].tolist() == pytest.approx([0.2, -0.2, 0], abs=0.15)
        assert (table["noise_floor"] > 0.3).all()  # prompts differ by far more than the models
        found[table.loc[2, "word"]] += 1
    assert found["uncertain"] >= 16


def test_the_page_opens_with_the_largest_difference_that_is_sure_or_with_why_none_is() -> None:
    a = simulated(np.random.default_rng(0), name="a")
    b = simulated(np.random.default_rng(1), effect=(0.5, -2.0, 0.0), name="b")
    opened = ff.compare(a, b).opening()
    assert "The largest difference that is sure is in b, layer 1, mlp, live: -" in opened[1]
    few = [ff.Analysis(one.rows[:2], model=one.model, settings={}, complete=True) for one in (a, b)]
    found = ff.compare(*few)  # two positions of one prompt: intervals exclude zero, and are not of 95 %
    assert set(found.table["word"]) == {"too few"} and found.opening()[1].startswith(
        "No difference is sure: with fewer"
    )
    assert "exclude zero" in ff.compare(a, a).opening()[1] and "Nothing differs" in ff.compare(a, a).opening()[2]


def test_the_page_says_nothing_twice_and_has_no_empty_part() -> None:
    a = simulated(np.random.default_rng(0), name="a")
    b = simulated(np.random.default_rng(1), effect=(0.5, 0.0, 0.0), name="b")
    sections = ff.compare(a, b).sections()
    lines = [line for part in sections for item in part.items if isinstance(item, Points) for line in item.lines]
    assert len(lines) == len(set(lines)) and all(part.items for part in sections)
    assert all(item.lines for part in sections for item in part.items if isinstance(item, Points))


def test_an_analysis_against_itself_differs_in_nothing() -> None:
    a = simulated(np.random.default_rng(0))
    found = ff.compare(a, a)
    assert (found.table["mean"] == 0).all() and set(found.table["word"]) == {"the same"}
    assert found.names == ["simulated", "simulated (2)"]
    assert found.agreement["rank"].item() == 1 and found.agreement["sign"].item() == 1


def test_pairs_belong_together_whatever_the_order_of_the_prompts() -> None:
    a = simulated(np.random.default_rng(0))
    turned = [row | {"prompt": len(PROMPTS) - 1 - row["prompt"]} for row in reversed(a.rows)]
    b = ff.Analysis(turned, model="b", settings={}, complete=True)
    assert (ff.compare(a, b).table["mean"] == 0).all()


def test_other_tokens_are_compared_by_the_means_of_prompts() -> None:
    rng = np.random.default_rng(0)
    a, b = simulated(rng, name="a"), simulated(rng, name="b")
    for row in b.rows:
        row["position"] += 1
    found = ff.compare(a, b)
    assert found.pairs is not None and len(found.pairs.table) == 3 * len(PROMPTS)
    for layer, row in found.table.set_index("layer").iterrows():
        by_hand = [
            np.mean([r["scalar_curvature"] for r in x.rows if r["layer"] == layer and r["text"] == PROMPTS[3]])
            for x in (a, b)
        ]
        pair = found.pairs.table.query("layer == @layer and text == @PROMPTS[3]")
        assert pair["difference"].item() == pytest.approx(by_hand[1] - by_hand[0])
        assert row["clusters"] == len(PROMPTS)
    assert any("the means of prompts are compared" in note for note in found.notes)


def test_unequal_prompts_are_refused_and_named() -> None:
    a, b = (simulated(np.random.default_rng(0), name=name) for name in "ab")
    b.rows = [row | {"text": "another\x1b[2J"} if row["prompt"] == 3 else row for row in b.rows]
    with pytest.raises(InputError, match=r"only a was measured on 'prompt 3'; only b was measured on 'another"):
        ff.compare(a, ff.Analysis(b.rows, model="b", settings={}, complete=True))


def test_other_numbers_of_directions_are_refused() -> None:
    a, b = simulated(np.random.default_rng(0)), simulated(np.random.default_rng(0), u=[0.0, 0.0, 0.0])
    with pytest.raises(InputError, match="2 in simulated and 3 in simulated"):
        ff.compare(a, b)


def test_what_failed_in_one_leaves_the_pairs_that_are_there() -> None:
    """A whole prompt, and a point of another: neither is a difference of prompts or of tokens."""
    rng = np.random.default_rng(0)
    a, b = simulated(rng, name="a"), simulated(rng, name="b")
    failed = [
        {"layer": r["layer"], "part": "mlp", "prompt": 1, "text": r["text"], "error": "why"}
        if r["prompt"] == 1
        else r | {"verdict": None, "scalar_curvature": None, "error": "why"}
        if (r["prompt"], r["position"]) == (2, 4)
        else r
        for r in b.rows
    ]
    found = ff.compare(a, ff.Analysis(failed, model="b", settings={"points": 1}, complete=True))
    assert list(found.table["count"]) == [2 * len(PROMPTS) - 3] * 3 and not found.notes


def test_undecided_rows_are_in_no_difference_and_layers_of_one_are_named() -> None:
    rng = np.random.default_rng(0)
    a, b = simulated(rng, name="a"), simulated(rng, effect=(0.0,) * 4, name="b")
    for row in a.rows:
        if row["layer"] == 1 and row["prompt"] < 5:
            row["verdict"] = "undecided"
    found = ff.compare(ff.Analysis(a.rows, model="a", settings={}, complete=True), b)
    table = found.table.set_index("layer")
    assert list(table["missing"]) == [0, 10, 0] and list(table.index) == [0, 1, 2]
    assert any("Only in b" in sentence and "layer 3" in sentence for sentence in found.sentences())


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], {}),
        ([[]], {}),
        (["python-llama", "python-llama"], {}),  # no prompts
        ([["python-llama"], "a prompt"], {}),
        ([["python-llama", "python-llama"], "a", "b"], {}),
        (["x\0y", "python-llama"], {}),
        (["python-llama", "python-llama"], {"prompts": "a", "resume": True}),
        (["python-llama", "python-llama"], {"prompts": "a", "names": ["one"]}),
    ],
)
def test_wrong_input(arguments: list[Any], options: dict[str, Any]) -> None:
    with pytest.raises((InputError, TypeError) if not arguments else InputError):
        ff.compare(*arguments, **options)


# -- models ------------------------------------------------------------------------------------------------------------

TEXTS = ["the cat sat on", "a mat dogs run", "the dogs sat", "a cat on the mat", "dogs on a mat"]
SMALL: dict[str, Any] = {"points": 2, "positions": "last", "progress": False}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Without and with gates."""
    found = []
    for kind in ("llama", "afmoe"):
        folder = tmp_path_factory.mktemp("tiny") / kind
        tiny_model(kind).float().save_pretrained(folder)
        save_word_tokenizer(folder)
        found.append(folder)
    return found


def test_models_modules_and_saved_analyses_give_the_same(models: list[Path], tmp_path: Path) -> None:
    """Against differences that are taken by hand from two analyses."""
    texts = TEXTS[:2]
    analyses = [ff.analyze(path, texts, parts=["mlp"], **SMALL) for path in models]
    analyses[1].save(tmp_path / "saved")
    found = ff.compare([models[0], ff.load(models[1])], texts, parts=["mlp"], **SMALL)
    for other in (
        ff.compare(*analyses),
        ff.compare(models[0], tmp_path / "saved", prompts=texts, parts=["mlp"], **SMALL),
    ):
        assert other.table["mean"].tolist() == pytest.approx(found.table["mean"].tolist(), rel=1e-6, abs=1e-12)
    first, second = (one.table.query("reading == 'live'").scalar_curvature.to_numpy() for one in analyses)
    by_hand = (second - first).reshape(2, -1).mean(1)
    assert found.table.query("reading == 'live'")["mean"].tolist() == pytest.approx(list(by_hand), rel=1e-6)


@pytest.mark.parametrize(
    ("other", "change", "words"),
    [
        ({"num_attention_heads": 2, "num_key_value_heads": 2}, {"heads": [0, 3]}, "the 2 heads, from 0; 3 is none"),
        ({"num_attention_heads": 2, "num_key_value_heads": 2}, {"heads": [-3]}, "the 2 heads, from 0; -3 is none"),
        ({"num_hidden_layers": 1}, {"layers": [1]}, "the 1 layers, from 0; 1 is none"),
    ],
)
def test_places_that_one_does_not_have_are_refused_before_the_other_is_measured(
    other: dict[str, int], change: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [Model(tiny_model("llama")), Model(tiny_model("llama", **other))]
    measured = list[Any]()
    monkeypatch.setattr(Study, "measure", lambda _, task: measured.append(task) or [])
    with pytest.raises(InputError, match=words):
        ff.compare(both, [[5, 6, 7, 8]], parts=["mlp"], **SMALL | change)
    assert not measured


def test_the_unit_is_that_of_the_family() -> None:
    a = simulated(np.random.default_rng(0), name="a")
    b = simulated(np.random.default_rng(1), effect=(0.5, -2.0, 0.0), name="b")
    for family, unit in ((None, "σ"), ("next-token", "Fisher metric")):
        for one in (a, b):
            one.settings["family"] = family
        said = "".join(text.get_text() for text in ff.compare(a, b)._draw("live").findobj(Text))
        assert unit in said and ("σ" in said) == (family is None)


def test_gates_of_one_stand_against_none_of_the_other(models: list[Path], tmp_path: Path) -> None:
    found = ff.compare(models, TEXTS[:2], layers=[1], parts=["attention"], **SMALL)
    attention = found.gates.query("part == 'attention'")
    assert set(attention["model"]) == {"afmoe"} and set(attention["not_in"]) == {"llama"}
    said = " ".join(found.sentences())
    assert "Only afmoe has an attention gate in the attention of layer 1, llama has none there." in said
    files = found.save(tmp_path / "out")
    assert {"differences.csv", "gates.csv", "comparison.json", "differences_live.png"} <= {file.name for file in files}
    again = ff.Comparison.load(tmp_path / "out")
    assert again.sentences() == found.sentences() and again.complete
    assert again.table["mean"].tolist() == pytest.approx(found.table["mean"].tolist(), nan_ok=True)
    console = Console(file=open(tmp_path / "said", "w"), width=100)  # noqa: SIM115
    console.print(found.summary(verbose=False), found.summary())


def test_from_the_shell_with_an_interrupt_and_on_again(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, keys = Study.measure, []

    def stop(self: Study, task: Any) -> Any:
        keys.append(task.key)
        if len(keys) == 8:
            raise KeyboardInterrupt
        return measure(self, task)

    arguments = ["compare", *map(str, models), "--part", "mlp", "--points", "1", "--position", "last"]
    arguments += [word for text in TEXTS[:3] for word in ("--prompt", text)] + ["--out", str(tmp_path / "out")]
    monkeypatch.setattr(Study, "measure", stop)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 130 and "--resume goes on" in done.stderr, done.output
    assert "Interrupted: 1 of 2 are analysed" in " ".join(done.stdout.split())
    assert not ff.Comparison.load(tmp_path / "out").complete
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, InputError)
    again = CliRunner().invoke(app, [*arguments, "--resume"])
    assert again.exit_code == 0, again.output
    assert len(keys) == 8 + 5  # twelve tasks in all, seven of them done before
    kept = ff.Comparison.load(tmp_path / "out")
    assert kept.complete and set(kept.table["layer"]) == {0, 1}
    assert isinstance(CliRunner().invoke(app, arguments).exception, InputError)  # a finished result is kept


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = simulated(rng, name="[red]a\x1b[2J"), simulated(rng, name="_../=$b\n")
    found = ff.compare(a, b)
    files = found.save(tmp_path / "out")
    assert all(tmp_path in file.resolve().parents for file in files)
    with (tmp_path / "said").open("w") as file:
        Console(file=file, width=100).print(found.summary(), found.summary(verbose=False))
    said = (tmp_path / "said").read_text()
    assert "\x1b" not in said and "[red]" in said
    assert "\x1b" not in (tmp_path / "out" / "differences.csv").read_text()


def test_models_of_one_name_and_module_are_told_apart() -> None:
    models = [Model(tiny_model("llama", seed=seed)) for seed in (0, 1)]
    found = ff.compare(models, [[5, 6, 7, 8]], layers=[0], parts=["mlp"], **SMALL)
    assert found.names == ["model", "model (2)"] and found.complete


def test_tiny_models_with_one_prompt_say_what_is_lacking() -> None:
    folder = [Model(tiny_model(kind)) for kind in ("llama", "afmoe")]
    found = ff.compare(folder, [[5, 6, 7, 8]], layers=[0], parts=["mlp"], names=["a", "b"], **SMALL)
    assert "too few" in set(found.table["word"]) and "too few" in " ".join(found.sentences())
