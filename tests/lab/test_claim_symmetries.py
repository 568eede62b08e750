"""The gated MLPs of the second paper: their training, and their symmetries against those that the library computes."""

import pytest
import torch

import fisherflat as ff
from fisherflat.lab.claims._protocol import Protocol
from fisherflat.lab.claims._symmetries import MLPs, Weights, mlps, outputs, rows_of_mlps, trained

PROTOCOL = Protocol.load()
#: between inputs and outputs of different widths, which the library's MLP does not have
PAD = 2


def _mlp(weights: Weights, activation: str, seed: int = 0) -> ff.layers.GatedMLP:
    gate, up, value = (w[seed] for w in weights)
    mlp = ff.layers.GatedMLP(gate.shape[-1], len(gate), activation).double()
    with torch.no_grad():
        mlp.gate.weight.copy_(gate[:, 0])
        mlp.up.weight.copy_(up[:, 0])
        mlp.down.weight.copy_(torch.nn.functional.pad(value, (0, PAD)).T)
    return mlp


@pytest.mark.parametrize("activation", ["relu", "silu", "sigmoid"])
def test_defects_are_those_of_the_library(activation: str) -> None:
    unit = MLPs("one", activation, 2, "adam", (1000, 1001))
    _, end, (_, _, x, _) = trained(PROTOCOL, unit, 15)
    for index, row in enumerate(rows_of_mlps(PROTOCOL, unit, 15, True)):
        mlp = _mlp(end, activation, index)
        expected = torch.nn.functional.pad(outputs(end, x, "one", activation)[index], (0, PAD))
        assert torch.allclose(mlp(x[index]), expected, atol=1e-12)
        assert row["exchange_defect"] == pytest.approx(ff.symmetry.exchange_defect(mlp, x[index]).item(), rel=1e-9)
        scaled = ff.symmetry.inverse_scaling_defect(mlp, x[index], 2.0).item()
        assert row["inverse_scaling_defect"] == pytest.approx(scaled, rel=1e-9, abs=1e-13)


def test_what_should_hold_holds_and_what_should_break_breaks() -> None:
    found = {
        (unit.side, unit.activation): rows_of_mlps(PROTOCOL, unit, 20, True)[0]
        for unit in mlps(PROTOCOL, 1, True)
        if unit.optimizer == "gradient flow" and unit.rank == 1
    }
    for (side, activation), row in found.items():
        homogeneous = activation in ("identity", "relu")
        assert (row["exchange_defect"] < 1e-12) == (side != "one")
        assert (row["inverse_scaling_defect"] < 1e-12) == homogeneous
        assert (row["charge_drift"] < 1e-4) == homogeneous  # relu has kinks, over which the method is of first order
        assert (row["charge_drift_output"] < 1e-4) == (side != "both" or homogeneous)
        assert row["train_loss"] > 0 and row["pilot"] and row["steps"] == 20


def test_training_learns_the_teacher() -> None:
    (row,) = rows_of_mlps(PROTOCOL, MLPs("none", "identity", 1, "adam", (1000,)), 300, True)
    assert row["test_loss"] < 0.2  # of the variance
    assert row["parameters"] == 8 * (6 + 6 + 4)


def test_rank_one_is_what_the_best_unit_of_a_slot_loses() -> None:
    unit = MLPs("slots", "identity", 3, "adam", (1000,))
    _, end, _ = trained(PROTOCOL, unit, 60)
    (row,) = rows_of_mlps(PROTOCOL, unit, 60, True)
    errors = []
    for gate, up in zip(end.gate[0], end.up[0], strict=True):
        form = gate.T @ up
        values = torch.linalg.eigvalsh((form + form.T) / 2)
        lost = values.square().sum() - values[0].clamp_max(0).square() - values[-1].clamp_min(0).square()
        errors.append((lost.clamp_min(0) / values.square().sum()).sqrt())
    assert row["rank_one_error"] == pytest.approx(torch.stack(errors).median().item(), rel=1e-9)
    assert row["rank_one_test_loss"] > row["test_loss"]


def test_the_protocol_asks_for_every_kind() -> None:
    asked = list(mlps(PROTOCOL))
    assert len({unit.name for unit in asked}) == len(asked) == 3 * (8 + 7)
    assert all(unit.seeds == tuple(range(20)) for unit in asked)
