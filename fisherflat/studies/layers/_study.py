"""What an analysis measures: a model on prompts, cut into tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat
from typing import Any

import torch

from fisherflat._typing import Tensor
from fisherflat.errors import FisherflatError, InputError
from fisherflat.jets.graph import Graph, of_rows
from fisherflat.models import Block, Encoded, Model, Part
from fisherflat.models.covariances import Pick, called, fitted, mean_variance, of_tokens
from fisherflat.models.moves import Fitted, Position, for_each, token_columns, tokens
from fisherflat.parts import readings, trace
from fisherflat.spaces.families import Gaussian
from fisherflat.studies._journal import Row
from fisherflat.studies._lens import Lens, named
from fisherflat.studies.layers._full import in_all_directions
from fisherflat.studies.layers._measure import Measured, Surface, Surfaces, rows
from fisherflat.studies.layers._settings import Settings
from fisherflat.studies.layers._tasks import Task

#: tokens of a prompt of which a reader can take in a pattern
READABLE = 64
#: hidden states `[n, d]` -> `[n, m]`
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class _Frame:
    """What all charts and families of a part of a layer share over the prompts: it holds no weights.

    **Attributes:** `directions`; `outputs`, by name, which outputs are measured, and the covariance of one token's.
    """

    directions: Fitted
    outputs: Mapping[str, tuple[Pick, Gaussian]]

    def surfaces(self, n: int) -> Surfaces:
        """Those of the outputs of n tokens."""
        found = {}
        for name, (pick, one) in self.outputs.items():
            width = len(range(pick.width)[pick.columns or slice(None)])
            found[name] = Surface(pick, of_tokens(one, width, n))
        return found


@dataclass(eq=False)
class Study:
    """A model on prompts. It goes to other processes without what is derived from it.

    Tasks come layer by layer. Blocks of one layer at a time are kept, so that a model whose weights stay on disk has
    no more of them in memory. Several threads may measure at a time.

    **Attributes:** `model`; `prompts`; `settings`; `positions`, of each prompt.

    **Raises:** `InputError` where a prompt has no such position, or there is no such layer, or no such head in any.
    """

    model: Model
    prompts: list[Encoded]
    settings: Settings
    positions: list[list[Position]] = field(init=False)

    def __post_init__(self) -> None:
        moves, where = self.settings.moves, for_each(self.settings.positions, len(self.prompts))
        self.positions = [
            moves.positions(self.model, prompt, one) for prompt, one in zip(self.prompts, where, strict=True)
        ]
        if any(map(callable, where)):  # what they chose goes to other processes and into files, they do not
            chosen = tuple(tuple(at for at in found if at is not None) for found in self.positions)
            self.settings = replace(self.settings, positions=chosen)
        self.forget()

    def forget(self) -> None:
        """Let go of blocks and all else that is made again when it is needed."""
        self._runs: dict[Any, Sequence[Block]] = {}
        self._kept: tuple[int, dict[Any, Block]] = (-1, {})
        self._frames: dict[tuple[int, str], _Frame] = {}
        #: the attention of the first layer on the first prompt and its trace, once measured and where weights may stay
        self.first: tuple[Part, Graph] | None = None
        #: bytes of the largest jets that were measured
        self.largest = 0
        self._making = threading.RLock()  # of all that is kept

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "prompts": self.prompts, "settings": self.settings, "positions": self.positions}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.forget()

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks, in the order of the table. The model runs on the first prompt, to see how many layers it has."""
        depth = len(self._run(self.prompts[0]))
        if self.settings.family is not None:  # a head that is not there is missed before anything is measured
            self.model.readout(self.settings.family, self.prompts[0])
        layers = self.settings.layers if self.settings.layers is not None else tuple(range(depth))
        if outside := [layer for layer in layers if not -depth <= layer < depth]:
            raise InputError(f"layers must be indices of the {depth} layers, from 0; {outside[0]} is none")
        layers = tuple(dict.fromkeys(layer % depth for layer in layers))
        if self.settings.heads is not None:
            self._check_heads(layers, self.settings.heads)
        return [
            Task(layer, part, prompt)
            for layer in layers
            for part in self.settings.parts
            for prompt in range(len(self.prompts))
        ]

    def measure(self, task: Task) -> list[Row]:
        """The rows of a task: readings, then positions, then points. What fails is a row with an error."""
        prompt = self.prompts[task.prompt]
        about: Row = {"layer": task.layer, "part": task.part, "prompt": task.prompt, "text": prompt.text}
        about |= {"control": self.model.control, "moves": self.settings.moves.name}
        if self.settings.family is not None:
            about["family"] = named(self.settings.family)
        else:
            about |= {"covariance": str(called(self.settings.covariance)), "output": self.settings.output}
        try:
            rows = [about | row for row in self._rows(task)]
            return rows if task.part != "heads" else self._with_patterns(task, rows)
        except Exception as error:  # one part that fails must not end the run; its row says why
            places = ({"position": at, **token_columns(prompt, at)} for at in self.positions[task.prompt])
            return [about | place | {"error": _said(error)} for place in places]

    def _with_patterns(self, task: Task, rows: list[Row]) -> list[Row]:
        """The rows of heads, the first of each with its pattern on the prompt, if that is not too long to read."""
        prompt = self.prompts[task.prompt]
        if len(prompt.ids) > READABLE:
            return rows
        try:
            with self._making, torch.no_grad():
                weights = self._block(task.layer, prompt).heads.patterns
        except FisherflatError:  # heads that have none are measured all the same
            return rows
        labels, left = [token.label for token in prompt.read], set(range(len(weights)))
        for row in rows:
            head = int(row["part"].removeprefix("head ")) if row["part"].startswith("head ") else -1
            if head in left:
                left.discard(head)
                row["pattern"] = {
                    "tokens": labels,
                    "weights": [[round(weight, 6) for weight in line] for line in weights[head].tolist()],
                }
        return rows

    def _rows(self, task: Task) -> list[Row]:
        prompt, moves = self.prompts[task.prompt], self.settings.moves
        frame, settings = self._frame(task.layer, task.part), self.settings
        points = moves.points(self.settings.points, self.settings.seed)
        found: dict[str, list[tuple[Row, Measured | Row]]] = {}
        graphs: dict[Any, dict[str, Graph]] = {}  # by what the part ran on and by reading; dropped with their weights
        for position in self.positions[task.prompt]:
            variants = moves.variants(self.model, prompt, position)
            (part, at), *others = [self._part(task.layer, task.part, variant) for variant in variants]
            moved = tokens(prompt, position)
            chart = frame.directions.chart([at, *(states for _, states in others)], moved)
            here = graphs.setdefault(_key(variants[0]), {})
            if not here:
                here[readings.LIVE] = trace(part, at)
                first = task.layer == 0 and task.part == "attention" and _key(variants[0]) == _key(self.prompts[0])
                if first and isinstance(part, Part) and not self.model.weights.lazy:
                    self.first = part, here[readings.LIVE]
            read = moved if settings.output == "moved" else None
            surfaces = self._lens(variants[0], position, here[readings.LIVE], at) or frame.surfaces(
                len(at) if read is None else len(read)
            )
            present = readings.present(here[readings.LIVE])
            roles = readings.name(present).removeprefix("frozen ") if present else ""
            for reading in self._readings(present):
                about = {"roles": roles, "reading": reading, "position": position, **token_columns(prompt, position)}
                measured: Measured | Row
                try:
                    if reading not in here:
                        here[reading] = readings.held(here[readings.LIVE], at, reading)
                    graph = here[reading] if read is None else of_rows(here[reading], read, at.device)
                    if settings.full:
                        measured = in_all_directions(
                            graph, chart, surfaces[task.part], settings.engine, settings.dtype, settings.seed
                        )
                    else:
                        measured = Measured(
                            graph, chart, points, surfaces, engine=settings.engine, dtype=settings.dtype
                        )
                        self.largest = max(self.largest, measured.memory)
                except Exception as error:  # the other readings and positions may go well
                    measured = {"error": _said(error)}
                found.setdefault(reading, []).append((about, measured))
        return [row for charts in found.values() for row in self._joined(task.part, charts)]

    def _lens(self, prompt: Encoded, position: Position, block: Graph, at: Tensor) -> Surfaces | None:
        """What the states of the tokens that move are read as, where that is not a Gaussian."""
        asked = self.settings.family
        if asked is None:
            return None
        with self._making:
            lens = Lens.of(self.model, asked, prompt, tokens(prompt, position), block(at))
            return {"block": Surface.seen(lens, self.settings.moves.k)}

    def _joined(self, part: str, charts: list[tuple[Row, Measured | Row]]) -> list[Row]:
        """The rows of one reading: for each surface of the part, one position after the other."""
        found: dict[str, list[Row]] = {}
        judged: Iterator[dict[str, list[Row]]]
        try:
            judged = iter(
                rows(
                    [one for _, one in charts if isinstance(one, Measured)],
                    self.settings.errors,
                    self.settings.precision,
                )
            )
        except Exception as error:  # other readings may go well
            judged = repeat({part: [{"error": _said(error)}]})
        for about, measured in charts:
            by_name = next(judged) if isinstance(measured, Measured) else {part: [measured]}
            for name, of_surface in by_name.items():
                own: Row = {"part": name}
                if isinstance(measured, Measured) and isinstance(gaussian := measured.surfaces[name].family, Gaussian):
                    own["variance"] = mean_variance(gaussian)
                found.setdefault(name, []).extend(own | about | row for row in of_surface)
        return [row for of_surface in found.values() for row in of_surface]

    def _readings(self, present: tuple[str, ...]) -> list[str]:
        """Those that were asked for and make sense for a part: all that they hold occurs in it."""
        if self.settings.readings is None:
            return readings.sensible(present)
        return [reading for reading in self.settings.readings if set(readings.roles(reading)) <= set(present)]

    def _run(self, prompt: Encoded) -> Sequence[Block]:
        """The blocks as they ran on a prompt; whatever else is measured on it, the model runs once."""
        key = _key(prompt)
        with self._making:
            if key not in self._runs:
                self._runs[key] = self.model.blocks(prompt)
            return self._runs[key]

    def _block(self, layer: int, prompt: Encoded) -> Block:
        with self._making:
            if self._kept[0] != layer:
                self._kept = (layer, {})
            key, blocks = _key(prompt), self._kept[1]
            if key not in blocks:
                blocks[key] = self._run(prompt)[layer : layer + 1][0]  # a slice of its own, which keeps no weights
            return blocks[key]

    def _part(self, layer: int, part: str, prompt: Encoded) -> tuple[Map, Tensor]:
        """A part as a map, all heads side by side being one, and what entered it."""
        with self._making:  # blocks find their parts when they are asked for
            block = self._block(layer, prompt)
            if part == "heads":
                return block.heads.together, block.heads.input
            operator = block if part == "block" else getattr(block, part)
            return operator, operator.input

    def _frame(self, layer: int, part: str) -> _Frame:
        with self._making:
            if (layer, part) not in self._frames:
                self._frames[layer, part] = self._framed(layer, part)
            return self._frames[layer, part]

    def _framed(self, layer: int, part: str) -> _Frame:
        maps, inputs = zip(*(self._part(layer, part, prompt) for prompt in self.prompts), strict=True)
        if self.settings.family is not None:
            return _Frame(self.settings.moves.fit(inputs, self.prompts), {})
        with torch.no_grad():
            outputs = [run(x) for run, x in zip(maps, inputs, strict=True)]
        width, what = outputs[0].shape[-1], self.settings.covariance
        picks = self._picks(layer, width) if part == "heads" else {part: Pick(width)}
        found = {
            name: (pick, fitted(what, [pick.of_a_token(y) for y in outputs], self.prompts))
            for name, pick in picks.items()
        }
        return _Frame(self.settings.moves.fit(inputs, self.prompts), found)

    def _check_heads(self, layers: Sequence[int], wanted: Sequence[int]) -> None:
        """Refuse what is a head of no layer; no further layer is traced once one has all of them.

        **Raises:** `InputError`.
        """
        counts, left = list[int](), set(wanted)
        for layer in layers:
            try:
                counts.append(len(self._block(layer, self.prompts[0]).heads))
            except Exception:  # the rows of this layer say why
                continue
            left -= {head for head in left if -counts[-1] <= head < counts[-1]}
            if not left:
                return
        if counts:
            none = next(head for head in wanted if head in left)
            raise InputError(f"heads must be indices of the {max(counts)} heads, from 0; {none} is none")

    def _picks(self, layer: int, width: int) -> dict[str, Pick]:
        """The columns of each head that was asked for."""
        heads = self._block(layer, self.prompts[0]).heads
        chosen = range(len(heads)) if self.settings.heads is None else self.settings.heads
        if outside := [head for head in chosen if not -len(heads) <= head < len(heads)]:
            raise InputError(f"heads must be indices of the {len(heads)} heads, from 0; {outside[0]} is none")
        numbers = dict.fromkeys(head % len(heads) for head in chosen)
        return {f"head {head}": Pick(width, heads.columns(head)) for head in numbers}


def _key(prompt: Encoded) -> Any:
    """What tells the runs of a model apart."""
    return prompt.key


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
