"""Policy, critic and reference as one module with one forward, read only at sampled tokens.

One module, so that one engine shards all of it, and one forward, so that a trajectory goes through
each body once. Logits are computed only at sampled tokens: with a vocabulary of 150,000 and
long observations, all others would be most of the memory.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlprm.errors import ConfigError
from rlprm.models.heads.reading import compute_in_float32
from rlprm.models.sampled_tokens import body_states, read_tokens

__all__ = ["ActorCritic", "Reading", "without_dropout"]


class Reading(NamedTuple):
    """The outputs of one forward pass at N sampled tokens, in at least float32."""

    logprobs: Tensor
    """(N,): log π of each token, at the sampling temperature."""
    entropy: Tensor
    """(N,): entropy of the distribution it was drawn from, in nats; zeros unless requested."""
    values: Tensor
    """(N,): the critic's value at the position that predicts the token; zeros without a critic."""
    ref_logprobs: Tensor
    """(N,): log π_ref of each token; zeros unless requested."""


class ActorCritic(nn.Module):
    """A policy, with the critic and the reference beside it.

    Args:
        policy: causal language model, with LoRA adapters or without.
        critic: a scalar model of its own, ``"shared"`` for a linear head on the policy's body, or None.
            The head starts at zero.
        reference: a frozen copy of the policy before RL. A policy with adapters needs none: without
            them it is the reference.
        temperature: of the sampling distribution, above 0.
    """

    def __init__(
        self,
        policy: PreTrainedModel | PeftModel,
        *,
        critic: PreTrainedModel | PeftModel | str | None = None,
        reference: PreTrainedModel | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.policy, self.temperature = policy, temperature
        self.critic = critic if isinstance(critic, nn.Module) else None
        self.value_head: nn.Linear | None = None
        if critic == "shared":
            self.value_head = nn.Linear(policy.config.hidden_size, 1, device=policy.device)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
            compute_in_float32(self.value_head)
        self.reference = reference
        if reference is not None:
            reference.requires_grad_(False)

    @property
    def has_critic(self) -> bool:
        """Whether values are predicted."""
        return self.critic is not None or self.value_head is not None

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether the backward pass computes activations again."""
        # Versions that have a new name for it warn of the old one.
        new, old = "is_activation_checkpointing", "is_gradient_checkpointing"
        return bool(getattr(self.policy, new if hasattr(self.policy, new) else old))

    def critic_parameters(self) -> list[nn.Parameter]:
        """Trained parameters of the critic."""
        parts = [part for part in (self.critic, self.value_head) if part is not None]
        return [p for part in parts for p in part.parameters() if p.requires_grad]

    def policy_parameters(self) -> list[nn.Parameter]:
        """Trained parameters of the policy."""
        return [p for p in self.policy.parameters() if p.requires_grad]

    def forward(
        self,
        token_ids_BL: Tensor,
        rows_N: Tensor,
        positions_N: Tensor,
        *,
        with_policy: bool = True,
        with_entropy: bool = False,
        with_reference: bool = False,
    ) -> Reading:
        """Read N sampled tokens of a batch.

        Args:
            token_ids_BL: padded on the right with anything; causal attention never looks there.
            rows_N: the row of each sampled token.
            positions_N: its position, at least 1. It is read one position earlier, which predicts it.
            with_policy: False reads a critic of its own only; log-probabilities are then 0.
            with_entropy: whether to compute the entropy.
            with_reference: whether to compute the reference's log-probabilities.
        """
        ids_N, before_N = token_ids_BL[rows_N, positions_N], positions_N - 1
        zeros_N = torch.zeros(len(rows_N), device=token_ids_BL.device)
        logprobs_N, entropy_N, values_N, ref_logprobs_N = zeros_N, zeros_N, zeros_N, zeros_N
        if with_policy:
            hidden_ND = body_states(self.policy, token_ids_BL)[rows_N, before_N]
            logprobs_N, entropy_N = read_tokens(
                self.policy, hidden_ND, ids_N, temperature=self.temperature, with_entropy=with_entropy
            )
        if self.critic is not None:
            output = self.critic(input_ids=token_ids_BL, use_cache=False).logits.squeeze(-1)
            values_N = output[rows_N, before_N].float()
        elif self.value_head is not None and with_policy:
            values_N = self.value_head(hidden_ND).squeeze(-1).float()
        if with_reference:
            ref_logprobs_N = self._reference_logprobs(token_ids_BL, rows_N, before_N, ids_N)
        return Reading(logprobs_N, entropy_N, values_N, ref_logprobs_N)

    @torch.no_grad()
    def _reference_logprobs(
        self, token_ids_BL: Tensor, rows_N: Tensor, before_N: Tensor, ids_N: Tensor
    ) -> Tensor:
        model = self.policy if self.reference is None else self.reference
        if self.reference is None and not isinstance(model, PeftModel):
            raise ConfigError("a policy without adapters needs a frozen copy as its reference")
        without_adapters = model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()
        with without_adapters:
            hidden_ND = body_states(model, token_ids_BL)[rows_N, before_N]
            return read_tokens(model, hidden_ND, ids_N, temperature=self.temperature)[0]


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off for good: the policy must learn with the probabilities that it acts with."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():  # of modules that call the function themselves
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
