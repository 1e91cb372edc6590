"""A reward model that judges an action as a language model does: by how probable it finds its words.

A scalar head sees an action from its last token. Whether "go to the red box" is what the mission asked for
has to be found out there by comparing words; a language model knows, before every word, which one it expects,
and its output layer does the comparing. This head uses it:

    ``V(s) = score(h_s)``,   ``Q(s, a) = V(s) + offset(h_s) + τ · log p(a | s)``

with ``h_s`` the hidden state of the last token before the action, ``log p(a | s)`` the sum over the action's
sampled tokens, and τ ``lm_scale``. Every Q has this form: p is the softmax of Q / τ over actions,
and ``V + offset`` its soft value τ · log Σ exp(Q / τ). That a language model's logits are a Q function is
Rafailov et al.'s observation (arXiv 2404.12358); Yuan et al. (arXiv 2412.01981) read process rewards off
them, relative to a reference model. Here the labels are AgentPRM's, of V and Q, and no reference is needed.

A checkpoint is a causal language model with two linear layers more. Stock ``AutoModelForCausalLM`` loads p
from it, stock ``AutoModelForTokenClassification`` V (of models whose head it calls ``score``, as Qwen2's). V
is trained at every state with ``value_reads: state_and_action`` only; else at the first one, and behind it
the sum ``V + offset`` alone means something.

The likelihood here is the reward model's own (``head: lm``); the scorers ``likelihood`` and
``agentprm_x_policy`` are named after the policy's stored confidence (:mod:`rlprm.data.confidence`).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

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
        width = config.get_text_config().hidden_size
        self.score = nn.Linear(width, 1)
        self.offset = nn.Linear(width, 1)

    def forward(self, input_ids: Tensor, reads: Tensor, **unused: Any) -> Tensor:
        """Return the values of reads, (B, R), in at least float32.

        Args:
            input_ids: (B, L), padded on the right with anything: causal attention never looks there.
            reads: (B, R, 3): place, start and stop of each ``rlprm.models.value_positions.ValuePosition``.
            **unused: what wrappers add for other models.
        """
        return self.read_states(body_states(self, input_ids), input_ids, reads)

    def causal_logits(self, token_ids_BL: Tensor) -> Tensor:
        """Return the language model's own logits (B, L, V)."""
        logits_BLV: Tensor = super().forward(input_ids=token_ids_BL, use_cache=False).logits
        return logits_BLV

    def read_states(self, hidden_BLD: Tensor, token_ids_BL: Tensor, reads_BP3: Tensor) -> Tensor:
        """Return the values of reads (B, R), given the hidden states of all tokens."""
        place_BP, start_BP, stop_BP = reads_BP3.unbind(-1)
        rows_B1 = torch.arange(len(place_BP), device=place_BP.device).unsqueeze(1)
        place_BPD = hidden_BLD[rows_B1, place_BP]
        index_L = torch.arange(token_ids_BL.shape[1], device=place_BP.device)
        counts_BRL = (index_L >= start_BP.unsqueeze(-1)) & (index_L < stop_BP.unsqueeze(-1))
        rows_N, reads_N, tokens_N = counts_BRL.nonzero(as_tuple=True)
        logprobs_N, _ = read_tokens(self, hidden_BLD[rows_N, tokens_N - 1], token_ids_BL[rows_N, tokens_N])
        value_BP = self.score(place_BPD).squeeze(-1).float()
        offset_BP = self.offset(place_BPD).squeeze(-1).float()
        likelihood_BP = torch.zeros_like(value_BP).index_put((rows_N, reads_N), logprobs_N, accumulate=True)
        is_action_BP = stop_BP > start_BP
        action_BP = offset_BP + getattr(self.config, SCALE) * likelihood_BP
        values_BP: Tensor = value_BP + action_BP * is_action_BP
        return values_BP


def scale_of(config: PretrainedConfig) -> float | None:
    """Return τ of a checkpoint, given its configuration; None if the checkpoint has no lm head."""
    scale: float | None = getattr(config, SCALE, getattr(config, _OLD_SCALE, None))
    return scale


def lm_head_class(config: PretrainedConfig) -> type[LMHead]:
    """Return the class of a configuration's causal language model, with this head.

    Raises:
        ValueError: if transformers has no such class.
    """
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"models of type {config.model_type} are no causal language models")
    causal: type[PreTrainedModel] = AutoModelForCausalLM._model_mapping[type(config)]
    return cast(type[LMHead], type(causal.__name__, (LMHead, causal), {}))
