"""Readings: which parts are held at the base point while the rest of a layer moves.

A reading is a name for a set of roles. `live` holds nothing; `frozen pattern` holds the attention pattern; combinations
are joined by a plus sign, in one order, such as `frozen pattern+gate`. The words are

| word | role |
|---|---|
| `pattern` | `pattern`, the attention weights |
| `gate` | `attention_gate` |
| `norm` | `norm` |
| `mlp gate` | `mlp_gate` |
| `activation` | `activation`, which becomes its tangent |

See `fisherflat.freeze` for what holding a role means; what each role is, docs/readings.md says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor

from fisherflat._display import displayed
from fisherflat.errors import InputError
from fisherflat.jets.graph import ROLES, Graph
from fisherflat.parts._tracing import freeze, trace

__all__ = [
    "GATES",
    "LIVE",
    "WORDS",
    "Gap",
    "canonical",
    "gap",
    "held",
    "name",
    "order",
    "present",
    "roles",
    "sensible",
]

LIVE = "live"
#: role -> the word for it in the name of a reading, in the order in which they are named
WORDS = {
    "pattern": "pattern",
    "attention_gate": "gate",
    "norm": "norm",
    "mlp_gate": "mlp gate",
    "activation": "activation",
}
#: the roles that are gates
GATES = ("attention_gate", "mlp_gate")
#: what may be written for one or several roles, besides the roles' own names and the words above
_ALIASES = {"attention gate": ("attention_gate",), "gates": GATES}


def name(roles: Iterable[str]) -> str:
    """The name of the reading that holds some roles: `live` for none, else such as `frozen pattern+gate`.

    **Raises:** `InputError` for what is no role, or one that cannot be held.

    >>> import fisherflat as ff
    >>> ff.readings.name(["attention_gate", "pattern"])
    'frozen pattern+gate'
    """
    chosen = set(roles)
    if unknown := sorted(chosen - WORDS.keys()):
        raise InputError(f"{unknown[0]!r} cannot be frozen; choose from {', '.join(WORDS)}")
    return f"frozen {'+'.join(word for role, word in WORDS.items() if role in chosen)}" if chosen else LIVE


def roles(reading: str) -> tuple[str, ...]:
    """The roles that a reading holds, in the order of `WORDS`.

    Also understood are commas, `and` and `&` for the plus sign, plurals, roles by their own names (`attention_gate`),
    `gates` for both kinds, and all of it without the word `frozen`.

    **Raises:** `InputError` for a word that is none of these.

    >>> import fisherflat as ff
    >>> ff.readings.roles("frozen gates and pattern")
    ('pattern', 'attention_gate', 'mlp_gate')
    """
    text = " ".join(reading.lower().replace("_", " ").replace("-", " ").split()) if isinstance(reading, str) else ""
    if text == LIVE:
        return ()
    chosen: set[str] = set()
    for word in re.split(r"\s*[+,&]\s*|\s+and\s+", text.removeprefix("frozen").strip()):
        found = _by_word().get(word.removeprefix("frozen ")) or _by_word().get(word.removesuffix("s"))
        if found is None:
            raise InputError(
                f"{reading!r} is no reading; write {LIVE!r}, or 'frozen' and what is held, out of "
                f"{', '.join(WORDS.values())}, joined by a plus sign: 'frozen pattern+gate'"
            )
        chosen.update(found)
    return tuple(role for role in WORDS if role in chosen)


def canonical(reading: str) -> str:
    """The one spelling of a reading. **Raises:** `InputError` as `roles`.

    >>> import fisherflat as ff
    >>> ff.readings.canonical("gate, pattern")
    'frozen pattern+gate'
    """
    return name(roles(reading))


def order(reading: str) -> tuple[int, ...]:
    """What to sort readings by: those that hold less come first.

    >>> import fisherflat as ff
    >>> sorted(["frozen pattern+gate", "frozen gate", "live"], key=ff.readings.order)
    ['live', 'frozen gate', 'frozen pattern+gate']
    """
    chosen = roles(reading)
    return (len(chosen), *(list(WORDS).index(role) for role in chosen))


def held(module: Callable[[Tensor], Tensor], at: Any, reading: str = LIVE) -> Graph:
    """The graph of a map in a reading, its held parts at their values at the input `at`.

    Parts that the map does not have are not held: `name(graph.frozen)` is the reading that the graph is in.

    **Raises:** `InputError` for an unknown reading, and what `fisherflat.freeze` raises.

    >>> import torch, fisherflat as ff
    >>> graph = ff.readings.held(ff.layers.SelfAttention(4), torch.randn(3, 4), "frozen pattern")
    >>> graph.frozen
    ('pattern',)
    """
    chosen = roles(reading)
    return freeze(module, at, chosen) if chosen else trace(module, at)


def present(*graphs: Graph) -> tuple[str, ...]:
    """The roles of some graphs of which something can be held, in the order of `ROLES`.

    >>> import torch, fisherflat as ff
    >>> ff.readings.present(ff.trace(ff.layers.SelfAttention(4, gate=ff.layers.Gate()), torch.randn(3, 4)))
    ('pattern', 'attention_gate')
    """
    found = {node.role for graph in graphs for node in graph.nodes if node.factor or node.role == "activation"}
    return tuple(role for role in ROLES if role in found and role in WORDS)


def sensible(roles: Iterable[str]) -> list[str]:
    """The readings that tell something about a map that has these roles.

    `live`; each of pattern, gate, norm and MLP gate held alone, where it occurs; and what the expressivity gap of each
    gate takes (see `gap`). An activation may be held too, on request: alone it leaves little to measure.

    >>> import fisherflat as ff
    >>> ff.readings.sensible(["pattern", "attention_gate"])
    ['live', 'frozen pattern', 'frozen gate', 'frozen pattern+gate']
    """
    found = [role for role in WORDS if role in set(roles)]
    alone = [name([role]) for role in found if role != "activation"]
    return list(dict.fromkeys([LIVE, *alone, *(reading for gate in GATES for reading in gap(found, gate) or ())]))


@displayed
class Gap(NamedTuple):
    """The two readings whose difference is the expressivity gap of a gate, from `gap`.

    **Attributes:** `live`, in which the gate moves; `held`, in which it is held as well.
    """

    live: str
    held: str


def gap(roles: Iterable[str], gate: str = "attention_gate") -> Gap | None:
    """The two readings whose difference is the expressivity gap of a gate: gate live, gate held.

    The pattern, where there is one, is held in both. `None` for a map without that gate.

    The gap is that of *Gating Enables Curvature* (arXiv 2604.14702): what gating adds to an operator that is otherwise
    affine, and so flat.

    >>> import fisherflat as ff
    >>> ff.readings.gap(["pattern", "attention_gate"])
    Gap(live='frozen pattern', held='frozen pattern+gate')
    """
    found = set(roles)
    base = found & {"pattern"}
    return Gap(name(base), name(base | {gate})) if gate in found else None


def _by_word() -> dict[str, tuple[str, ...]]:
    own = {role.replace("_", " "): (role,) for role in WORDS}
    return {**own, **{word: (role,) for role, word in WORDS.items()}, **_ALIASES}
