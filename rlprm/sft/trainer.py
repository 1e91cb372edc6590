"""Supervised fine-tuning whose logits are computed at learned tokens only.

Most tokens of an agent's conversation are observations, which are not learned. Away from GPUs, TRL projects
every token onto the vocabulary, which is a large part of the work of a small model. The loss is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from trl import SFTTrainer

from rlprm.functional.logprobs import entropy, token_logprobs
from rlprm.models.causal import body_of
from rlprm.models.own_logits import find_own_logits, own_logits
from rlprm.models.sampled_tokens import in_parts
from rlprm.models.unwrap import unwrapped
from rlprm.models.zero import is_split

__all__ = ["IGNORED", "LearnedTokensTrainer", "learned_tokens"]

IGNORED = -100
"""Label of a token that is not learned."""


class LearnedTokensTrainer(SFTTrainer):
    """TRL's trainer with the mean negative log-likelihood of learned tokens as its loss.

    What goes beyond this loss (label smoothing, other losses, the balancing loss of experts, batches that are
    split along the sequence) is left to TRL.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reads_learned = _is_plain_likelihood(self)
        self._sums: Tensor | None = None  # learned tokens, most probable ones among them, entropy
        if self._reads_learned:
            causal = unwrapped(self.model)
            if not any(map(is_split, causal.parameters())):  # ZeRO-3 runs no forward before training starts
                find_own_logits(causal)
            _add_reading(causal)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the sum of negative log-likelihoods over the learned tokens of a whole update.

        Args:
            model: with its engine.
            inputs: of the collator, with labels.
            return_outputs: whether the log-probabilities are returned, too.
            num_items_in_batch: learned tokens of the update, of all processes; those of ``inputs`` if None.
        """
        if not self._reads_learned:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        logprobs_N, entropies_N, is_first_N = model(**inputs, read_learned=True)
        count = len(logprobs_N) if num_items_in_batch is None else num_items_in_batch
        loss = -logprobs_N.sum() / max(int(count), 1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages, the number is of all
        if model.training:
            tokens = torch.full_like(entropies_N, 1.0)
            sums = torch.stack([tokens.sum(), is_first_N.sum(), entropies_N.sum()])
            self._sums = sums if self._sums is None else self._sums + sums
        return (loss, {"logprobs": logprobs_N}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the share of learned tokens that were most probable, and the mean entropy at learned tokens."""
        if "loss" in logs and self._sums is not None:
            tokens, *sums = self.accelerator.reduce(self._sums, reduction="sum").tolist()
            first, entropy_of_all = (total / max(tokens, 1) for total in sums)
            logs = {**logs, "mean_token_accuracy": first, "entropy": entropy_of_all}
            self._sums = None
        super().log(logs, start_time)


def learned_tokens(causal: Any, labels: Tensor, **inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Read the learned tokens of a batch.

    Args:
        causal: language model, adapters inside, without engine.
        labels: (B, L), :data:`IGNORED` where a token is not learned.
        **inputs: of the body.

    Returns:
        Three values of each of N learned tokens, row by row, each (N,) and in at least float32. The first is
        the log-probability. The others have no gradient: the entropy of the distribution, and 1 if the token
        is its most probable one. The first token of a row is predicted by nothing and left out.
    """
    hidden_BLD = body_of(causal)(**{**inputs, "use_cache": False}).last_hidden_state
    is_learned_BL = labels[:, 1:] != IGNORED

    def read(part_ND: Tensor, ids_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits_NV = own_logits(causal, part_ND)
        logprobs_N = token_logprobs(logits_NV, ids_N)
        with torch.no_grad():
            is_first_N = (logits_NV.argmax(dim=-1) == ids_N).to(logprobs_N.dtype)
            return logprobs_N, entropy(logits_NV.detach()), is_first_N

    logprobs_N, entropies_N, is_first_N = in_parts(
        read, causal, hidden_BLD[:, :-1][is_learned_BL], labels[:, 1:][is_learned_BL]
    )
    return logprobs_N, entropies_N.detach(), is_first_N.detach()


def _is_plain_likelihood(trainer: SFTTrainer) -> bool:
    parallel = trainer.accelerator.parallelism_config
    return (
        trainer.args.loss_type in ("nll", "chunked_nll")
        and trainer.compute_loss_func is None
        and trainer.label_smoother is None
        and not trainer.aux_loss_enabled
        and not (parallel is not None and (parallel.sp_enabled or parallel.cp_enabled or parallel.tp_enabled))
    )


def _add_reading(causal: nn.Module) -> None:
    """Let a model's own forward read learned tokens, since engines allow no other way into the model."""
    plain = causal.forward

    def forward(self: nn.Module, *args: Any, read_learned: bool = False, **kwargs: Any) -> Any:
        return learned_tokens(self, **kwargs) if read_learned else plain(*args, **kwargs)

    causal.forward = MethodType(forward, causal)
