"""Loading models and tokenizers from a folder or the hub; the one place that chooses dtype and device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlprm.errors import ArtifactError, first_line
from rlprm.models.causal import class_by_name, text_part
from rlprm.models.heads import LM
from rlprm.models.heads.lm_head import HEAD, SCALE, LMHead, lm_head_class, scale_of
from rlprm.models.heads.reading import compute_in_float32, read_logits, stack_positions
from rlprm.models.heads.scalar_head import scalar_class
from rlprm.models.heads.value_positions import ValuePosition
from rlprm.models.hub.download import commit_of, model_folder
from rlprm.models.hub.four_bits import options_of_4bit, require_4bit
from rlprm.models.hub.options import options_of_loading
from rlprm.models.hub.weight_files import weight_files, weights_hash
from rlprm.models.positions import positions_of
from rlprm.models.precision import resolve_dtype
from rlprm.models.sampled_tokens import check_logits
from rlprm.models.zero import is_split, with_full_weights, zero_stage

_T = TypeVar("_T")


def default_device() -> torch.device:
    """Return the GPU of this process, or the CPU without a GPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the hub.

    Raises:
        ArtifactError: if it cannot be loaded.
    """

    def load(folder: str) -> Any:
        return AutoTokenizer.from_pretrained(folder, **options_of_loading(weights=False))

    return cast(PreTrainedTokenizerBase, _load(path, "tokenizer", load))


def load_config(path: str, **changes: Any) -> Any:
    """Load the configuration of a model from a folder or the hub.

    Args:
        path: folder or hub id.
        **changes: values that replace the checkpoint's own.

    Raises:
        ArtifactError: if it cannot be loaded.
    """

    def load(folder: str) -> Any:
        return AutoConfig.from_pretrained(folder, **options_of_loading(weights=False), **changes)

    return _load(path, "model", load)


def load_causal_lm(
    path: str, *, dtype: str = "auto", device: torch.device | None = None, four_bits: bool = False
) -> PreTrainedModel:
    """Load a causal language model (a policy).

    Args:
        path: folder or hub id.
        dtype: see :func:`resolve_dtype`.
        device: of the model; :func:`default_device` if None.
        four_bits: keep the weights of linear layers in 4 bits (:mod:`rlprm.models.hub.four_bits`).

    Raises:
        ArtifactError: if it cannot be loaded, is a PRM, or lacks some of its weights.
    """

    def load(folder: str) -> Any:
        loads = AutoModelForCausalLM
        if type(config := load_config(folder)) not in AutoModelForCausalLM._model_mapping:
            loads = class_by_name(config) or loads
        return loads.from_pretrained(
            folder,
            dtype=resolve_dtype(dtype, path),
            output_loading_info=True,
            **options_of_loading(weights=True),
            **quantised,
        )

    quantised = _quantised(dtype, device) if four_bits else {}

    _refuse_other_head(path, labels=None)
    model, report = _load(path, "model", load)
    if any(key.endswith(("score.weight", "classifier.weight")) for key in report["unexpected_keys"]):
        raise ArtifactError(f"{path!r} holds a model with a scalar head (a PRM), not a policy")
    _refuse_missing(path, set(report["missing_keys"]))
    return _placed(model, device, quantised)


def load_scalar_model(
    path: str, *, dtype: str = "auto", device: torch.device | None = None, dropout: float = 0.0,
    four_bits: bool = False,
) -> PreTrainedModel:  # fmt: skip
    """Load a model with a scalar head: a PRM, or a causal model under a new head.

    Args:
        path: folder or hub id. A causal checkpoint keeps its body and gets a scalar head of zeros,
            so that an untrained PRM predicts one value for every position.
        dtype: of the body, see :func:`rlprm.models.precision.resolve_dtype`; the head is always in float32.
        device: of the model; :func:`default_device` if None.
        dropout: before the head. Stock token classification uses 0.1, which would shift regression
            outputs between training and evaluation.
        four_bits: see :func:`load_causal_lm`.

    Raises:
        ArtifactError: if it cannot be loaded, has several labels, or lacks weights of its body.
    """

    def load(folder: str) -> Any:
        config = _one_label(folder, dropout)
        return scalar_class(config).from_pretrained(
            folder,
            config=config,
            **options_of_loading(weights=True),
            dtype=resolve_dtype(dtype, path),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below
            **quantised,
        )

    quantised = _quantised(dtype, device) if four_bits else {}
    _refuse_other_head(path, labels=1)
    model, report = _load(path, "model", load)
    _refuse_other_shapes(path, report)
    # Architectures name their heads differently; every weight outside the body belongs to the head.
    head = {key for key in report["missing_keys"] if not key.startswith(f"{model.base_model_prefix}.")}
    _refuse_missing(path, set(report["missing_keys"]) - head)
    for parameter in map(model.get_parameter, sorted(head)):
        with with_full_weights([parameter], change=True):
            torch.nn.init.zeros_(parameter)
    for name in head_of(model):
        compute_in_float32(model.get_submodule(name))
    placed = _placed(model, device, quantised)
    _refuse_unreadable(model)
    return placed


def load_lm_reward_model(
    path: str, *, scale: float | None = None, dtype: str = "auto", device: torch.device | None = None,
    four_bits: bool = False,
) -> LMHead:  # fmt: skip
    """Load a causal language model as a reward model with an lm head (``rlprm.models.heads.lm_head``).

    Args:
        path: folder or hub id of a policy, whose two new layers start at zero, or of such a reward model.
        scale: τ; the checkpoint's own if None.
        dtype: of the body, see :func:`rlprm.models.precision.resolve_dtype`; the two new layers are always
            in float32.
        device: of the model; :func:`default_device` if None.
        four_bits: see :func:`load_causal_lm`.

    Raises:
        ArtifactError: if it cannot be loaded, lacks weights, or has no τ and ``scale`` is None.
        ConfigError: if the model changes its logits behind the output layer.
    """

    def load(folder: str) -> Any:
        config = _one_label(folder, dropout=0.0)  # read by stock token classification, which loads V
        setattr(config, SCALE, scale_of(config) if scale is None else scale)
        if getattr(config, SCALE) is None:
            raise ValueError(f"it has no lm head (no {SCALE} in its configuration)")
        return lm_head_class(config).from_pretrained(
            folder,
            config=config,
            **options_of_loading(weights=True),
            dtype=resolve_dtype(dtype, path),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below
            **quantised,
        )

    quantised = _quantised(dtype, device) if four_bits else {}
    model, report = _load(path, "reward model", load)
    _refuse_other_shapes(path, report)
    missing = set(report["missing_keys"])
    own = {f"{name}.{part}" for name in HEAD for part in ("weight", "bias")}
    _refuse_missing(path, missing - own)
    for parameter in map(model.get_parameter, sorted(missing & own)):
        with with_full_weights([parameter], change=True):
            torch.nn.init.zeros_(parameter)
    for name in HEAD:
        compute_in_float32(model.get_submodule(name))
    _placed(model, device, quantised)
    if not any(map(is_split, model.parameters())):  # ZeRO-3 runs no forward before training starts
        check_logits(model)
    _refuse_unreadable(model)
    return cast(LMHead, model)


def load_reward_model(path: str, head: str, *, scale: float | None = None, **options: Any) -> PreTrainedModel:
    """Load a reward model, or the weights that its training starts from.

    Args:
        path: folder or hub id.
        head: ``"scalar"`` or ``"lm"``.
        scale: τ of an lm head; the checkpoint's own if None.
        **options: see :func:`load_scalar_model` and :func:`load_lm_reward_model`.
    """
    if head == LM:
        return load_lm_reward_model(path, scale=scale, **options)
    return load_scalar_model(path, **options)


def context_length_of(path: str) -> int:
    """Return the number of tokens that a conversation may have for a model.

    Raises:
        ArtifactError: if its configuration cannot be loaded.
    """
    return positions_of(load_config(path))


def head_of(model: PreTrainedModel) -> list[str]:
    """Return the names of a reward model's modules outside its body; none for a causal model."""
    if isinstance(model, LMHead):
        return sorted(HEAD)
    if model.get_output_embeddings() is not None:
        return []
    body = f"{model.base_model_prefix}."
    return sorted({n.rpartition(".")[0] for n, _ in model.named_parameters() if not n.startswith(body)})


def revision_of(path: str) -> str:
    """Return an identifier of a checkpoint's weights: the hub's commit, or a hash of a folder's files.

    Raises:
        ArtifactError: if the folder has no weights.
    """
    if (commit := commit_of(path)) is not None:
        return commit[:12]
    files = weight_files(model_folder(path))
    if not files:
        raise ArtifactError(f"no weights in {path!r} (expected *.safetensors or pytorch_model*.bin)")
    return weights_hash(files)


def _quantised(dtype: str, device: torch.device | None) -> dict[str, Any]:
    """Return the options that load linear layers in 4 bits.

    Raises:
        ConfigError: if the machine cannot.
    """
    require_4bit()
    return options_of_4bit(resolve_dtype(dtype), device or default_device())


def _placed(
    model: PreTrainedModel, device: torch.device | None, quantised: Mapping[str, Any]
) -> PreTrainedModel:
    """Put a model on its device; one with quantised weights has been loaded there."""
    return model if quantised else cast(PreTrainedModel, model.to(device or default_device()))


def _refuse_other_head(path: str, *, labels: int | None) -> None:
    """Refuse a checkpoint with another head. Only ZeRO-3 needs this check: its loading reports no misfit.

    Args:
        path: folder or hub id.
        labels: outputs per token of the head; None for a causal language model.
    """
    if zero_stage() != 3:
        return
    config = load_config(path)
    if labels is None and scale_of(config) is not None:
        raise ArtifactError(f"{path!r} holds a model with a scalar head (a PRM), not a policy")
    if not any(name.endswith("Classification") for name in config.architectures or ()):
        return
    if labels is None:
        raise ArtifactError(f"{path!r} holds a model with a scalar head (a PRM), not a policy")
    if config.num_labels != labels:
        raise ArtifactError(f"{path!r} does not fit a model with one label: it has {config.num_labels}")


def _one_label(folder: str, dropout: float) -> Any:
    config: Any = text_part(load_config(folder))
    config.num_labels, config.classifier_dropout = 1, dropout
    return config


def _refuse_other_shapes(path: str, report: Mapping[str, Any]) -> None:
    if report["mismatched_keys"]:
        names = ", ".join(sorted(name for name, *_ in report["mismatched_keys"])[:3])
        raise ArtifactError(f"{path!r} does not fit a model with one label: other shapes of {names}")


def _refuse_missing(path: str, missing: set[str]) -> None:
    """Refuse a checkpoint that lacks weights, which the library would fill with random numbers."""
    if missing:
        raise ArtifactError(
            f"{path!r} lacks weights of its model: {', '.join(sorted(missing)[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        )


@torch.no_grad()
def _refuse_unreadable(model: PreTrainedModel) -> None:
    """Refuse an architecture whose hidden states do not fit a head; not under ZeRO-3, see check_logits."""
    if any(map(is_split, model.parameters())):
        return
    try:
        ids_BL = torch.arange(4, device=model.device)[None]
        read_logits(model, ids_BL, stack_positions([[ValuePosition.at(3)]]).to(model.device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        reason = first_line(error)
        family = model.config.model_type
        raise ArtifactError(f"models of type {family} cannot be read with a head here: {reason}") from error


def _load(path: str, what: str, load: Callable[[str], _T]) -> _T:
    folder = str(model_folder(path, what))
    try:
        return load(folder)
    except (OSError, ValueError, SafetensorError) as error:
        reason = first_line(error)
        if "contains custom code" in reason:
            reason = "it has code of its own; read the code in that folder, then set trust_remote_code true"
        if "attn_implementation" in reason:
            reason = f"attn_implementation: the model does not allow this value; {reason}"
        raise ArtifactError(f"cannot load a {what} from {path!r}: {reason}") from error
