"""A prompt fit for JSON."""

from __future__ import annotations

from typing import Any

from fisherflat.models import Encoded


def plain_prompt(prompt: Encoded) -> Any:
    """A prompt fit for JSON: its token ids, or what tells hidden states and inputs apart."""
    from fisherflat.certificates import named_prompt

    return prompt.ids.tolist() if prompt.kind == "ids" else named_prompt(prompt)["inputs"]
