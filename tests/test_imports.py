"""What an import costs: heavy packages are loaded when used, and the core needs torch and numpy alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

CORE = [
    "fisherflat",
    "fisherflat.errors",
    "fisherflat.charts",
    "fisherflat.family",
    "fisherflat.geometry",
    "fisherflat.manifold",
    "fisherflat.jets",
]

LOADED = """
import importlib, sys
importlib.import_module({module!r})
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""

# All but the standard library, torch, numpy and what torch itself requires is as if it were not installed.
ALONE = """
import importlib, sys

class TorchAndNumpyAlone:
    of_torch = "torchgen functorch typing_extensions filelock fsspec jinja2 markupsafe sympy mpmath networkx setuptools"
    kept = {{*sys.stdlib_module_names, "fisherflat", "torch", "numpy", *of_torch.split()}}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.kept:
            raise ModuleNotFoundError(f"No module named {{name!r}} in this test", name=name)

sys.meta_path.insert(0, TorchAndNumpyAlone())
importlib.import_module({module!r})
"""


def run(code: str) -> str:
    """The standard output of `code` in a fresh interpreter; the test fails with its traceback if it raises."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_installed():
    loaded = set(run(LOADED.format(module="fisherflat")).split()) - set(run(LOADED.format(module="sys")).split())
    assert loaded - sys.stdlib_module_names == {"fisherflat"}


@pytest.mark.parametrize("module", CORE)
def test_core_loads_no_heavy_package(module):
    loaded = set(run(LOADED.format(module=module)).split())
    assert not loaded & {"transformers", "matplotlib", "pandas", "scipy", "geomstats", "flint", "typer", "rich"}


@pytest.mark.parametrize("module", CORE)
def test_core_runs_on_torch_and_numpy_alone(module):
    run(ALONE.format(module=module))
