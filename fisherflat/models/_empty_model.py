"""A model without its weights, and where in the files of a checkpoint each of them is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fisherflat.errors import CheckpointError
from fisherflat.models._drawn import drawn_from
from fisherflat.models._stored_tensors import Source, StoredTensor, check_finite


class TooLarge(Exception):
    """Raised where a model without its weights would take more memory than is sensible."""


class _Bounded(TorchDispatchMode):
    """Refuses to make tensors of more than some bytes, before they are made."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        sizes = [size for arg in args for size in (arg if isinstance(arg, (list, tuple)) else [arg])]
        if str(kwargs.get("device")) != "meta" and not any(isinstance(size, Tensor) for size in sizes):
            shape = args[0] if args and isinstance(args[0], (list, tuple)) else sizes  # of a range, its ends
            numbers = [abs(size) for size in shape if isinstance(size, (int, float))]
            entries = math.prod(numbers) if shape is not sizes else max(numbers, default=0)
            if 8 * entries > self._limit:
                raise TooLarge(f"it asks for a table of {entries:.3g} numbers")
        return func(*args, **kwargs)


@contextmanager
def bounded(limit: int) -> Iterator[None]:
    """No tensor of more than `limit` bytes is made in this context. **Raises:** `TooLarge`."""
    with _Bounded(limit):
        yield


def check_depth(config: Any, tensors: int, where: object) -> None:
    """**Raises:** `CheckpointError` where a configuration has far more layers than there are weights for."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers"):
        layers = getattr(text, name, None)
        if isinstance(layers, int) and layers > 16 * (tensors + 16):  # several may share their weights
            raise CheckpointError(
                f"the config.json of {where} has {layers} layers, and there are weights of {tensors} tensors; pass the "
                "config.json that belongs to them"
            )


#: how models of transformers are made, so that what they compute can be traced: without fused or grouped kernels
TRACEABLE: dict[str, Any] = {
    "dtype": torch.float64,
    "attn_implementation": "eager",
    "experts_implementation": "batched_mm",
    "trust_remote_code": False,
}


def empty_model(config: Any, kind: Any = None) -> nn.Module:
    """The module of a transformers configuration, with parameters on the meta device, in float64.

    **Args:** `kind`, a class of transformers (default: the model without a head).
    """
    from transformers import AutoModel

    config = deepcopy(config)
    made = {name: value for name, value in TRACEABLE.items() if name != "trust_remote_code"}
    with drawn_from(torch.Generator()):
        with _parameters_on_meta():
            module = AutoModel.from_config(config, **TRACEABLE) if kind is None else kind._from_config(config, **made)
        for part in module.modules():
            part._is_hf_initialized = False
        module.initialize_weights()  # buffers once more, in the default dtype: as transformers does when it reads files
    return module.double().eval().requires_grad_(False)


def placed(module: nn.Module, stored: Mapping[str, StoredTensor], where: object) -> dict[int, Source]:
    """By `id`, where the parameters and persistent buffers of an empty model are; what the files lack becomes zero.

    Names on disk are those of the module, with or without the prefix of a model with a head, or what transformers
    renames, merges or splits into them: its own tables of conversions are used.

    **Raises:** `CheckpointError` where weights of blocks or embeddings are missing or of another shape.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    state = module.state_dict(keep_vars=True)
    transforms = get_model_conversion_mapping(module)  # type: ignore[arg-type]
    renamings = [entry for entry in transforms if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in transforms if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    prefix: Any = module.base_model_prefix
    found: dict[str, Source] = {}
    converted: dict[str, list[tuple[StoredTensor, str]]] = {}
    for key in sorted(stored, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, prefix, state)
        if name not in state and key in state:
            name, pattern = key, None
        if name in state and pattern is None:
            found[name] = stored[key]
            if stored[key].shape != tuple(state[name].shape):
                raise CheckpointError(
                    f"{key!r} in {where} has the shape {list(stored[key].shape)}, {type(module).__name__} takes "
                    f"{list(state[name].shape)}; weights and config.json are of different models"
                )
        elif pattern is not None:
            converted.setdefault(name, []).append((stored[key], pattern))
    for first, sources in converted.items():
        converter = by_pattern[sources[0][1]]
        for target in converter.target_patterns:
            name = first.replace(converter.target_patterns[0], target)
            if name in state:
                found[name] = Converted(name, first, tuple(sources), converter, module, where)

    places = {id(state[name]): source for name, source in found.items()}  # a tied weight may be under one name alone
    absent = {name: tensor for name, tensor in state.items() if id(tensor) not in places}
    if missing := [name for name in absent if matters(module, name) and absent[name].is_meta]:
        raise missing_weights(module, missing, where)
    for name, tensor in absent.items():
        if tensor.is_meta:
            path, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(path), leaf, nn.Parameter(torch.zeros_like(tensor, device="cpu"), False))
    return places


@dataclass(frozen=True)
class Converted:
    """A parameter that transformers makes of one or several tensors on disk, such as the experts of a mixture.

    **Attributes:** `name`, of the parameter; `first`, of the first parameter that the conversion makes; `sources`, each
    with the pattern of the converter that it met; `converter`, of transformers; `model`, the empty one.
    """

    name: str
    first: str
    sources: tuple[tuple[StoredTensor, str], ...]
    converter: Any
    model: nn.Module
    where: object

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """See `Source`."""
        return tuple(source for source, _ in self.sources)

    def read(self, device: torch.device) -> Tensor:
        """See `Source`. The conversion moves entries and computes nothing, so it may come before the promotion."""
        converter = deepcopy(self.converter)
        for source, pattern in self.sources:
            converter.add_tensor(self.first, source.name, pattern, source.raw())
        value = converter.convert(self.first, model=self.model, config=getattr(self.model, "config", None)).get(
            self.name
        )
        value = value[0] if isinstance(value, list) else value
        if value is None:
            raise CheckpointError(
                f"{self.name!r} could not be made of {self.sources[0][0].name!r} in {self.where}; load with lazy=False"
            )
        value = value.to(device, torch.float64 if value.is_floating_point() else value.dtype)
        check_finite(self.name, value, self.where)
        return value

    def read_rows(self, rows: Sequence[int], device: torch.device) -> Tensor:
        """See `Source`."""
        return self.read(device)[list(rows)]


def missing_weights(module: nn.Module, names: Sequence[str], where: object) -> CheckpointError:
    """The error for a checkpoint without some weights of a module."""
    return CheckpointError(
        f"{where} lacks {len(names)} weights of {type(module).__name__}, among them {names[0]!r}, which would "
        "be random numbers; pass the whole checkpoint, with the config.json that belongs to it"
    )


def matters(module: nn.Module, name: str) -> bool:
    """Whether a weight belongs to a block or an embedding; a missing head does not matter."""
    owner = name.rpartition(".")[0]
    return any(part.isdigit() for part in owner.split(".")) or isinstance(module.get_submodule(owner), nn.Embedding)


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Modules that are built in this context have parameters without values; their buffers are real.

    Buffers that no checkpoint holds, such as rotary frequencies, are computed by the constructor alone.
    """
    register = nn.Module.register_parameter

    def register_on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, param)
        if param is not None and not param.is_meta:
            self._parameters[name] = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
