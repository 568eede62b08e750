"""What an import costs: heavy packages are loaded when used, and the core needs torch and numpy alone."""

from __future__ import annotations

import subprocess
import sys

CORE = [
    "fisherflat",
    "fisherflat.errors",
    "fisherflat.charts",
    "fisherflat.families",
    "fisherflat.spaces.charts",
    "fisherflat.spaces.families",
    "fisherflat.layers",
    "fisherflat.jets",
    "fisherflat.jets.engines",
    "fisherflat.parts",
    "fisherflat.geometry",
    "fisherflat.lab.bench",
]
HEAVY = {
    "transformers", "safetensors", "scipy", "pandas", "matplotlib", "geomstats", "flint", "typer", "rich", "vl_convert"
}  # fmt: skip

# Prints a line for each module: its name and the packages that were loaded by the time it had been imported.
LOAD = """
import importlib, sys
for module in {modules!r}:
    importlib.import_module(module)
    print(module, *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""

# All but the standard library, torch, numpy and what torch itself requires is as if it were not installed.
ALONE = """
import sys
from importlib.machinery import PathFinder

class TorchAndNumpyAlone(PathFinder):
    of_torch = "torchgen functorch typing_extensions filelock fsspec jinja2 markupsafe sympy mpmath networkx setuptools"
    kept = {*sys.stdlib_module_names, "fisherflat", "torch", "numpy", *of_torch.split()}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        package = name.partition(".")[0]
        known = package in cls.kept or package.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if known else None

sys.meta_path[sys.meta_path.index(PathFinder)] = TorchAndNumpyAlone
"""

# The sphere of radius 2 has scal = 2 / 4; of the attention layer it only matters that everything it needs is there.
CURVATURE = """
import fisherflat as ff, torch

u = torch.tensor([0.3, 0.2], dtype=torch.float64)
sphere = lambda u: torch.cat([u, (4 - u @ u).sqrt()[None]])
attention = ff.layers.SelfAttention(8, heads=2, gate=ff.layers.Gate())
chart = ff.charts.principal(torch.randn(4, 8), index=-1, k=2)
for engine in ("autodiff", "taylor"):
    scal = ff.StatisticalManifold(sphere, ff.charts.identity(2), engine=engine).scalar_curvature(u)
    assert abs(scal - 0.5) < 1e-12, (engine, scal)
    assert ff.StatisticalManifold(attention, chart, engine=engine).scalar_curvature(u).isfinite()
    assert ff.StatisticalManifold(ff.freeze(attention, chart(u)), chart, engine=engine).scalar_curvature(u).isfinite()
"""


def run(code: str) -> str:
    """The standard output of `code` in a fresh interpreter; the test fails with its traceback if it raises."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_installed():
    bare, package = run(LOAD.format(modules=["sys", "fisherflat"])).splitlines()
    assert set(package.split()) - set(bare.split()) - sys.stdlib_module_names == {"fisherflat"}


def test_core_loads_no_heavy_package():
    for line in run(LOAD.format(modules=CORE)).splitlines():
        module, *loaded = line.split()
        assert not HEAVY & set(loaded), module


def test_core_runs_on_torch_and_numpy_alone():
    loaded = run(ALONE + LOAD.format(modules=CORE) + CURVATURE)
    assert "numpy" in loaded.split() and "jaxtyping" not in loaded.split()
