"""Words interpolated at one place of a prompt: the token simplex."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fisherflat._arrays import integer
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.models._model import Model
from fisherflat.models._prompts import Encoded
from fisherflat.models.moves._moves import Fitted, Moves
from fisherflat.models.moves._positions import SPREAD, Position
from fisherflat.spaces import charts

#: what tokenizers put where a blank was: byte-level BPE, SentencePiece
_BLANKS = ("Ġ", "▁")


@dataclass(frozen=True)
class Words(Moves, Fitted):
    """Words interpolated at one place: k + 1 prompts that differ in one token, and what lies between them.

    The model runs on the prompt with each of the words in turn at the place. The corners of the simplex are what then
    enters the part, all tokens of it, because the others have seen the word too; between the corners hidden states are
    interpolated linearly. (Embeddings are not: only what enters the measured part is.) So corners are real, and what
    lies between them is not a text.

    Coordinate i is the weight of word i; word 0 stands at the origin.

    **Args:**

    - `words`: texts that are one token each at that place, or token ids; at least two.

    **Raises:** `InputError` for fewer than two words, or two that are the same.

    >>> import fisherflat as ff
    >>> print(ff.moves.Words(("cat", "dog", "bird")))
    between the words cat, dog, bird
    """

    words: tuple[str | int, ...]
    kind = "words"
    unit = "the whole way from the first word to another"

    def __post_init__(self) -> None:
        if len(self.words) < 2:
            raise InputError(f"a simplex needs at least two words (three for a surface), got {list(self.words)}")
        if len(set(self.words)) < len(self.words):
            raise InputError(f"the words {', '.join(map(str, self.words))} are not all different")

    def __str__(self) -> str:
        return f"between the words {', '.join(map(str, self.words))}"

    @property
    def k(self) -> int:  # type: ignore[override]
        """One less than there are words."""
        return len(self.words) - 1

    @property
    def settings(self) -> dict[str, Any]:
        """The kind, k and the words."""
        return {"kind": self.kind, "dim": self.k, "words": list(self.words)}

    def positions(self, model: Model, prompt: Encoded, where: Any = SPREAD) -> list[Position]:
        """By default the places where one of the words stands already; else as in `positions`.

        **Raises:** `InputError` where there is none, and for `"together"`.
        """
        if isinstance(where, str) and where == "together":
            raise InputError("words stand at one place; give positions as indices, not 'together'")
        if not isinstance(where, str) or where != SPREAD:
            return super().positions(model, prompt, where)
        ids = prompt.ids.tolist()
        found: list[Position] = [i for i in range(len(ids)) if ids[i] in self._tokens(model, prompt, i)]
        if not found:
            raise InputError(
                f"none of the words {', '.join(map(str, self.words))} stands in {prompt.text!r} as a token of its own; "
                "put one of them there, or say at which positions they should stand"
            )
        return found

    def variants(self, model: Model, prompt: Encoded, position: Position) -> list[Encoded]:
        """The prompt with each of the words at the position.

        **Raises:** `InputError` where a word is not a single token there, or two are the same.
        """
        if position is None:
            raise InputError("words stand at one place; give positions as indices, not 'together'")
        if prompt.kind != "ids":
            raise InputError("words need a prompt of words: these are hidden states")
        if position < prompt.lead:
            raise InputError(f"{model.name} itself begins with the token at position {position}; words stand behind it")
        ids = self._tokens(model, prompt, position)
        for word, token in zip(self.words, ids, strict=True):
            if token is None:
                raise InputError(
                    f"{word!r} is not a single token of {model.name} at position {position} of {prompt.text!r}; "
                    "take a more common word, or give token ids"
                )
            if ids.count(token) > 1:
                raise InputError(f"to {model.name} {word!r} and another of the words are the same token")
        return [_replaced(model, prompt, position, token) for token in ids if token is not None]

    def fit(self, states: Sequence[Float[Tensor, "_ d"]], prompts: Sequence[Encoded]) -> Words:
        """Itself: nothing depends on the part."""
        return self

    def chart(self, states: Sequence[Float[Tensor, "n d"]], tokens: Sequence[int]) -> charts.Chart:
        """The simplex of the states, the first at the origin."""
        chart = charts.simplex(torch.stack([*states[1:], states[0]]))
        return charts.Chart(chart.point, chart.basis, self.kind)

    def points(self, count: int, seed: int = 0) -> Float[Tensor, "count k"]:
        """The origin, which is the first word, and `count - 1` points drawn uniformly from the simplex with `seed`."""
        generator = torch.Generator().manual_seed(integer(seed, "seed"))
        uniform = torch.rand(count - 1, self.k + 1, generator=generator, dtype=torch.float64)
        weights = -uniform.clamp_min(torch.finfo(torch.float64).tiny).log()  # exponential; shares of them are uniform
        inside = weights[:, 1:] / weights.sum(1, keepdim=True)
        return torch.cat([torch.zeros(1, self.k, dtype=torch.float64), inside])

    def _tokens(self, model: Model, prompt: Encoded, position: int) -> list[int | None]:
        """The token of each word at a position, `None` where it is not a single one."""
        return [_token(model, prompt, position, word) for word in self.words]


def _replaced(model: Model, prompt: Encoded, position: int, token: int) -> Encoded:
    """The prompt with another token at a position."""
    if int(prompt.ids[position]) == token:
        return prompt
    ids = prompt.ids.clone()
    ids[position] = token
    model.encode([token])  # refuses one that the model does not have
    return model.with_ids(ids[prompt.lead :])


def _token(model: Model, prompt: Encoded, position: int, word: str | int) -> int | None:
    """The token of a word where another stands: with a blank before it where that has one. `None` if there is none."""
    if isinstance(word, int) or model.tokenizer is None:
        if isinstance(word, str) and not word.isdecimal():
            raise InputError(f"{model.name} has no tokenizer; give token ids instead of the word {word!r}")
        return int(word)
    after_blank = prompt.tokens[position].startswith(_BLANKS)
    for text in (f" {word}", word):
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or ids[0] == model.tokenizer.unk_token_id:
            continue
        if model.tokenizer.convert_ids_to_tokens(ids)[0].startswith(_BLANKS) == after_blank:
            return ids[0]
    return None
