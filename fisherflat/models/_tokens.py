"""What tokens are to a reader: their text, and whether they are words, function words or punctuation."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SPECIAL, PUNCTUATION, STOP, CONTENT = "special", "punctuation", "stop", "content"
#: what a token can be; without a tokenizer nothing is known of it
CLASSES = (CONTENT, STOP, PUNCTUATION, SPECIAL)

#: English function words: articles, pronouns, prepositions, conjunctions, auxiliaries, and what contractions leave
_ENGLISH = """
a about above after again against ain all also although am among an and another any are aren around as at be because
been before behind being below beneath beside besides between beyond both but by can cannot could couldn did didn do
does doesn doing don done down during each either else enough even ever every few for from further had hadn has hasn
have haven having he her here hers herself him himself his how however i if in inside into is isn it its itself just
least less many may me might mine more most much must mustn my myself near needn neither no nor not now of off often
on once one only onto or other others ought our ours ourselves out outside over own per perhaps quite rather same
shall she should shouldn since so some still such than that the their theirs them themselves then there therefore
these they this those though through throughout thus to together too toward towards under unless until unto up upon us
very was wasn we well were weren what whatever when where whether which while who whoever whom whose why will with
within without would wouldn yet you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_ENGLISH.split())
#: what contractions leave behind an apostrophe: it's, don't, we'll
_ENDINGS = frozenset({"s", "t", "d", "m", "ll", "re", "ve"})
_APOSTROPHES = ("'", "\u2019")
#: what part of a character is decoded as
_PART = "\ufffd"


@dataclass(frozen=True)
class Token:
    """A token as people read it.

    **Attributes:** `label`: its text, blanks and line breaks made visible; `kind`: one of `CLASSES`, `None` where it
    cannot be told.
    """

    label: str
    kind: str | None


def unknown(names: Sequence[str]) -> list[Token]:
    """Rows of which nothing is known but a name."""
    return [Token(name, None) for name in names]


def read(tokenizer: Any, ids: Sequence[int], raw: Sequence[str], special: Sequence[bool]) -> list[Token]:
    """What the tokens of a prompt are.

    A token belongs to a word together with those beside it, as the tokenizer itself joins them, and has the class of
    that word: the pieces of *unbelievable* are all content, the *s* of *it's* is a function word.
    """
    pieces = [tokenizer.decode([i]) for i in ids]
    letters = [not s and any(map(_in_words, piece)) for s, piece in zip(special, pieces, strict=True)]

    def goes_on(i: int) -> bool:
        """Whether a token goes on with the word of the one before it; if so it reads as it does behind that."""
        if not (letters[i - 1] and letters[i]) or pieces[i].startswith(_APOSTROPHES):
            return False
        alone = tokenizer.decode([ids[i - 1]])
        joined = tokenizer.decode([ids[i - 1], ids[i]])
        rest = joined.removeprefix(alone)
        if rest[:1].isspace():
            return False
        if _PART not in joined:
            pieces[i] = rest  # without the mark that it goes on, such as "##"
        return True

    found: list[Token] = []
    start = 0
    while start < len(ids):
        end = start + 1
        while end < len(ids) and goes_on(end):
            end += 1
        word, before = tokenizer.decode(list(ids[start:end])).strip(), pieces[start - 1] if start else ""
        kind = SPECIAL if special[start] else _kind(word, before) if letters[start] else PUNCTUATION
        labels = _parts(tokenizer, ids[start:end], pieces[start:end])
        found += [
            Token(name if special[start] else label or name, kind)
            for name, label in zip(raw[start:end], labels, strict=True)
        ]
        start = end
    return found


def _in_words(character: str) -> bool:
    """Whether words hold it; a part of a character, which is decoded as a replacement, counts as a letter."""
    return character.isalnum() or character == _PART


def _kind(word: str, before: str) -> str:
    bare = word.strip("".join(_APOSTROPHES)).lower()
    left = bare in _ENDINGS and (word.startswith(_APOSTROPHES) or before.endswith(_APOSTROPHES))
    return STOP if left or bare in STOP_WORDS else CONTENT


def _parts(tokenizer: Any, ids: Sequence[int], pieces: Sequence[str]) -> list[str]:
    """The pieces of a word to be seen; tokens that hold parts of characters are counted, such as `ü 1/2`."""
    found = [_visible(piece) for piece in pieces]
    start = 0
    while start < len(ids):
        end = start
        while end < len(ids) and _PART in pieces[end]:
            end += 1
        if end > start:
            whole = _visible(tokenizer.decode(list(ids[start:end])))
            found[start:end] = [f"{whole} {i}/{end - start}" for i in range(1, end - start + 1)]
        start = max(end, start + 1)
    return found


def _visible(text: str) -> str:
    """A text without the blank that begins a word; other blanks and control characters are shown."""
    text = text[1:] if text[:1] == " " and text.strip() else text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character == " ":
        return "\u2423"
    if character == "\n":
        return "\\n"
    if character == "\t":
        return "\\t"
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Zs"):
        return f"\\u{ord(character):04x}"
    return character
