"""What a certificate of a layer encloses is the number in the table of an analysis."""

from __future__ import annotations

import pytest

import fisherflat as ff

PROMPT = "def mean(values):"


@pytest.mark.parametrize(("part", "layer"), [("attention", 0), ("mlp", 2), ("block", 1)])
def test_a_certificate_encloses_the_number_of_the_table(part: str, layer: int) -> None:
    """With the defaults of both: the covariance, what moves, and point 0, which is the token's own state."""
    model = ff.load("python-llama")
    found = ff.analyze(
        model, PROMPT, layers=[layer], parts=[part], readings=["live"], positions="last", points=1, progress=False
    )
    proof = ff.certify_layer(model, layer, part, prompt=PROMPT)
    (number,) = found.table.scalar_curvature
    assert proof.verdict == "curved"
    low, high = (2 * float(bound) for bound in proof.enclosure)
    assert number == pytest.approx(low, rel=1e-7) and number == pytest.approx(high, rel=1e-7)
