"""What a run measures: sections, maps, sizes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import torch

from fisherflat.errors import InputError
from fisherflat.lab.bench import jets, maps, minilm
from fisherflat.lab.bench.maps import Subject

SECTIONS = (
    "floor",
    "jets",
    "peers",
    "norms",
    "memory",
    "growth",
    "gradient",
    "tape",
    "tracing",
    "depth",
    "wide",
    "sampled",
    "certificates",
    "families",
    "traces",
    "geodesics",
)
#: sections that are run where they are named alone: one writes a checkpoint of 2.3 GiB, one needs a GPU
ON_REQUEST = ("checkpoint", "gpu")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
DIMS = (2, 4, 8)
#: share of the points in a quick run
QUICK = 1 / 16


@dataclass(frozen=True)
class Case:
    """One map on one chart in one dtype; see `subject` in `fisherflat.lab.bench.maps`."""

    map: str
    k: int
    dtype: str = "float64"
    moving: str = "all"
    readout: str = "all"

    def __post_init__(self) -> None:
        if self.map.startswith("minilm-"):
            object.__setattr__(self, "moving", "token")  # its charts are principal directions of one token

    def build(self, device: str) -> Subject:
        """The map itself; MiniLM's is on the CPU."""
        if self.map.startswith("minilm-"):
            return minilm.subject(self.map, self.k, DTYPES[self.dtype], self.readout)
        return maps.subject(
            self.map, self.k, dtype=DTYPES[self.dtype], device=device, moving=self.moving, readout=self.readout
        )

    def __str__(self) -> str:
        return f"{self.map}, k = {self.k}, {self.dtype}, moving: {self.moving}, output: {self.readout}"


@dataclass(frozen=True)
class Plan:
    """What to run. Empty choices mean all.

    **Attributes:** `device`; `only`, sections; `maps`, names; `dims`, values of k; `dtypes`, names (default float64, on
    a GPU float32 too); `moving`, whether all tokens move or the last one; `points` of the floor and memory sections, if
    not as many as fill the machine; `repeats`; `threads` of torch on the CPU; `quick`, a small run.

    **Raises:** `InputError` for an unknown choice, or where there is no GPU to run on.
    """

    device: str = "cpu"
    only: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    dims: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ()
    moving: str = "all"
    points: int | None = None
    repeats: int = 5
    threads: int = field(default_factory=torch.get_num_threads)
    quick: bool = False

    def __post_init__(self) -> None:
        for what, given, known in (
            ("section", self.only, SECTIONS + ON_REQUEST),
            ("dtype", self.dtypes, DTYPES),
            ("device", (self.device,), ("cpu", "cuda")),
        ):
            for name in given:
                if name not in known:
                    raise InputError(f"unknown {what} {name!r}; choose from {', '.join(known)}")
        if min(self.repeats, self.threads, 1 if self.points is None else self.points, *self.dims) < 1:
            raise InputError("repeats, threads, points and k are at least 1")
        if self.gpu and not torch.cuda.is_available():
            raise InputError("torch finds no GPU; leave out --device cuda, or install a torch that has CUDA")
        if "gpu" in self.only and not self.gpu:
            raise InputError("the section gpu compares a GPU with the CPU; add --device cuda")
        if "geodesics" in self.only and importlib.util.find_spec("geomstats") is None:
            raise InputError(f"the section geodesics compares with geomstats, which is not installed; {jets.INSTALL}")

    @property
    def sections(self) -> tuple[str, ...]:
        """Those that are run: as chosen, or all that are not on request, and on a GPU first what only that can tell."""
        return self.only or (*(("gpu",) if self.gpu else ()), *SECTIONS)

    @property
    def gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device == "cuda"

    @property
    def share(self) -> float:
        """Of the points that fill the machine."""
        return QUICK if self.quick else 1.0

    @property
    def memory_share(self) -> float:
        """The same where memory is measured: the forward passes of all points have to fit at once."""
        return self.share / (4 if self.gpu else 1)

    @property
    def chosen_dtypes(self) -> tuple[str, ...]:
        """Names of dtypes: as chosen, or float64, and on a GPU float32 too."""
        return self.dtypes or (tuple(DTYPES) if self.gpu else ("float64",))

    @property
    def _chosen(self) -> bool:
        return bool(self.maps or self.dims or self.quick)

    @property
    def _minilm(self) -> bool:
        return not self.gpu and minilm.folder() is not None

    def floor(self) -> Iterator[Case]:
        """What is compared with the floor."""
        names = self.maps or (("attention-64", "block-64") if self.quick else maps.NAMES)
        dims = self.dims or ((2,) if self.quick else DIMS)
        for dtype, name, k in product(self.chosen_dtypes, names, dims):
            yield Case(name, k, dtype, self.moving)
        if not self._chosen:
            # the chart of a token slice: what does not move yet need not be carried
            yield Case("attention-256", 8, moving="token")
            yield Case("attention-768", 4, moving="token")
            if self._minilm:
                yield from (Case(f"minilm-{i}", 4) for i in range(6))
                yield from (Case("minilm-0", k) for k in (2, 8))

    def jets(self) -> Iterator[tuple[str, int, int]]:
        """Whose jets are compared with JAX's: maps, k and points."""
        table, times = (jets.QUICK if self.quick else jets.COLUMNS), jets.LARGER[self.device]
        chosen = table
        if self.maps or self.dims:
            names = [name for name in self.maps if name.startswith(("attention", "block"))]
            names = names if self.maps else list(dict.fromkeys(name for name, _ in table))
            dims = self.dims or tuple(dict.fromkeys(k for _, k in table))
            chosen = {key: table.get(key, jets.OTHERWISE) for key in product(names, dims)}
        for (name, k), points in chosen.items():
            yield name, k, self.points or times * points

    @property
    def numbers_of_threads(self) -> tuple[int, ...]:
        """Those with which jets are compared with JAX's: one, and all."""
        return (1,) if self.gpu else tuple(sorted({1, self.threads}))

    def peers(self) -> Iterator[Case]:
        """What is compared with competitors.

        The output is one token where differentiating those of all tokens one by one would take minutes a point.
        """
        if self.quick and not (self.maps or self.dims):
            yield Case("attention-64", 2, readout="token")
            return
        names = self.maps or ("attention-64", "attention-256", "block-64")
        for dtype, name, k in product(self.chosen_dtypes, names, self.dims or DIMS):
            yield Case(name, k, dtype, self.moving, "all" if name == "attention-64" else "token")
        if not self._chosen:
            yield Case("attention-768", 4, readout="token")
            if not self.gpu:
                yield Case("attention-8", 2, readout="token")  # small enough for geomstats
            if self._minilm:
                yield Case("minilm-0", 2, readout="token")

    def gradients(self) -> Iterator[Case]:
        """Whose gradients by their weights are taken."""
        names = ("attention-64",) if self.quick else ("attention-64", "attention-256", "attention-768", "block-256")
        for dtype, name in product(self.chosen_dtypes, self.maps or names):
            yield Case(name, 2, dtype, "token")

    def tapes(self) -> Iterator[Case]:
        """Whose gradients' memory is told."""
        for dtype, name in product(self.chosen_dtypes, self.maps or ("block-64" if self.quick else "block-768",)):
            yield Case(name, 2, dtype, "token")

    def memory(self) -> Iterator[Case]:
        """Whose memory is compared with the floor's."""
        if self._chosen:
            yield from self.floor()
        else:
            yield from (Case(name, k) for name, k in zip(maps.NAMES, (4, 8, 4) * 2, strict=True))
