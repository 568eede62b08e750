"""The work of a study of layers, cut into independent tasks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Everything about one part of one layer on one prompt: all readings, positions and points.

    **Attributes:** `layer`, from 0; `part`, such as `attention`, or `heads` for all of them; `prompt`, its index.
    """

    layer: int
    part: str
    prompt: int

    @property
    def key(self) -> str:
        """A name of this task that stays the same from run to run."""
        return f"layer {self.layer}/{self.part}/prompt {self.prompt}"
