"""What a study of layers measures, checked before anything is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fisherflat._arrays import choice, integer, integers
from fisherflat.errors import InputError
from fisherflat.geometry import ENGINES, ERRORS, PRECISIONS
from fisherflat.models import PARTS
from fisherflat.models.covariances import Covariance, called
from fisherflat.models.covariances import covariance as covariance_of
from fisherflat.models.covariances import output as output_of
from fisherflat.models.moves import Moves, Whole, parse, parsed
from fisherflat.parts.readings import canonical
from fisherflat.studies._lens import Asked, asked, named, own_metric


@dataclass(frozen=True)
class Settings:
    """What is measured, besides the model and the prompts; all of it determines the numbers.

    **Attributes:** as in `fisherflat.analyze`; `positions` as `fisherflat.moves.parsed` has them; `readings` is `None`
    for those that make sense, `layers` and `heads` for all. Heads are measured where `heads` is one of the parts.
    """

    moves: Moves
    parts: tuple[str, ...] = PARTS
    heads: tuple[int, ...] | None = None
    readings: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    positions: Any = "spread"
    points: int = 1
    seed: int = 0
    engine: str = "taylor"
    dtype: torch.dtype = torch.float64
    errors: str = "sample"
    family: Asked = None
    precision: str = "working"
    covariance: Covariance = "words"
    output: str = "all"

    @classmethod
    def of(
        cls,
        *,
        dim: Any = None,
        moves: Any = "principal",
        parts: Any = PARTS,
        heads: Any = None,
        readings: Any = None,
        layers: Any = None,
        positions: Any = "spread",
        points: Any = 16,
        seed: Any = 0,
        engine: Any = "taylor",
        dtype: torch.dtype = torch.float64,
        errors: str = "sample",
        family: Any = None,
        precision: str = "working",
        covariance: Any = "words",
        output: Any = "all",
    ) -> Settings:
        """From the arguments of `fisherflat.analyze`.

        **Raises:** `InputError` for what cannot be used, as far as that can be told without the model;
        `CovarianceError` for a covariance that is none.
        """
        what = parse(moves, dim)
        full = isinstance(what, Whole)
        if full:
            _check_full(heads, family, precision)
        if not full and what.k < 2:
            raise InputError(f"dim must be at least 2, got {what.k}: a curve has no intrinsic curvature")
        points, seed = 1 if full else integer(points, "points", 1), integer(seed, "seed", 0)
        choice(engine, "engine", ENGINES)
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
        choice(errors, "errors", ERRORS)
        choice(precision, "precision", PRECISIONS)
        if isinstance(heads, str) and heads != "all":
            raise InputError(f'heads must be "all" or a list of indices, got {heads!r}')
        if heads is not None and not isinstance(heads, str):
            heads = integers(heads, "heads")
        layers = None if layers is None else integers(layers, "layers")
        if not _are_names(parts) or not (len(parts) or heads) or not set(parts) <= set(PARTS):
            raise InputError(f"parts must be a list out of {list(PARTS)}, got {parts!r}")
        family = asked(family)
        if family is not None and (heads is not None or tuple(parts) not in (tuple(PARTS), ("block",))):
            raise InputError(
                f'a family reads the states after a block, so parts are ["block"], without heads; got {list(parts)!r}'
            )
        own_metric(family, covariance, output)
        if readings is not None and (not _are_names(readings) or not len(readings)):
            raise InputError(f"readings must be a list that is not empty, got {readings!r}")
        return cls(
            moves=what,
            parts=("block",) if family is not None else (*dict.fromkeys(parts), *(("heads",) if heads else ())),
            heads=None if heads is None or isinstance(heads, str) else heads,
            readings=None if readings is None else tuple(dict.fromkeys(map(canonical, readings))),
            layers=layers,
            positions=parsed(positions),
            points=points,
            seed=seed,
            engine=engine,
            dtype=dtype,
            errors=errors,
            family=family,
            precision=precision,
            covariance=covariance_of(covariance),
            output=output_of(output),
        )

    @classmethod
    def several(cls, *, moves: Any = "principal", dim: Any = None, **options: Any) -> list[Settings]:
        """Those of each of several moves, which are given as a list, or of one.

        **Raises:** `InputError` as `of`, and for no moves or the same ones twice.
        """
        listed = list(moves) if isinstance(moves, (list, tuple)) else [moves]
        if not listed:
            raise InputError("moves are one or several, got an empty list")
        found = [cls.of(moves=one, dim=dim, **options) for one in listed]
        names = [one.moves.name for one in found]
        if len(set(names)) < len(names):
            raise InputError(f"two of these moves are the same: {', '.join(names)}")
        return found

    @property
    def full(self) -> bool:
        """Whether all directions move."""
        return isinstance(self.moves, Whole)

    def plain(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            "moves": self.moves.settings,
            "parts": list(self.parts),
            "heads": list(self.heads) if self.heads is not None else "all" if "heads" in self.parts else None,
            "readings": None if self.readings is None else list(self.readings),
            "layers": None if self.layers is None else list(self.layers),
            "positions": _plain(self.positions),
            "points": self.points,
            "seed": self.seed,
            "engine": self.engine,
            "dtype": str(self.dtype).removeprefix("torch."),
            "errors": self.errors,
            **(
                {"covariance": called(self.covariance), "output": self.output}
                if self.family is None
                else {"family": named(self.family)}
            ),
            "precision": self.precision,
        }


def _check_full(heads: Any, family: Any, precision: Any) -> None:
    if heads is not None or family is not None or precision != "working":
        asked_for = "heads" if heads is not None else "a family" if family is not None else f"precision={precision!r}"
        raise InputError(f'dim="full" samples whole parts as Gaussian means; {asked_for} needs a few directions, dim=2')


def _plain(positions: Any) -> Any:
    """Positions fit for JSON."""
    return [_plain(one) for one in positions] if isinstance(positions, tuple) else positions


def _are_names(given: Any) -> bool:
    """Whether it is a list of words, and not one word."""
    return not isinstance(given, str) and hasattr(given, "__len__") and all(isinstance(name, str) for name in given)
