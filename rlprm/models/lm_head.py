"""A reward model that judges an action as a language model does: by how probable it finds its words.

A scalar head sees an action from its last token. Whether "go to the red box" is what the mission asked for
has to be found out there by comparing words; a language model knows, before every word, which one it expects,
and its output layer does the comparing. This head uses it:

    ``V(s) = score(h_s)``,   ``Q(s, a) = V(s) + offset(h_s) + τ · log p(a | s)``

with ``h_s`` the hidden state of the last token before the action, ``log p(a | s)`` the sum over the action's
sampled tokens, and τ ``likelihood_scale``. Every Q has this form: p is the softmax of Q / τ over actions,
and ``V + offset`` its soft value τ · log Σ exp(Q / τ). That a language model's logits are a Q function is
Rafailov et al.'s observation (arXiv 2404.12358); Yuan et al. (arXiv 2412.01981) read process rewards off
them, relative to a reference model. Here the labels are AgentPRM's, of V and Q, and no reference is needed.

A checkpoint is a causal language model with two linear layers more. Stock ``AutoModelForCausalLM`` loads p
from it, stock ``AutoModelForTokenClassification`` V (of models whose head it calls ``score``, as Qwen2's). V
is trained at every state with ``value_reads: state_and_action`` only; else at the first one, and behind it
the sum ``V + offset`` alone means something.

The likelihood here is the reward model's own (``head: likelihood``); the scorers ``likelihood`` and
``agentprm+likelihood`` are named after the policy's stored confidence (:mod:`rlprm.data.confidence`).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from rlprm.models.sampled_tokens import body_states, read_tokens

__all__ = ["HEAD", "SCALE", "LikelihoodHead", "likelihood_class"]

HEAD = ("score", "offset")
SCALE = "likelihood_scale"
"""Name of τ in a model's configuration."""


class LikelihoodHead(PreTrainedModel):
    """Mixed into the class of a causal language model, see :func:`likelihood_class`."""

    def __init__(self, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        width = config.get_text_config().hidden_size
        self.score = nn.Linear(width, 1)
        self.offset = nn.Linear(width, 1)

    def forward(self, input_ids: Tensor, reads: Tensor, **unused: Any) -> Tensor:
        """Return the values of reads, (B, R), in at least float32.

        Args:
            input_ids: (B, L), padded on the right with anything: causal attention never looks there.
            reads: (B, R, 3): place, start and stop of each ``rlprm.models.value_positions.Read``.
            **unused: what wrappers add for other models.
        """
        return self.read_states(body_states(self, input_ids), input_ids, reads)

    def causal_logits(self, token_ids_BL: Tensor) -> Tensor:
        """Return the language model's own logits (B, L, V)."""
        logits_BLV: Tensor = super().forward(input_ids=token_ids_BL, use_cache=False).logits
        return logits_BLV

    def read_states(self, hidden_BLD: Tensor, token_ids_BL: Tensor, reads_BR3: Tensor) -> Tensor:
        """Return the values of reads (B, R), given the hidden states of all tokens."""
        place_BR, start_BR, stop_BR = reads_BR3.unbind(-1)
        rows_B1 = torch.arange(len(place_BR), device=place_BR.device).unsqueeze(1)
        place_BRD = hidden_BLD[rows_B1, place_BR]
        index_L = torch.arange(token_ids_BL.shape[1], device=place_BR.device)
        counts_BRL = (index_L >= start_BR.unsqueeze(-1)) & (index_L < stop_BR.unsqueeze(-1))
        rows_N, reads_N, tokens_N = counts_BRL.nonzero(as_tuple=True)
        logprobs_N, _ = read_tokens(self, hidden_BLD[rows_N, tokens_N - 1], token_ids_BL[rows_N, tokens_N])
        value_BR = self.score(place_BRD).squeeze(-1).float()
        offset_BR = self.offset(place_BRD).squeeze(-1).float()
        likelihood_BR = torch.zeros_like(value_BR).index_put((rows_N, reads_N), logprobs_N, accumulate=True)
        is_action_BR = stop_BR > start_BR
        action_BR = offset_BR + getattr(self.config, SCALE) * likelihood_BR
        values_BR: Tensor = value_BR + action_BR * is_action_BR
        return values_BR


def likelihood_class(config: PretrainedConfig) -> type[LikelihoodHead]:
    """Return the class of a configuration's causal language model, with this head.

    Raises:
        ValueError: if transformers has no such class.
    """
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"models of type {config.model_type} are no causal language models")
    causal: type[PreTrainedModel] = AutoModelForCausalLM._model_mapping[type(config)]
    return cast(type[LikelihoodHead], type(causal.__name__, (LikelihoodHead, causal), {}))
