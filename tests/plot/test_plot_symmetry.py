"""Figures of symmetries: what they say, and what they refuse."""

from __future__ import annotations

import matplotlib
import pandas as pd
import pytest
import torch

import fisherflat as ff
from fisherflat.errors import InputError

matplotlib.use("agg")


def test_the_null_spectrum_is_drawn_with_the_prediction() -> None:
    """Four units with a homogeneous activation: two generators each."""
    generator = torch.Generator().manual_seed(0)
    mlp = ff.layers.GatedMLP(5, 4, "relu").double()
    for parameter in mlp.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    inputs = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    axes = ff.plot.null_spectrum(ff.symmetry.null_directions(mlp, inputs))
    assert "predicted by symmetries: 8; found: 8" in axes.get_legend_handles_labels()[1]


def test_a_model_without_gated_mlps_has_no_figure() -> None:
    with pytest.raises(InputError, match="gated MLPs"):
        ff.plot.unit_forms(pd.DataFrame())
