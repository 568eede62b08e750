"""The converter of Vega-Lite, which runs on threads of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

#: the process in which the converter's threads are, once it has been used
_home: list[int] = []
#: a call of it in a process of its own: name and arguments come as JSON, and so does what it returns
_ALONE = """
import json, sys, vl_convert
name, argument = json.load(sys.stdin)
json.dump(getattr(vl_convert, name)(argument), sys.stdout)
"""


def svg(spec: Mapping[str, Any]) -> str:
    """A chart as SVG."""
    return _converted("vegalite_to_svg", spec)


def bundle() -> str:
    """What a page needs to draw charts anew: JavaScript that defines `window.vegaEmbed`."""
    return _converted("javascript_bundle", "window.vegaEmbed = vegaEmbed;")


def _converted(name: str, argument: Any) -> str:
    """What a function of the converter returns.

    A process that was forked from one in which it has run has its memory and none of its threads: a call would wait for
    them for ever, so that it is made in a fresh process.
    """
    import vl_convert

    if _home and _home[0] != os.getpid():
        given = json.dumps([name, argument])
        done = subprocess.run([sys.executable, "-c", _ALONE], input=given.encode(), stdout=subprocess.PIPE, check=True)
        found: str = json.loads(done.stdout)
        return found
    _home[:] = [os.getpid()]
    text: str = getattr(vl_convert, name)(argument)
    return text
