"""Studies of a model: layer by layer, through its depth, and of its symmetries."""

from __future__ import annotations
