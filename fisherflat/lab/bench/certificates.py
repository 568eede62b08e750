"""What proofs of wide layers take: the certificate, its verification, and the products that are nearly all of both."""

from __future__ import annotations

import time
from typing import Any

import torch

from fisherflat.lab.bench._measure import Spread, by_clock
from fisherflat.layers import Gate, SelfAttention
from fisherflat.spaces import charts

#: widths; in a quick run
WIDTHS, QUICK = (256, 1024, 4096), (64,)
TOKENS, BITS = 8, 128
#: beyond it Arb's own product takes a minute
LARGEST = 1024


def over_arb(width: int, repeats: int) -> dict[str, Any]:
    """Process seconds of one certificate of gated attention and of one product with a weight, in slices and by Arb."""
    from fisherflat.provers import certify
    from fisherflat.verifier import verify

    torch.manual_seed(0)
    module = SelfAttention(width, heads=max(1, width // 64), gate=Gate()).double()
    hidden = torch.randn(TOKENS, width, dtype=torch.float64)
    chart = charts.affine(hidden, torch.randn(2, TOKENS, width, dtype=torch.float64) / width**0.5)
    certify(SelfAttention(8).double(), charts.affine(hidden[:, :8], chart.basis[:, :, :8]))  # imports and warm-up
    proved, verified = [], []
    for _ in range(1 if width > LARGEST else repeats):
        start = time.process_time()
        certificate = certify(module, chart, at=[0.0, 0.0], precision=BITS)
        proved.append(time.process_time() - start)
        start = time.process_time()
        assert verify(certificate, module, chart).ok
        verified.append(time.process_time() - start)
    return {
        "width": width,
        "verdict": certificate.verdict,
        "relative_width": _width(certificate.enclosure),
        "proved": Spread.of(proved),
        "verified": Spread.of(verified),
        "product": _product(module, hidden, repeats) if width <= LARGEST else None,
    }


def _width(enclosure: Any) -> float:
    if enclosure is None:
        return float("nan")
    low, high = enclosure
    return float((high - low) / abs(low))


def _product(module: SelfAttention, hidden: torch.Tensor, repeats: int) -> dict[str, Spread]:
    """Rows in all bits times the output projection."""
    import flint
    from flint import arb_mat

    from fisherflat.jets.balls import BallAlgebra, BallArray, balls
    from fisherflat.jets.balls import matrix as as_matrix

    weight = module.output.weight.detach().T
    shape = (len(weight), weight.shape[1])
    with flint.ctx.workprec(BITS):
        rows = BallArray(balls(hidden)).exp()
        constant = BallAlgebra().constant(weight)
        left = as_matrix(rows.balls)
        taken = by_clock(
            {
                "slices": lambda: rows @ constant,
                "arb": lambda: left * arb_mat(*shape, weight.reshape(-1).tolist()),
            },
            repeats,
            weight.device,
        )["process"]
    return {
        **{name: Spread.of(seconds) for name, seconds in taken.items()},
        "arb_over_slices": Spread.ratio(taken["arb"], taken["slices"]),
    }


def table(rows: list[dict[str, Any]]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Title, header and rows for reading."""
    return (
        f"Certificates of gated attention, {TOKENS} tokens, {BITS} bits, process time; a product in slices and by Arb",
        ("width", "verdict", "relative width", "proved", "verified", "slices", "arb_mat", "Arb over slices"),
        [
            (
                str(row["width"]),
                row["verdict"],
                f"{row['relative_width']:.0e}",
                str(row["proved"]),
                str(row["verified"]),
                *(map(str, row["product"].values()) if row["product"] else ("-",) * 3),
            )
            for row in rows
        ],
    )
