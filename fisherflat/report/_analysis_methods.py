"""How an analysis was made."""

from __future__ import annotations

from typing import Any

from fisherflat.models.covariances import COVARIANCES
from fisherflat.pages import Code, Facts, Item
from fisherflat.parts import readings
from fisherflat.report._analysed import Analysed
from fisherflat.report._page import (
    VERDICTS,
    along,
    as_asked,
    asked_in,
    command,
    estimated_at,
    given,
    layers,
    listed,
    measured_at,
    moved,
    spans,
)
from fisherflat.studies import in_words


def _unit(settings: dict[str, Any]) -> str:
    """In what curvature is measured."""
    if (family := settings.get("family")) is not None:
        return f"the metric of {in_words(family)}"
    covariance = settings.get("covariance", "words")
    whose = (
        "; the surface is that of the outputs of the tokens that move alone"
        if settings.get("output") == "moved"
        else ""
    )
    if covariance == "words":
        return (
            "σ² is the mean variance of each part's own outputs at the words of the prompts, without outliers, so that "
            f"layers can be compared{whose}"
        )
    if covariance in COVARIANCES:
        return f"the covariance is {COVARIANCES[covariance]} of each part{whose}"
    return f"the covariance is {covariance}, the same for all parts{whose}"


def methods(found: Analysed) -> list[Item]:
    """How an analysis was made."""
    settings = found.settings
    if "moves" not in settings:  # rows that were put together by hand
        return ["How these numbers were made is not written down with them."]
    held = sorted(set(found.estimates["reading"]), key=readings.order)
    where = as_asked(settings)["positions"]
    bits = "; points with few right digits in more bits" if settings.get("precision") == "auto" else ""
    facts: dict[str, str] = {
        "chart": f"{_tokens(where)} {along(settings['moves'])}; {measured_at(settings)}",
        **({"other moves": "; ".join(map(along, settings["others"]))} if settings.get("others") else {}),
        "unit": _unit(settings),
        "parts": _parts(settings),
        "readings": ", ".join(held) or "none",
        "precision": f"{settings['dtype']}, engine {settings['engine']}; numerical errors are estimated "
        f"{estimated_at(settings)}{bits}",
        "prompts": "; ".join(f"({index}) {text}" for index, text in sorted(found.texts.items())) or "none",
    }
    return [Facts(facts | {"verdicts": VERDICTS}), *_repeat(found)]


def _repeat(found: Analysed) -> list[Item]:
    """The command that makes the analysis again."""
    settings = as_asked(found.settings)
    prompts = given(settings["prompts"])
    if prompts is None:
        return ["Hidden states or other inputs were given from Python, so that no command repeats this."]
    heads = settings["heads"]
    if "heads" in settings["parts"]:
        heads = "all" if heads in (None, "all") else ",".join(map(str, heads))
    parts = ",".join(part for part in settings["parts"] if part != "heads")
    where = settings["positions"]
    if any(not isinstance(one, int) for one in where) and not isinstance(where, str):
        return ["Each prompt had positions of its own, which are given from Python, so that no command repeats this."]
    where = where if isinstance(where, str) else ",".join(map(str, where))
    chosen = settings["readings"]
    which = settings["layers"]
    unit, only = asked_in(settings)
    only += [] if settings["engine"] == "taylor" else [f"From Python alone: with engine={settings['engine']!r}."]
    return [Code(command(
        "analyze", found.model, **prompts, **_moved(settings),
        part=None if parts == "attention,mlp,block" else parts, head=heads,
        layer=None if which is None else ",".join(map(str, which)),
        reading=None if chosen is None else ",".join(chosen), position=None if where == "spread" else where,
        points=settings["points"], seed=settings["seed"] or None,
        dtype=None if settings["dtype"] == "float64" else settings["dtype"],
        family=settings.get("family"), errors=None if settings["errors"] == "sample" else settings["errors"],
        more_bits=settings.get("precision") == "auto" or None,
        **unit, depth=bool(found.depth) or None, out="again",
    ), "To repeat it:"), *only]  # fmt: skip


def _parts(settings: dict[str, Any]) -> str:
    """What was measured of which layers."""
    parts = [part for part in settings["parts"] if part != "heads"]
    heads = settings["heads"]
    if "heads" in settings["parts"]:
        parts.append(f"heads {spans(heads)}" if isinstance(heads, list) and heads else "all heads")
    which = settings["layers"]
    return f"{listed(parts)} of {layers(which) if which else 'all layers'}"


def _moved(settings: dict[str, Any]) -> dict[str, Any]:
    """What moved as options of a command, one or several."""
    first, others = moved(settings["moves"]), settings.get("others", ())
    if not others:
        return first
    return first | {"moves": [moved(one).get("moves") or one["kind"] for one in (settings["moves"], *others)]}


def _tokens(where: Any) -> str:
    """Which tokens move."""
    one_by_one = "move, one after the other,"
    if not isinstance(where, str):
        if all(isinstance(one, int) for one in where):
            return f"tokens {', '.join(map(str, where))} {one_by_one}"
        each = "; ".join(one if isinstance(one, str) else ", ".join(map(str, one)) for one in where)
        return f"tokens of each prompt ({each}) {one_by_one}"
    if where.startswith("token:"):
        return f"every token that reads {where.removeprefix('token:')!r} {one_by_one}"
    return {
        "spread": f"five tokens spread over each prompt {one_by_one}",
        "last": "the last token moves",
        "all": f"all tokens {one_by_one}",
        "together": "all tokens move together",
    }.get(where, f"the {where} token moves" if where.startswith("last ") else f"every {where} token {one_by_one}")
