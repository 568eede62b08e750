"""The benchmarks of curvature in all directions and of runners: that they measure what they say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import fisherflat as ff
from fisherflat.lab.bench import sampled
from fisherflat.lab.bench._targets import targets

CPU = torch.device("cpu")


def test_the_estimate_that_is_timed_is_one_of_the_curvature() -> None:
    width = 16
    row = sampled.of_width(width, CPU)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = ff.layers.SelfAttention(width, gate=ff.layers.Gate()).double()
        hidden = torch.randn(sampled.TOKENS, width, dtype=torch.float64)
    family = ff.Gaussian.calibrated(layer(hidden).detach())
    manifold = ff.StatisticalManifold(layer, ff.charts.token(hidden, 1, torch.eye(width)), family)
    exact = manifold.scalar_curvature(torch.zeros(width)).item()
    assert abs(row["scalar_curvature"] - exact) < 4 * row["error"] * abs(row["scalar_curvature"])
    assert row["k"] == width and 0 < row["peak_bytes"] < 2**26 and row["wall"] > 0 < row["process"]
    _, header, ((*cells,),) = sampled.table([row])
    assert len(cells) == len(header)


@pytest.mark.parametrize(("threads", "reached"), [(2, [True, True, False, False]), (1, [])])
def test_promises_are_of_two_cores(threads: int, reached: list[bool]) -> None:
    row = {"map": "minilm-2, attention", "k": 384}
    rows = [
        row | {"moving": "token", "wall": 14.0, "peak_bytes": 1.4e9},
        row | {"moving": "all", "wall": 6.5, "peak_bytes": 1.6e9},
        row | {"map": "attention-4096", "moving": "token", "wall": 999.0, "peak_bytes": 9e9},
    ]
    results = {"environment": {"quick": False, "gpu": None, "threads": threads}, "sampled": rows}
    assert [one.reached for one in targets(results)] == reached


#: in a process of its own, which has no connection to another cluster
SCRIPT = """
import os, fisherflat as ff
from fisherflat.lab.bench import runners

class Priority:
    def measure(self, task):
        return os.getpriority(os.PRIO_PROCESS, 0)

os.nice(3)
with_ray = ff.runners.ray()
print([found for _, found in with_ray(Priority(), [runners.Second(0)])])
with_ray.close()
found = runners.measured(tasks=2, seconds=0.01, repeats=1)
assert all(0 < one.busy <= 1 and one.span > 0 for took in found.values() for one in took)
print(runners.table(found))
"""


def test_workers_of_an_instance_of_ones_own_have_the_priority_of_its_process() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert f"[{os.getpriority(os.PRIO_PROCESS, 0) + 3}]" in lines
    assert [line.split()[1] for line in lines if line.startswith("| ")] == ["runner", "---", "processes", "ray"]
