"""A certificate is checked anywhere: files that another machine made hold under every set of instructions.

The files in `tests/data/certificates/other-processor` were made by `certified.made` with
`ATEN_CPU_CAPABILITY=default`, on a processor with AVX-512: torch then rounds as on a machine without vector
instructions. So they are from another machine in what counts here, the last bits of what torch computes while freezing
and tracing; they were not carried over from another computer. They name a version before 0.2.0, so that node numbers
and source lines, which change with the code, are not compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from cases import certified
from conftest import ROOT

import fisherflat as ff
from fisherflat.certificates import Certificate

FOLDER = ROOT / "tests" / "data" / "certificates" / "other-processor"
NAMES = [*certified.SUBJECTS, *certified.LAYERS]

_CHECK = """
import sys
sys.path.insert(0, sys.argv[1])
from cases import certified
print(*certified.said(sys.argv[2]), sep="\\n")
"""
#: of each file
SAID = [f"{name} {'flat' if name in ('flat', 'layer-frozen') else 'curved'} ()" for name in NAMES]


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_files_of_another_machine_hold_under_every_set_of_instructions(capability: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CHECK, str(ROOT / "tests"), str(FOLDER)],
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == SAID


def test_files_of_another_machine_hold_under_all_instructions_of_this_one() -> None:
    assert certified.said(str(FOLDER)) == SAID


def test_a_file_of_another_machine_says_what_was_held_and_with_which_numbers() -> None:
    frozen = Certificate.load(FOLDER / "frozen.json")
    (held,) = frozen.held
    assert held.op == "aten._softmax" and held.source.startswith("certified.py:")
    (numbers,) = frozen.constants
    assert tuple(numbers.values.shape) == (2, 3, 3) and 0 < numbers.within < 2.0**-48
    assert torch.allclose(numbers.values.sum(-1), torch.ones(2, 3, dtype=torch.float64))
    assert Certificate.load(FOLDER / "flat.json").constants == ()  # a proof by structure looks at no numbers


@pytest.mark.parametrize("name", ["frozen", "norm", "tangent", "layer-live"])
def test_constants_that_are_not_what_is_held_are_refused(name: str) -> None:
    certificate = Certificate.load(FOLDER / f"{name}.json")
    for index, numbers in enumerate(certificate.constants):
        values = numbers.values.clone()
        entry = values.reshape(-1).abs().clamp_max(2.0**60).argmax()
        values.view(-1)[entry] *= 1 + 2.0**-12
        others = (*certificate.constants[:index], replace(numbers, values=values), *certificate.constants[index + 1 :])
        reasons = certified.verified(name, replace(certificate, constants=others)).reasons
        assert reasons and reasons[0].startswith("constants:"), reasons
        wide = replace(numbers, values=values, within=type(numbers.within)("0.01"))
        others = (*certificate.constants[:index], wide, *certificate.constants[index + 1 :])
        assert certified.verified(name, replace(certificate, constants=others)).reasons[0].startswith("constants:")


def test_a_base_point_that_is_not_the_one_is_refused() -> None:
    certificate = Certificate.load(FOLDER / "frozen.json")
    moved = replace(certificate, base=certified.HIDDEN + 2.0**-30)
    assert [reason.split(":")[0] for reason in certified.verified("frozen", moved).reasons] == ["base"]
    elsewhere = ff.freeze(certified.Attention("silu"), certified.HIDDEN * 2)
    assert [r.split(":")[0] for r in ff.verify(certificate, elsewhere, certified.CHART).reasons] == ["base"]
    there = ff.certify(elsewhere, certified.CHART, at=(0.5, -0.25))
    assert "held at another input" in there.claim
    assert torch.equal(there.base, certified.HIDDEN * 2)
    assert ff.verify(there, elsewhere, certified.CHART).ok
