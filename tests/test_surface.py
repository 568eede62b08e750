"""The public surface: one table of contents, the same before and after use, described, typed, and of one grammar."""

from __future__ import annotations

import ast
import inspect
import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest
import torch
from conftest import ROOT
from public import MODULES, NAMES

import fisherflat as ff

# -- the table of contents ---------------------------------------------------------------------------------------------

EVERYTHING = """
import json, pkgutil
from importlib import import_module
import fisherflat as ff

rooms = [module.name for module in pkgutil.iter_modules(ff.__path__) if module.name[0] != "_"]
before = dir(ff), all(hasattr(ff, room) for room in rooms)
found = [module.name for module in pkgutil.walk_packages(ff.__path__, "fisherflat.") if module.name[-8:] != "__main__"]
for name in found:
    import_module(name)
for name in dir(ff):
    getattr(ff, name)
print(json.dumps([before, [dir(ff), all(hasattr(ff, room) for room in rooms)], len(found)]))
"""


def test_the_table_of_contents_is_the_same_before_and_after_use() -> None:
    done = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True, check=True)
    before, after, imported = json.loads(done.stdout)
    assert before == after and before[1] and before[0] == sorted(ff.__all__) and imported > 100


def test_type_checkers_are_told_the_same_names() -> None:
    tree = ast.parse((ROOT / "fisherflat" / "__init__.py").read_text())
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    )
    told = {alias.asname: node.module for node in block.body for alias in node.names}
    assert told.keys() == {*dir(ff)} - {"__version__"}
    for name, module in told.items():
        assert getattr(import_module(module), name) is getattr(ff, name)


def test_a_misspelt_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="see dir"):
        ff.statisticz  # noqa: B018


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_lies_where_its_name_says_and_lists_its_names(name: str) -> None:
    module = MODULES[name]
    assert import_module(f"fisherflat.{name}") is module
    assert module.__all__ and len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, each) for each in module.__all__)
    assert module.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_described(name: str) -> None:
    summary = (inspect.getdoc(NAMES[name]) or "").partition("\n")[0]
    assert summary and summary[-1] in ".:?"


def test_no_name_shadows_a_module() -> None:
    shadowed = []
    for found in pkgutil.walk_packages(ff.__path__, "fisherflat."):
        package, _, name = found.name.rpartition(".")
        if name != "__main__" and not isinstance(
            getattr(import_module(package), name, import_module("sys")), ModuleType
        ):
            shadowed.append(found.name)
    assert not shadowed


def test_both_names_of_the_gaussian_are_one() -> None:
    assert ff.families.Gaussian is ff.Gaussian


# -- types -------------------------------------------------------------------------------------------------------------

USER = """
import torch
import fisherflat as ff
from fisherflat.charts import Chart

layer = ff.layers.SelfAttention(8, heads=2, gate=ff.layers.Gate("silu", position="value"))
chart: Chart = ff.charts.principal(torch.randn(5, 8), index=-1, k=2)
M = ff.StatisticalManifold(ff.freeze(layer, chart.point), chart, family=ff.Gaussian(0.5), engine="taylor")
scal: torch.Tensor = M.scalar_curvature(torch.zeros(2))
field: ff.CurvatureField = ff.curvature_field(M, (-1.0, 1.0, -1.0, 1.0), resolution=5)
certificate: ff.Certificate = ff.certify(layer, chart, at=[0.0, 0.0])
checked: ff.Verification = ff.verify(certificate, layer, chart)
model: ff.Model = ff.load("python-llama")
block: ff.Block = model.blocks("def mean(values):")[0]
analysis: ff.Analysis = ff.analyze(model, ["def mean(values):"], dim=2, moves=ff.moves.Principal(2))
degree: float | None = ff.symmetry.homogeneity("relu")
"""
WRONG = """
import fisherflat as ff

degree: str = ff.symmetry.homogeneity("relu")
ff.charts.affin([0.0], [[1.0]])
ff.statisticz
point: float = ff.charts.identity(2).point
"""
#: what the types of the library do not depend on is left out, for speed: of torch, all but tensors and modules
CONFIGURATION = """
[mypy]
strict = true
follow_imports = silent
[mypy-transformers.*,tokenizers.*,matplotlib.*,numpy.*,scipy.*,sympy.*,rich.*,typer.*,flint.*,jax.*,xarray.*,IPython.*,torch.*]
follow_imports = skip
follow_imports_for_stubs = true
[mypy-torch,torch._tensor,torch._C,torch._C._VariableFunctions,torch.nn,torch.nn.modules,torch.nn.modules.module]
follow_imports = silent
"""


def test_a_users_code_passes_mypy_strict_and_mistakes_do_not(tmp_path, monkeypatch) -> None:
    assert (ROOT / "fisherflat" / "py.typed").exists()  # without it a checker ignores the types of an installed package
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    command = [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--cache-dir=cache", "user.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line.partition(": error:")[0] for line in said] == [f"wrong.py:{n}" for n in (4, 5, 6, 7)], done.stdout


# -- grammar -----------------------------------------------------------------------------------------------------------

#: what the contract calls `dim`: the width of a layer, and how many directions of a model's states move
DIM_BY_CONTRACT = {
    "families.FullGaussian",
    "layers.SelfAttention",
    "layers.GatedMLP",
    "charts.identity",
    "zoo.build",
    "analyze",
}


def signature(name: str) -> inspect.Signature | None:
    try:
        return inspect.signature(NAMES[name])
    except (TypeError, ValueError):
        return None


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_called_k_ambient_dim_and_width(name: str) -> None:
    found = signature(name)
    assert found is None or name in DIM_BY_CONTRACT or "dim" not in found.parameters


def test_layers_have_no_bias_unless_asked() -> None:
    defaults = {
        name: found.parameters["bias"].default
        for name in NAMES
        if (found := signature(name)) and "bias" in found.parameters
    }
    assert len(defaults) > 4 and not any(defaults.values())


@pytest.mark.parametrize("name", [name for name, thing in NAMES.items() if inspect.isfunction(thing)])
def test_no_function_returns_a_bare_tuple(name: str) -> None:
    annotation = str(inspect.signature(NAMES[name]).return_annotation)
    assert not annotation.startswith(("tuple[", "typing.Tuple")) or "..." in annotation


# -- old names ---------------------------------------------------------------------------------------------------------


def test_old_names_still_work_and_say_the_new_ones() -> None:
    states = torch.eye(4, dtype=torch.float64)
    with pytest.warns(DeprecationWarning, match="now called 'k'"):
        chart = ff.charts.principal(states, -1, dim=2)
    assert torch.equal(chart.basis, ff.charts.principal(states, -1, 2).basis)
    surface = ff.StatisticalManifold(ff.layers.GatedMLP(4, 6), chart)
    renamed = {
        "k": (chart, surface, ff.moves.Principal(2)),
        "ambient_dim": (ff.Gaussian([1.0, 2.0]),),
        "width": (ff.layers.GatedMLP(4, 6), ff.layers.SelfAttention(4)),
    }
    for new, things in renamed.items():
        for thing in things:
            with pytest.warns(DeprecationWarning, match=f"now called '{new}'"):
                assert thing.dim == getattr(thing, new)
    with pytest.warns(DeprecationWarning, match="now called 'width'"):
        assert ff.layers.GatedConv1d(dim=3, kernel=2).width == 3
