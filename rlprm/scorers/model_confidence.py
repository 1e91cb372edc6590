"""A baseline that needs a language model and no reward model: the probability of each action under it.

With the clone of the successes among the PRM's own trajectories (``rlprm sft --trajectories ...
--only_successes true``), trained as long as the PRM, this is the baseline that every AgentPRM is
compared with: the same data, outcomes and optimiser steps without a value. Any other policy may be named.

The probability is that of the sampled tokens at temperature 1. Under the policy's own folder it therefore
equals the scorer ``policy_confidence`` if the policy sampled at temperature 1. Tokens that the policy did not
sample, such as a forced closing token, do not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from rlprm.data.confidence import check_per
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ArtifactError, DataError
from rlprm.models.heads import LM
from rlprm.models.heads.lm_head import HEAD, LMHead
from rlprm.models.heads.value_positions import ACTION
from rlprm.models.loading import load_config, load_lm_reward_model, load_tokenizer
from rlprm.scorers._reader import Reading, TrajectoryReader
from rlprm.types import StepScores, Trajectory

__all__ = ["WEIGHTS", "ModelConfidence", "build"]

WEIGHTS = ("model",)


def build(
    name: str, *, model: str, per: str = "action", dtype: str = "auto", token_budget: int = 16_384
) -> ModelConfidence:
    """Build the scorer; see :class:`rlprm.scorers.base.ScorerModule`.

    Args:
        name: shown in tables.
        model: folder or hub id of a policy. Of a reward model with an lm head, the language model is read.
        per: ``action`` or ``token``, see :func:`rlprm.data.confidence.check_per`.
        dtype: of the weights, see :func:`rlprm.models.precision.resolve_dtype`.
        token_budget: padded tokens of one forward.

    Raises:
        ArtifactError: if the model cannot be loaded, or has a scalar head.
        ConfigError: for another ``per``, or a model that changes its logits behind the output layer.
    """
    check_per(per)
    template = ChatRenderer(load_tokenizer(model)).template_hash
    return ModelConfidence(
        name, _load(model, dtype), template, per=per, tokenizer=model, token_budget=token_budget
    )


class ModelConfidence:
    """Score of a step: the probability of its action under a language model, in (0, 1].

    An lm head whose two layers are zero and whose scale is 1 gives ``log p(a | s)``, so that trajectories are
    read, batched and searched as those of a reward model.

    Args:
        name: shown in tables.
        model: with such a head, see :func:`build`.
        template: hash of the model's chat template and tokenizer.
        per: ``action`` or ``token``, see :func:`rlprm.data.confidence.check_per`.
        tokenizer: folder of the model's tokenizer, with which trajectories of other tokenizers are rendered
            again; they are refused if it is None.
        token_budget: padded tokens of one forward.
    """

    def __init__(
        self,
        name: str,
        model: LMHead,
        template: str,
        *,
        per: str = "action",
        tokenizer: str | None = None,
        token_budget: int = 16_384,
    ) -> None:
        self.name = name
        self.per = check_per(per)
        self.model = model
        self._reader = TrajectoryReader(
            name, model, template, value_reads=ACTION, head=LM, tokenizer=tokenizer, token_budget=token_budget
        )

    def searching(self) -> AbstractContextManager[None]:
        """See :class:`rlprm.scorers.base.SearchingScorer`."""
        return self._reader.searching()

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        """Return ``v_t = p(a_t | s_t)``, ``v_0 = 1``; see :class:`rlprm.scorers.base.Scorer`.

        Raises:
            MismatchError: for trajectories of another tokenizer if there is none to render them with.
            DataError: for a trajectory without tokens, or with more than the model takes, or a probability
                that is not finite.
        """
        return [self._probabilities(reading) for reading in self._reader.read(trajectories)]

    def _probabilities(self, reading: Reading) -> StepScores:
        trajectory = reading.trajectory
        counts = [sum(trajectory.action_mask[step.start : step.end + 1]) for step in trajectory.steps]
        values = tuple(
            math.exp(logprob / (count if self.per == "token" else 1)) if count else 1.0
            for logprob, count in zip(reading.logits[1:], counts, strict=True)
        )
        if not all(map(math.isfinite, values)):
            raise DataError(f"{self.name} gave a probability that is not finite: {list(values)}")
        return StepScores(initial=1.0, values=values, tokens=reading.tokens)


def _load(path: str, dtype: str) -> LMHead:
    """Load a language model under an lm head that adds nothing to its log-probabilities."""
    if any(name.endswith("Classification") for name in load_config(path).architectures or ()):
        raise ArtifactError(
            f"{path!r} holds a model with a scalar head (a PRM), which gives actions no probability"
        )
    model = load_lm_reward_model(path, scale=1.0, dtype=dtype)
    for name in HEAD:
        for parameter in model.get_submodule(name).parameters():
            torch.nn.init.zeros_(parameter)
    return model
