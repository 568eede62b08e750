"""Charts and families: what moves, and where it is measured."""

from __future__ import annotations
