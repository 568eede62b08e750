"""Integers, lists and names of every kind: what is meant is taken, and what is not is refused with an error of ours.

Run as a program, since the tests check annotations, which would refuse most of it first.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fisherflat as ff
from fisherflat.errors import FisherflatError
from fisherflat.models import Model

IDS = [1, 2, 3, 4]
SMALL: dict[str, Any] = {"layers": [0], "parts": ["mlp"], "points": 1, "readings": ["live"], "progress": False}
STATES = np.random.default_rng(0).normal(size=(5, 4))

BOWL = ff.StatisticalManifold(lambda u: torch.cat([u, u.square().sum()[None]]), ff.charts.identity(2))


def analyze(**options: Any) -> Callable[[Model], Any]:
    return lambda model: ff.analyze(model, IDS, **SMALL | options)


def depth(**options: Any) -> Callable[[Model], Any]:
    small = {"points": 1, "budget_points": 0, "resolution": 0, "readings": ["live"], "progress": False}
    return lambda model: ff.study_depth(model, IDS, **small | options)


def certify(**options: Any) -> Callable[[Model], Any]:
    return lambda model: ff.certify_layer(model, **{"layer": 0, "prompt": IDS, "reading": "frozen pattern"} | options)


def manifold(**options: Any) -> Callable[[Model], Any]:
    return lambda _: ff.StatisticalManifold(lambda u: u, ff.charts.identity(2), **options).metric([0.0, 0.0])


#: anything that is an integer: NumPy's, a tensor's, in a range, an array or a tensor
TAKEN: dict[str, Callable[[Model], Any]] = {
    "numbers of an analysis": analyze(points=np.int64(2), seed=np.uint8(3), dim=np.int32(2), jobs=np.int64(1)),
    "layers in an array": analyze(layers=np.array([0, -1])),
    "layers in a range": analyze(layers=range(1)),
    "layers in a tensor": analyze(layers=torch.tensor([0])),
    "positions in an array": analyze(positions=np.array([1, 2])),
    "heads in an array": analyze(heads=np.array([1])),
    "the first head alone": analyze(parts=[], heads=[0]),
    "a prompt of NumPy's": lambda model: model.blocks(np.array(IDS), stop=np.int64(1)),
    "numbers of a study of depth": depth(points=np.int64(1), position=np.int64(1), resolution=np.int64(2)),
    "a layer and a position": certify(layer=np.int64(0), position=np.int64(1), k=np.int64(2), precision=np.int64(64)),
    "a token": lambda _: ff.charts.token(STATES, np.int64(1), np.eye(4)[:2]),
    "tokens": lambda _: ff.charts.principal(STATES, index=torch.tensor(-1)),
    "lists where tensors are meant": lambda _: ff.freeze(ff.layers.SelfAttention(2), [[1.0, 2.0], [3.0, 4.0]]),
    "a dimension": lambda _: ff.charts.identity(np.int64(2)),
}
REFUSED: dict[str, Callable[[Model], Any]] = {
    **{f"{name}={value!r}": analyze(**{name: value}) for name, value in (
        ("layers", 1), ("layers", [0.5]), ("layers", ["0"]), ("layers", "0"), ("layers", []), ("points", 1.5),
        ("points", "1"), ("points", 0), ("points", True), ("seed", 0.5), ("seed", "a"), ("dim", 2.5), ("dim", "2"),
        ("dim", 1), ("positions", 1), ("positions", [0.5]), ("positions", "first"), ("heads", 1), ("heads", [0.5]),
        ("heads", []), ("parts", 1), ("parts", "mlp"), ("parts", None), ("readings", 1), ("readings", [1]),
        ("readings", "live"), ("moves", 3), ("moves", None), ("engine", 3), ("dtype", "float64"), ("jobs", 0),
        ("jobs", 1.5), ("jobs", "2"), ("runner", 3), ("errors", ["all"]), ("errors", None), ("precision", ["auto"]),
        ("precision", None), ("covariance", {}),
    )},
    **{f"depth, {name}={value!r}": depth(**{name: value}) for name, value in (
        ("points", 1.5), ("points", 0), ("resolution", 2.5), ("seed", "a"), ("readings", "live"), ("position", 0.5),
        ("budget_points", -1), ("k", 2.5),
    )},
    **{f"certificate, {name}={value!r}": certify(**{name: value}) for name, value in (
        ("layer", 0.5), ("layer", 99), ("layer", "0"), ("part", 3), ("part", None), ("part", "head 99"), ("among", 3),
        ("reading", 3), ("covariance", "x"), ("covariance", -1),
        ("position", 0.5), ("precision", 64.5), ("precision", 0), ("k", "2"),
    )},
    **{f"memory={memory!r}": manifold(memory=memory) for memory in (0, -1, 1.5, "x")},
    **{f"device={device!r}": lambda _, device=device: ff.load("python-llama", device=device)
       for device in ("toaster", "cuda:99")},
    **{f"prompts that are {kind}": lambda model, given=given: ff.analyze(model, given, **SMALL)
       for kind, given in (("a set", {5, 6}), ("bytes", b"def"), ("a path", Path("x")), ("none", None),
                           ("sparse", torch.ones(4, 96).to_sparse()), ("not there", torch.ones(4, 96, device="meta")),
                           ("no number", torch.full((4, 96), torch.nan)), ("an empty batch", torch.ones(0, 4, 96)))},
    "no certificate": lambda model: ff.verify_layer(None, model),
    "a certificate from nowhere": lambda _: ff.Certificate.load(None),
    "a text that cannot be written": lambda _: ff.load("python-llama").encode("a\udcffb"),
    **{f"a map of extent {extent!r}": lambda _, extent=extent: ff.curvature_field(BOWL, extent, resolution=3)
       for extent in (0.3, None, "a", [1, 2], [0, 1, 0, "b"], (1, 0, 0, 1))},
    **{f"a map of {side!r} points": lambda _, side=side: ff.curvature_field(BOWL, (0, 1, 0, 1), resolution=side)
       for side in (2.5, "3", None, 1)},
    "a token that is none": lambda _: ff.charts.token(STATES, 0.5, np.eye(4)[:2]),
    "a token in words": lambda _: ff.charts.token(STATES, "1", np.eye(4)[:2]),
    "half a dimension": lambda _: ff.charts.identity(2.5),
    "a radius in words": lambda _: ff.certify(lambda u: u, ff.charts.identity(2), radius="x"),
    "values in words": lambda _: ff.statistics.estimate("abc"),
    "no confidence": lambda _: ff.statistics.estimate([1.0, 2.0], confidence=2.0),
    "no resamples": lambda _: ff.statistics.estimate([1.0, 2.0, 3.0], resamples=0),
}  # fmt: skip


def settings_are_fit_for_files(model: Model) -> None:
    """Whatever integers they came as."""
    some = {"layers": np.array([0]), "positions": np.array([1]), "heads": [np.int8(1)]}
    with tempfile.TemporaryDirectory() as folder:
        found = ff.analyze(model, IDS, folder=folder, **SMALL | some)
    assert json.loads(json.dumps(found.settings)) == found.settings


def wrong() -> list[str]:
    """What is refused that is meant, and what is not refused, or with an error of somebody else's."""
    model, found = ff.load("python-llama"), []
    for kind, call in {**TAKEN, "settings": settings_are_fit_for_files}.items():
        try:
            call(model)
        except Exception as error:
            found.append(f"{kind}: {error!r}")
    for kind, call in REFUSED.items():
        try:
            call(model)
        except FisherflatError:
            continue
        except Exception as error:
            found.append(f"{kind}: {error!r}")
        else:
            found.append(f"{kind}: taken")
    return found


if __name__ == "__main__":
    said = wrong()
    print("\n".join([*said, f"{len(TAKEN)} kinds are taken, {len(REFUSED)} refused, {len(said)} wrong"]))
    sys.exit(len(said) > 0)
