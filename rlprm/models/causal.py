"""The class of a causal language model, and the body in the model: found in the model, not by its name."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from rlprm.errors import ConfigError

__all__ = ["body_of", "causal_class", "class_by_name", "text_part", "width_of"]

_TOKEN_CLASSIFICATION = "ForTokenClassification"


def causal_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return the class of a configuration's causal language model.

    Raises:
        ValueError: if transformers has no such class.
    """
    if type(config) in AutoModelForCausalLM._model_mapping:
        found: type[PreTrainedModel] = AutoModelForCausalLM._model_mapping[type(config)]
        return found
    if (named := class_by_name(config)) is not None:
        return named
    raise ValueError(f"models of type {config.model_type} are no causal language models")


def class_by_name(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """Return the causal class that a checkpoint names in ``architectures``; None if there is none.

    The language model of a multimodal model has a configuration of its own, which
    ``AutoModelForCausalLM`` does not look up (Mllama, Emu3).
    """
    for name in config.architectures or ():
        stem = name.removesuffix(_TOKEN_CLASSIFICATION)
        kind: Any = getattr(transformers, name if stem == name else f"{stem}ForCausalLM", None)
        is_model = isinstance(kind, type) and issubclass(kind, PreTrainedModel)
        if is_model and kind.can_generate() and kind.config_class is type(config):
            found: type[PreTrainedModel] = kind
            return found
    return None


def text_part(config: PretrainedConfig) -> PretrainedConfig:
    """Return the configuration that the causal class reads: the language model's, or the whole."""
    text: Any = config.sub_configs.get("text_config")
    causal = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if text is not None and getattr(causal, "config_class", None) is text:
        part: PretrainedConfig = config.get_text_config()
        part.architectures = part.architectures or config.architectures
        return part
    return config


def width_of(causal: Any) -> int:
    """Return the width of hidden states: the configuration's, or what the output layer takes."""
    named = getattr(causal.config.get_text_config(), "hidden_size", None)
    return int(named or causal.get_output_embeddings().in_features)


def body_of(causal: Any) -> Any:
    """Return the part of a causal language model that turns token ids (B, L) into hidden states (B, L, D).

    ``get_decoder`` guesses by names. The guess may be the model itself, or an output layer that is called
    ``decoder``. The body is then the one part that is a model.

    Raises:
        ConfigError: if no part or several parts may be the body.
    """
    decoder = causal.get_decoder()
    if isinstance(decoder, PreTrainedModel) and decoder is not causal:
        return decoder
    parts = [part for part in causal.children() if isinstance(part, PreTrainedModel)]
    if len(parts) != 1:
        raise ConfigError(f"models of type {causal.config.model_type} have no body that can be read alone")
    return parts[0]
