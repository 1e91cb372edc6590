"""The models of a run of agent RL: policy, critic, reference, and the PRM."""

from __future__ import annotations

import logging
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from rlprm.data.rendering import ChatRenderer
from rlprm.errors import MismatchError
from rlprm.models import zero
from rlprm.models.heads import SCALAR
from rlprm.models.heads.value_positions import STATE_AND_ACTION
from rlprm.models.loading import head_of, load_causal_lm, load_scalar_model, load_tokenizer
from rlprm.models.lora import with_adapters
from rlprm.models.manifest import Manifest
from rlprm.rl import rewards
from rlprm.rl.actor_critic import ActorCritic, without_dropout
from rlprm.rl.config import RLConfig
from rlprm.runtime.provenance import episode_settings, warn_of_differences
from rlprm.scorers.checkpoint import CheckpointScorer

__all__ = ["load_model", "load_scorer"]

log = logging.getLogger(__name__)


def load_model(config: RLConfig, *, on: torch.device, bf16: bool) -> ActorCritic:
    """Load policy, critic and reference of a run.

    A separate critic starts from the PRM, whose body is trained on the same outcomes. The critic's head is
    the PRM's head times ``rewards.critic_factor``, or zero if the reward has no such factor.

    Raises:
        ArtifactError: if one is missing.
        MismatchError: if the critic's weights are of another vocabulary.
    """
    dtype = config.weights_dtype(bf16=bf16)
    policy = with_adapters(
        load_causal_lm(config.model, dtype=dtype, device=on, four_bits=config.load_in_4bit),
        config, seed=config.seed,
    )  # fmt: skip
    reference = None
    if config.kl_coef > 0 and not config.lora_r:
        reference = load_causal_lm(config.model, dtype=dtype, device=on)
    critic: PreTrainedModel | PeftModel | str | None = None
    if config.trains_critic:
        critic = "shared" if config.critic == "shared" else _load_critic(config, on, dtype)
    model = ActorCritic(policy, critic=critic, reference=reference, temperature=config.temperature)
    without_dropout(model)
    if config.gradient_checkpointing:
        for part in filter(None, (policy, critic)):
            if isinstance(part, nn.Module):
                _checkpoint_activations(part)
    return model


def _checkpoint_activations(model: Any) -> None:
    # Newer versions warn about the old name, which is the only one that all versions have.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    model.enable_input_require_grads()


def _critic_weights(config: RLConfig) -> str:
    """Return the weights that a separate critic starts from: ``critic_model``, else the PRM, else the policy.

    Raises:
        MismatchError: if ``critic_model`` has another vocabulary.
    """
    own = config.load_tokenizer(config.model)
    if config.critic_model:
        if load_tokenizer(config.critic_model).get_vocab() != own.get_vocab():
            raise MismatchError(
                f"critic_model: {config.critic_model!r} reads other tokens than the policy has"
            )
        return config.critic_model
    if config.prm and Manifest.load(config.prm).template != ChatRenderer(own).template_hash:
        log.warning("the PRM reads other tokens than the policy has: the critic starts from the policy")
        return config.model
    return config.prm or config.model


def _load_critic(config: RLConfig, on: torch.device, dtype: str) -> PreTrainedModel | PeftModel:
    path = _critic_weights(config)
    critic = load_scalar_model(path, dtype=dtype, device=on, four_bits=config.load_in_4bit)
    factor = rewards.critic_factor(config.reward, config.reward_kwargs)
    if path != config.prm or factor is None or not _has_values_of_states(Manifest.load(path)):
        factor = 0.0
    head = [p for name in head_of(critic) for p in critic.get_submodule(name).parameters()]
    with torch.no_grad(), zero.with_full_weights(head, change=True):
        for parameter in head:
            parameter.mul_(factor)
    return with_adapters(critic, config, seed=config.seed + 1)


def _has_values_of_states(prm: Manifest) -> bool:
    """Whether the scalar head by itself gives values at the positions where a critic is read."""
    learned = prm.head == SCALAR or prm.value_reads == STATE_AND_ACTION
    return learned and prm.activation == "identity"


def load_scorer(path: str, config: RLConfig) -> CheckpointScorer:
    """Load the PRM and hold its manifest against the setting it is to be used in.

    Raises:
        ArtifactError: if it is missing.
        MismatchError: if it was trained with another ``end``, prompt, action format or outcome.
    """
    with zero.loading_unsharded():
        scorer = CheckpointScorer.load("prm", path)
    scorer.manifest.require(
        end=config.end, prompt=config.prompt, action_format=config.action_format, outcome=config.outcome
    )
    warn_of_differences(f"the PRM {path}", episode_settings(scorer.manifest), episode_settings(config))
    return scorer
