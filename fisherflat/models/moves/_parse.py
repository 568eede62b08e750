"""What moves, as one word on a command line."""

from __future__ import annotations

from fisherflat._arrays import integer
from fisherflat._renamed import renamed
from fisherflat.errors import InputError
from fisherflat.models.moves._directions import Principal, Random
from fisherflat.models.moves._moves import Moves
from fisherflat.models.moves._vectors import vectors
from fisherflat.models.moves._words import Words


@renamed(dim="k")
def parse(what: str | Moves, k: int | None = None) -> Moves:
    """What moves, from its description.

    **Args:**

    - `what`: `"principal"`; `"random"` or `"random:SEED"`; `"words:cat,dog,bird"` (or token ids); `"vectors:FILE"`, or
      `"vectors:FILE#NAME"` for one of several tensors of a safetensors file. A `Moves` is returned as it is.
    - `k`: how many directions move, by default 2. Words and vectors bring a number of their own; another is refused.

    **Returns:** a `Moves`.

    **Raises:** `InputError` for anything else.

    >>> import fisherflat as ff
    >>> ff.moves.parse("words:cat,dog,bird").k
    2
    """
    if not isinstance(what, (str, Moves)):
        raise InputError(f"what moves is a description in words or one of fisherflat.moves, got {what!r}")
    k = None if k is None else integer(k, "the number of directions")
    moves = what if isinstance(what, Moves) else _parse(what, k)
    if k is not None and moves.k != k:
        made = _DESCRIBED.get(moves.kind, moves.kind)
        raise InputError(f"{k} directions were asked for, but {made} make {moves.k}; leave the number out")
    return moves


_WORDS = "write 'principal', 'random' or random:SEED, words:cat,dog,bird, or vectors:FILE"
_DESCRIBED = {"words": "the words (one less than there are)", "vectors": "the vectors"}


def _parse(what: str, k: int | None) -> Moves:
    kind, colon, rest = what.strip().partition(":")
    directions = 2 if k is None else k
    if kind == "principal" and not colon:
        return Principal(directions)
    if kind == "random" and (not colon or rest.isdecimal()):
        return Random(directions, int(rest or 0))
    if kind == "words" and rest:
        named = [word.strip() for word in rest.split(",") if word.strip()]
        return Words(tuple(map(int, named)) if all(word.isdecimal() for word in named) else tuple(named))
    if kind == "vectors" and rest:
        file, _, name = rest.partition("#")
        return vectors(file, name or None)
    raise InputError(f"{what!r} does not say what moves; {_WORDS}")
