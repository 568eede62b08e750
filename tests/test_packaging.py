"""The pins that CI runs and the ranges that users get speak of the same packages and agree."""

from __future__ import annotations

import re
import tomllib

from conftest import ROOT
from packaging.requirements import Requirement

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / ".ci" / "constraints.txt").read_text(), re.MULTILINE))


def test_every_direct_dependency_is_pinned_within_its_range():
    extras = PROJECT["optional-dependencies"]
    needed = [Requirement(line) for line in sum(extras.values(), PROJECT["dependencies"])]
    unfit = [str(need) for need in needed if need.name not in PINS or not need.specifier.contains(PINS[need.name])]
    assert not unfit


def test_the_readme_commands_use_the_pins():
    commands = re.findall(r"<!-- \w+ command -->\n```sh\n(.*)\n```", (ROOT / "README.md").read_text())
    assert len(commands) == 2
    for command in commands:
        installs = re.findall(r"pip install [^&]*", command)
        assert installs and all("-c .ci/constraints.txt" in install for install in installs)
