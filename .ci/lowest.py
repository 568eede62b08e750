"""The lowest versions of the ranges in pyproject.toml, as requirements for pip.

Of torch the version that CI pins, unless LOWEST_TORCH is set: older wheels from PyPI bring 3 GB of CUDA with them.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / ".ci" / "constraints.txt").read_text(), re.MULTILINE))

for line in project["dependencies"]:
    name, lowest = re.match(r"([\w-]+)>=([\w.]+)", line).groups()
    print(f"{name}=={pins[name] if name == 'torch' and 'LOWEST_TORCH' not in os.environ else lowest}")
