"""A model without its weights, and where in the files of a checkpoint each of them is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fisherflat.errors import CheckpointError
from fisherflat.jets.graph import leaves, mapped_leaves
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
        if func is torch.ops.aten.scalar_tensor.default:  # a single number, whatever its value
            return func(*args, **kwargs)
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
    "attn_implementation": "eager",
    "experts_implementation": "batched_mm",
    "trust_remote_code": False,
}


def empty_model(config: Any, kind: Any = "AutoModel") -> nn.Module:
    """The module of a transformers configuration, with parameters on the meta device, in float64.

    **Args:** `kind`, a class of transformers, or the name of one that knows which module that is.
    """
    import transformers

    config = deepcopy(config)
    # told a precision, transformers would make it torch's default, for all threads
    options = TRACEABLE | {"dtype": None}
    if isinstance(kind, str):
        build = getattr(transformers, kind).from_config
    else:
        build = kind._from_config
        del options["trust_remote_code"]
    with drawn_from(torch.Generator()):
        with _parameters_on_meta(), _InDouble():
            module: Any = build(config, **options)
        for part in module.modules():
            if hasattr(part, "config"):
                part.config.dtype = torch.float64
            part._is_hf_initialized = False
        module.initialize_weights()  # buffers once more, in the default dtype: as transformers does when it reads files
    found: nn.Module = module.double().eval().requires_grad_(False)
    return found


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
    """Modules that this thread builds in this context have parameters without values; their buffers are real.

    Buffers that no checkpoint holds, such as rotary frequencies, are computed by the constructor alone.
    """
    _watch_parameters()
    before = _on_meta.set(True)
    try:
        yield
    finally:
        _on_meta.reset(before)


_on_meta: ContextVar[bool] = ContextVar("on_meta", default=False)


@cache
def _watch_parameters() -> None:
    """Once and for all: a hook that came and went would do so under other threads that build modules."""

    def enters(module: nn.Module, name: str, param: nn.Parameter | None) -> nn.Parameter | None:
        """What takes the parameter's place."""
        if not _on_meta.get() or param is None or param.is_meta:
            return None  # as it is
        return nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)

    register_module_parameter_registration_hook(enters)  # type: ignore[arg-type]


class _InDouble(TorchFunctionMode):
    """What is made of numbers and integers is in double, as if that were torch's default: in this thread alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = leaves((args, kwargs))
        if func in _CASTS or any(isinstance(leaf, (torch.dtype, str)) for leaf in given):  # the precision is stated
            return func(*args, **kwargs)
        tensors = [leaf for leaf in given if isinstance(leaf, Tensor)]
        if func in _FROM_SIZES and not tensors:
            return func(*args, **{**kwargs, "dtype": torch.float64})
        out = func(*args, **kwargs)
        if not isinstance(out, Tensor) or out.dtype != torch.get_default_dtype():
            return out
        if func in _FROM_NUMBERS and all(isinstance(leaf, (int, float, type(None), torch.device)) for leaf in given):
            return func(*args, **{**kwargs, "dtype": torch.float64})
        if tensors and not any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors):
            return func(*mapped_leaves(_doubled, args), **mapped_leaves(_doubled, kwargs))
        return out


def _doubled(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.dtype != torch.bool else leaf


_CASTS = {Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.double}
#: makers of tensors whose precision is torch's default, whatever they are given, and those where numbers decide
_FROM_SIZES = {
    torch.empty, torch.zeros, torch.ones, torch.eye, torch.rand, torch.randn, torch.linspace, torch.logspace,
}  # fmt: skip
_FROM_NUMBERS = {torch.arange, torch.full, torch.tensor, torch.as_tensor, torch.scalar_tensor}
