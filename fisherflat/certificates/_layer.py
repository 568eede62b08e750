"""Which part of which model a certificate is about: how its `subject` is followed to the layer again."""

from __future__ import annotations

from typing import Any

from fisherflat.errors import CertificateError, InputError
from fisherflat.gated_mlp import experts
from fisherflat.models import PARTS, Model, Part


def operator(model: Model, subject: dict[str, Any]) -> Part:
    """The part of the layer, as it ran on the prompt, that a subject names.

    **Raises:** `CertificateError` where the subject does not name one, `InputError` where the model has none such.
    """
    try:
        layer, part, ids = subject["layer"], subject["part"], subject["token_ids"]
    except KeyError as error:
        raise CertificateError(f"subject: {error} is missing") from error
    if part not in PARTS:
        raise InputError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    blocks = model.blocks(ids)
    if not isinstance(layer, int) or not 0 <= layer < len(blocks):
        raise InputError(f"the model has layers 0 to {len(blocks) - 1}, there is no layer {layer!r}")
    found = blocks[layer] if part == "block" else getattr(blocks[layer], part)
    if found is None:
        raise InputError(f"layer {layer} has no {part} that could be found")
    return found


def expert(mlp: Part, index: Any) -> Any:
    """One expert of a mixture.

    **Raises:** `InputError` where there is none of that index.
    """
    found = experts(mlp)
    if not isinstance(index, int) or not 0 <= index < len(found):
        raise InputError(f"the layer has {len(found)} experts, there is no expert {index!r}")
    return found[index]
