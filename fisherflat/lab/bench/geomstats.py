"""geomstats as a competitor, in a process of its own.

It fixes its backend at import, and of its backends only the one on autograd gives the right curvature of a pullback
metric (2.8.0: with PyTorch a sphere comes out flat). Run as a module, this file is that process: it reads the map's
arrays from the file named on the command line, then one line of points after another, and answers each with a line of
scalar curvatures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fisherflat._typing import Float, Tensor
from fisherflat.lab.bench.maps import Subject


class Worker:
    """`PullbackMetric.scalar_curvature` of an attention map whose last token is read out; points `[P, k]` to `[P]`."""

    def __init__(self, subject: Subject) -> None:
        weights = {name: tensor.numpy() for name, tensor in subject.module.inner.state_dict().items()}  # type: ignore[attr-defined]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "map.npz"
            np.savez(path, point=subject.chart.point.numpy(), basis=subject.chart.basis.numpy(), **weights)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fisherflat.lab.bench.geomstats", str(path)],
                env={**os.environ, "GEOMSTATS_BACKEND": "autograd"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._answer()  # the arrays are read

    def _answer(self) -> Any:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError("the geomstats process ended early")
        return json.loads(line)

    def __call__(self, u: Float[Tensor, "P k"]) -> Float[Tensor, " P"]:
        """The scalar curvature at the points `u`."""
        self._process.stdin.write(json.dumps(u.tolist()) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return torch.tensor(self._answer(), dtype=torch.float64)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _serve(path: str) -> None:
    import autograd.numpy as anp
    from geomstats.geometry.base import ImmersedSet
    from geomstats.geometry.euclidean import Euclidean
    from geomstats.geometry.pullback_metric import PullbackMetric

    with np.load(path) as arrays:
        w = {name: arrays[name] for name in arrays.files}

    def attention(u: Any) -> Any:
        x = w["point"] + anp.tensordot(u, w["basis"], axes=1)
        query, key, value = (x @ w[f"{name}.weight"].T for name in ("query", "key", "value"))
        scores = query @ anp.swapaxes(key, -1, -2) / np.sqrt(x.shape[-1])
        exponentials = anp.exp(scores - anp.max(scores, axis=-1, keepdims=True))
        pattern = exponentials / anp.sum(exponentials, axis=-1, keepdims=True)
        gate = 1 / (1 + anp.exp(-(x @ w["gate.projection.weight"].T)))
        return (((pattern @ value) * gate) @ w["output.weight"].T)[..., -1, :]

    class Surface(ImmersedSet):
        immersion = staticmethod(attention)

        def _define_embedding_space(self) -> Any:
            return Euclidean(w["point"].shape[-1])

    surface = Surface(dim=len(w["basis"]))
    surface.equip_with_metric(PullbackMetric)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        points = np.array(json.loads(line))
        print(json.dumps([float(surface.metric.scalar_curvature(point)) for point in points]), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
