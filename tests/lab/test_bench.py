"""The benchmark: that it compares what it says, on maps so small that nothing is timed for long."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from cases.closeness import assert_same

import fisherflat as ff
from fisherflat.lab.bench import Plan, bench, depth, gpu, jets, maps, minilm, run, save, show, targets
from fisherflat.lab.bench import __main__ as command
from fisherflat.lab.bench._growth import growth
from fisherflat.lab.bench._measure import Spread, by_clock, interleaved
from fisherflat.lab.bench._peers import Peer, peers
from fisherflat.lab.bench._report import tables
from fisherflat.lab.bench._versus import on_a_sphere, versus
from fisherflat.lab.bench.floor import filling, floors, over_floor
from fisherflat.lab.bench.gradient import ROUTES, over_value
from fisherflat.lab.bench.maps import subject
from fisherflat.lab.bench.memory import Tally, peak

CPU = torch.device("cpu")
SMALL = Plan(only=("floor", "memory"), maps=("attention-8",), dims=(2,), points=4, repeats=2)


# -- maps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["attention-8", "block-8", "block-8x2", "llama-8", "norm-8"])
@pytest.mark.parametrize("readout", ["all", "token"])
def test_all_forms_of_a_map_agree(name, readout):
    made = subject(name, 2, readout=readout)
    x = made.inputs(3)
    expected = torch.stack([made.module(one) for one in x])
    for form in (made.forward, made.plain, made.written_out):
        torch.testing.assert_close(form(x), expected)


def test_maps_are_the_same_every_time_and_as_wide_as_named():
    a, b = (subject("attention-64", 3) for _ in range(2))
    assert a.chart.point.shape == (16, 64) and a.chart.k == 3
    assert_same(a.module(a.chart.point), b.module(b.chart.point))
    assert_same(a.points(5), b.points(5))


def test_only_the_last_token_moves():
    assert subject("attention-8", 2, moving="token").chart.basis[:, :-1].count_nonzero() == 0


def test_work_is_that_of_the_matrix_products():
    n, d = 64, 256
    attention = 2 * n * d * d * 5 + 2 * 2 * n * n * d  # five projections; scores, and pattern times values
    assert subject("attention-256", 2).work == pytest.approx(attention, rel=0.01)
    assert subject("block-256", 2).work == pytest.approx(attention + 3 * 2 * n * d * 4 * d, rel=0.01)


def test_a_llama_of_seven_billions_has_the_widths_of_its_papers():
    with torch.device("meta"):
        block = maps.Llama(4096, 32)
    assert block.mlp.hidden == 11008
    assert sum(weight.numel() for weight in block.parameters()) == 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096


def test_forms_of_a_map_share_their_weights():
    made = subject("block-8", 2)
    known = {weight.data_ptr() for weight in made.module.parameters()}
    for form in (made.plain, made.written_out):
        assert {weight.data_ptr() for weight in form.parameters()} == known


@pytest.mark.parametrize("name", ["attention", "attention-8x2", "mlp-8", "minilm-0", ""])
def test_unknown_maps_are_refused(name):
    with pytest.raises(ff.errors.InputError, match="unknown map"):
        subject(name, 2)


# -- competitors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [peer for peer in peers() if peer.name != "geomstats"], ids=lambda peer: peer.name)
def test_competitors_find_the_curvature_of_a_sphere(peer):
    # with the norm written out, so that torch's wrong derivatives of the fused one do not matter
    sphere = subject("norm-5", 3, tokens=1)
    sphere = replace(sphere, plain=sphere.written_out)
    torch.testing.assert_close(peer.build(sphere)(sphere.points(3)), torch.full((3,), 3 * 2 / 5, dtype=torch.float64))


def test_norms_are_right_in_both_engines_and_in_what_is_called_right():
    found = on_a_sphere()
    for name in ("taylor", "autodiff", "jacfwd(jacrev) + Gauss", "jvp of double vjp + Gauss"):
        assert found[name] == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_contenders_agree_before_they_are_timed(dtype):
    found = versus(subject("attention-4", 2, dtype=dtype, readout="token"), repeats=1, share=1e-4)
    rows = {row["name"]: row for row in found["contenders"]}
    assert {"taylor", "autodiff", "jacfwd(jacrev) + Gauss", "jacfwd(jacfwd) + Gauss", "textbook", "floor"} <= set(rows)
    for row in rows.values():
        assert row["agrees"]
        assert row["seconds_per_point"].median > 0
    assert rows["taylor"]["over_taylor"] == Spread(1, 1, 1)


def test_what_is_wrong_is_named_and_not_timed(monkeypatch):
    wrong = replace(peers()[0], name="wrong", build=lambda subject: lambda u: u.sum(-1))
    monkeypatch.setattr("fisherflat.lab.bench._versus.peers", lambda: [wrong])
    row = next(r for r in versus(subject("attention-4", 2), 1, 1e-4)["contenders"] if r["name"] == "wrong")
    assert not row["agrees"] and row["error"] > 1e-9 and "seconds_per_point" not in row


def test_a_competitor_that_cannot_be_imported_stops_no_other(monkeypatch):
    def broken(subject):
        raise ModuleNotFoundError("No module named 'omnibias.fields'")

    monkeypatch.setattr("fisherflat.lab.bench._versus.peers", lambda: [Peer("broken", broken), *peers()])
    found = {row["name"]: row for row in versus(subject("attention-8", 2, readout="token"), 1, 1 / 64)["contenders"]}
    assert found["broken"]["note"] == "ModuleNotFoundError: No module named 'omnibias.fields'"
    assert found["taylor"]["agrees"] and found["textbook"]["agrees"]
    assert "broken" not in on_a_sphere()


def test_geomstats_agrees():
    made = subject("attention-8", 2, readout="token")
    worker = next(peer for peer in peers() if peer.name == "geomstats").build(made)
    try:
        found = worker(made.points(1))
    finally:
        worker.close()
    torch.testing.assert_close(found, ff.StatisticalManifold(made.module, made.chart).scalar_curvature(made.points(1)))


# -- all coefficients, JAX included ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jets_of_small_maps():
    columns = [("attention-128", 2, 1), ("block-4", 3, 2)]
    return list(jets.measured(columns, ["float64"], threads=1, repeats=1, device="cpu"))


def test_jax_and_torch_find_the_coefficients_that_we_find(jets_of_small_maps):
    for row in jets_of_small_maps:
        assert row["cores"] == 1
        found = {contender["name"]: contender for contender in row["contenders"]}
        assert set(found) == {contender.name for contender in jets.CONTENDERS if not contender.gpu}
        for name, contender in found.items():
            if contender.get("note") == "the same":
                assert (row["map"], name) == ("attention-128", "the same, norms written out")
            elif (row["map"], name) == ("block-4", "torch nested jacfwd"):
                assert contender["note"] == "wrong" and contender["error"] > 0.01 and "over_ours" not in contender
            else:
                assert contender["error"] < 1e-12, name
                assert contender["over_ours"].keys() == {"wall", "process"}
        assert row["ours_over_floor"]["wall"].median > 0


@pytest.mark.parametrize("traces", [False, True])
@pytest.mark.parametrize(("place", "expected"), [(0, 1e-3), (2, 1e-2), (3, 1e-1)])
def test_one_wrong_coefficient_of_any_order_is_seen(traces, place, expected):
    exact = torch.zeros(1, 6, 4, dtype=torch.float64)
    exact[0, :, 0] = torch.tensor([10.0, 1.0, 0.5, 0.1, 0.0, 0.0])  # k = 2: value, two slopes, three bends
    found = exact.clone()
    found[0, place, 1] = 0.01
    if traces:
        found = torch.cat([found[:, :3], found[:, 3:4] + found[:, 5:]], 1)
    assert jets.error(found, exact, 2) == pytest.approx(expected)
    assert jets.error(found * float("nan"), exact, 2) == float("inf")


def test_without_jax_its_rows_say_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "fisherflat.lab.bench._jax", raising=False)
    monkeypatch.setitem(sys.modules, "jax", None)
    row = jets.compared(subject("attention-4", 2), points=1, repeats=1)
    notes = {contender["name"]: contender.get("note") for contender in row["contenders"]}
    assert notes["ours"] is None and notes["torch nested jacfwd"] is None
    for contender in jets.CONTENDERS:
        if contender.jax:
            assert "pip install 'fisherflat[bench]'" in notes[contender.name]


def test_a_contender_that_fails_stops_no_other(monkeypatch):
    def build(subject, u):
        raise ValueError("no rule for this\nand more")

    monkeypatch.setattr(jets, "CONTENDERS", [jets.CONTENDERS[0], jets.Contender("broken", build)])
    row = jets.compared(subject("attention-4", 2), points=1, repeats=1)
    assert row["contenders"][1]["note"] == "ValueError: no rule for this"
    assert row["contenders"][0]["over_ours"]["wall"] == Spread(1, 1, 1)


def test_the_process_that_compares_jets_says_what_went_wrong():
    with pytest.raises(RuntimeError, match="unknown map 'mlp-8'"):
        list(jets.measured([("mlp-8", 2, 1)], ["float64"], 1, 1, "cpu"))


def test_jets_are_measured_on_the_table_or_on_what_is_chosen():
    assert {(name, k): points for name, k, points in Plan().jets()} == jets.COLUMNS
    assert list(Plan(maps=("attention-64", "minilm-0"), dims=(2, 3)).jets()) == [
        ("attention-64", 2, 64),
        ("attention-64", 3, jets.OTHERWISE),
    ]
    assert list(Plan(maps=("minilm-0",)).jets()) == []
    assert [points for _, _, points in Plan(points=7).jets()] == [7] * len(jets.COLUMNS)
    assert Plan(threads=1).numbers_of_threads == (1,) and Plan(threads=4).numbers_of_threads == (1, 4)


def _jet_row(threads, **medians):
    def both(process, wall):
        return {"process": Spread(process, process, process), "wall": Spread(wall, wall, wall)}

    contenders = [{"name": name, "traces": name == "folx", "over_ours": both(*m)} for name, m in medians.items()]
    contenders.append({"name": "torch", "traces": False, "note": "wrong"})
    about = {"map": "attention-768", "k": 4, "points": 2, "dtype": "float64", "threads": threads}
    return {**about, "contenders": contenders, "ours_over_floor": both(0.3, 0.4)}


def test_jets_are_judged_by_the_clock_that_fits_and_against_the_fastest_that_gives_them_all():
    medians = {"ours": (1.0, 1.0), "jax": (1.6, 1.4), "jet": (2.0, 1.3), "folx": (0.5, 0.5)}
    results = {"environment": {"gpu": None, "quick": False}, "jets": [_jet_row(n, **medians) for n in (1, 2)]}
    judged = [(target.measured, target.reached) for target in targets(results)]
    assert judged == [(1.6, True), (0.3, True), (1.3, False), (0.4, False)]
    found = {table.title: table for table in tables(results)}
    assert len(found) == 5  # two numbers of threads, two clocks, and what is promised
    table = found["Time of all coefficients over ours, float64, threads: 2, wall time"]
    assert dict(table.rows)["jet"].startswith("1.3 ") and dict(table.rows)["torch"] == "wrong"
    assert dict(table.rows)["ours over S plain passes"].startswith("0.4 ")


# -- a GPU against the CPU, here the CPU against itself --------------------------------------------------------------


@pytest.mark.parametrize(
    "check", [c for c in gpu.checks() if "256" not in c.name], ids=lambda c: f"{c.name}, {c.dtype}"
)
def test_each_check_of_a_gpu_runs_and_finds_what_the_cpu_finds(check):
    row = gpu.run_check(check, CPU)
    assert row["holds"], row
    assert row["difference"] <= (1e-13 if check.dtype == torch.float64 else 1e-5)


def test_a_difference_above_the_bound_fails_and_a_failure_is_written_down():
    def computed(off):
        found = iter(torch.tensor([2.0, entry], dtype=torch.float64) for entry in (1.0, 1.0 + 2 * off))
        return lambda device, dtype: {"a": next(found), "b": torch.ones(2)}

    for off, holds in ((1e-14, True), (1e-11, False), (float("nan"), False)):
        row = gpu.run_check(gpu.Check("numbers", computed(off)), CPU)
        assert row["holds"] is holds and (holds or row["difference"] >= 1e-11 * (1 - 1e-3))
    broken = gpu.run_check(gpu.Check("broken", lambda device, dtype: {"a": torch.ones(2)[7]}), CPU)
    assert not broken["holds"] and "IndexError" in broken["failed"]


def test_timings_of_a_gpu_go_on_without_a_graph(monkeypatch):
    monkeypatch.setattr(gpu, "checks", lambda: iter([]))
    monkeypatch.setattr(gpu, "COLUMNS", {("attention-4", 2): 2, ("mlp-4", 2): 2})
    found = gpu.compared("cpu", 1, lambda line: None)
    first, second = found["timings"][:2]
    assert "for NVIDIA GPUs" in first["graph_failed"] and set(first["over_floor"]) == {"jets", "scalar_curvature"}
    assert first["bytes"] > 0 and "unknown map" in second["failed"]
    drawn = {table.title: table for table in tables({"environment": {"quick": True}, "gpu": found})}
    assert any("unknown map" in line for (line,) in drawn["failed: mlp-4, k = 2, float64"].rows)


def test_the_section_of_a_gpu_needs_one(monkeypatch):
    with pytest.raises(ff.errors.InputError, match="--device cuda"):
        Plan(only=("gpu",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Plan(device="cuda").sections[0] == "gpu" and "gpu" not in Plan().sections


# -- measuring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("brief", "sample"), [(0.0, ["a", "b"]), (1e9, ["a", "a", "b", "b"])])
def test_samples_are_taken_in_turns(brief, sample, monkeypatch):
    """After a warm-up; what is brief is called once more before each."""
    monkeypatch.setattr("fisherflat.lab.bench._measure.SHORTEST", 0.0)
    monkeypatch.setattr("fisherflat.lab.bench._measure.BRIEF", brief)
    order = []
    samples = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, CPU)
    assert order == ["a", "b", *sample * 3]
    assert all(len(taken) == 3 for taken in samples.values())


def test_process_time_does_not_run_while_nothing_is_done():
    found = by_clock({"sleep": lambda: time.sleep(0.05)}, 1, CPU)
    assert found["wall"]["sleep"][0] >= 0.05 > 0.02 > found["process"]["sleep"][0]


def test_spread_of_ratios_is_taken_repeat_by_repeat():
    assert Spread.ratio([2.0, 12.0, 3.0], [1.0, 3.0, 1.0], scale=0.5) == Spread(1.5, 1.0, 2.0)
    assert str(Spread(0.12345, 0.1, 12345.6)) == "0.123 (0.1 to 12,346)"


def test_memory_is_counted_while_it_lives():
    x = torch.ones(1000, dtype=torch.float64)

    def call():
        y = x + 1
        z = (y * 2).view(10, 100)  # a view takes no memory
        del y
        w = z.sin()
        w.mul_(2)  # nor does what is done in place
        return w

    assert peak(call, CPU) == 2 * 8000
    with Tally() as tally:
        kept = call()
        assert tally.live == 8000
        del kept
        assert tally.live == 0


def test_floor_makes_all_the_passes_it_is_compared_with():
    made = subject("attention-4", 2)
    passes = []
    counted = replace(made, forward=lambda x: passes.append(len(x)) or made.forward(x))
    for batch, call in floors(counted, points=5).items():
        passes.clear()
        call()
        assert sum(passes) == 5 * 6
        assert set(passes[:-1]) <= {batch}


def test_an_interrupt_leaves_the_rows_that_are_done(tmp_path, monkeypatch, capsys):
    measured, out = [], tmp_path / "bench.json"

    def once(*args, real=over_floor):
        measured.append(args)
        if len(measured) > 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr("fisherflat.lab.bench.floor.over_floor", once)
    options = {"--only": "floor", "--map": "attention-8", "--points": "4", "--repeats": "1", "--out": str(out)}
    monkeypatch.setattr(
        sys, "argv", ["bench", "--k", "2", "--k", "3", *(word for pair in options.items() for word in pair)]
    )
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 130
    found = json.loads(out.read_text())
    assert [row["k"] for row in found["floor"]] == [2]
    assert found["environment"]["seconds"] > 0
    assert "| attention-8 | 2 |" in capsys.readouterr().out


def test_points_fill_the_machine_and_are_bounded():
    few, many = (filling(subject(name, 4)) for name in ("block-768", "attention-64"))
    assert 1 <= few < many <= 1024


def test_profiles_of_random_blocks_grow_with_their_number():
    found = depth.growth(**depth.QUICK)
    assert list(found["seconds"]) == list(found["peak_bytes"]) == [2, 4, 8]
    assert set(found["exponents"]) == {"time", "memory"}
    # states between blocks are kept for one block at a time: memory does not grow faster than the number of blocks
    assert found["exponents"]["memory"] < 1.1


def test_minilm_is_compared_with_its_own_encoder(monkeypatch):
    """The first two of its blocks."""
    monkeypatch.setattr(minilm, "NAMES", minilm.NAMES[:2])
    found = depth.over_floor(repeats=1, points=1)
    assert found["labels"] == {"role": 3, "layer": 2} and found["blocks"] == 2
    seconds = found["seconds"]
    floor = seconds[found["floor_batch"]].median
    assert found["profile_over_floor"].median == pytest.approx(seconds["profile"].median / floor)
    # k = 2: three of the six coefficients are of second order
    expected = 2 * seconds["role"].median / seconds["profile"].median
    assert found["budget_over_second_order"]["role"].median == pytest.approx(expected)
    whole, blocks = depth.encoder(2)
    x = whole.inputs(1)
    y = x[0]
    for block in blocks:
        y = block(y)
    torch.testing.assert_close(whole.forward(x)[0], y, rtol=1e-9, atol=1e-12)


def test_growth_fits_an_exponent_for_each_size():
    found = growth("depth", repeats=1, share=1 / 64)
    assert len(found["seconds"]) == len(found["sizes"]) == 4
    assert isinstance(found["exponent"], float)


# -- the run ---------------------------------------------------------------------------------------------------------


def test_results_are_written_as_json(tmp_path, capsys):
    out = tmp_path / "bench.json"
    bench(SMALL, out)
    found = json.loads(out.read_text())
    assert found["schema"] == 1
    assert {"torch", "processor", "threads", "repeats", "device"} <= set(found["environment"])
    (row,) = found["floor"]
    assert (row["map"], row["k"], row["dtype"], row["points"]) == ("attention-8", 2, "float64", 4)
    for ratio in ("jet_over_floor", "scalar_curvature_over_floor"):
        assert row[ratio]["low"] <= row[ratio]["median"] <= row[ratio]["high"]
    assert found["memory"][0]["bytes"]["jet"] > 0
    printed = capsys.readouterr()
    assert "attention-8" in printed.out and "floor: attention-8" in printed.err
    assert list(tmp_path.iterdir()) == [out]


def test_gradients_are_timed_compared_and_weighed():
    found = run(replace(SMALL, only=("gradient", "tape"), maps=("attention-8",), repeats=2))
    (row,), (weighed,) = found["gradient"], found["tape"]
    both, alone = row["value_and_gradient_over_value"], row["gradient_over_value"]
    assert abs(both.low - alone.low - 1) < 1e-9 and abs(both.high - alone.high - 1) < 1e-9
    assert weighed["bytes"]["gradients"] == 8 * row["weights"]
    assert 0 < weighed["bytes"]["tape_of_one_point"] < weighed["bytes"]["value_and_gradient"]
    made = over_value(subject("attention-8", 2, readout="token"), 1, beside=True, points=2)
    assert list(made["nested"]) == list(ROUTES)
    assert all(contender["difference"] < 1e-11 for contender in made["nested"].values())
    titles = [table.title for table in tables(found)]
    assert "The gradient of the scalar curvature by all weights" in titles and len(titles) >= 3


def test_threads_are_put_back():
    before = torch.get_num_threads()
    run(replace(SMALL, only=("floor",), threads=before + 1, repeats=1))
    assert torch.get_num_threads() == before


def test_promises_are_judged_on_the_rows_that_speak_to_them():
    results = {
        "environment": {"gpu": None, "quick": False},
        "floor": [
            {
                "map": "attention-768",
                "k": 4,
                "dtype": "float64",
                "moving": "all",
                "points": 8,
                "jet_over_floor": Spread(1.4, 1.3, 1.6),
                "scalar_curvature_over_floor": Spread(1.6, 1.5, 1.7),
            }
        ],
        "peers": [
            {
                "map": "attention-64",
                "k": 8,
                "dtype": "float64",
                "contenders": [
                    {"name": "taylor", "expert": False, "over_taylor": Spread(1, 1, 1)},
                    {"name": "textbook", "expert": False, "over_taylor": Spread(80, 70, 90)},
                    {"name": "jacfwd(jacrev) + Gauss", "expert": False, "over_taylor": Spread(900, 800, 999)},
                    {"name": "jacfwd(jacfwd) + Gauss", "expert": True, "over_taylor": Spread(5, 4, 6)},
                    {"name": "omnibias-geometry", "expert": False, "note": "wrong values"},
                ],
            }
        ],
        "growth": {"points": {"exponent": 1.0}, "depth": {"exponent": 1.2}},
        "depth": {
            "random": {
                "width": 512,
                "k": 3,
                "points": 16,
                "seconds": {6: 40.0, 24: 130.0},
                "exponents": {"time": 0.9, "memory": 1.3},
            },
        },
    }
    deep = [(130.0, False), (0.9, True), (1.3, False)]
    judged = [(target.measured, target.reached) for target in targets(results)]
    assert judged == [(80, True), (5, False), (1.4, True), (1.6, False), (1.0, True), (1.2, False), *deep]
    assert targets({**results, "environment": {"gpu": None, "quick": True}}) == []


def test_tables_are_drawn_on_a_terminal_and_markdown_elsewhere(monkeypatch, capsys):
    results = run(replace(SMALL, only=("norms",)))
    show(results)
    written = capsys.readouterr().out
    assert "| autodiff " in written and "| ---" in written
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show(results)
    drawn = capsys.readouterr().out
    assert "autodiff" in drawn and "| ---" not in drawn


@pytest.mark.parametrize(
    "choice",
    [{"only": ("speed",)}, {"dtypes": ("float16",)}, {"device": "tpu"}, {"repeats": 0}, {"points": 0}, {"dims": (0,)}],
)
def test_bad_plans_are_refused(choice):
    with pytest.raises(ff.errors.InputError):
        Plan(**choice)


def test_no_gpu_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ff.errors.InputError, match="no GPU"):
        Plan(device="cuda")


def test_a_file_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    with pytest.raises(ff.errors.InputError, match="cannot be written"):
        save({"environment": {"quick": True}}, tmp_path / "missing" / "bench.json")


def test_module_runs_without_other_packages(tmp_path):
    out = tmp_path / "bench.json"
    options = ["--only", "floor", "--only", "memory", "--map", "attention-8", "--k", "2", "--points", "4"]
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys(["rich", "typer", "scipy", "jaxtyping", "transformers"]))
sys.argv = ["bench", *{options!r}, "--repeats", "1", "--out", {str(out)!r}]
runpy.run_module("fisherflat.lab.bench", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["floor"][0]["points"] == 4


def test_command_runs_the_same(tmp_path):
    from typer.testing import CliRunner

    from fisherflat.cli import app

    out = tmp_path / "bench.json"
    options = ["--only", "floor", "--map", "attention-8", "--k", "2", "--points", "4", "--repeats", "1"]
    done = CliRunner().invoke(app, ["bench", *options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "attention-8" in done.output
    assert json.loads(out.read_text())["floor"][0]["points"] == 4


def test_module_names_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--map", "mlp-8"])
    with pytest.raises(SystemExit, match="1"):
        command.main()  # not by runpy: what the tests' import hook makes of the module would become its bytecode
    assert "fisherflat: unknown map 'mlp-8'" in capsys.readouterr().err
