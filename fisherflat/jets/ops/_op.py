"""What is known of an op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fisherflat.jets.rules import Rule

#: `structural` ops move or copy entries: each entry of the output is an entry of an input, or a constant. `linear` ones
#: are affine in all their floating arguments together. A `sum` adds its two arguments, a `product` is bilinear in two
#: of them, a `quotient` affine in the first. A `function` is one of single entries, a `choice` picks entries by their
#: size, `constant` ops have no derivative but zero, `smooth` is everything else.
Kind = Literal["structural", "linear", "sum", "product", "quotient", "function", "choice", "constant", "smooth"]


@dataclass(frozen=True)
class Op:
    """A row of the table.

    **Attributes:**

    - `name`, in ATen; `kind`; `rule`, for second-order series; `function`, of an array of entries, where it is one.
    - `factors`: the arguments of which at most one may move if the op is to be affine; `divisors`: those that must not.
    - `matrix`: it combines two matrices; `projects`: weights enter a layer by it; `reduces`: it makes one entry of all
      along the axes that its second argument names; `in_place`: it leaves entries at their places, or fills others.
    - `chooses`: it reads entries from places that an index or their size says; `indexed`: its second output says which
      places; `largest`: the entries are the largest; `shape_only`: the numbers of the argument are not read; `stands`:
      it does not move.
    - `places`: the argument that says where entries go or come from. `pieces`, of what is affine: `affine` between its
      kinks; the `side` of one, or truths by `logic`; by `rank`, the entries that it picks or where they are.
    - `analytic`: real-analytic where it is defined; `domain`: for all arguments, `positive`, `nonzero` or `other` ones;
      `sign` of the output: `nonnegative`, or the `same` as that of the argument.
    """

    name: str
    kind: Kind
    rule: Rule | None = None
    function: Callable[..., Any] | None = None
    factors: tuple[int, ...] = ()
    divisors: tuple[int, ...] = ()
    matrix: bool = False
    projects: bool = False
    reduces: bool = False
    in_place: bool = False
    chooses: bool = False
    indexed: bool = False
    largest: bool = False
    shape_only: bool = False
    stands: bool = False
    places: int | None = None
    pieces: Literal["", "affine", "side", "logic", "rank"] = ""
    analytic: bool = True
    domain: Literal["all", "positive", "nonzero", "other"] = "all"
    sign: Literal["any", "nonnegative", "same"] = "any"
