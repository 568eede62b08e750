"""The tests of a protocol, one by one: `[[claims.X.tests]]` of `protocol.toml`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fisherflat.errors import InputError

#: what a test can decide: its claim, nothing, or nothing since a theorem gives it anyway
ROLES = ("primary", "beside", "given")
KINDS = ("difference", "equivalence", "correlation", "slope", "slope difference", "above", "below")


@dataclass(frozen=True)
class Test:
    """One test of the protocol, of one task where it asks each of them; fields as in `protocol.toml`."""

    claim: str
    id: str
    role: str
    kind: str
    column: str
    margin: float
    transform: str = "identity"
    arm: Any = ""
    against: Any = ""
    tasks: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    level: str = ""
    method: str = ""
    table: str = "models"


def tests(protocol: Mapping[str, Any]) -> list[Test]:
    """All tests of a protocol, one a task where it says `each`, and one a group of rows where it lists several groups.

    **Raises:** `InputError` for a kind or a role that there is not.
    """
    found: list[Test] = []
    for claim, about in protocol["claims"].items():
        shared = {name: about[name] for name in ("method", "table") if name in about}
        for given in about.get("tests", ()):
            names = {name: value for name, value in given.items() if name in Test.__dataclass_fields__}
            test = Test(claim=claim, **shared | names | {"tasks": tuple(given.get("tasks", ()))})
            if test.kind not in KINDS or test.role not in ROLES:
                said = f"test {test.id} has kind {test.kind!r} and role {test.role!r}"
                raise InputError(f"{said}; there are {', '.join(KINDS)}, and {', '.join(ROLES)}")
            found += _each(test, bool(given.get("each")))
    return found


def _each(test: Test, by_task: bool) -> Iterator[Test]:
    if by_task:
        yield from (replace(test, id=f"{test.id} {task}", tasks=(task,)) for task in test.tasks)
        if test.kind in ("difference", "equivalence") and len(test.tasks) > 2:
            yield replace(test, id=f"{test.id} all", role="beside")
    elif test.kind in ("above", "below"):  # a mean over unlike groups would hide the one in which it does not hold
        lists = {name: value if isinstance(value, list) else [value] for name, value in test.where.items()}
        several = [name for name, values in lists.items() if len(values) > 1]
        for values in itertools.product(*lists.values()):
            where = dict(zip(lists, values, strict=True))
            label = " ".join(str(where[name]) for name in several)
            yield replace(test, id=f"{test.id} {label}".strip(), where=where)
    else:
        yield test
