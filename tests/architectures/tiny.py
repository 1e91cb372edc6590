"""Tiny random models of every architecture that can write text, found in transformers, not listed here.

A configuration is the architecture's default with small numbers in the places of the large ones. Where an
architecture demands numbers that fit one another, ``FITTING`` has them.

The heads of an indexer keep their number. With few heads many of an indexer's scores would be exactly 0, and
which of them are chosen would depend on the shape of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

LARGEST = 12_000_000
"""Parameters; a model with more is not tiny, so the architecture has no tiny configuration."""
WINDOW = 16
_SMALL: Mapping[str, int] = {
    name: size
    for size, names in (
        (
            64,
            "hidden_size n_embd d_model dim word_embed_proj_dim rnn_hidden_size hidden_dim "
            "emb_dim embedding_size lru_width attention_hidden_size intermediate_size ffn_dim "
            "decoder_ffn_dim encoder_ffn_dim d_ff dff dim_ff ffn_hidden_size "
            "hidden_size_global",
        ),
        (
            4,
            "num_hidden_layers n_layer n_layers num_layers decoder_layers num_attention_heads "
            "n_head n_heads num_heads decoder_attention_heads encoder_attention_heads num_experts "
            "num_local_experts n_routed_experts linear_num_value_heads linear_num_heads num_image_tokens "
            "num_decoder_layers num_decoder_attention_heads",
        ),
        (1, "encoder_layers topk_group first_k_dense_replace"),
        (
            2,
            "num_key_value_heads num_experts_per_tok num_experts_per_token linear_num_key_heads n_group "
            "num_expert_group moe_topk zero_expert_num",
        ),
        (
            16,
            "head_dim d_kv kv_lora_rank q_lora_rank v_head_dim linear_key_head_dim linear_head_dim "
            "linear_value_head_dim hidden_size_per_layer_input mamba_d_head mamba_head_dim "
            "mamba_chunk_size chunk_size index_head_dim o_lora_rank hc_lowrank",
        ),
        (
            32,
            "moe_intermediate_size shared_expert_intermediate_size "
            "moe_shared_expert_intermediate_size expert_ffn_hidden_size image_size",
        ),
        (WINDOW, "sliding_window attention_window_size attention_chunk_size"),
        (512, "max_position_embeddings n_positions n_ctx"),
        (
            8,
            "state_size qk_rope_head_dim qk_nope_head_dim patch_size index_topk mamba_d_state "
            "mamba_n_heads mamba_num_heads",
        ),
        (300, "vocab_size_per_layer_input"),
    )
    for name in names.split()
}
"""Numbers of a tiny configuration, by the names that architectures give them."""
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
FITTING: Mapping[str, Mapping[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}, "logit_scale": 0.25},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
             "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2}},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gptj": {"rotary_dim": 8},
    "dots1": {"first_k_dense_replace": 1, "n_routed_experts": 4, "num_experts_per_tok": 2,
              "n_shared_experts": 1, "max_window_layers": 2},
    "dots3_note_audio_encoder": {"adapter_input_size": 64, "adapter_out_dim": 64,
                                 "downsample_hidden_size": 16},
    "dots3_note_text": {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 16,
                        "swa_kv_lora_rank": 16, "swa_head_dim": 16, "swa_qk_nope_head_dim": 8,
                        "swa_v_head_dim": 16, "sliding_window": WINDOW, "num_key_value_heads": 4,
                        "layer_types": ["indexed_attention", "sliding_attention"] * 2},
    "dots3_note_vision_encoder": {"mlp_layer_types": ["dense"] * 4, "adapter_in_dim": 64,
                                  "adapter_out_dim": 64},
    "gemma3n_text": {"intermediate_size": 64, "num_kv_shared_layers": 2,
                     "layer_types": ["sliding_attention", "full_attention"] * 2},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "gemma4_text": {"global_head_dim": 32},
    "gemma4_unified_text": {"global_head_dim": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "ministral": {"head_dim": 16},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "mamba2": {"head_dim": 16, "num_heads": 8},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16,
                       "indexer_budget": 8, "indexer_compress_ratio": 4},
    "reformer": {"is_decoder": True, "attn_layers": ["local", "local"], "attention_head_size": 16,
                 "axial_pos_shape": [16, 32], "axial_pos_embds_dim": [32, 32], "hidden_size": 64},
    "bailing_hybrid": {"layer_group_size": 2},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "roc_bert": {"shape_vocab_size": 64, "shape_embed_dim": 16, "pronunciation_embed_dim": 16},
    "xlm": {"causal": True},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "attention_hidden_size": 128},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "attention_hidden_size": 128},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip


def discovered() -> list[str]:
    """Return the model types of all architectures that transformers can generate text with."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str, vocab_size: int) -> PretrainedConfig:
    """Return the small configuration of an architecture."""
    return _tiny(CONFIG_MAPPING[model_type], {**_SMALL, **_TOKENS, "vocab_size": vocab_size})


def _tiny(kind: type[PretrainedConfig], small: Mapping[str, int]) -> PretrainedConfig:
    default = kind()
    numbers = default.to_dict()
    parts = {
        name: _tiny(type(part), small)
        for name, part in vars(default).items()
        if isinstance(part, PretrainedConfig) and type(part) is not PretrainedConfig
    }
    fitting = FITTING.get(kind.model_type, {})
    return kind(**{**_changes(numbers, small), **_of_decoder(numbers), **parts, **fitting})


def tiny_model(model_type: str, vocab_size: int, *, seed: int = 0) -> PreTrainedModel:
    """Return a random model of an architecture, in float32 and evaluation mode.

    Raises:
        ValueError: if the small configuration has too many parameters.
    """
    config = tiny_config(model_type, vocab_size)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if parameters > LARGEST:
        raise ValueError(f"{parameters / 1e6:.0f} million parameters in the smallest configuration")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        _spread(model)
    return model


def _spread(model: PreTrainedModel) -> None:
    """Give weights a standard deviation of 1.2/√width, as trained ones may have.

    With 0.02, the usual start, a tiny model's attention is even and its probabilities are equal. Mistakes
    would then change nothing.
    """
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D) and weight is not None and weight.dim() == 2:
            nn.init.normal_(weight, std=1.2 * 64**-0.5)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 3 and ("expert" in name or "proj" in name):
            nn.init.normal_(parameter, std=1.2 * 64**-0.5)


def _of_decoder(default: Mapping[str, Any]) -> dict[str, Any]:
    """Make a decoder of what may be an encoder; give multi-latent attention as many keys as heads."""
    changes: dict[str, Any] = {"is_decoder": True} if "is_decoder" in default else {}
    if "kv_lora_rank" in default and "num_key_value_heads" in default:
        changes["num_key_value_heads"] = _SMALL["num_attention_heads"]
    if "qk_rope_head_dim" in default and "head_dim" in default:
        changes["head_dim"] = _SMALL["qk_rope_head_dim"]
    return changes


def _changes(default: Mapping[str, Any], small: Mapping[str, int]) -> dict[str, Any]:
    return {
        name: small[name]
        for name, value in default.items()
        if name in small and isinstance(value, int) and not isinstance(value, bool)
    }
