"""What is known of a model that writes, without its weights."""

from __future__ import annotations

from contextlib import suppress

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from rlprm.models.causal import class_by_name
from rlprm.models.hub.download import model_folder
from rlprm.models.hub.options import options_of_loading
from rlprm.models.loading import load_config

__all__ = ["ends_in_file", "ends_of", "model_without_weights"]


def ends_of(model: PreTrainedModel) -> set[int]:
    """Return the tokens that end a text, as the model's generation config has them."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return {ends} if isinstance(ends, int) else set(ends or ())


def ends_in_file(folder: str) -> set[int]:
    """Return the tokens that end a text, as a folder's generation config has them; none without one."""
    try:
        ends = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:
        return set()
    return {ends} if isinstance(ends, int) else set(ends or ())


def model_without_weights(path: str) -> PreTrainedModel:
    """Return a causal language model with the shapes and the generation config of a checkpoint.

    Raises:
        ArtifactError: if its configuration cannot be loaded.
    """
    config = load_config(path)
    loads = AutoModelForCausalLM
    if type(config) not in AutoModelForCausalLM._model_mapping:
        loads = class_by_name(config) or loads
    with torch.device("meta"):
        model: PreTrainedModel = (
            loads.from_config(config, **options_of_loading(weights=False))
            if loads is AutoModelForCausalLM
            else loads(config)
        )
    with suppress(OSError):  # without a file, the model has one made from its configuration
        model.generation_config = GenerationConfig.from_pretrained(model_folder(path))
    return model
