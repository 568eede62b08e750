"""Where something moves, for commands that measure at one place after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from fisherflat.models import Model


class Place(NamedTuple):
    """Where something moves. **Attributes:** `prompt`; `position`; `name`, which tells it from others, or empty."""

    prompt: Any
    position: int | str | None
    name: str


def places(model: Model, prompts: Sequence[Any], where: Any, moves: str, dim: int | str | None) -> list[Place]:
    """Each position of each prompt, for what is measured at one of them; by default the last word."""
    from fisherflat.models.moves import parse

    moving, found = parse(moves, dim), list[Place]()
    for number, prompt in enumerate(prompts):
        name = f"prompt-{number}" if len(prompts) > 1 else ""
        at: list[Any] = [where]
        if where not in (None, "last", "together"):
            at = list(moving.positions(model, model.encode(prompt), where))
        for position in at:
            parts = [name, f"position-{position}" if len(at) > 1 else ""]
            found.append(Place(prompt, position, "-".join(filter(None, parts))))
    return found
