"""Which part of which model a certificate is about: how its `subject` is followed to the layer again."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fisherflat.certificates import digests
from fisherflat.errors import CertificateError, InputError
from fisherflat.gated_mlp import experts
from fisherflat.models import PARTS, Encoded, Model, Part
from fisherflat.models.moves import Moves, Position, Principal, Random, Words, tokens
from fisherflat.spaces.charts import Chart


def named_prompt(encoded: Encoded) -> dict[str, Any]:
    """How a subject names a prompt: by its token ids, or by digests of hidden states and of a model's own inputs."""
    if encoded.kind == "ids":
        return {"token_ids": encoded.prompt_ids}
    given = {"hidden_states": encoded.hidden} if encoded.kind == "hidden" else encoded.inputs
    named = given if isinstance(given, dict) else {"inputs": given}
    return {"inputs": {name: digests.of_tensor(x) if isinstance(x, Tensor) else x for name, x in named.items()}}


def operator(model: Model, subject: dict[str, Any], prompt: Any = None) -> Part:
    """The part of the layer, as it ran on the prompt, that a subject names.

    **Args:** `prompt`: where the subject holds no token ids, what the model ran on.

    **Raises:** `CertificateError` where the subject does not name one, `InputError` where the model has none such, or
    the prompt is another.
    """
    try:
        layer, part = subject["layer"], subject["part"]
        encoded = _prompt(model, subject, prompt)
    except KeyError as error:
        raise CertificateError(f"subject: {error} is missing") from error
    if part not in PARTS:
        raise InputError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    blocks = model.blocks(encoded)
    if not isinstance(layer, int) or not 0 <= layer < len(blocks):
        raise InputError(f"the model has layers 0 to {len(blocks) - 1}, there is no layer {layer!r}")
    found = blocks[layer] if part == "block" else getattr(blocks[layer], part)
    if found is None:
        raise InputError(f"layer {layer} has no {part} that could be found")
    return found


def _prompt(model: Model, subject: dict[str, Any], prompt: Any) -> Any:
    if "inputs" not in subject:
        return subject["token_ids"]
    encoded = model.encode(prompt)
    if named_prompt(encoded) != {"inputs": subject["inputs"]}:
        raise InputError("the prompt is not the one that the certificate names")
    return encoded


def placed(
    model: Model, layer: int, part: str, moving: Moves, encoded: Encoded, place: Position
) -> tuple[dict[str, Any], Part, Chart]:
    """A part of a layer, the chart of what moves into it, and the subject that names both.

    **Args:** `moving`, along what; `encoded`, the prompt; `place`, which token, `None` for all words together.

    **Raises:** as `operator`, and `InputError` where such a chart cannot be made.
    """
    variants = moving.variants(model, encoded, place)
    about = {"layer": layer, "part": part, "position": place, "moves": moving.settings}
    subjects = [{**about, "token_ids": variant.prompt_ids} for variant in variants]
    operators = [operator(model, subject) for subject in subjects]
    states = [operator.input for operator in operators]
    return subjects[0], operators[0], moving.fit(states, variants).chart(states, tokens(variants[0], place))


def movement(settings: Any) -> Moves | None:
    """What moves, from its settings in a subject; `None` for vectors, which are not in them.

    **Raises:** `CertificateError` where they are none.
    """
    try:
        kind, k = settings["kind"], settings["dim"]
        if type(k) is not int:
            raise TypeError(f"{k!r} is no number of directions")
        if kind == "vectors" and isinstance(settings["sha256"], str):
            return None
        made = {
            "principal": lambda: Principal(k),
            "random": lambda: Random(k, int(settings["seed"])),
            "words": lambda: Words(tuple(settings["words"])),
        }[kind]()
    except (KeyError, TypeError, ValueError) as error:
        raise CertificateError(f"subject: moves: {settings!r} does not say what moves ({error})") from error
    if made.settings != settings:
        raise CertificateError(f"subject: moves: {settings!r} does not say what moves")
    return made


def expert(mlp: Part, index: Any) -> Any:
    """One expert of a mixture.

    **Raises:** `InputError` where there is none of that index.
    """
    found = experts(mlp)
    if not isinstance(index, int) or not 0 <= index < len(found):
        raise InputError(f"the layer has {len(found)} experts, there is no expert {index!r}")
    return found[index]
