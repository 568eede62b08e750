"""Which tokens of a prompt move."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from fisherflat._arrays import integers
from fisherflat.errors import InputError
from fisherflat.models._prompts import Encoded
from fisherflat.models._tokens import CLASSES

#: what may be said instead of indices
SPREAD, LAST, ALL, TOGETHER = "spread", "last", "all", "together"
#: the last token of a class, and the tokens that read so
LAST_OF, NAMED = "last ", "token:"
#: how many positions `spread` takes
COUNT = 5

#: a position: the index of the token that moves, or `None` for all words of the prompt together
Position = int | None
#: how positions are chosen: by a word, by indices, or by a function of the encoded prompt
Where = str | Sequence[int] | Callable[[Encoded], Sequence[int]]


def positions(prompt: Encoded, where: Any = SPREAD) -> list[Position]:
    """The positions of a prompt, one for each chart.

    **Args:** `prompt`, from `Model.encode`, and `where`, which is one of

    - `"spread"`: five tokens, or as many as there are, at even distances from the first to the last. Special tokens
      (such as [CLS]) are left out, and so is the first token of the sequence where there are others: in a causal model
      it attends to nothing but itself, and it is where attention sinks lie.
    - `"last"`: the last token that is not special, often a full stop; `"all"`: every one that is not special.
    - `"together"`: all these at once, each by the same vector.
    - `"content"`, `"stop"`, `"punctuation"` or `"special"`: every token of a class. Function words of English are
      `stop`, other words `content`, blanks count as punctuation. `"last content"` and the like: the last of these.
    - `"token:bank"`: every token that reads so.
    - indices, negative ones from the end, or a function of the encoded prompt that returns such.

    **Returns:** the index of the token that moves, or `None` for all words together, for each position.

    **Raises:** `InputError` where there are none, or where nothing is known of the tokens' classes.

    >>> import fisherflat as ff
    >>> prompt = ff.load("python-llama").encode("def mean(values):")
    >>> ff.moves.positions(prompt, [0, -1]) == [0, len(prompt.ids) - 1]
    True
    >>> ff.moves.positions(prompt, "token:def"), ff.moves.positions(prompt, "last content")
    ([0], [5])
    """
    if callable(where):
        return _checked(prompt, where(prompt))
    if not isinstance(where, str):
        return _checked(prompt, where)
    if where.startswith(NAMED):
        return _named(prompt, where.removeprefix(NAMED))
    kind = where.removeprefix(LAST_OF)
    if kind in CLASSES:
        found = _of_class(prompt, kind)
        return [found[-1]] if where != kind else found
    if where not in (SPREAD, LAST, ALL, TOGETHER):
        raise InputError(
            f'positions must be "spread", "last", "all", "together", a class such as "content" or "last content", '
            f'"token:" and a token, a list of indices, or a function of the prompt; got {where!r}'
        )
    ordinary = words(prompt)
    if not ordinary:
        raise InputError(f"the prompt {prompt.text!r} holds only special tokens; give a word, or positions as indices")
    if where == TOGETHER:
        return [None]
    if where == SPREAD:
        ordinary = ordinary[1:] if ordinary[0] == 0 and len(ordinary) > 1 else ordinary
        steps = min(COUNT, len(ordinary)) - 1
        return [ordinary[step * (len(ordinary) - 1) // max(steps, 1)] for step in range(steps + 1)]
    return [*ordinary] if where == ALL else [ordinary[-1]]


def parsed(where: Any) -> Any:
    """Positions of one prompt or several, checked as far as can be without the prompts.

    **Returns:** a word, a function, indices as a tuple, or, where there is a choice for each prompt, a tuple of these.

    **Raises:** `InputError` for a dictionary or a set, which have no order, and what is none of these.

    >>> import fisherflat as ff
    >>> ff.moves.parsed([2, 3]), ff.moves.parsed([[2], "last"]), ff.moves.parsed("token:bank")
    ((2, 3), ((2,), 'last'), 'token:bank')
    """
    if isinstance(where, str) or callable(where):
        return where
    if isinstance(where, (Mapping, Set)):
        raise InputError(
            "positions of several prompts are a list with one entry a prompt, in their order, such as [[2], [3]]; got "
            f"a {type(where).__name__}"
        )
    listed = list(where) if hasattr(where, "__iter__") and getattr(where, "ndim", 1) > 0 else where
    if not isinstance(listed, list) or not any(map(_is_choice, listed)):
        return integers(where, "positions")
    if not all(map(_is_choice, listed)):
        raise InputError(f"positions are indices, or one list for each prompt; these are both: {where!r}")
    return tuple(one if isinstance(one, str) or callable(one) else integers(one, "positions") for one in listed)


def _is_choice(entry: Any) -> bool:
    """Whether it says which positions of a prompt, and is not itself one."""
    many: int = getattr(entry, "ndim", 1)
    return isinstance(entry, str) or callable(entry) or (hasattr(entry, "__iter__") and many > 0)


def for_each(where: Any, count: int) -> list[Where]:
    """Positions for each of several prompts, from one choice for all, or a list that holds one for each.

    **Raises:** `InputError` for a dictionary, and for lists of another number than there are prompts.

    >>> import fisherflat as ff
    >>> ff.moves.for_each([[2], [3, 4]], 2), ff.moves.for_each("last", 2)
    ([(2,), (3, 4)], ['last', 'last'])
    """
    where = parsed(where)
    if not isinstance(where, tuple) or not any(map(_is_choice, where)):
        return [where] * count
    if len(where) != count:
        raise InputError(
            f"positions of several prompts are a list with one entry a prompt; there are {count} prompts and "
            f"{len(where)} entries: {[one if isinstance(one, str) or callable(one) else list(one) for one in where]}"
        )
    return list(where)


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
    r"""The token that moves as people read it, for tables: without the marks of a vocabulary, a newline as `\n`.

    **Args:**

    - `prompt`: from `Model.encode`; `position`: from `positions`.

    **Returns:** the token, or `all words`.

    >>> import fisherflat as ff
    >>> ff.moves.label(ff.load("python-llama").encode("def mean(values):"), 0)
    'def'
    """
    return "all words" if position is None else prompt.read[position].label


def token_columns(prompt: Encoded, position: Position) -> dict[str, Any]:
    """What a table says of the token that moves.

    **Returns:** `token`, as people read it; `raw_token`, as the vocabulary has it; `token_class`: `content`, `stop`,
    `punctuation` or `special`, `None` where that is not known.

    >>> import fisherflat as ff
    >>> ff.moves.token_columns(ff.load("python-llama").encode("for x in y:"), 2)
    {'token': 'in', 'raw_token': 'Ġin', 'token_class': 'stop'}
    """
    if position is None:
        return {"token": label(prompt, None), "raw_token": None, "token_class": None}
    read = prompt.read[position]
    return {"token": read.label, "raw_token": prompt.tokens[position], "token_class": read.kind}


def _of_class(prompt: Encoded, kind: str) -> list[Position]:
    if all(token.kind is None for token in prompt.read):
        raise InputError(
            f"what is {kind} in {prompt.text!r} cannot be told: there is no tokenizer to read it by; give positions as "
            "indices"
        )
    found: list[Position] = [i for i, token in enumerate(prompt.read) if token.kind == kind]
    if not found:
        there = sorted({token.kind for token in prompt.read if token.kind is not None})
        raise InputError(f"the prompt {prompt.text!r} has no {kind} token; those that it has are {', '.join(there)}")
    return found


def _named(prompt: Encoded, name: str) -> list[Position]:
    named = [(token.label, raw) for token, raw in zip(prompt.read, prompt.tokens, strict=True)]
    for same in (str, str.casefold):
        found: list[Position] = [i for i, names in enumerate(named) if same(name) in map(same, names)]
        if found and name:
            return found
    labels = list(dict.fromkeys(label for label, _ in named))
    near = get_close_matches(name, labels, 3) or labels[:12]
    raise InputError(
        f"no token of the prompt {prompt.text!r} reads {name!r}; it has {', '.join(map(repr, near))}"
        + (" and others" if len(near) < len(labels) else "")
    )


@contextmanager
def of_prompt(prompt: Encoded) -> Iterator[None]:
    """Let what is wrong with positions say of which prompt they were to be."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}, for the prompt {prompt.text!r} of {len(prompt.ids)} tokens") from error


def _checked(prompt: Encoded, where: Any) -> list[Position]:
    n = len(prompt.ids)
    with of_prompt(prompt):
        where = integers(where, "positions")
    if outside := [index for index in where if not -n <= index < n]:
        raise InputError(f"position {outside[0]} is outside the prompt {prompt.text!r} of {n} tokens")
    return list(dict.fromkeys(index % n for index in where))
