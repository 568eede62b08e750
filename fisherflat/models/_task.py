"""The head of a checkpoint in files: the model that it was trained as, without the weights of its blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fisherflat.errors import CheckpointError
from fisherflat.models._empty_model import empty_model, placed
from fisherflat.models._sentence import sentence
from fisherflat.models._stored_tensors import Source, StoredTensor
from fisherflat.models._weights import Weights, nowhere, put


@dataclass(eq=False)
class StoredRows:
    """A matrix in a file, of which rows are read when they are asked for."""

    tensor: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return self.tensor.shape

    def __getitem__(self, rows: slice) -> Tensor:
        """Some rows, in the precision of the file."""
        return self.tensor.read_slice(rows)


def class_names(config: Any) -> list[str]:
    """The classes that a configuration says a checkpoint is of; a damaged one says nothing.

    >>> import fisherflat as ff
    >>> ff.models.class_names(ff.load("python-llama").config)
    ['LlamaForCausalLM']
    """
    names = getattr(config, "architectures", None)
    return [name for name in names if isinstance(name, str)] if isinstance(names, (list, tuple)) else []


@dataclass(eq=False)
class Task:
    """A checkpoint as the model that it was trained as.

    **Args:** `place`, its folder or file; `config`; `stored`, its tensors; `device`.
    """

    place: Path
    config: Any
    stored: Mapping[str, StoredTensor]
    device: torch.device

    @cached_property
    def _made(self) -> tuple[nn.Module, Weights, dict[int, Source]]:
        module: Any = empty_model(self.config, self._architecture)
        sources = placed(module, self.stored, self.place)
        head = self._unembedding(module)
        kept = {} if head is None else {id(head.weight): sources.get(id(head.weight))}
        own = [] if module.base_model is module else list(module.named_parameters())
        inner = {id(weight) for weight in module.base_model.parameters()}
        missing = [name for name, weight in own if id(weight) not in inner and id(weight) not in sources]
        if missing and not (head is not None and set(missing) <= {name for name, w in own if w is head.bias}):
            raise CheckpointError(
                f"{self.place} lacks {missing[0]!r}, of the head of {type(module).__name__}; pass the whole "
                "checkpoint, or what its states are: family=ff.families.NextToken(weight) with an unembedding [V, d]"
            )
        if getattr(self.config, "is_encoder_decoder", False):  # whose encoder runs before the states that are read
            weights = Weights.all_read(module, sources, self.device)
        else:
            weights = Weights(module, {key: source for key, source in sources.items() if key not in kept}, self.device)
            for name, weight in list(module.named_parameters(remove_duplicate=False)):
                if id(weight) in kept:
                    put(module, name, nowhere(weight, self.device))
        return module, weights, {key: source for key, source in kept.items() if source is not None}

    @property
    def is_known(self) -> bool:
        """Whether transformers has the model."""
        return self._architecture is not None

    @property
    def _architecture(self) -> Any:
        """The class that the configuration names, if transformers has it."""
        import transformers

        for name in class_names(self.config)[:1]:
            found = getattr(transformers, name, None)
            if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
                return found if isinstance(self.config, found.config_class or object) else None
        return None

    @staticmethod
    def _unembedding(module: nn.Module) -> Any:
        try:
            return module.get_output_embeddings()  # type: ignore[operator]
        except (AttributeError, NotImplementedError):
            return None

    @property
    def module(self) -> nn.Module:
        """The model: blocks, tables and the unembedding have no values."""
        return self._made[0]

    @property
    def rows(self) -> Any:
        """The matrix of the unembedding, row by row from its file."""
        source = next(iter(self._made[2].values()), None)
        if source is None:
            raise CheckpointError(f"{self.place} holds no unembedding; pass the whole checkpoint")
        return StoredRows(source) if isinstance(source, StoredTensor) else source.read(self.device)

    def block(self, path: str, part: str | None) -> nn.Module:
        """The block of a path in the model without a head."""
        root: Any = self.module
        if part == "decoder":
            root = root.get_decoder()
        elif part == "encoder":
            root = root.get_encoder()
        else:
            root = root.base_model
        return root.get_submodule(path)

    @cached_property
    def sentence(self) -> tuple[str, nn.Module]:
        """How the tokens of a sentence encoder are pooled, and what is done with the vector then; see `sentence`."""
        return sentence(self.place if self.place.is_dir() else self.place.parent, self.device)


def completed(base: Any) -> nn.Module | None:
    """A model without a head as one that predicts tokens, with the table of its embeddings for an unembedding.

    `None` where transformers has none such, or it has weights of its own, which the model does not have.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(base.config), None)
    if kind is None:
        return None
    whole: Any = empty_model(base.config, kind)
    inner = {id(weight) for weight in whole.base_model.parameters()}
    if any(id(weight) not in inner for weight in whole.parameters()):
        return None
    setattr(whole, whole.base_model_prefix, base)
    whole.get_output_embeddings().weight = base.get_input_embeddings().weight
    return whole
