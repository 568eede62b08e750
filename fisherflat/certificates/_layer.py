"""Which part of which model a certificate is about: how its `subject` is followed to the layer again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fisherflat.certificates import digests
from fisherflat.certificates._curvature import CERTIFIED
from fisherflat.errors import CertificateError, InputError
from fisherflat.gated_mlp import experts
from fisherflat.jets.graph import of_rows
from fisherflat.models import PARTS, Encoded, Head, Model, Part
from fisherflat.models.covariances import Covariance, fitted, of_tokens
from fisherflat.models.moves import Moves, Position, Principal, Random, Words, tokens
from fisherflat.parts import trace
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Categorical, Gaussian, NextToken, ParametricFamily

#: what every subject about curvature says, beside the name of its prompt, which is under one of `PROMPTS`; the
#: others are of some, and not of older ones
FIELDS = frozenset({"layer", "part", "position", "moves"})
PROMPTS = frozenset({"token_ids", "inputs"})
SINCE = frozenset({"covariance", "output", "among", "family"})
#: a head, before its number
HEAD = "head "


def named_prompt(encoded: Encoded) -> dict[str, Any]:
    """How a subject names a prompt: by its token ids, or by digests of hidden states and of a model's own inputs."""
    if encoded.kind == "ids":
        return {"token_ids": encoded.prompt_ids}
    given = {"hidden_states": encoded.hidden} if encoded.kind == "hidden" else encoded.inputs
    named = given if isinstance(given, dict) else {"inputs": given}
    return {"inputs": {name: digests.of_tensor(x) if isinstance(x, Tensor) else x for name, x in named.items()}}


def given_prompt(model: Model, named: Mapping[str, Any], prompt: Any = None) -> Encoded:
    """The prompt of a name that `named_prompt` made.

    **Args:** `prompt`: where the name holds no token ids, what the model ran on.

    **Raises:** `CertificateError` where there is no name; `InputError` where the prompt is another, or the model cannot
    run on it.
    """
    if "inputs" not in named:
        if "token_ids" not in named:
            raise CertificateError("subject: 'token_ids' is missing")
        encoded = model.encode(named["token_ids"])
        # of a control that reorders tokens, a certificate names them in the order in which they ran
        return encoded if model.reorder is None else model.with_ids(torch.tensor(named["token_ids"]))
    encoded = model.encode(prompt)
    if named_prompt(encoded) != {"inputs": named["inputs"]}:
        raise InputError("the prompt is not the one that the certificate names")
    return encoded


def operator(model: Model, subject: Mapping[str, Any], prompt: Any = None) -> Part | Head:
    """The part of the layer, as it ran on the prompt, that a subject names.

    **Args:** `prompt`: as it was encoded, or, where the subject holds no token ids, what the model ran on.

    **Raises:** `CertificateError` where the subject does not name one, `InputError` where the model has none such, or
    the prompt is another.
    """
    try:
        layer, part = subject["layer"], subject["part"]
    except KeyError as error:
        raise CertificateError(f"subject: {error} is missing") from error
    return _part(model, layer, part, given_prompt(model, subject, prompt))


def _part(model: Model, layer: Any, part: Any, encoded: Encoded) -> Part | Head:
    """A part of a layer as it ran on a prompt. **Raises:** `InputError` where the model has none such."""
    number = part.removeprefix(HEAD) if isinstance(part, str) else ""
    head = int(number) if number != part and number.isdecimal() else None
    if part not in PARTS and head is None:
        raise InputError(f"part must be one of {', '.join(PARTS)}, or a head such as 'head 2'; got {part!r}")
    blocks = model.blocks(encoded)
    if not isinstance(layer, int) or not 0 <= layer < len(blocks):
        raise InputError(f"the model has layers 0 to {len(blocks) - 1}, there is no layer {layer!r}")
    if head is not None:
        heads = blocks[layer].heads
        if head >= len(heads):
            raise InputError(f"layer {layer} has heads 0 to {len(heads) - 1}, there is no head {head}")
        return heads[head]
    found = blocks[layer] if part == "block" else getattr(blocks[layer], part)
    if found is None:
        raise InputError(f"layer {layer} has no {part} that could be found")
    return found


def placed(
    model: Model,
    layer: int,
    part: str,
    moving: Moves,
    encoded: Encoded,
    place: Position,
    among: Sequence[Encoded] = (),
) -> tuple[dict[str, Any], Part | Head, Chart]:
    """A part of a layer, the chart of what moves into it, and the subject that names both.

    **Args:** `moving`, along what; `encoded`, the prompt; `place`, which token, `None` for all words together; `among`,
    the prompts that directions are fitted to, by default that one.

    **Raises:** `InputError` where the model has no such part, or such a chart cannot be made.
    """
    variants = moving.variants(model, encoded, place)
    subject = {"layer": layer, "part": part, "position": place, "moves": moving.settings, **named_prompt(variants[0])}
    operators = [_part(model, layer, part, variant) for variant in variants]
    states = [operator.input for operator in operators]
    if among:
        names = map(named_prompt, among)
        subject["among"] = [name.get("token_ids", name) for name in names]
    inputs = [_part(model, layer, part, other).input for other in among]
    directions = moving.fit(inputs or states, among or variants)
    return subject, operators[0], directions.chart(states, tokens(variants[0], place))


def gaussian(
    model: Model, subject: Mapping[str, Any], what: Covariance, encoded: Encoded, among: Sequence[Encoded] = ()
) -> Gaussian:
    """The covariance of all outputs that a subject is about, which `fisherflat.analyze` measures them in, too.

    **Args:** `what`, as it was asked for: by name it is fitted to the part's outputs on the prompts; `encoded` and
    `among`, those that the subject names.

    **Raises:** `CovarianceError` where there is none such.
    """
    prompts = among or [encoded]
    parts = [_part(model, subject["layer"], subject["part"], prompt) for prompt in prompts]
    with torch.no_grad():
        outputs = [part(part.input) for part in parts]
    count = len(tokens(encoded, subject["position"])) if subject.get("output") == "moved" else len(encoded.ids)
    return of_tokens(fitted(what, outputs, prompts), outputs[0].shape[-1], count)


class _Read(nn.Module):
    """A block, what a head makes of its states, and all logits of these where it stops before them."""

    def __init__(self, block: Callable[[Tensor], Tensor], lens: nn.Module, family: ParametricFamily) -> None:
        super().__init__()
        self.block, self.lens = block, lens
        self.unembedding = family if isinstance(family, NextToken) else None
        if self.unembedding is not None:
            weight, bias = torch.as_tensor(self.unembedding.weight[:]), self.unembedding.bias
            self.weight = nn.Parameter(weight.detach().double(), requires_grad=False)
            self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """The parameters of the family."""
        found, words = self.lens(self.block(x)), self.unembedding
        if words is None:
            return found
        found = nn.functional.linear(found, self.weight, self.bias)
        found = found if words.scale == 1.0 else found * words.scale
        return found if words.softcap is None else words.softcap * torch.tanh(found / words.softcap)


def read_by_head(
    model: Model, part: Part | Head, subject: dict[str, Any], encoded: Encoded, asked: Any
) -> tuple[nn.Module, ParametricFamily]:
    """The map from what enters a block to the parameters of a family, by the model's own head, and that family.

    **Args:** `asked`, as in `Model.readout`. Of next tokens all logits are outputs.

    **Raises:** `InputError` for a part that is no block, and a family in which nothing can be proved; `CheckpointError`
    where the model has no such head.
    """
    if subject["part"] != "block":
        raise InputError(f'a family is that of the states after a block: give part="block", not {subject["part"]!r}')
    if not isinstance(asked, str | ParametricFamily):
        raise InputError(f"family must be a name, such as 'next-token', or one of ff.families; got {asked!r}")
    if isinstance(asked, NextToken):
        raise InputError(
            'a certificate names no unembedding but the model\'s own: give family="next-token", or certify a map to '
            "all logits by fisherflat.certify"
        )
    readout = model.readout(asked, encoded)
    family = Categorical() if isinstance(readout.family, NextToken) else readout.family
    if not isinstance(family, CERTIFIED):
        known = ", ".join(one.__name__ for one in CERTIFIED)
        raise InputError(f"nothing can be proved in {family!r}, only in Gaussian, {known}; measure it with analyze")
    return _Read(part, readout.of(tokens(encoded, subject["position"])), readout.family), family


def outputs(part: Part | Head, subject: dict[str, Any], encoded: Encoded) -> Callable[[Tensor], Tensor]:
    """The map to the outputs that a subject is about: of all tokens, or of those that move."""
    if subject.get("output") != "moved":
        return part
    return of_rows(trace(part, part.input), tokens(encoded, subject["position"]), part.input.device)


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
