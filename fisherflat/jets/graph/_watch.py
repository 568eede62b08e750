"""Which state of its weights something was made of."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from torch import Tensor

from fisherflat.errors import MapError


@runtime_checkable
class Constants(Protocol):
    """How the constants of a graph are made of weights: `fisherflat.jets.recording.Program`."""

    @property
    def sources(self) -> list[Tensor]: ...
    def constants(self) -> dict[int, Tensor]: ...
    def written(self) -> AbstractContextManager[None]: ...
    def ended(self, constants: Iterable[Tensor]) -> Constants: ...


class Watch:
    """Notices that a weight was written into, as a step of training does.

    What is made of a module belongs to the weights as they were then: numbers that were computed from them, such as a
    frozen pattern, do not follow. A copy, or what was pickled, stands on its own and watches nothing.

    **Args:** `weights`, by name.
    """

    def __init__(self, weights: Iterable[tuple[str, Tensor]] = ()) -> None:
        self._seen = [(name, tensor, tensor._version) for name, tensor in weights if not tensor.is_inference()]

    def check(self) -> None:
        """**Raises:** `MapError` where a weight was written into since."""
        changed = next((name for name, tensor, version in self._seen if tensor._version != version), None)
        if changed is not None:
            raise MapError(
                f"the weight {changed!r} has changed since this map was taken up; make its graph or its manifold anew"
            )

    def __getstate__(self) -> dict[str, object]:
        return {"_seen": []}
