"""A folder that holds an adapter and names the model that it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fisherflat.errors import CheckpointError
from fisherflat.models._drawn import drawn_from
from fisherflat.models._folder import place_of, read_header, read_json
from fisherflat.models._wrapped import merged

#: by the task of an adapter, the class that knows the names of its weights
CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}


def adapted(
    folder: Path, base: str | Path | None, download: bool, read: Callable[[Path, str], nn.Module]
) -> tuple[nn.Module, Path]:
    """The model that an adapter belongs to with the adapter merged into its weights, and where that model is.

    **Args:** `base`, where that is, if not where the adapter says; `read`, what reads it, given its place and the class
    of transformers that it is of.

    **Raises:** `CheckpointError` where peft is not installed, the base is not there, or the two do not fit.
    """
    try:
        from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise CheckpointError(
            f"{folder} holds an adapter, which is merged by the package peft, and that is not installed; install it, "
            "or give a folder with the merged model: model.merge_and_unload().save_pretrained(folder)"
        ) from error
    about = read_json(folder / "adapter_config.json")
    named = base if base is not None else about.get("base_model_name_or_path")
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise CheckpointError(
            f"{folder} holds an adapter_config.json and no adapter_model.safetensors; save the adapter again with "
            "safetensors, since pickled weights can run code and are refused"
        )
    if not isinstance(named, (str, Path)) or not str(named):
        raise CheckpointError(f"the adapter in {folder} does not say which model it belongs to; give it as base=")
    names = read_header(file).keys()
    try:
        place = place_of(named, download)
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} holds an adapter of {str(named)!r}, which is needed, too: {error}; give its folder as base="
        ) from error
    try:
        config = PeftConfig.from_pretrained(str(folder), local_files_only=True)
        whole: Any = read(place, CLASSES.get(str(about.get("task_type")), "AutoModel"))
        with drawn_from(torch.Generator()):  # weights begin with random numbers, and are read next
            model: Any = PeftModel.from_pretrained(whole, str(folder), config=config, local_files_only=True)
        # "auto", the default, asks the network where the base is not where the adapter says
        known = get_peft_model_state_dict(model, save_embedding_layers=False).keys()
        unknown = names - known - model.state_dict().keys()  # beside the adapter there may be whole tables
    except Exception as error:
        raise CheckpointError(
            f"the adapter in {folder} does not fit {named} ({type(error).__name__}: {error}); give the model that it "
            "was trained on as base="
        ) from error
    if missing := sorted((known - names) | unknown):
        raise CheckpointError(
            f"the adapter in {folder} and {named} do not have the same weights: {len(missing)} are in one alone, among "
            f"them {missing[0]!r}; give the model that it was trained on as base="
        )
    module, _ = merged(model)
    inner: Any = getattr(module, "base_model", module)  # without its head
    return inner, place
