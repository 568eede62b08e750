"""Certificate files changed at random: none that says something false may be accepted.

`python tests/verifier/mutations.py --count 10000 --seed 0` changes files of every kind of certificate: single leaves,
whole fields, fields of one file put into another, bytes of the text, values that are deep, long, huge or of another
type; most of them get the digest and the words that fit. It counts

- *wrong acceptances*: files that verify and do not say what the original says. What no proof speaks about (versions,
  precision) may differ, bounds may be looser, a box or a counterexample another one for which all is proved anew, and
  what is undecided may be so elsewhere;
- *foreign errors*: anything but a refusal;
- *long runs*: more than 20 seconds.

All three have to be 0, which is the exit code.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from cases import certified

import fisherflat as ff
from fisherflat.certificates import Bound, Certificate, digests, files
from fisherflat.errors import CertificateError

Document = dict[str, Any]
FOLDER = Path(__file__).parents[1] / "data" / "certificates"
#: seconds
LONG = 20.0
#: what no proof speaks about
UNPROVED = {"versions", "precision", "digest", "claim", "reason", "subject"}
BOUNDS = ("enclosure", "determinant")
_ZERO = (0.0).hex()


@dataclass(frozen=True)
class Subject:
    """A certificate as its document, and what it is about."""

    document: Document
    about: Callable[[], tuple[Any, ...]]


@cache
def subjects() -> dict[str, Subject]:
    """Certificates of every kind, new ones and those of 0.1.0."""
    token, chart = certified.CHART, ff.charts.token(certified.HIDDEN, 1, 2 * certified.numbers(9, 3, 4))
    live, plain = certified.Attention("silu"), certified.Attention()
    frozen = ff.freeze(live, certified.HIDDEN)
    flat, relu = ff.freeze(plain, certified.HIDDEN), lambda x: torch.cat([x, x.relu()])
    mlp = ff.freeze(certified.gated_mlp(), certified.HIDDEN, ("activation",))
    square = ff.charts.identity(2)
    made = {
        "flat": (ff.certify(flat, token), (flat, token)),
        "pieces": (ff.certify(relu, square), (relu, square)),
        "curved": (ff.certify(live, token, at=[0.5, -0.25]), (live, token)),
        "frozen": (ff.certify(frozen, token, at=[0.5, -0.25]), (frozen, token)),
        "tangent": (ff.certify(mlp, token, at=[0.5, -0.25]), (mlp, token)),
        "box": (ff.certify(live, token, at=[0.5, -0.25], radius=2.0**-16), (live, token)),
        "plane": (ff.certify(live, chart, at=[0.5, -0.25, 0.125]), (live, chart)),
        "undecided": (ff.certify(certified.cylinder, square, at=[0.25, 0.125]), (certified.cylinder, square)),
        "symmetry": (ff.symmetry.certify(certified.gated_mlp()), (certified.gated_mlp(),)),
    }
    found = {name: Subject(files.document(c), lambda about=about: about) for name, (c, about) in made.items()}
    old = {"flat": "flat", "curved": "curved", "box": "box", "undecided": "undecided", "symmetry": "symmetry"}
    for name, new in old.items():
        document = files.document(Certificate.load(FOLDER / "0.1.0" / f"{name}.json"))
        found[f"{name} of 0.1.0"] = Subject(document, found[new].about)
    return found


# -- changes -----------------------------------------------------------------------------------------------------------


def leaves(thing: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values that hold no others."""
    if isinstance(thing, (dict, list)) and thing:
        items = thing.items() if isinstance(thing, dict) else enumerate(thing)
        return [leaf for key, value in items for leaf in leaves(value, (*path, key))]
    return [path]


def deep(levels: int) -> Any:
    """A list in a list in a list."""
    thing: Any = []
    for _ in range(levels):
        thing = [thing]
    return thing


def strange(rng: random.Random) -> Any:
    """A value that a reader might stumble over."""
    return rng.choice([
        lambda: None, lambda: True, lambda: 0, lambda: -1, lambda: 2**70, lambda: 10**4000, lambda: 1e300, lambda: "",
        lambda: "\ud800", lambda: "x" * 2**16, lambda: "0x1.0p+999999", lambda: "nan", lambda: "-inf", lambda: "1E9999",
        list, dict, lambda: [[]], lambda: {"": {}}, lambda: deep(40), lambda: deep(150),
        lambda: ["0"] * 2**16, lambda: ["0x0.0p+0"] * 300, lambda: {str(i): i for i in range(300)},
    ])()  # fmt: skip


def nudged(old: Any, rng: random.Random) -> Any:
    """A value near another."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return old + rng.choice([-1, 1, 7, 1000])
    if isinstance(old, str) and old:
        if re.fullmatch(r"-?0x[01]\.[0-9a-f]+p[+-]\d{1,3}", old) and rng.random() < 0.5:
            number = float.fromhex(old)
            return rng.choice([number * 1.5, -number, number + 2.0**-40, 0.0, 1.0]).hex()
        place = rng.randrange(len(old))
        character = rng.choice([c for c in "0123456789abcdefxpE.+- " if c != old[place]])
        return rng.choice([old[:place] + character + old[place + 1 :], old[:place] + old[place + 1 :], old[::-1]])
    return strange(rng)


def changed(document: Document, others: list[Document], rng: random.Random) -> Document:
    """The document with something in it changed."""
    places = leaves(document)
    document = copy.deepcopy(document)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        path, how = rng.choice(places), rng.random()
        field, other = rng.choice(list(document)), rng.choice(others)
        try:
            if how >= 0.95:
                document[field] = strange(rng)
            elif how >= 0.75:
                document[field] = copy.deepcopy(other[field])
            else:
                holder: Any = document
                for key in path[:-1]:
                    holder = holder[key]
                if how >= 0.65:
                    del holder[path[-1]]
                else:
                    holder[path[-1]] = nudged(holder[path[-1]], rng) if how < 0.5 else strange(rng)
        except (LookupError, TypeError):
            continue  # an earlier change has taken the place away
    return document


def fitted(document: Document) -> Document:
    """With the words and the digest that fit, as far as the document can be read at all."""
    document = copy.deepcopy(document)
    for _ in range(4):
        try:
            document["digest"] = digests.of_json({k: v for k, v in document.items() if k != "digest"})
            files.certificate(document)
        except CertificateError as error:
            name = str(error).partition(":")[0]
            if name not in ("claim", "reason", "reading", "scope", "frozen"):
                return document
            try:  # say what the other fields say
                form = files.FORMS[document["kind"]]
                schema = next(n for n in (1, 2) if document["schema"].endswith(str(n)))
                statement = form.read(files.Fields({**document}), schema)
                document[name] = files.document(statement)[name]
            except Exception:
                return document
        except Exception:
            return document
    return document


def text_of(document: Document, rng: random.Random) -> str:
    """The file, at times with a byte changed, or with what no writer writes."""
    text = json.dumps(document, indent=1)
    how = rng.random()
    if how < 0.05:
        place = rng.randrange(len(text))
        return text[:place] + chr(rng.randrange(1, 255)) + text[place + 1 :]
    if how < 0.07:
        return text.replace(": 128", rng.choice([": 1e999", ": NaN", ": -Infinity", ": 1.28e2"]), 1)
    if how < 0.08:
        return text[: rng.randrange(len(text))]
    if how < 0.09:
        return "[" * 10**5
    return text


# -- judging -----------------------------------------------------------------------------------------------------------


def says_the_same(document: Document, original: Document) -> bool:
    """Whether an accepted document says what the original says, or something weaker."""
    free = set(UNPROVED)
    if original.get("verdict") == "undecided":
        free |= {"point", "radius", "plane", *BOUNDS}
    if original.get("radius", _ZERO) != _ZERO:  # proved anew on another box, which the claim names
        free |= {"point", "radius", "cells"}
    if original["kind"] == "symmetry":  # which has one form
        free |= {"schema"}
    elif original["schema"].endswith("/1") and original["verdict"] == "flat":  # without a meaning
        free |= {"point"}
        original, document = _without_numbers(original), _without_numbers(document)
    for name in original.keys() | document.keys():
        old, new = original.get(name), document.get(name)
        if name in free or old == new:
            continue
        if name in BOUNDS and old and new and _meet(old, new):
            continue
        if (
            name == "constants"
            and old
            and new
            and [{**c, "within": 0} for c in old] == [{**c, "within": 0} for c in new]
        ):
            continue
        if name == "findings" and [_finding(f) for f in old] == [_finding(f) for f in new]:
            continue
        if name in ("graph", "live", "steps", "witness", "held", "kinks", "unsupported") and foreign_versions(document):
            continue  # stated, and shown, as the prover's word
        return False
    return True


def _without_numbers(document: Document) -> Document:
    """Without the digests of what torch computed: a proof by structure looks at no numbers."""
    named = [{**w, "sha256": ""} if w["name"].startswith("constant ") else w for w in document["weights"]]
    return {**document, "weights": named}


def _meet(old: Document, new: Document) -> bool:
    return Bound(new["low"]) <= Bound(old["high"]) and Bound(new["high"]) >= Bound(old["low"])


def foreign_versions(document: Document) -> bool:
    """Whether node numbers and lines are not compared: made with other versions, or in the first schema."""
    return document["versions"] != ff.certificates.versions() or document["schema"].endswith("/1")


def _finding(finding: Document) -> tuple[str, ...]:
    """What it says; another counterexample that holds is as good."""
    return finding["symmetry"], finding["verdict"], finding["argument"]


def judged(subject: Subject, text: str, folder: Path) -> str:
    """`refused`, `accepted` or what must not be."""
    file = folder / "c.json"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    start = time.perf_counter()
    try:
        certificate = Certificate.load(file)
        about = subject.about()
        symmetry = certificate.kind == "symmetry"
        if symmetry != (len(about) == 1):
            return "refused"
        verdict = "accepted" if ff.verify(certificate, *about).ok else "refused"
    except CertificateError:
        verdict = "refused"
    except Exception as error:
        return f"foreign error: {type(error).__name__}: {str(error)[:90]}"
    if time.perf_counter() - start > LONG:
        return f"long run: {time.perf_counter() - start:.0f} s"
    if verdict == "accepted" and not says_the_same(json.loads(text), subject.document):
        return "wrong acceptance"
    return verdict


def run(count: int, seed: int, keep: Path | None = None) -> Counter[str]:
    """So many changed files, and what became of them."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    known = subjects()
    documents = [subject.document for subject in known.values()]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            name = rng.choice(list(known))
            document = changed(known[name].document, documents, rng)
            if rng.random() < 0.9:
                document = fitted(document)
            try:
                text = text_of(document, rng)
            except (ValueError, RecursionError):
                continue
            found = judged(known[name], text, Path(folder))
            counts[found.partition(":")[0]] += 1
            if found not in ("refused", "accepted"):
                print(f"{number} ({name}): {found}", flush=True)
                if keep is not None:
                    keep.mkdir(exist_ok=True)
                    (keep / f"{number}.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    return counts


def main() -> None:
    """Print the counts; exit code 1 where one is not 0 that has to be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files that must not be")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counts = run(options.count, options.seed, options.keep)
    for found in ("refused", "accepted", "wrong acceptance", "foreign error", "long run"):
        print(f"{counts[found]:6d}  {found}")
    sys.exit(any(counts[found] for found in ("wrong acceptance", "foreign error", "long run")))


if __name__ == "__main__":
    main()
