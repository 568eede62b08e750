"""Mean, spread and interval of a measurement over points, positions and prompts, and how well two of them agree.

Points of one chart share its prompt and position, and positions share the prompt, so that they are not independent
samples of what a layer does. The interval comes from resampling whole clusters, of the highest level that has at least
two: prompts, else positions, else points. What it is over decides what it speaks about: an interval over prompts speaks
about other prompts, one over the positions of a single prompt does not.
"""

from __future__ import annotations

from fisherflat.statistics._agreement import Agreement, agreement, noise_floor
from fisherflat.statistics._estimate import ENOUGH, Estimate, by_group, differences, estimate
from fisherflat.statistics._pairs import PairTest, holm, pair_test

__all__ = [
    "ENOUGH",
    "Agreement",
    "Estimate",
    "PairTest",
    "agreement",
    "by_group",
    "differences",
    "estimate",
    "holm",
    "noise_floor",
    "pair_test",
]
