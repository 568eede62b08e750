"""Each argument of each public call replaced by things of every kind: it is taken, or refused with an error of ours.

Run as a program, since the tests check annotations, which would refuse most of it first.
"""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat import charts, families, layers, scale, statistics, training
from fisherflat.errors import FisherflatError

#: what no argument means, or few
KINDS: tuple[Any, ...] = (
    None, "x", b"x", 3.7, -1, 0, True, np.True_, torch.tensor(True),
    10**30, float("nan"), float("inf"), [], {}, object(), range(0), lambda: 0,
    [[1.0], [1.0, 2.0]], np.array(["a"]), torch.zeros(0), torch.zeros(3, 3, 3, 3), torch.tensor([1, 2]),
    torch.tensor(1 + 2j), torch.full((2,), float("nan")), torch.zeros(2, dtype=torch.float16),
)  # fmt: skip


def bowl(x: Tensor) -> Tensor:
    return torch.stack([x[0], x[1], x[0] ** 2 + x[1] ** 2])


torch.manual_seed(0)
PLANE = charts.identity(2)
BOWL = ff.StatisticalManifold(bowl, PLANE)
CURVED = ff.StatisticalManifold(lambda x: torch.cat([x, x.square()]), charts.identity(3))
ATTENTION = layers.SelfAttention(4, heads=2).double()
STATES = torch.randn(5, 4, dtype=torch.float64)
BASIS = torch.randn(2, 5, 4, dtype=torch.float64)
CHART = charts.affine(STATES, BASIS)
AT = [0.0, 0.0]


def measured(**arguments: Any) -> Any:
    return ff.StatisticalManifold(**arguments).metric(AT)


def penalised(**arguments: Any) -> Any:
    return training.CurvaturePenalty(ATTENTION, CHART, **arguments)()


#: calls that are right
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "charts.affine": (charts.affine, {"point": STATES, "basis": BASIS}),
    "charts.token": (charts.token, {"hidden": STATES, "index": 1, "basis": torch.eye(4, dtype=torch.float64)[:2]}),
    "charts.principal": (charts.principal, {"hidden": STATES, "index": 1, "k": 2}),
    "charts.identity": (charts.identity, {"dim": 2}),
    **{
        name: (getattr(BOWL, name), {"u": AT})
        for name in (
            "metric", "christoffel", "scalar_curvature", "riemann", "ricci", "mean_curvature", "volume_density", "at",
            "jet", "second_fundamental_form", "verdict",
        )
    },
    "sectional_curvature": (BOWL.sectional_curvature, {"u": AT, "x": [1.0, 0.0], "y": [0.0, 1.0]}),
    "measure": (BOWL.measure, {"u": AT, "quantities": ["scalar_curvature"], "error": True, "precision": "working"}),
    "exp": (BOWL.exp, {"u": AT, "v": [0.1, 0.1]}),
    "log": (BOWL.log, {"u0": AT, "u1": [0.1, 0.1]}),
    "distance": (BOWL.distance, {"u0": AT, "u1": [0.1, 0.1]}),
    "sampled_scalar_curvature": (
        CURVED.sampled_scalar_curvature, {"u": [0.0] * 3, "error": 0.2, "seed": 0, "budget": 100}
    ),
    "StatisticalManifold": (
        measured, {"mean": bowl, "chart": PLANE, "family": ff.Gaussian(), "engine": "taylor", "dtype": torch.float64,
                   "degenerate": "raise", "memory": 10**9},
    ),
    "Gaussian": (ff.Gaussian, {"covariance": 1.0}),
    "FullGaussian": (families.FullGaussian, {"dim": 3}),
    "VonMisesFisher": (families.VonMisesFisher, {"concentration": 1.0}),
    "ExponentialFamily": (families.ExponentialFamily, {"log_partition": lambda t: t.square().sum()}),
    "freeze": (ff.freeze, {"module": ATTENTION, "at": STATES, "roles": ("pattern",)}),
    "trace": (ff.trace, {"module": ATTENTION, "at": STATES}),
    "SelfAttention": (layers.SelfAttention, {"dim": 4, "heads": 2, "causal": False, "gate": layers.Gate()}),
    "Gate": (layers.Gate, {"activation": "silu", "granularity": "elementwise", "position": "value"}),
    "GatedMLP": (layers.GatedMLP, {"dim": 4, "hidden": 6, "activation": "silu"}),
    "GatedConv1d": (layers.GatedConv1d, {"width": 4, "kernel": 2, "activation": "silu"}),
    "LowRankBilinearPooling": (
        layers.LowRankBilinearPooling, {"first": 4, "second": 3, "rank": 2, "outputs": 2, "activation": "tanh"}
    ),
    "BilinearAttentionNetwork": (
        layers.BilinearAttentionNetwork, {"first": 4, "second": 3, "rank": 2, "features": 2, "outputs": 2,
                                          "glimpses": 1, "activation": "relu"},
    ),
    "BilinearAttention": (
        layers.BilinearAttention, {"query": torch.ones(2, 1, 3), "key": torch.ones(2, 1, 3), "value": torch.ones(2, 3),
                                   "activation": "identity", "constant": False},
    ),
    "KeyValueMemory": (
        layers.KeyValueMemory, {"key": torch.eye(3), "value": torch.eye(3), "activation": "relu"}
    ),
    "certify": (ff.certify, {"mean": bowl, "chart": PLANE, "radius": 0.1, "precision": 64}),
    "curvature_field": (ff.curvature_field, {"M": BOWL, "extent": (-1, 1, -1, 1), "resolution": 3}),
    "curvature_budget": (ff.curvature_budget, {"blocks": [bowl], "chart": PLANE, "u": AT}),
    "depth_profile": (ff.depth_profile, {"blocks": [bowl, bowl], "chart": PLANE, "u": AT}),
    "growth": (ff.growth, {"curvature": torch.rand(4, 5), "depth": [1, 2, 3, 4], "seed": 0, "resamples": 50}),
    "estimate": (statistics.estimate, {"values": [1.0, 2.0, 3.0], "confidence": 0.9, "resamples": 50, "seed": 0}),
    "noise_floor": (statistics.noise_floor, {"values": [1.0, 2.0, 3.0, 4.0], "splits": 10, "seed": 0}),
    "holm": (statistics.holm, {"p": [0.1, 0.2]}),
    "scale.of": (scale.of, {"scalar_curvature": 0.005, "k": 2, "error": 0.0, "covariance": "calibrated",
                            "width": None, "volume_density": None}),
    "CurvaturePenalty": (penalised, {"quantity": "scalar_curvature", "target": 0.0, "weight": 1.0, "points": 2,
                                     "spread": 1.0, "seed": 0, "directions": 2}),
}  # fmt: skip


def wrong() -> Iterator[str]:
    """Calls that end in an error of somebody else's."""
    for name, (call, right) in CALLS.items():
        quietly(call, right)
        for argument in right:
            for value in KINDS:
                try:
                    quietly(call, {**right, argument: value})
                except FisherflatError:
                    pass
                except Exception as error:
                    place = traceback.extract_tb(error.__traceback__)[-1]
                    yield (
                        f"{name}({argument}={str(value)[:40]!r}): {type(error).__name__}: {str(error)[:100]} "
                        f"({place.filename.rsplit('/', 1)[-1]}:{place.lineno})"
                    )


def quietly(call: Callable[..., Any], arguments: dict[str, Any]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        call(**arguments)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    CALLS = {name: given for name, given in CALLS.items() if not sys.argv[1:] or name in sys.argv[1:]}
    found = list(wrong())
    print("\n".join(found))
    print(f"{sum(len(right) for _, right in CALLS.values()) * len(KINDS)} calls, {len(found)} wrong")
