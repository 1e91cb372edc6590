"""Where a reward model is read along a trajectory, and what the numbers read there stand for.

Two ways to read one causal forward (``value_reads``):

``action``: the paper's chain ``v_0, v_1, ..., v_T``, read at the end of the prompt and of
    every action. Progress ``v_t - v_{t-1}`` then also holds what the observation between
    the two revealed.
``state_and_action``: the interleaved chain ``x_1, v_1, x_2, v_2, ..., x_T, v_T`` with
    ``x_t = V(s_t)`` read where action t is about to begin, after the observation. It is
    one sequence of predictions of the same outcome, so the same labels and losses apply to it;
    progress ``v_t - x_t`` is the action's own, ``x_{t+1} - v_t`` the observation's luck.

In both, nothing is read after the last action: what the environment answers
to it gives the outcome away.

Two kinds of head (``head``):

``scalar``: a state's value is read at its last token, an action's at the action's last token.
``likelihood``: an action's value is what the state's last token says, and how probable the model finds
    the action's tokens: see ``rlprm.models.lm_head``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rlprm.errors import MismatchError
from rlprm.models.heads import SCALAR
from rlprm.types import StepLabels, StepScores, Trajectory

__all__ = [
    "ACTION",
    "STATE_AND_ACTION",
    "VALUE_READS",
    "ValuePosition",
    "action_values",
    "chain_labels",
    "chain_positions",
    "links_per_action",
    "step_scores",
]

ACTION = "action"
STATE_AND_ACTION = "state_and_action"
VALUE_READS = (ACTION, STATE_AND_ACTION)


class ValuePosition(NamedTuple):
    """Where one value comes from, as indices into a trajectory's tokens."""

    place: int
    """Token whose hidden state the head is given."""
    start: int
    """First of the tokens whose log-probability counts: the first behind ``place``."""
    stop: int
    """Behind the last of them; ``start`` where none counts."""

    @classmethod
    def at(cls, place: int) -> ValuePosition:
        """Read the head alone."""
        return cls(place, place + 1, place + 1)


def chain_positions(
    trajectory: Trajectory, value_reads: str = ACTION, head: str = SCALAR
) -> tuple[ValuePosition, ...]:
    """Return where the values of the chain come from: T + 1 reads, or 2 T where states are read too."""
    if not trajectory.steps or (head == SCALAR and value_reads == ACTION):
        return tuple(map(ValuePosition.at, trajectory.value_positions))
    reads: list[ValuePosition] = []
    for t, step in enumerate(trajectory.steps):
        state = ValuePosition.at(step.start - 1)
        if t == 0 or value_reads == STATE_AND_ACTION:
            reads.append(state)
        # A closing token that was forced says nothing of the choice; it stands last. Alone it has to do.
        sampled = max(1, sum(trajectory.action_mask[step.start : step.end + 1]))
        reads.append(
            ValuePosition.at(step.end) if head == SCALAR else state._replace(stop=step.start + sampled)
        )
    return tuple(reads)


def action_values(chain: Sequence[float], value_reads: str = ACTION) -> tuple[float, ...]:
    """Pick ``v_1 ... v_T`` out of what was read along a chain."""
    return tuple(chain[1:] if value_reads == ACTION else chain[1::2])


def links_per_action(value_reads: str = ACTION) -> int:
    """Return how many links of the chain lead from one action's value to the next."""
    return 1 if value_reads == ACTION else 2


def step_scores(chain: Sequence[float], value_reads: str = ACTION, *, tokens: int = 0) -> StepScores:
    """Turn what was read along a chain into scores of the steps.

    Args:
        chain: one value per read of :func:`chain_positions`.
        value_reads: how it was read.
        tokens: model tokens it took.
    """
    states = tuple(chain[0::2]) if value_reads == STATE_AND_ACTION else ()
    return StepScores(chain[0], action_values(chain, value_reads), tokens, states)


def chain_labels(labels: StepLabels, value_reads: str = ACTION) -> StepLabels:
    """Lay a trajectory's labels out along a chain of reads.

    The state before action t is the one that action t - 1 led to: where states are
    read too, both reads have the same target.

    Raises:
        MismatchError: for targets of progress where states are read too: they are those of another chain.
    """
    if value_reads == ACTION:
        return labels
    if labels.progress:
        raise MismatchError(f"stored targets of progress belong to value_reads: action, not to {value_reads}")
    pairs = [slice(t, t + 2) for t in range(len(labels.promise) - 1)]
    return StepLabels(
        promise=tuple(target for pair in pairs for target in labels.promise[pair]),
        progress=(),
        weight=tuple(weight for pair in pairs for weight in labels.weight[pair]),
    )
