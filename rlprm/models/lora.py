"""Which weights are trained: all of them, or LoRA adapters beside a frozen model (arXiv 2106.09685).

Both end in the same place: a folder that stock transformers loads. Adapters are merged into the
model when it is saved, and kept beside it in ``adapter/``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from rlprm.errors import ConfigError
from rlprm.models import zero
from rlprm.models.loading import head_of
from rlprm.runtime.config import setting

log = logging.getLogger(__name__)
FULL_PRECISION: dict[str, Any] = {"dtype": "float32", "device": torch.device("cpu")}
"""How the weights are loaded that adapters are merged into: nothing is lost, and no GPU memory is taken."""
_ADAPTER = "adapter"
_DTYPES = ("auto", "float32", "bfloat16")
_ALL_LINEAR = "all-linear"


@dataclass
class TuningConfig:
    """Settings of every stage that trains a model."""

    lora_r: int = setting(0, "Rank of LoRA adapters; 0 trains all weights.")
    lora_alpha: int | None = setting(None, "Adapters are scaled by lora_alpha / lora_r; 2 lora_r if unset.")
    lora_dropout: float = setting(0.0, "Dropout before adapters.")
    lora_target_modules: list[str] = setting(
        [_ALL_LINEAR], "Layers that get adapters, by the ends of their names; all-linear: all but the head."
    )
    dtype: str = setting(
        "auto",
        "Weights while training: auto (float32; bfloat16 for weights that LoRA freezes, where bf16 is on), "
        "float32, bfloat16.",
    )

    def __post_init__(self) -> None:
        """Refuse impossible values, then let the other bases of a subclass validate theirs.

        Raises:
            ConfigError: naming the setting, what was received and what is allowed.
        """
        if self.lora_r < 0:
            raise ConfigError(f"lora_r: got {self.lora_r}, allowed: 1 or more, or 0 for all weights")
        if self.lora_alpha is not None and self.lora_alpha < 1:
            raise ConfigError(f"lora_alpha: got {self.lora_alpha}, allowed: 1 or more, or unset")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ConfigError(f"lora_dropout: got {self.lora_dropout}, allowed: 0 or more, below 1")
        if not self.lora_target_modules:
            raise ConfigError(f"lora_target_modules: got none, allowed: {_ALL_LINEAR}, or names of layers")
        if self.dtype not in _DTYPES:
            raise ConfigError(f"dtype: got {self.dtype!r}, allowed: {', '.join(_DTYPES)}")
        if not self.lora_r and self.dtype == "bfloat16":
            log.warning(
                "all weights are trained in bfloat16: updates below 1/256 of a weight are lost; "
                "dtype float32 with bf16 true computes as fast and keeps them"
            )
        following = getattr(super(), "__post_init__", None)
        if following is not None:
            following()

    def weights_dtype(self, *, bf16: bool | None) -> str:
        """Return the dtype the model is loaded in.

        Weights that are trained stay in float32 (bf16 computes beside them); frozen ones need no more bits
        than the computation has.
        """
        if self.dtype != "auto":
            return self.dtype
        return "bfloat16" if self.lora_r and bf16 else "float32"


def effective(record: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a stage's record what has no effect: settings of adapters where there are none."""
    without_effect = set()
    if not record["lora_r"]:
        without_effect = {name for name in record if name.startswith("lora_")}
    if record["dtype"] == "auto":  # follows from lora_r and bf16
        without_effect.add("dtype")
    return {name: value for name, value in record.items() if name not in without_effect}


def with_adapters(model: PreTrainedModel, config: TuningConfig, *, seed: int) -> PreTrainedModel | PeftModel:
    """Return the model as it is to be trained: itself, or frozen with LoRA adapters.

    Adapters change nothing before they are trained. A reward model's head is trained as a whole: the adapter
    holds a copy of it, in float32.

    Args:
        model: as loaded.
        config: names rank and layers.
        seed: of the adapters' initial weights.

    Raises:
        ConfigError: if no layer has one of the names in ``lora_target_modules``.
    """
    if not config.lora_r:
        return model
    head = head_of(model)
    targets = config.lora_target_modules
    lora = LoraConfig(
        task_type="CAUSAL_LM" if model.get_output_embeddings() is not None else "TOKEN_CLS",
        r=config.lora_r,
        lora_alpha=config.lora_alpha or 2 * config.lora_r,
        lora_dropout=config.lora_dropout,
        target_modules=_ALL_LINEAR if targets == [_ALL_LINEAR] else targets,
        exclude_modules=sorted(head) or None,
        modules_to_save=sorted(head) or None,
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # Under ZeRO-3, adapters of another dtype than the model's would not fit into its buffers.
            return get_peft_model(model, lora, autocast_adapter_dtype=not is_deepspeed_zero3_enabled())
    except ValueError as error:
        raise ConfigError(f"lora_target_modules: {str(error).splitlines()[0]}") from error


def save_trained(trainer: Trainer, folder: str, load_base: Callable[[], PreTrainedModel]) -> None:
    """Save what was trained so that stock transformers loads it; to be called in every process.

    Args:
        trainer: has trained the model.
        folder: where it goes.
        load_base: loads the weights that training started from, :data:`FULL_PRECISION`.
    """
    adapters = isinstance(trainer.model, PeftModel)
    target = str(Path(folder) / _ADAPTER) if adapters else folder
    if zero.zero_stage():
        _save_masters(trainer, target)
    else:
        trainer.save_model(target)
    if adapters and trainer.is_world_process_zero():
        _merge(folder, load_base)
        if trainer.processing_class is not None:
            trainer.processing_class.save_pretrained(folder)


def _save_masters(trainer: Trainer, folder: str) -> None:
    """Save float32 weights that DeepSpeed keeps in parts; it computes with bfloat16 roundings of them."""
    model = trainer.model
    weights = zero.full_weights(model, trained_only=isinstance(model, PeftModel))
    if not trainer.is_world_process_zero():
        return
    _save_weights(model, folder, weights)
    if trainer.processing_class is not None:
        trainer.processing_class.save_pretrained(folder)


def save_full_model(
    model: PreTrainedModel | PeftModel,
    folder: str,
    weights: dict[str, Tensor],
    load_base: Callable[[], PreTrainedModel],
) -> None:
    """Save a model so that stock transformers loads it; in one process, which has its weights.

    Args:
        model: with adapters or without.
        folder: where it goes.
        weights: of :func:`rlprm.models.zero.full_weights`; the adapters' alone where there are some.
        load_base: loads the weights that adapters were added to, :data:`FULL_PRECISION`.
    """
    adapters = isinstance(model, PeftModel)
    _save_weights(model, str(Path(folder) / _ADAPTER) if adapters else folder, weights)
    if adapters:
        _merge(folder, load_base)


def _save_weights(model: PreTrainedModel | PeftModel, folder: str, weights: dict[str, Tensor]) -> None:
    model.save_pretrained(folder, state_dict=weights)
    if isinstance(model, PreTrainedModel):
        config = deepcopy(model.config)
        config.dtype = torch.float32  # what the file holds, not what was computed with
        config.use_cache = True  # may be off for training; what is saved is to write
        config.save_pretrained(folder)


def _merge(folder: str, load_base: Callable[[], PreTrainedModel]) -> None:
    """Merge the adapter in a folder into its base; the model in training would be rounded by it."""
    with zero.loading_unsharded():
        merged = PeftModel.from_pretrained(load_base(), str(Path(folder) / _ADAPTER)).merge_and_unload()
    cast(PreTrainedModel, merged).save_pretrained(folder)


def trainable_parameters(model: nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(zero.size_of(parameter) for parameter in model.parameters() if parameter.requires_grad)
