"""What names the numbers that a certificate is about."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weight:
    """Numbers that a certificate is about: their `name`, `shape`, and the SHA-256 of the numbers as used."""

    name: str
    shape: tuple[int, ...]
    sha256: str
