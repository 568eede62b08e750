"""The protocol, read and counted: `protocol.toml`, its hash, and the models that it asks for."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from fisherflat.errors import InputError

PATH = Path(__file__).with_name("protocol.toml")


@dataclass(frozen=True)
class Cell:
    """What the models of a cell have in common, all but the seed.

    **Attributes:** `group`, for which the protocol asks first; `task`; `arm`; `depth` in layers; `heads`; `residual`,
    `norm`, whether layers have them; `weight_decay`; `shuffled`, whether the training labels are permuted.
    """

    group: str
    task: str
    arm: str
    depth: int = 1
    heads: int = 1
    residual: bool = False
    norm: bool = False
    weight_decay: float = 0.0
    shuffled: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from other cells: all but the group."""
        return tuple(getattr(self, field.name) for field in fields(self)[1:])


@dataclass(frozen=True)
class Unit:
    """Models of one cell that are trained together: the seeds of a block."""

    cell: Cell
    seeds: tuple[int, ...]

    table = "models"

    @property
    def name(self) -> str:
        """The name of its file."""
        cell = self.cell
        parts = [cell.task, cell.arm, f"depth{cell.depth}", f"heads{cell.heads}"]
        parts += [word for word in ("residual", "norm", "shuffled") if getattr(cell, word)]
        return "-".join([*parts, f"decay{cell.weight_decay:g}", f"seeds{self.seeds[0]}to{self.seeds[-1]}"])


@dataclass(frozen=True)
class Protocol:
    """`text`, the file as it is; its tables by subscript."""

    text: str

    @classmethod
    def load(cls, path: str | Path = PATH) -> Protocol:
        """The protocol in a file, by default the one that counts."""
        return cls(Path(path).read_text(encoding="utf-8"))

    @cached_property
    def tables(self) -> dict[str, Any]:
        """All of it, parsed."""
        return tomllib.loads(self.text)

    def __getitem__(self, name: str) -> Any:
        return self.tables[name]

    @property
    def sha256(self) -> str:
        """What stands in every result."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def family(self, task: str) -> dict[str, Any]:
        """Sizes and recipe for a task."""
        return dict(self["families"][self["tasks"][task]["family"]])

    def cells(self, group: dict[str, Any]) -> Iterator[Cell]:
        """The cells of a group, arms innermost, so that what is compared is trained together."""
        unknown = set(group) - {"name", "tasks", "arms", "seeds"} - {field.name for field in fields(Cell)}
        if unknown:
            raise InputError(f"a group of the protocol has {sorted(unknown)[0]!r}, which is no property of a model")
        axes = [group.get(name, [default]) for name, default in _DEFAULTS.items()]
        for task, shape, decay in product(group["tasks"], product(*axes), group.get("weight_decay", [None])):
            chosen = self.family(task)["weight_decay"] if decay is None else decay
            for arm in group["arms"]:
                yield Cell(group["name"], task, arm, **dict(zip(_DEFAULTS, shape, strict=True)), weight_decay=chosen)

    def units(
        self, *, groups: Sequence[str] = (), tasks: Sequence[str] = (), seeds: int | None = None, pilot: bool = False
    ) -> list[Unit]:
        """What is to be trained, the most important first; each model once, though several groups may ask for it.

        First blocks of seeds come before second ones, so that what ends early lacks seeds rather than cells.

        **Args:** `groups`, `tasks`: only these; `seeds`: at most so many of each cell; `pilot`: with seeds that count
        for nothing.

        **Raises:** `InputError` for a group or a task that does not exist.
        """
        names = [group["name"] for group in self["groups"]]
        for given, known in ((groups, names), (tasks, list(self["tasks"]))):
            if unknown := sorted(set(given) - set(known)):
                raise InputError(f"the protocol has no {unknown[0]!r}; it has {', '.join(known)}")
        first, block, seen = self["pilot"] if pilot else 0, self["design"]["block"], set[Any]()
        waves: dict[int, list[Unit]] = {}
        for group in self["groups"]:
            if groups and group["name"] not in groups:
                continue
            count = group["seeds"] if seeds is None else min(seeds, group["seeds"])
            for cell, start in product(self.cells(group), range(0, count, block)):
                chosen = tuple(range(first + start, first + min(start + block, count)))
                if (cell.key, chosen) not in seen and (not tasks or cell.task in tasks):
                    seen.add((cell.key, chosen))
                    waves.setdefault(start, []).append(Unit(cell, chosen))
        return [unit for start in sorted(waves) for unit in waves[start]]


#: the axes of a group that it need not name; weight decay is that of the family of tasks
_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in fields(Cell) if field.default is not MISSING and field.name != "weight_decay"
}
#: what a group of runs has, of what tells forms of a model apart, where it does not say
PLAIN = {name: [value] for name, value in _DEFAULTS.items() if name != "shuffled"}
