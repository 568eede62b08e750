"""What moves, as a list on a command line."""

from __future__ import annotations

from collections.abc import Sequence

import typer


def moves(given: Sequence[str]) -> str | list[str]:
    """What moves, one or several; the commas behind `words:` are those of the words, and file names may have some."""
    found: list[str] = []
    for text in given:
        rest = text.strip()
        while rest and not rest.startswith(("words:", "vectors:")):
            one, _, rest = rest.partition(",")
            found.append(one.strip())
            rest = rest.strip()
        found += [rest] if rest else []
    return found[0] if len(found) == 1 else found


def movement(given: Sequence[str]) -> str:
    """What moves, where only one can."""
    found = moves(given)
    if isinstance(found, str):
        return found
    raise typer.BadParameter("one at a time here; run the command again for another", param_hint="--moves")
