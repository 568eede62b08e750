"""Training, experiments, benchmarks, and the claims of the papers measured again."""

from __future__ import annotations
