"""Load a Hugging Face checkpoint: safetensors, eager attention, float64, no code of its own, no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fisherflat.checkpoints.files import check_weights, folder_of, has_tokenizer, read_config
from fisherflat.checkpoints.model import Model
from fisherflat.errors import CheckpointError


def load(path_or_id: str | Path, *, device: torch.device | str = "cpu", download: bool = False) -> Model:
    """Load a model from a Hugging Face folder or a cached id.

    **Args:** `path_or_id`; `device`, where everything runs; `download`: whether an id that is not in the local cache
    may be fetched. Otherwise the network is never touched.

    **Returns:** a `Model` in eval mode. All floating weights are float64; float32, bfloat16 and float16 are promoted
    exactly. Attention is eager, so that it has second derivatives. Pickled weights and remote code are refused.

    **Raises:** `CheckpointError`, saying what is wrong, where, and what to do.
    """
    folder = folder_of(path_or_id, download)
    raw = read_config(folder)
    check_weights(folder)
    with _quiet():
        config = _config(folder, raw)
        module = _module(folder, config)
        tokenizer, reason = _tokenizer(folder, config)
    return Model(module.to(device), tokenizer, name=str(path_or_id), tokenizer_error=reason)


def _config(folder: Path, raw: dict[str, Any]) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = raw.get("model_type")
    if kind not in CONFIG_MAPPING:
        if raw.get("auto_map"):
            raise CheckpointError(
                f"the architecture {kind!r} in {folder} needs code from the checkpoint itself, which is never run; use "
                "a release of transformers that has the architecture"
            )
        raise CheckpointError(
            f"the installed transformers does not know the architecture {kind!r} of {folder}; upgrade transformers, or "
            "pass the module's blocks to ff.StatisticalManifold yourself"
        )
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(f"the config.json in {folder} does not fit the architecture {kind!r}: {error}") from error


def _module(folder: Path, config: Any) -> nn.Module:
    from transformers import AutoModel

    try:
        module, report = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float64,
            attn_implementation="eager",
            experts_implementation="batched_mm",  # the only one that can be traced
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise CheckpointError(
            f"{folder} could not be loaded as {config.model_type!r}: {type(error).__name__}: {error}"
        ) from error
    if missing := sorted(name for name in report["missing_keys"] if _matters(module, name)):
        raise CheckpointError(
            f"{folder} lacks {len(missing)} weights of {type(module).__name__}, among them {missing[0]!r}, which would "
            "be random numbers; pass the whole checkpoint, with the config.json that belongs to it"
        )
    module = module.double()  # what was kept in float32 on purpose
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise CheckpointError(f"the weight {name!r} in {folder} holds NaN or infinite values; use another release")
    return module.eval().requires_grad_(False)


def _matters(module: nn.Module, name: str) -> bool:
    """Whether a weight belongs to a block or an embedding; a head that the file lacks is no loss."""
    owner = name.rpartition(".")[0]
    return any(part.isdigit() for part in owner.split(".")) or isinstance(module.get_submodule(owner), nn.Embedding)


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
    """Without the progress bars and load reports of transformers: what matters is raised."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
