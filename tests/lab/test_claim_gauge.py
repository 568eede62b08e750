"""The gauge: a stretched representation whose read-out undoes it classifies as before and curves otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fisherflat.lab.claims._beside import STRETCHED
from fisherflat.lab.claims._measures import measure
from fisherflat.lab.claims._models import Classifier, Encoder
from fisherflat.lab.claims._protocol import Protocol


class Stretched(Encoder):
    """A representation in other coordinates."""

    def __init__(self, encoder: nn.Module, matrix: Tensor) -> None:
        super().__init__(2, 4, 2, 0)
        self.encoder, self.matrix = encoder, nn.Parameter(matrix, requires_grad=False)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        return (self.matrix @ self.encoder(x, at).unsqueeze(-1)).squeeze(-1)


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, float]]:
    model = Classifier(2, 4, 2, seed=0, arm={"gate": "sigmoid", "position": "output"}).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    inputs = 4 * torch.rand(300, 2, generator=generator, dtype=torch.float64) - 2
    shape = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(shape)[0]
    matrices = {"none": torch.eye(4).double(), "turned and larger": 3.0 * turn, "stretched": shape}
    found = {}
    for name, matrix in matrices.items():
        stretched = Stretched(model.representation, matrix)
        readout = model.readout.weight @ torch.linalg.inv(matrix)
        assert torch.allclose(stretched(inputs) @ readout.T + model.readout.bias, model(inputs)[:, None])
        found[name] = measure(Protocol.load(), "ring", stretched, inputs)
    return found


LOCAL = ("scalar_mean", "scalar_median", "second_fundamental_norm", "total_absolute_gauss")


def test_a_factor_moves_unit_measures_by_its_power_and_no_others(measured) -> None:
    before, after = measured["none"], measured["turned and larger"]
    for name in LOCAL:
        factor = 3.0 ** STRETCHED.get(name, 0)
        assert after[f"{name}:live:unit"] == pytest.approx(factor * before[f"{name}:live:unit"], rel=1e-6)
        for metric in ("calibrated", "whitened"):
            assert after[f"{name}:live:{metric}"] == pytest.approx(before[f"{name}:live:{metric}"], rel=1e-6)


def test_a_stretch_in_some_directions_moves_all_but_whitened_measures(measured) -> None:
    before, after = measured["none"], measured["stretched"]
    for name in LOCAL:
        assert after[f"{name}:live:whitened"] == pytest.approx(before[f"{name}:live:whitened"], rel=1e-5)
        for metric in ("unit", "calibrated"):
            assert abs(after[f"{name}:live:{metric}"] / before[f"{name}:live:{metric}"] - 1) > 0.05
