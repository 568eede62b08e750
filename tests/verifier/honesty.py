"""Whether the verifier knows what the prover knows: certificates of one operator after the other, proved and verified.

`python tests/verifier/honesty.py` takes the calls of `tests/cases/rules.py`; `--database N` takes up to N maps of every
differentiable operator of torch's own database instead. The table counts verdicts, certificates that are refused though
the prover is honest, and foreign errors, and names the operators of the last two.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from cases import rules
from cases.decompositions import DECOMPOSED
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import FisherflatError
from fisherflat.spaces.charts import Chart

Subject = tuple[str, Callable[[Tensor], Tensor], Chart]


def of_rules() -> Iterator[Subject]:
    """Every call of the table of rules, after something that bends, and beside the coordinates."""
    tables = (rules.STRUCTURAL, DECOMPOSED, rules.LINEAR, rules.PRODUCTS, rules.CHOICES, rules.CONSTANT)
    for name, calls in (item for table in tables for item in table.items()):
        for index, (shape, call) in enumerate(calls):

            def bent(x: Tensor, call: Callable[[Tensor], Tensor] = call) -> Tensor:
                y = call(x + x * x / 8)
                return torch.cat([x.reshape(-1), y.reshape(-1).to(x.dtype)])

            generator = torch.Generator().manual_seed(index)
            basis = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
            point = torch.randn(shape, dtype=torch.float64, generator=generator) / 2
            yield f"{name}[{index}]", bent, ff.charts.affine(point, basis)


def of_database(count: int) -> Iterator[Subject]:
    """Maps of the operator database."""
    from cases.operator_maps import differentiable, maps

    for name in differentiable():
        found = maps(name)
        for index, one in enumerate(found):
            if index == count:
                break
            yield f"{name}[{index}]", one.call, one.chart()


def judged(mean: Callable[[Tensor], Tensor], chart: Chart) -> str:
    """The verdict, and what the verifier says of it."""
    try:
        certificate = ff.certify(mean, chart, at=torch.tensor([0.0137, -0.0071], dtype=torch.float64))
    except FisherflatError:
        return "no certificate"
    except Exception as error:
        return f"foreign error of certify: {type(error).__name__}: {str(error)[:60]}"
    try:
        verification = ff.verify(certificate, mean, chart)
    except Exception as error:
        return f"foreign error of verify: {type(error).__name__}: {str(error)[:60]}"
    if verification.ok:
        reason = f": {certificate.argument}" if certificate.verdict == "undecided" else ""
        return f"{certificate.verdict}{reason}, verified"
    return f"{certificate.verdict}, refused: {verification.reasons[0][:90]}"


def main() -> None:
    """Print the table; exit code 1 where a certificate is refused or an error is foreign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", type=int, metavar="N", help="maps an operator of torch's database")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    bad: list[str] = []
    slowest = (0.0, "")
    for name, mean, chart in of_rules() if options.database is None else of_database(options.database):
        start = time.perf_counter()
        found = judged(mean, chart)
        slowest = max(slowest, (time.perf_counter() - start, name))
        counts[found.split(", refused")[0] + ", refused" if ", refused" in found else found.partition(": ")[0]] += 1
        if "refused" in found or "foreign" in found:
            bad.append(f"{name}: {found}")
            print(bad[-1], flush=True)
    for found, count in sorted(counts.items()):
        print(f"{count:6d}  {found}")
    print(f"slowest: {slowest[1]}, {slowest[0]:.1f} s")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
