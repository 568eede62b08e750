"""How long symmetries of gated MLPs take: null spaces, generators of a large layer, all MLPs of a large checkpoint.

`python -m fisherflat.lab.bench.symmetry null`, `generators` or `checkpoint` measures one of them in this process, and
prints sizes, seconds of wall clock and of processor, and the peak of the resident set.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fisherflat.lab.bench import checkpoint
from fisherflat.layers import GatedMLP


def measured(name: str, task: Callable[[], dict[str, Any]]) -> None:
    """Run and print."""
    wall, used = time.perf_counter(), time.process_time()
    found = task()
    found |= {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - used, 1)}
    found["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    print(name, *(f"{key}={value}" for key, value in found.items()), flush=True)


def null(activation: str, width: int = 64, units: int = 128, inputs: int = 1000) -> dict[str, Any]:
    """The whole null space of the Fisher metric of the weights of a random layer."""
    from fisherflat.gated_mlp import null_directions

    torch.manual_seed(0)
    found = null_directions(GatedMLP(width, units, activation).double(), torch.randn(inputs, width).double())
    return {
        "weights": 3 * width * units,
        "dimension": found.dimension,
        "predicted": found.predicted,
        "residual": f"{found.residual:.0e}",
        "gap": f"{found.gap:.0e}",
    }


def generators(width: int = 512, units: int = 2048, inputs: int = 2048) -> dict[str, Any]:
    """The Fisher metric restricted to the predicted generators of a random SwiGLU layer."""
    from fisherflat.gated_mlp import generator_metric

    torch.manual_seed(0)
    metric = generator_metric(GatedMLP(width, units, "silu").double(), torch.randn(inputs, width).double())
    return {"generators": len(metric), "largest_eigenvalue": f"{torch.linalg.eigvalsh(metric)[-1]:.4g}"}


def large(folder: str) -> dict[str, Any]:
    """All MLPs of a checkpoint in a folder."""
    import fisherflat

    found = fisherflat.symmetry.study(fisherflat.load(folder), checkpoint.IDS)
    return {"units": len(found.table), "certificates": len(found.certificates)}


def main(what: str) -> None:
    """Measure one of `null`, `generators` and `checkpoint`."""
    if what == "null":
        for activation in ("identity", "relu", "relu2", "silu", "gelu"):
            measured(f"null {activation}", partial(null, activation))
    elif what == "generators":
        measured("generators", generators)
    elif what == "checkpoint":
        with TemporaryDirectory(prefix="fisherflat-bench-") as folder:
            total, _ = checkpoint.write(Path(folder), **checkpoint.FULL)
            measured(f"checkpoint of {total} parameters", partial(large, folder))
    else:
        sys.exit("what is to be measured: null, generators or checkpoint")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
