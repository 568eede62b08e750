"""What moves, as one word on a command line."""

from __future__ import annotations

from fisherflat._arrays import integer
from fisherflat._renamed import renamed
from fisherflat.errors import InputError
from fisherflat.models.moves._directions import Principal, Random, Whole
from fisherflat.models.moves._moves import Moves
from fisherflat.models.moves._vectors import vectors
from fisherflat.models.moves._words import Words


@renamed(dim="k")
def parse(what: str | Moves, k: int | str | None = None) -> Moves:
    """What moves, from its description.

    **Args:**

    - `what`: `"principal"`; `"random"` or `"random:SEED"`; `"words:cat,dog,bird"` (or token ids); `"vectors:FILE"`, or
      `"vectors:FILE#NAME"` for one of several tensors of a safetensors file. A `Moves` is returned as it is.
    - `k`: how many directions move, by default 2. Words and vectors bring a number of their own; another is refused.
      `"full"`: all of the hidden space (`Whole`), which leaves no choice of moves.

    **Returns:** a `Moves`.

    **Raises:** `InputError` for anything else.

    >>> import fisherflat as ff
    >>> ff.moves.parse("words:cat,dog,bird").k
    2
    """
    if not isinstance(what, (str, Moves)):
        raise InputError(f"what moves is a description in words or one of fisherflat.moves, got {what!r}")
    if isinstance(k, str):
        if k != "full":
            raise InputError(f'what is asked for is a number of directions, or "full" for all of them; got {k!r}')
        if what != "principal" and not isinstance(what, Whole):
            raise InputError(f'"full" moves all directions, which leaves no choice of moves; got {what!r} besides')
        return Whole()
    k = None if k is None else integer(k, "the number of directions")
    moves = what if isinstance(what, Moves) else _parse(what, k)
    if k is not None and moves.k != k:
        made = _DESCRIBED.get(moves.kind, moves.kind)
        raise InputError(f"{k} directions were asked for, but {made} make {moves.k or 'all'}; leave the number out")
    return moves


def few(what: str | Moves, k: int | str | None = None) -> Moves:
    """What moves, for what is done in a few directions.

    **Args:** as of `parse`.

    **Returns:** a `Moves`, of which `k` says how many directions move.

    **Raises:** `InputError` where `parse` does, and where all directions move.

    >>> import fisherflat as ff
    >>> ff.moves.few("principal", 3).k
    3
    """
    moves = parse(what, k)
    if isinstance(moves, Whole):
        raise InputError("this is done in a few directions, not in all of them; give their number, such as 2")
    return moves


_WORDS = "write 'principal', 'random' or random:SEED, words:cat,dog,bird, or vectors:FILE"
_DESCRIBED = {
    "words": "the words (one less than there are)",
    "vectors": "the vectors",
    "full": "moves in all directions",
}


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
