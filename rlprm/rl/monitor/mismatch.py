"""The sampler's log-probabilities against the trainer's: a hard stop if both cannot be of one policy."""

from __future__ import annotations

from rlprm.errors import TrainingError
from rlprm.rl.batch import Batch
from rlprm.rl.credit import OldLogprobs

__all__ = ["MEAN_OF_FLOAT32", "MEAN_OF_HALF", "refuse_mismatch", "sampler_mismatch"]

MEAN_OF_FLOAT32 = 1e-3
"""Nats; where sampler and trainer compute in float32."""
MEAN_OF_HALF = 0.15
"""Nats; where one of them computes in less. SmolLM2-135M in bfloat16 has 0.01 on its own texts, and 0.05 if
it knows nothing of the task."""


def sampler_mismatch(batch: Batch, old: OldLogprobs) -> float:
    """Return the mean difference of the log-probabilities of sampler and trainer, in nats a sampled token.

    Only the rows count whose policy the trainer has read.
    """
    rows = slice(None) if old.read_rows is None else list(old.read_rows)
    difference_BL = (old.logprobs_BL - batch.sampler_logprobs_BL)[rows]
    return float(difference_BL[batch.layout.sampled[rows]].abs().mean())


def refuse_mismatch(
    mismatch: float, *, limit: float | None, half: bool, temperature: float, iteration: int
) -> None:
    """Refuse to learn from episodes of another policy than the one that is trained.

    Args:
        mismatch: of :func:`sampler_mismatch`. A number that is not finite is refused, too.
        limit: the largest that is allowed; by precision if None. A temperature below 1 divides the logits
            and their rounding alike, and the limit by precision with them.
        half: whether sampler or trainer computes in less than float32.
        temperature: of the sampling distribution.
        iteration: of the run.

    Raises:
        TrainingError: naming both numbers and the likely causes.
    """
    allowed = limit
    if allowed is None:
        allowed = (MEAN_OF_HALF if half else MEAN_OF_FLOAT32) / min(1.0, temperature)
    if mismatch <= allowed:
        return
    raise TrainingError(
        f"iteration {iteration}: the sampler's log-probabilities differ from the trainer's by {mismatch:.2g} "
        f"nats a token (mean), allowed: {allowed:.2g} (max_sampler_mismatch); likely causes: the sampler has "
        "other weights than the trainer, another temperature, another tokenizer or a lower precision"
    )
