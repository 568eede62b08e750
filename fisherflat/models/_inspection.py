"""What is in a checkpoint, before anything of its geometry is computed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fisherflat._display import Card, displayed
from fisherflat._files import made, read_json, whole
from fisherflat.errors import InputError
from fisherflat.models._description import LayerDescription, describe, parameters
from fisherflat.models._loading import as_model

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

SENTENCE = "The cat sat on the mat."
IDS = (1, 2, 3, 4, 5)


@displayed
@dataclass(frozen=True)
class Inspection:
    """What is in a checkpoint, from `inspect`.

    **Attributes:**

    - `model`: its name; `architecture`: its class; `part`: which half of an encoder-decoder.
    - `parameters`: how many are loaded; `stored_dtypes`: the formats of the weights on disk, as safetensors writes
      them; `lazy`: whether the weights stay on disk.
    - `tokenizer`: its class, or why there is none; `context`: the longest prompt, in tokens.
    - `layers`: a `LayerDescription` for each block.
    """

    model: str
    architecture: str
    part: str | None
    parameters: int
    stored_dtypes: tuple[str, ...]
    lazy: bool
    tokenizer: str
    context: int | None
    layers: tuple[LayerDescription, ...]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a layer: what `LayerDescription` says, gates, norms and readings as text."""
        import pandas as pd

        return pd.DataFrame([_row(layer) for layer in self.layers])

    def save(self, path: str | Path) -> list[Path]:
        """Write all of it as JSON.

        **Returns:** the file. **Raises:** `InputError` where it cannot be written.
        """
        path = Path(path)
        made(path.parent)
        with whole(path) as part:
            part.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        return [path]

    @classmethod
    def load(cls, path: str | Path) -> Inspection:
        """The inspection that `save` wrote. **Raises:** `InputError` where the file holds none."""
        try:
            content = read_json(path)
            layers = tuple(LayerDescription.of(layer) for layer in content.pop("layers"))
            return cls(**content | {"stored_dtypes": tuple(content["stored_dtypes"]), "layers": layers})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} does not hold an inspection ({error})") from error

    def __rich__(self) -> Any:
        """For a terminal: about the model, its layers, its gates, and the readings that make sense of each part."""
        from rich.console import Group
        from rich.table import Table

        about = Table.grid(padding=(0, 2))
        for name, value in self._about().items():
            about.add_row(name, value)
        layers = Table("layers", "attention", "heads", "norms", "MLP", "parameters")
        gates = Table("gates of layers", "of", "position", "granularity", "activation", "source")
        parts = Table("readings of layers", "part", "readings")
        for which, row in _alike({layer.layer: _cells(layer) for layer in self.layers}):
            layers.add_row(which, *row)
        for which, gate in _alike_each({layer.layer: layer.gates for layer in self.layers}):
            gates.add_row(which, gate.kind, gate.position, gate.granularity, gate.activation, gate.source)
        read = {layer.layer: [(p, ", ".join(r)) for p, r in layer.readings.items()] for layer in self.layers}
        for which, (part, names) in _alike_each(read):
            parts.add_row(which, part, names)
        unread = [f"layer {layer.layer}, {said}" for layer in self.layers for said in layer.unread]
        return Group(about, layers, *([gates] if gates.row_count else ["No gates were found."]), parts, *unread)

    def _about(self) -> dict[str, str]:
        kind = f"{self.architecture}{f' ({self.part})' if self.part else ''}"
        where = ", left on disk" if self.lazy else ""
        stored = ", ".join(self.stored_dtypes) or "a module in memory"
        return {
            "model": f"{self.model}, {kind}, {len(self.layers)} layers",
            "parameters": f"{self.parameters:,}, stored as {stored}{where}",
            "tokenizer": self.tokenizer,
            "context": "no limit is named" if self.context is None else f"{self.context} tokens",
        }

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=160)
        with console.capture() as captured:
            console.print(self)
        return captured.get()

    def _card(self) -> Card:
        columns = ("layers", "attention", "heads", "norms", "MLP", "parameters")
        rows = [(which, *row) for which, row in _alike({layer.layer: _cells(layer) for layer in self.layers})]
        gates = {g.kind: None for layer in self.layers for g in layer.gates}
        about = self._about()
        return Card(about.pop("model"), {**about, "gates": ", ".join(gates) or "none"}, columns, rows)


def inspect(model: Any, prompt: Any = None, **options: Any) -> Inspection:
    """What is in a checkpoint: layers, heads, gates, norms, kinds of MLP, and which readings make sense.

    All of it is read from the structure of traced graphs on one short prompt, block by block; of a model whose weights
    stay on disk one block is in memory at a time.

    **Args:**

    - `model`: a `Model`, or what `fisherflat.load` takes, with its `options`.
    - `prompt`: as `Model.blocks` takes it (default: a short sentence, or five token ids where there is no tokenizer).

    **Returns:** an `Inspection`; `print` it, or take its `.table`. A part that cannot be traced is named in the
    `unread` of its layer.

    **Raises:** what `load` and `Model.blocks` raise.

    >>> import fisherflat as ff
    >>> found = ff.inspect("python-llama")
    >>> found.layers[0].attention, found.layers[0].readings["attention"]
    ('softmax', ['live', 'frozen pattern'])
    """
    model = as_model(model, **options)
    if prompt is None:
        prompt = SENTENCE if model.tokenizer is not None else list(IDS)
    return Inspection(
        model=model.name,
        architecture=type(model.module).__name__,
        part=model.part,
        parameters=parameters(model.module),
        stored_dtypes=model.stored_dtypes,
        lazy=model.weights.lazy,
        tokenizer=model.tokenizer_said,
        context=model.context,
        layers=tuple(describe(block, model.config) for block in model.blocks(prompt)),
    )


def _row(layer: LayerDescription) -> dict[str, Any]:
    gates = [f"{g.kind}: {g.position}, {g.granularity}, {g.activation} ({g.source})" for g in layer.gates]
    attention, heads, norms, mlp, _ = _cells(layer)
    return {
        "layer": layer.layer,
        "attention": attention,
        "heads": heads,
        "gates": _lines(gates),
        "norms": norms,
        "mlp": mlp,
        "parameters": layer.parameters,
        "readings": _lines([f"{part}: {', '.join(names)}" for part, names in layer.readings.items()]),
    }


def _cells(layer: LayerDescription) -> tuple[str, str, str, str, str]:
    heads = "" if layer.heads is None else str(layer.heads)
    if layer.value_heads not in (None, layer.heads):
        heads += f", {layer.value_heads} of keys and values"
    return (
        layer.attention if layer.mixer is None else f"{layer.attention} ({layer.mixer})",
        heads,
        _lines([f"{norm.kind}: {norm.placement}" for norm in layer.norms]),
        layer.mlp + (f" ({', '.join(layer.activations)})" if layer.activations else ""),
        f"{layer.parameters:,}",
    )


def _lines(items: Sequence[str]) -> str:
    return "\n".join(dict.fromkeys(items)) or "none"


def _alike(rows: Mapping[int, T]) -> Iterator[tuple[str, T]]:
    """The different rows, in the order in which they come first, with the layers that each belongs to: `0-2, 4`."""
    places: dict[T, list[int]] = {}
    for layer, row in rows.items():
        places.setdefault(row, []).append(layer)
    for row, layers in places.items():
        runs = [[layer for _, layer in run] for _, run in groupby(enumerate(layers), lambda pair: pair[1] - pair[0])]
        yield ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs), row


def _alike_each(rows: Mapping[int, Iterable[T]]) -> Iterator[tuple[str, T]]:
    """As `_alike`, for several rows a layer."""
    different = dict.fromkeys(row for several in rows.values() for row in several)
    for row in different:
        yield from _alike({layer: row for layer, several in rows.items() if row in several})
