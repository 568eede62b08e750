"""Load a model: from safetensors, with eager attention, in float64, without code of its own and without network."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fisherflat._modes import lasting
from fisherflat.errors import CheckpointError, CheckpointWarning, InputError, warn
from fisherflat.jets.engines import memory_budget
from fisherflat.models._adapters import adapted
from fisherflat.models._empty_model import (
    TRACEABLE,
    TooLarge,
    bounded,
    check_depth,
    empty_model,
    matters,
    missing_weights,
    placed,
)
from fisherflat.models._folder import has_tokenizer, is_adapter, place_of, read_config, stored_tensors
from fisherflat.models._model import Model
from fisherflat.models._rounded import rounded_tables, stored_tables
from fisherflat.models._stored_tensors import StoredTensor, check_finite
from fisherflat.models._task import Task
from fisherflat.models._weights import Weights
from fisherflat.models._wrapped import unwrapped


@lasting()
def load(
    source: Any,
    *,
    config: Any = None,
    base: str | Path | None = None,
    blocks: str | None = None,
    part: str | None = None,
    tokenizer: Any = None,
    lazy: bool | None = None,
    device: torch.device | str = "cpu",
    download: bool = False,
) -> Model:
    """Load a model.

    **Args:**

    - `source`: a Hugging Face folder (also with sharded weights), the folder of an adapter, the id of a cached model, a
      bare safetensors file, an `nn.Module` of your own, which is copied, or an object that holds one, such as a
      pipeline. Adapters are merged into the weights, and the name of the model says so.
    - `config`: for a bare file without a config.json beside it, the path of one, or a transformers configuration.
    - `base`: of an adapter, the folder or the id of the model that it belongs to, if not the one that it names.
    - `blocks`: the path of the list of blocks in the module, such as `"encoder.layers"` (default: found from a forward
      pass).
    - `part`: of an encoder-decoder, `"encoder"` (default) or `"decoder"`.
    - `tokenizer`: one of transformers, instead of the checkpoint's own.
    - `lazy`: whether to leave the weights of the blocks on disk, and read those of one block when it is used. By
      default they are left there where all of them, in float64, would take more than a share of the free memory.
    - `device`: where everything runs.
    - `download`: whether an id that is not in the local cache may be fetched. Otherwise the network is never touched.

    **Returns:** a `Model` in eval mode. All floating weights are float64; float32, bfloat16 and float16 are promoted
    exactly. Attention is eager, so that it has second derivatives. Pickled weights, quantised weights and remote code
    are refused.

    **Raises:** `CheckpointError`, `InputError`, saying what is wrong, where, and what to do.

    **Warns:** `CheckpointWarning` where weights that should stay on disk cannot, and all are read, and where a module
    was cast to half precision together with tables that it computes, such as rotary frequencies.

    >>> import fisherflat as ff
    >>> model = ff.load("python-llama")  # a small one that ships with the package
    >>> len(model.blocks("def mean(values):"))
    4
    """
    device = _device(device)
    if tokenizer is not None and not (callable(tokenizer) and hasattr(tokenizer, "convert_ids_to_tokens")):
        raise InputError(f"a tokenizer is one of transformers, got {type(tokenizer).__name__}")
    if not isinstance(source, (str, Path)):
        return _of_module(source, tokenizer, blocks, part, device)
    place = place_of(source, download)
    folder = place if place.is_dir() else place.parent
    if is_adapter(folder):
        with _quiet():
            module, beneath = adapted(folder, base, download, _read_whole)
            reason, given = None, tokenizer
            if tokenizer is None:
                tokenizer, reason = _tokenizer(folder if has_tokenizer(folder) else beneath, module.config)
        again = partial(load, source, base=base, blocks=blocks, part=part, tokenizer=given, device=device)
        return Model(
            module.to(device).eval().requires_grad_(False),
            tokenizer,
            name=f"{beneath.resolve().name} with the adapter {folder.resolve().name} merged",
            blocks=blocks,
            part=part,
            tokenizer_error=reason,
            again=again,
        )
    if base is not None:
        raise InputError(f"base is the model that an adapter belongs to, and {source} is none; leave it out")
    with _quiet():
        if config is None or isinstance(config, (str, Path)):
            config = _config(folder if config is None else Path(config))
        stored = stored_tensors(place)
        module, weights = _module(place, config, stored, lazy, device)
        reason, given = None, tokenizer
        if tokenizer is None:
            tokenizer, reason = _tokenizer(folder, config)
    again = partial(
        load, source, config=config, blocks=blocks, part=part, tokenizer=given, lazy=weights.lazy, device=device
    )
    return Model(
        module,
        tokenizer,
        # reports are passed on, so the name of a folder stands in them and not where it lies
        name=place.resolve().name if Path(source).exists() else str(source),
        blocks=blocks,
        part=part,
        weights=weights,
        tokenizer_error=reason,
        again=again,
        stored_dtypes=sorted({tensor.dtype for tensor in stored.values()}),
        task=task if (task := Task(place, config, stored, device)).is_known else None,
    )


def as_model(model: Any, **options: Any) -> Model:
    """A loaded `Model` as it is, and anything else that `load` takes, loaded with its `options`.

    **Raises:** `InputError` for what is neither, and what `load` raises.
    """
    return model if isinstance(model, Model) else load(model, **options)


def _of_module(source: Any, tokenizer: Any, blocks: str | None, part: str | None, device: torch.device) -> Model:
    """A module that is in memory, or in what holds it, as a copy in float64."""
    module, found, name = unwrapped(source)
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise CheckpointError(
            f"{name} was compiled by TorchScript, which hides its ops; give what it was compiled from"
        )
    try:
        copied = copy.deepcopy(module).to(device, torch.float64).requires_grad_(False)
    except Exception as error:
        raise CheckpointError(
            f"{name} cannot be copied to {device} in float64 ({type(error).__name__}: {error}); give a module of plain "
            "weights, neither quantised nor on the meta device"
        ) from error
    rounded = rounded_tables(module)  # of which the copy shows nothing
    given = found if tokenizer is None else tokenizer
    return Model(
        copied, given, name=name, blocks=blocks, part=part, rounded=rounded, halved=stored_tables(module)
    )  # fmt: skip


def _device(device: Any) -> torch.device:
    """**Raises:** `InputError` where torch has no such device here, or none that holds numbers, and in double."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device).item()
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"torch cannot use the device {device!r} here ({said}); take cpu, or cuda with a GPU"
        ) from error


def _config(path: Path) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    raw = read_config(path)
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        if raw.get("auto_map"):
            raise CheckpointError(
                f"the architecture {kind!r} in {path} needs code from the checkpoint itself, which is never run; use "
                "a release of transformers that has the architecture, or load a module of your own: "
                'load(module, blocks="path.of.its.blocks")'
            )
        raise CheckpointError(
            f"the installed transformers does not know the architecture {kind!r} of {path}; upgrade transformers, or "
            'load a module of your own: load(module, blocks="path.of.its.blocks")'
        )
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(f"the config.json in {path} does not fit the architecture {kind!r}: {error}") from error


def _module(
    place: Path,
    config: Any,
    stored: Mapping[str, StoredTensor],
    lazy: bool | None,
    device: torch.device,
    auto: str = "AutoModel",
) -> tuple[nn.Module, Weights]:
    needed = 8 * sum(tensor.size for tensor in stored.values() if tensor.is_floating)
    wanted = needed > memory_budget(device) if lazy is None else lazy
    check_depth(config, len(stored), place)
    try:
        # also where all is read: the same model, whatever is installed, and no memory for weights that are not there
        with bounded(4 * needed + 2**31):
            module = empty_model(config, auto)
        sources = placed(module, stored, place)
        return module, Weights(module, sources, device) if wanted else Weights.all_read(module, sources, device)
    except (CheckpointError, TooLarge) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the config.json of {place} does not belong to its weights: {error}") from error
    except Exception as error:
        if place.is_file():
            raise _not_loaded(place, config, error) from error
        if wanted:
            warn(
                f"{config.model_type!r} cannot be built without its weights ({type(error).__name__}: {error}), so all "
                f"those of {place} are read, {needed / 2**30:.1f} GiB in float64",
                CheckpointWarning,
            )
        module = _as_transformers_does(place, config, stored, 4 * needed + 2**31, auto).to(device)
        return module, Weights(module)


def _read_whole(place: Path, auto: str) -> nn.Module:
    """The model of a folder or a file, with what heads the class `auto` of transformers gives it, all in memory."""
    config = _config(place if place.is_dir() else place.parent)
    module, _ = _module(place, config, stored_tensors(place), False, torch.device("cpu"), auto)
    return module


def _as_transformers_does(
    folder: Path, config: Any, stored: Mapping[str, StoredTensor], limit: int, auto: str
) -> nn.Module:
    """The model with all its weights in memory, as transformers reads it; no tensor of more than `limit` bytes."""
    import transformers

    try:
        with bounded(limit):
            module, report = getattr(transformers, auto).from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                # told another precision than torch's own default, transformers would make it that, for all threads
                dtype=torch.get_default_dtype(),
                **TRACEABLE,
            )
    except Exception as error:
        raise _not_loaded(folder, config, error) from error
    if missing := sorted(name for name in report["missing_keys"] if matters(module, name)):
        raise missing_weights(module, missing, folder)
    module = module.double()  # what was kept in float32 on purpose
    if any(tensor.dtype == "F64" for tensor in stored.values()):  # which were rounded
        places = placed(module, stored, folder).items()
        Weights.all_read(
            module, {key: place for key, place in places if any(tensor.dtype == "F64" for tensor in place.tensors)}
        )
    for name, parameter in module.named_parameters():
        check_finite(name, parameter, folder)
    return module.eval().requires_grad_(False)


def _not_loaded(place: Path, config: Any, error: Exception) -> CheckpointError:
    return CheckpointError(f"{place} could not be loaded as {config.model_type!r}: {type(error).__name__}: {error}")


def _tokenizer(folder: Path, config: Any) -> tuple[Any, str | None]:
    """The tokenizer, or `None` and the reason: token ids can be given instead."""
    from transformers import AutoTokenizer

    if not has_tokenizer(folder):
        return None, f"{folder} holds no tokenizer"
    options = {"config": config, "local_files_only": True, "trust_remote_code": False}
    try:
        return AutoTokenizer.from_pretrained(folder, **options), None
    except Exception as error:  # whatever a damaged file makes the tokenizer library raise
        return None, f"the tokenizer in {folder} could not be read ({type(error).__name__}: {error})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and load reports of transformers: what matters is raised.

    It has one setting for all threads: the first that loads changes it, and the last one puts back what it was.
    """
    from transformers.utils import logging

    with _loading:
        if not _before:
            _before.append((logging.get_verbosity(), logging.is_progress_bar_enabled()))
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        else:
            _before.append(_before[0])
    try:
        yield
    finally:
        with _loading:
            verbosity, bar = _before.pop()
            if not _before:
                logging.set_verbosity(verbosity)
                if bar:
                    logging.enable_progress_bar()


_loading = threading.Lock()
#: by thread that loads, what the verbosity and the progress bars of transformers were before the first did
_before: list[tuple[int, bool]] = []
