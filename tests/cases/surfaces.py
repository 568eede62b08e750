"""Small manifolds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import fisherflat as ff
from cases.maps import SURFACES, formula


def torus(engine: str, **options: Any) -> ff.StatisticalManifold:
    return ff.StatisticalManifold(formula(SURFACES["torus"]), ff.charts.identity(2), engine=engine, **options)


def folded(engine: str, **options: Any) -> ff.StatisticalManifold:
    """`(u², v, u v)`, singular at the origin alone."""
    f = formula(("u0**2", "u1", "u0*u1"))
    return ff.StatisticalManifold(f, ff.charts.identity(2), engine=engine, **options)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def plane(width: int, k: int = 2) -> ff.charts.Chart:
    return ff.charts.affine(random(width), random(k, width, seed=1))
