"""The figure of a bilinear surrogate's curvature shows the numbers it is given."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch

import fisherflat as ff
from fisherflat import plot


def test_each_input_is_a_point_and_singular_ones_are_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    x[3] = 0  # without biases a bilinear MLP has no first derivative there
    basis = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    torch.manual_seed(0)
    surrogate = ff.symmetry.bilinear_surrogate(ff.layers.GatedMLP(4, 6, "relu2").double(), x)
    family = ff.Gaussian(0.2)
    kept = [i for i in range(20) if i != 3]
    figure, ax = plt.subplots()
    assert plot.surrogate_curvature(surrogate, basis, family=family, ax=ax) is ax
    points, line = ax.lines
    exact, approximate = (curvature[kept] for curvature in surrogate.scalar_curvatures(basis, family=family))
    np.testing.assert_array_equal(points.get_xdata(), exact)
    np.testing.assert_array_equal(points.get_ydata(), approximate)
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    plt.close(figure)
