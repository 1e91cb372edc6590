"""How many weights a model has, read off its configuration alone."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlprm.errors import ArtifactError
from rlprm.models.hub.download import model_folder
from rlprm.models.hub.options import options_of_loading

__all__ = ["count_weights"]


def count_weights(path: str) -> int:
    """Return the number of weights of a causal language model, tied ones once; no weight is loaded.

    Args:
        path: folder or hub id.

    Raises:
        ArtifactError: if the configuration cannot be loaded.
    """
    folder = str(model_folder(path, "model"))
    options = options_of_loading(weights=False)
    try:
        config = AutoConfig.from_pretrained(folder, **options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, **options)
    except (OSError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"cannot load a model from {path!r}: {first_line}") from error
    return int(sum(parameter.numel() for parameter in model.parameters()))
