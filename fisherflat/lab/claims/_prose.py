"""Paragraphs of the page of the claims, in which numbers are filled in."""

from __future__ import annotations

INTRODUCTION = """What two papers claim of gates, curvature and symmetry, *Gating Enables Curvature* (arXiv
2604.14702) and *Gated MLPs as Symmetry-Broken Rank-1 Bilinear Attention* (arXiv 2606.22172), asked by a protocol
that was written and committed before any run that counts, and answered as it fell: {models}. The protocol is
`fisherflat/lab/claims/protocol.toml` (sha256 `{hash}…`); it names the tasks, arms, seeds, measures, margins and
tests, and no verdict rests on anything else. To make the tables again, and the pages of them (with
the extra `reproduce`):

```sh
{run}
{settle}
```"""

RULES = """A test *holds* or *does not hold* where the interval of its effect lies wholly on one side of the margin
that was named before, and its p value, corrected after Holm for all tests that decide the claim, is below 5 %; all
else is *undecided*. A claim holds where all of them hold, and does not hold where one does not. Intervals of
differences are BCa bootstrap intervals over seeds, paired by seed, with p values from flipping signs; those over
several tasks are Student's t over tasks; those of correlations resample whole tasks. Together the tests that decide
a claim are wrong in at most one of twenty such experiments: each interval is as wide as that asks for ({confidence}
for all of them together). Fewer than {seeds} seeds, or {tasks} tasks, give no verdict. *Detectable* is the distance
from the margin that so many seeds with this spread show in four experiments of five. *Live*: nothing is held;
*held*: attention patterns are held at the point itself. *Unit*: distances between representations as they are;
*calibrated*: in units of their spread over the test examples; *whitened*: of their covariance."""

MEASURES = """Every measure that was taken, gated next to ungated in the models of the tests that decide: the ratio
of the geometric means over seeds and, in brackets, in how many of the seeds the gated model has more. Where a
measure has no logarithm, the share alone. No verdict rests on these but on those above."""

SHOWN = """Here in the calibrated metric, and the paper's proxy as it defines it; `measures.parquet` has all of them."""

CORRELATIONS = """The correlation of each measure with accuracy, {models} models on {tasks} tasks, with 95 %
intervals from resampling tasks. *Pooled*: all models together; *within task (and arm)*: the mean of the
correlations in each; *task means*: of the means of the tasks. The mixed model has a level and a slope for
each task and a level for each arm. Where the levels disagree, a pooled correlation says which tasks are easy, and
not what curvature does."""

GAUGE = """A read-out that is divided by what multiplies the representation classifies every example as before.
Multiply each representation by a factor between 1/2 and 2, and the correlation of measures in the metric *unit*
goes anywhere between the two ends below, while no prediction changes; the other two metrics do not notice, and only
*whitened* ones do not notice stretches in some directions either."""

ACCURACIES = """On test examples, in per cent, with the standard deviation over seeds; labels are flipped with the
probability that the protocol names. `accuracies.parquet` has all other forms, training accuracies and parameters."""

SHUFFLED = """The control: models trained on permuted labels and tested on true ones, mean and range over seeds. They
are not all at 50 %, and need not be: in training sets of this size a permuted label is by chance the true one in up to
{most} % of the examples, and a model learns what is left of the rule, or its opposite. Over the {models}
models the rank correlation of the accuracy with the share of such examples is {correlation}, a mean over tasks."""

MLPS = """All kinds that were trained, means over seeds and teachers; losses are relative to the variance of the
targets. *slots* is bilinear attention of rank 3, whose slots are replaced by their best gated units: the rank-one form
of the paper is an approximation of it, with the error of the last columns."""

CEILING = """The best possible accuracy is {best} %, as labels are flipped, and the mean of every arm in these tests is
at most {short} points below it. Equality there says that a gate does no harm; an advantage of a point could hardly have
been seen, and the verdict is not one on linear tasks that are harder."""
