"""The lm head: a language model as a reward model that values an action by the action's probability.

A scalar head reads an action at its last token, and has to learn there, from outcomes, how to compare the
action's words with the mission's. A language model predicts every word before it is written; its
output layer already makes the comparison. The lm head uses that output layer:

    ``V(s) = score(h_s)``,   ``Q(s, a) = V(s) + offset(h_s) + τ · log p(a | s)``

``h_s`` is the hidden state of the last token before the action, ``log p(a | s)`` the sum over the action's
sampled tokens, and τ ``lm_scale``. Every Q has this form: p is the softmax of Q / τ over actions,
and ``V + offset`` is the soft value τ · log Σ exp(Q / τ). That a language model's logits are a Q function is
Rafailov et al.'s observation (arXiv 2404.12358). Yuan et al. (arXiv 2412.01981) derive process rewards from
logits, relative to a reference model. Here the labels are AgentPRM's targets of V and Q, and no reference
is needed.

A checkpoint is a causal language model with two more linear layers. Stock ``AutoModelForCausalLM`` loads p
from the checkpoint. Stock ``AutoModelForTokenClassification`` loads V, if it calls the model's head ``score``
as for Qwen2. With ``value_reads: state_and_action`` V is trained at every state. With ``action`` V is trained
at the first state only; at later states only the sum ``V + offset`` is trained.

p is the reward model's own. The scorers ``policy_confidence`` and ``agentprm_x_policy`` use
another probability, which the policy stored while sampling (:mod:`rlprm.data.confidence`).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from rlprm.models.causal import causal_class, width_of
from rlprm.models.sampled_tokens import body_states, read_tokens

__all__ = ["HEAD", "SCALE", "LMHead", "lm_head_class", "scale_of"]

HEAD = ("score", "offset")
SCALE = "lm_scale"
"""Name of τ in a model's configuration."""
_OLD_SCALE = "likelihood_scale"
"""Its name in checkpoints of rlprm 0.1."""


class LMHead(PreTrainedModel):
    """Mixed into the class of a causal language model, see :func:`lm_head_class`."""

    def __init__(self, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        width = width_of(self)
        self.score = nn.Linear(width, 1)
        self.offset = nn.Linear(width, 1)

    def forward(self, input_ids: Tensor, positions: Tensor, **unused: Any) -> Tensor:
        """Return the values (B, P) at P positions of each row, in at least float32.

        Args:
            input_ids: (B, L), padded on the right with any token.
            positions: (B, P, 5), each a ``rlprm.models.heads.value_positions.ValuePosition``.
            **unused: arguments that wrappers add for other models.
        """
        return self.values_at(body_states(self, input_ids), input_ids, positions)

    def causal_logits(self, token_ids_BL: Tensor) -> Tensor:
        """Return the language model's own logits (B, L, V)."""
        logits_BLV: Tensor = super().forward(input_ids=token_ids_BL, use_cache=False).logits
        return logits_BLV

    def values_at(self, hidden_BLD: Tensor, token_ids_BL: Tensor, positions_BP5: Tensor) -> Tensor:
        """Return the values (B, P) at the positions, given the last hidden states of all tokens."""
        place_BP, start_BP, stop_BP, skip_start_BP, skip_stop_BP = positions_BP5.unbind(-1)
        rows_B1 = torch.arange(len(place_BP), device=place_BP.device).unsqueeze(1)
        place_BPD = hidden_BLD[rows_B1, place_BP]
        index_L = torch.arange(token_ids_BL.shape[1], device=place_BP.device)
        counts_BPL = _within(index_L, start_BP, stop_BP) & ~_within(index_L, skip_start_BP, skip_stop_BP)
        rows_N, positions_N, tokens_N = counts_BPL.nonzero(as_tuple=True)
        logprobs_N, _ = read_tokens(self, hidden_BLD[rows_N, tokens_N - 1], token_ids_BL[rows_N, tokens_N])
        value_BP = self.score(place_BPD).squeeze(-1).float()
        offset_BP = self.offset(place_BPD).squeeze(-1).float()
        logprob_BP = torch.zeros_like(value_BP).index_put((rows_N, positions_N), logprobs_N, accumulate=True)
        is_action_BP = stop_BP > start_BP
        action_BP = offset_BP + getattr(self.config, SCALE) * logprob_BP
        values_BP: Tensor = value_BP + action_BP * is_action_BP
        return values_BP


def _within(index_L: Tensor, start_BP: Tensor, stop_BP: Tensor) -> Tensor:
    """Return (B, P, L), boolean: the indices from start to before stop."""
    return (index_L >= start_BP.unsqueeze(-1)) & (index_L < stop_BP.unsqueeze(-1))


def scale_of(config: PretrainedConfig) -> float | None:
    """Return τ of a checkpoint, given its configuration; None if the checkpoint has no lm head."""
    scale: float | None = getattr(config, SCALE, getattr(config, _OLD_SCALE, None))
    return scale


def lm_head_class(config: PretrainedConfig) -> type[LMHead]:
    """Return the class of a configuration's causal language model, with this head.

    Raises:
        ValueError: if transformers has no such class.
    """
    causal = causal_class(config)
    # A class of another module counts as custom code, whose weights transformers does not rename.
    own = {"__module__": causal.__module__}
    return cast(type[LMHead], type(causal.__name__, (LMHead, causal), own))
