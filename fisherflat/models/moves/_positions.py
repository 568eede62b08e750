"""Which tokens of a prompt move."""

from __future__ import annotations

from collections.abc import Sequence

from fisherflat._arrays import integers
from fisherflat.errors import InputError
from fisherflat.models._prompts import Encoded

#: what may be said instead of indices
SPREAD, LAST, ALL, TOGETHER = "spread", "last", "all", "together"
#: how many positions `spread` takes
COUNT = 5

#: a position: the index of the token that moves, or `None` for all words of the prompt together
Position = int | None


def positions(prompt: Encoded, where: str | Sequence[int] = SPREAD) -> list[Position]:
    """The positions of a prompt, one for each chart.

    **Args:** `prompt`, from `Model.encode`, and `where`, which is one of

    - `"spread"`: five words, or as many as there are, at even distances from the first to the last. A word is a token
      that is not special (such as [CLS]). The first token of the sequence is left out where there are others: in a
      causal model it attends to nothing but itself, and it is where attention sinks lie.
    - `"last"`: the last word; `"all"`: every word, one after the other.
    - `"together"`: all words at once, each by the same vector.
    - indices, negative ones from the end.

    **Returns:** the index of the token that moves, or `None` for all words together, for each position.

    **Raises:** `InputError` where there are none.

    >>> import fisherflat as ff
    >>> prompt = ff.load("python-llama").encode("def mean(values):")
    >>> ff.moves.positions(prompt, [0, -1]) == [0, len(prompt.ids) - 1]
    True
    """
    if not isinstance(where, str):
        return _checked(prompt, where)
    if where not in (SPREAD, LAST, ALL, TOGETHER):
        raise InputError(f'positions must be "spread", "last", "all", "together" or a list of indices, got {where!r}')
    found = words(prompt)
    if not found:
        raise InputError(f"the prompt {prompt.text!r} holds only special tokens; give a word, or positions as indices")
    if where == TOGETHER:
        return [None]
    if where == SPREAD:
        found = found[1:] if found[0] == 0 and len(found) > 1 else found
        steps = min(COUNT, len(found)) - 1
        return [found[step * (len(found) - 1) // max(steps, 1)] for step in range(steps + 1)]
    return [*found] if where == ALL else [found[-1]]


def words(prompt: Encoded) -> list[int]:
    """The indices of the tokens that are not special."""
    return [index for index, special in enumerate(prompt.special) if not special]


def tokens(prompt: Encoded, position: Position) -> list[int]:
    """The indices of the tokens that move at a position.

    **Args:**

    - `prompt`: from `Model.encode`; `position`: from `positions`.

    **Returns:** the index itself, or those of all words.

    >>> import fisherflat as ff
    >>> ff.moves.tokens(ff.load("python-llama").encode("def mean(values):"), 2)
    [2]
    """
    return words(prompt) if position is None else [position]


def label(prompt: Encoded, position: Position) -> str:
    """The token that moves, as text, for tables.

    **Args:**

    - `prompt`: from `Model.encode`; `position`: from `positions`.

    **Returns:** the token, or `all words`.

    >>> import fisherflat as ff
    >>> ff.moves.label(ff.load("python-llama").encode("def mean(values):"), 0)
    'def'
    """
    return "all words" if position is None else prompt.tokens[position]


def _checked(prompt: Encoded, where: Sequence[int]) -> list[Position]:
    n, where = len(prompt.ids), integers(where, "positions")
    if outside := [index for index in where if not -n <= index < n]:
        raise InputError(f"position {outside[0]} is outside the prompt {prompt.text!r} of {n} tokens")
    return list(dict.fromkeys(index % n for index in where))
