"""Certificates in families with a metric of their own: they hold what is known, and other code finds the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import load_cases
from torch import Tensor
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.errors import CertificateError, InputError

D = torch.float64
NAMES = {
    "categorical": ff.families.Categorical(),
    "bernoulli": ff.families.Bernoulli(),
    "poisson": ff.families.Poisson(),
    "diagonal_gaussian": ff.families.DiagonalGaussian(),
}
CASES = {
    case["name"]: case
    for case in load_cases("families.json")
    if case["family"]["name"] in NAMES and len(case["at"]) == 2  # surfaces, of which the scalar curvature is twice K
}


def tensor(values: Any) -> Tensor:
    return torch.tensor(json.loads(json.dumps(values).replace('"', "")), dtype=D)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def mlp(inputs: int, outputs: int) -> Any:
    first, second = random(inputs, 5, seed=1), random(5, outputs, seed=2)
    return lambda x: torch.tanh(x @ first) @ second / 2


CHART = ff.charts.affine(random(4, seed=7), random(2, 4, seed=8))
MEAN = mlp(4, 6)


@pytest.mark.parametrize("name", CASES)
def test_enclosures_hold_reference_values(name: str, tmp_path: Path) -> None:
    """25 digits of the curvature, from differences of the metric alone in 110 digits."""
    import mpmath

    case = CASES[name]
    if case["kind"] == "formula":
        mean, chart = (lambda u: u), ff.charts.identity(len(case["components"]))
    else:
        gate, up, down = (tensor(case[part]) for part in ("Wg", "Wu", "Wd"))
        activation = getattr(F, case["activation"])
        mean = lambda x: (activation(x @ gate) * (x @ up)) @ down  # noqa: E731
        chart = ff.charts.affine(case["point"], case["basis"])
    family = NAMES[case["family"]["name"]]
    found = ff.certify(mean, chart, family, at=case["at"])
    with mpmath.workdps(40):
        right = mpmath.mpf(case["expected"]["scalar_curvature"]) / 2
        if found.verdict == "flat":
            assert abs(right) < mpmath.mpf(10) ** -20
        else:
            low, high = (mpmath.mpf(str(bound)) for bound in found.enclosure)
            room = abs(right) * mpmath.mpf(10) ** -22 + mpmath.mpf(10) ** -24
            assert low - room <= right <= high + room
            assert high - low < 1e-20 * abs(right)
    assert ff.verify(found, mean, chart)


#: name -> map of u, k, family, Gauss curvature
CLOSED: dict[str, tuple[Any, Any, float]] = {
    "the simplex of three classes": (lambda u: F.pad(u, (0, 1)), ff.families.Categorical(), 0.25),
    "normals": (lambda u: u, ff.families.DiagonalGaussian(), -0.5),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name: str) -> None:
    mean, family, right = CLOSED[name]
    found = ff.certify(mean, ff.charts.identity(2), family, at=[0.3, -0.2])
    assert found.verdict == "curved"
    low, high = found.enclosure
    assert low <= type(low)(right) <= high and high - low < type(low)("1e-30")


def test_what_is_flat() -> None:
    for family in (ff.families.Bernoulli(), ff.families.Poisson()):
        found = ff.certify(torch.sinh, ff.charts.identity(2), family, at=[0.3, -0.2])
        assert (found.verdict, found.argument) == ("flat", "full dimension")
        assert ff.verify(found, torch.sinh, ff.charts.identity(2))
    line = ff.charts.affine(random(4), random(1, 4))
    assert ff.certify(MEAN, line, ff.families.Categorical()).verdict == "flat"


@pytest.mark.parametrize("family", NAMES.values(), ids=list(NAMES))
def test_affine_maps_need_not_be_flat(family: Any) -> None:
    matrix = random(4, 6, seed=3)
    mean = lambda x: x @ matrix  # noqa: E731
    found = ff.certify(mean, CHART, family, at=[0.1, 0.2])
    curvature = ff.StatisticalManifold(mean, CHART, family).scalar_curvature([0.1, 0.2]).item() / 2
    assert found.verdict == "curved"
    low, high = map(float, found.enclosure)
    assert low - 1e-12 * abs(low) <= curvature + 1e-12 and curvature <= high + 1e-12 * abs(high) + 1e-12
    assert ff.verify(found, mean, CHART)


@pytest.mark.parametrize("radius", [0.0, 1e-4])
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("family", NAMES.values(), ids=list(NAMES))
def test_saved_certificates_hold_for_their_map_alone(family: Any, k: int, radius: float, tmp_path: Path) -> None:
    chart = ff.charts.affine(random(4, seed=7), random(k, 4, seed=8))
    found = ff.certify(MEAN, chart, family, at=[0.1] * k, radius=radius)
    found.save(tmp_path / "c.json")
    again = ff.Certificate.load(tmp_path / "c.json")
    assert repr(again.family) == repr(family)
    checked = ff.verify(again, MEAN, chart)
    assert checked.ok, checked.reasons
    assert not ff.verify(again, lambda x: 2 * MEAN(x), chart).ok
    assert found.verdict == "curved" or radius
    if found.verdict == "curved":
        assert f"in the Fisher metric of {type(family).__name__}" in again.claim
        x, y = found.plane if found.plane is not None else torch.eye(k, dtype=D)[:2].tolist()
        inside = ff.StatisticalManifold(MEAN, chart, family).sectional_curvature([0.1] * k, x, y).item()
        low, high = map(float, found.enclosure)
        assert low - 1e-10 * abs(inside) <= inside <= high + 1e-10 * abs(inside)


def test_a_pair_of_outputs() -> None:
    mean = lambda x: MEAN(x).chunk(2)  # noqa: E731
    found = ff.certify(mean, CHART, ff.families.DiagonalGaussian(), at=[0.1, 0.1])
    assert found.verdict == "curved" and ff.verify(found, mean, CHART)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"family": "Poisson"}, "enclosure"),
        ({"family": "DiagonalGaussian"}, "enclosure"),
    ],
)
def test_a_certificate_of_another_family(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    ff.certify(MEAN, CHART, ff.families.Categorical(), at=[0.1, 0.1]).save(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    try:
        found = ff.Certificate.load(file)
    except CertificateError:
        return  # by the digest of the file
    checked = ff.verify(found, MEAN, CHART)
    assert not checked.ok and said in checked.reasons[0]


@pytest.mark.parametrize("name", ["Gamma", "NextToken", 3, None, ["Poisson"]])
def test_families_that_are_none(name: Any, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    ff.certify(MEAN, CHART, ff.families.Categorical(), at=[0.1, 0.1]).save(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"family": name}))
    with pytest.raises(CertificateError):
        ff.Certificate.load(file)


def test_an_affine_map_that_is_called_flat(tmp_path: Path) -> None:
    """The proof by structure, moved to a family in which it proves nothing."""
    matrix, file = random(4, 6, seed=3), tmp_path / "c.json"
    ff.certify(lambda x: x @ matrix, CHART).save(file)
    told = json.loads(file.read_text())
    del told["covariance"]
    file.write_text(json.dumps(told | {"family": "Categorical"}))
    with pytest.raises(CertificateError):
        ff.Certificate.load(file)


def test_families_without_certificates() -> None:
    with pytest.raises(InputError, match="certificates are about"):
        ff.certify(MEAN, CHART, ff.families.VonMisesFisher(2.0))
