"""Weights in 4 bits below LoRA adapters (QLoRA, arXiv 2305.14314), through bitsandbytes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from rlprm.errors import ConfigError
from rlprm.models.heads.lm_head import HEAD
from rlprm.models.zero import zero_stage

__all__ = ["options_of_4bit", "require_4bit"]

_KEPT = ("lm_head", "score", "classifier", *sorted(HEAD))
"""Layers that stay as they are: output layers, and the heads that are trained."""


def require_4bit() -> None:
    """Refuse 4-bit weights on a machine that cannot hold them.

    Raises:
        ConfigError: naming what is missing.
    """
    if not torch.cuda.is_available():
        raise ConfigError("load_in_4bit: got true, but there is no GPU, which bitsandbytes computes on")
    if find_spec("bitsandbytes") is None:
        raise ConfigError("load_in_4bit: got true, but bitsandbytes is missing; pip install bitsandbytes")
    if zero_stage() == 3:
        raise ConfigError("load_in_4bit: got true, but ZeRO-3 cannot split such weights; use ZeRO-2 or less")


def options_of_4bit(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` that put the linear layers of a body into 4 bits.

    The paper's settings: NormalFloat, with the scales quantised as well.

    Args:
        dtype: of the other weights, and of the computation.
        device: of the model; such a model cannot be moved in every version.
    """
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(_KEPT),
    )
    return {"quantization_config": how, "device_map": {"": device}}
