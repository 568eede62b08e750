"""Readings: names and the roles behind them, and which of them make sense."""

from __future__ import annotations

import pytest
import torch

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.layers import Gate, GatedMLP, SelfAttention
from fisherflat.parts import readings


@pytest.mark.parametrize(
    ("written", "roles", "canonical"),
    [
        ("live", (), "live"),
        (" Live ", (), "live"),
        ("frozen pattern", ("pattern",), "frozen pattern"),
        ("pattern", ("pattern",), "frozen pattern"),
        ("Frozen Patterns", ("pattern",), "frozen pattern"),
        ("frozen gate", ("attention_gate",), "frozen gate"),
        ("frozen attention gate", ("attention_gate",), "frozen gate"),
        ("attention_gate", ("attention_gate",), "frozen gate"),
        ("frozen mlp gate", ("mlp_gate",), "frozen mlp gate"),
        ("frozen mlp-gates", ("mlp_gate",), "frozen mlp gate"),
        ("frozen gates", ("attention_gate", "mlp_gate"), "frozen gate+mlp gate"),
        ("frozen gate and pattern", ("pattern", "attention_gate"), "frozen pattern+gate"),
        ("frozen pattern + gate", ("pattern", "attention_gate"), "frozen pattern+gate"),
        ("frozen pattern, frozen norm & gate", ("pattern", "attention_gate", "norm"), "frozen pattern+gate+norm"),
        ("frozen activation", ("activation",), "frozen activation"),
    ],
)
def test_names_and_roles(written: str, roles: tuple[str, ...], canonical: str) -> None:
    assert readings.roles(written) == roles
    assert readings.canonical(written) == canonical
    assert readings.name(roles) == canonical


@pytest.mark.parametrize("written", ["", "frozen", "frozen head", "frozen pattern+", "live+pattern", "other"])
def test_unknown_readings(written: str) -> None:
    with pytest.raises(InputError, match="is no reading; write 'live'"):
        readings.roles(written)


def test_unknown_roles() -> None:
    with pytest.raises(InputError, match="'other' cannot be frozen"):
        readings.name(["pattern", "other"])


def test_every_role_that_can_be_frozen_has_a_word() -> None:
    """`freeze` takes them all, and nothing else; what it names is what the layer has."""
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = SelfAttention(4).double()
    for role in readings.WORDS:
        frozen = ff.freeze(layer, x, [role])
        assert frozen.frozen == (("pattern",) if role == "pattern" else ())
        assert bool(frozen.held) is (role == "pattern")
    with pytest.raises(InputError):
        ff.freeze(layer, x, ["other"])


def test_sensible_readings_of_layers() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def sensible(layer: torch.nn.Module) -> list[str]:
        return readings.sensible(readings.present(ff.trace(layer.double(), x)))

    assert sensible(torch.nn.Linear(4, 4)) == ["live"]
    assert sensible(SelfAttention(4)) == ["live", "frozen pattern"]
    gated = SelfAttention(4, gate=Gate("sigmoid"))
    assert sensible(gated) == ["live", "frozen pattern", "frozen gate", "frozen pattern+gate"]
    assert sensible(GatedMLP(4, 6)) == ["live", "frozen mlp gate"]
    assert sensible(torch.nn.LayerNorm(4)) == ["live", "frozen norm"]
    block = torch.nn.Sequential(torch.nn.LayerNorm(4), SelfAttention(4), GatedMLP(4, 6))
    assert sensible(block) == ["live", "frozen pattern", "frozen norm", "frozen mlp gate", "frozen pattern+mlp gate"]


def test_gaps() -> None:
    assert readings.gap(("pattern", "attention_gate", "norm")) == ("frozen pattern", "frozen pattern+gate")
    assert readings.gap(("mlp_gate",), "mlp_gate") == ("live", "frozen mlp gate")
    assert readings.gap(("pattern", "norm")) is None


def test_what_is_held() -> None:
    """A gated layer with its pattern and its gate held is affine: a step in any direction changes it evenly."""
    generator = torch.Generator().manual_seed(1)
    x, step = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    layer = SelfAttention(4, gate=Gate("sigmoid")).double()
    held = readings.held(layer, x, "frozen pattern+gate")
    assert held.frozen == ("pattern", "attention_gate")
    with torch.no_grad():
        assert torch.allclose(held(x), layer(x), atol=1e-14)
        second = held(x + step) - 2 * held(x) + held(x - step)
        assert second.abs().max() < 1e-13
        live = readings.held(layer, x)
        assert (live(x + step) - 2 * live(x) + live(x - step)).abs().max() > 1e-3


def test_what_is_held_is_listed() -> None:
    """Op, module and line of each held node, its value under a name, and the same after the graph is moved or cut."""
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = torch.nn.Sequential(SelfAttention(4, gate=Gate("sigmoid")), torch.nn.Linear(4, 4), torch.nn.GELU()).double()
    live = ff.trace(layer, x)
    assert live.held == [] and live.frozen == ()
    frozen = ff.freeze(live, x, ["pattern", "attention_gate", "activation"])
    assert [(op, path) for op, path, _ in frozen.held] == [
        ("aten._softmax", "0"), ("aten.sigmoid", "0.gate"), ("aten.gelu", "2"),
    ]  # fmt: skip
    assert all(source.partition(":")[2].isdigit() for _, _, source in frozen.held)
    values = live.values(x)
    constants = dict(frozen.constants())
    for holding in frozen.holdings[:2]:
        (name,) = holding.constants
        assert torch.equal(constants[name], values[live.nodes[holding.node]])
    assert {name for h in frozen.holdings for name in h.constants} == {name for name in constants if "held" in name}
    assert frozen.to(torch.float32, x.device).held == frozen.held
    further = ff.freeze(ff.freeze(live, x), x, ["attention_gate", "activation"])
    assert (further.frozen, further.held) == (frozen.frozen, frozen.held)
    assert ff.freeze(further, x, ["pattern", "activation"]).held == frozen.held
    assert readings.present(frozen) == ()


def test_a_role_that_holds_nothing_is_not_named() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chart = ff.charts.affine(x, torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64))

    def linear_attention(x: torch.Tensor) -> torch.Tensor:
        return x @ (x.T @ x)

    for layer in (GatedMLP(4, 6).double(), linear_attention):
        frozen = ff.freeze(layer, x, ["pattern", "norm"])
        assert (frozen.frozen, frozen.held) == ((), [])
        certificate = ff.certify(frozen, chart)
        assert certificate.reading == "live" and "pattern" not in certificate.claim
    profile = ff.depth_profile([GatedMLP(4, 6).double()], chart, torch.zeros(2), reading="frozen pattern")
    assert profile.reading == "live"
