"""The weights that are trained: all of them, or LoRA adapters beside a frozen model (arXiv 2106.09685).

Either way the saved folder is one that stock transformers loads. Adapters are merged into the model
when it is saved, and are also saved apart in ``adapter/``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
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
from rlprm.runtime.tuning import ALL_LINEAR, TuningConfig

log = logging.getLogger(__name__)
FULL_PRECISION: dict[str, Any] = {"dtype": "float32", "device": torch.device("cpu")}
"""Options for loading the weights that adapters are merged into: merging in float32 rounds least."""
_MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
_ADAPTER = "adapter"


def without_unused(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's record without tuning settings that have no effect, such as LoRA's without adapters.

    Two runs that differ only in such settings are then the same run.
    """
    without_effect = set()
    if not record["lora_r"]:
        without_effect = {name for name in record if name.startswith("lora_")}
    if record["dtype"] == "auto":  # determined by lora_r and bf16, which are recorded
        without_effect.add("dtype")
    return {name: value for name, value in record.items() if name not in without_effect}


def with_adapters(model: PreTrainedModel, config: TuningConfig, *, seed: int) -> PreTrainedModel | PeftModel:
    """Return the model to train: the model itself, or the frozen model with LoRA adapters.

    New adapters do not change the model's outputs. All weights of a reward model's head are trained: the
    adapter holds a copy of the head, in float32.

    Args:
        model: as loaded.
        config: rank and layers of the adapters; rank 0 for none.
        seed: of the adapters' initial weights.

    Raises:
        ConfigError: if no layer has one of the names in ``lora_target_modules``.
    """
    if not config.lora_r:
        return model
    head = head_of(model)
    targets = config.lora_target_modules
    unfit: list[str] = []
    if targets == [ALL_LINEAR]:
        # Their scan reads this weight itself, past any adapter; PEFT refuses adapters there.
        unfit = ["out_proj"] if model.config.model_type in _MAMBA else []
        unfit += [name for name, part in model.named_modules() if _is_no_product(part)]
    lora = LoraConfig(
        task_type="CAUSAL_LM" if model.get_output_embeddings() is not None else "TOKEN_CLS",
        r=config.lora_r,
        lora_alpha=config.lora_alpha or 2 * config.lora_r,
        lora_dropout=config.lora_dropout,
        target_modules=ALL_LINEAR if targets == [ALL_LINEAR] else targets,
        exclude_modules=sorted([*head, *unfit]) or None,
        modules_to_save=sorted(head) or None,
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # ZeRO-3 has one buffer for all weights: adapters in another dtype than the model's do not fit.
            return get_peft_model(model, lora, autocast_adapter_dtype=not is_deepspeed_zero3_enabled())
    except ValueError as error:
        raise ConfigError(f"lora_target_modules: {str(error).splitlines()[0]}") from error


def _is_no_product(layer: nn.Module) -> bool:
    """Whether a layer that an architecture derives from a linear one returns something else (a router).

    An adapter adds its product to the layer's. Layers of other libraries, such as quantized ones, are theirs.
    """
    own = isinstance(layer, nn.Linear) and type(layer).forward is not nn.Linear.forward
    if not own or not type(layer).__module__.startswith(("transformers.models.", "transformers_modules.")):
        return False
    with zero.with_full_weights(list(layer.parameters()), change=False), torch.no_grad():
        weight = cast(Tensor, layer.weight)
        some_1D = torch.linspace(-1, 1, weight.shape[1], device=weight.device, dtype=weight.dtype)[None]
        try:
            found = layer(some_1D)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return True
        product = nn.functional.linear(some_1D, weight, cast("Tensor | None", layer.bias))
    return (
        not isinstance(found, Tensor)
        or found.shape != product.shape
        or not torch.allclose(found, product, rtol=1e-2, atol=1e-2)
    )


def save_trained(trainer: Trainer, folder: str, load_base: Callable[[], PreTrainedModel]) -> None:
    """Save a trainer's model so that stock transformers loads it; every process must call it.

    Args:
        trainer: after training.
        folder: of the saved model.
        load_base: loads the weights that training started from, with :data:`FULL_PRECISION`.
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
    """Save the float32 master weights, which DeepSpeed keeps in parts beside bfloat16 copies."""
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
    """Save a model so that stock transformers loads it; called by the one process that has the weights.

    Args:
        model: with adapters or without.
        folder: of the saved model.
        weights: of :func:`rlprm.models.zero.full_weights`; with adapters, only the adapters' weights.
        load_base: loads the weights below the adapters, with :data:`FULL_PRECISION`.
    """
    adapters = isinstance(model, PeftModel)
    _save_weights(model, str(Path(folder) / _ADAPTER) if adapters else folder, weights)
    if adapters:
        _merge(folder, load_base)


def _save_weights(model: PreTrainedModel | PeftModel, folder: str, weights: dict[str, Tensor]) -> None:
    model.save_pretrained(folder, state_dict=weights)
    if isinstance(model, PreTrainedModel):
        config = deepcopy(model.config)
        config.dtype = torch.float32  # the dtype of the file; training may have computed in another
        config.use_cache = True  # training may switch the cache off; generation needs it
        config.save_pretrained(folder)


def _merge(folder: str, load_base: Callable[[], PreTrainedModel]) -> None:
    """Merge the adapter in a folder into a float32 base; merging into a bfloat16 model would round more."""
    with zero.loading_unsharded():
        merged = PeftModel.from_pretrained(load_base(), str(Path(folder) / _ADAPTER)).merge_and_unload()
    cast(PreTrainedModel, merged).save_pretrained(folder)


def trainable_parameters(model: nn.Module) -> int:
    """Return the number of parameters that are trained."""
    return sum(zero.size_of(parameter) for parameter in model.parameters() if parameter.requires_grad)
