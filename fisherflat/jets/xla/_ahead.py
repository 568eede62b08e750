"""What a function computes of some of its arguments alone, computed once and for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

#: what fills an array with few numbers: to do it again costs less than to read what was filled
_FILLING = {"broadcast_in_dim", "iota"}
#: what only looks at an array in another way, as a product with weights does at no cost
_LOOKING = {"reshape", "squeeze", "transpose"}


def ahead(
    function: Callable[..., Any], fixed: Sequence[Any], like: Sequence[jax.ShapeDtypeStruct]
) -> tuple[list[Any], Callable[..., Any]]:
    """A function of fixed arrays and of others in two parts, of which the first does all that needs the fixed alone.

    XLA itself moves out of a loop only what takes it long, and out of a program nothing: slices, copies and transposes
    of what points share would be made anew for every few points.

    **Args:** `function`, arrays to a tree of arrays; `fixed`, its first arguments; `like`: what the others are like.

    **Returns:** arrays, which may be some of the fixed ones, and the function of these and of the other arguments.
    """
    closed, made = jax.make_jaxpr(function, return_shape=True)(*fixed, *like)
    course: Jaxpr = closed.jaxpr
    numbers = map(np.asarray, closed.consts)  # which belong to no device
    values = dict(zip([*course.constvars, *course.invars], [*numbers, *fixed], strict=False))
    early, seen = set(values), set(values)
    for step in course.eqns:
        if early.issuperset(_read(step)):
            early.update(step.outvars)
        if step.primitive.name in _LOOKING and seen.issuperset(_read(step)):
            seen.update(step.outvars)

    late, needed = list[JaxprEqn](), {x for x in course.outvars if not isinstance(x, Literal)}
    for step in reversed(course.eqns):
        again = step.primitive.name in _FILLING or seen.issuperset(step.outvars)
        if not early.issuperset(step.outvars) or (again and not needed.isdisjoint(step.outvars)):
            late.insert(0, step)
            needed.difference_update(step.outvars)
            needed.update(_read(step))

    steps = [step for step in course.eqns if early.issuperset(step.outvars)]
    given = [x for x in values if x in needed]
    found = [x for step in steps for x in step.outvars if x in needed]
    known = jax.jit(_part(course, [*values], found, steps))(*values.values()) if found else []
    rest = _part(course, [*given, *found, *course.invars[len(fixed) :]], course.outvars, late)
    tree = jax.tree.structure(made)
    return [*(values[x] for x in given), *known], lambda *arrays: jax.tree.unflatten(tree, rest(*arrays))


def _read(step: JaxprEqn) -> list[Var]:
    return [x for x in step.invars if not isinstance(x, Literal)]


def _part(
    course: Jaxpr, given: Sequence[Var], found: Sequence[Any], steps: Sequence[JaxprEqn]
) -> Callable[..., list[Any]]:
    """Some of the steps, as a function."""
    names = course.debug_info._replace(arg_names=("",) * len(given), result_paths=("",) * len(found))
    part = course.replace(constvars=[], invars=[*given], outvars=[*found], eqns=[*steps], debug_info=names)
    run: Callable[..., list[Any]] = jaxpr_as_fun(ClosedJaxpr(part, []))
    return run
