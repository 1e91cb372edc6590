"""The positions of a reward model's values in a trajectory's tokens, and the chain that the values form.

One causal forward yields all values of a trajectory. ``value_reads`` chooses their positions:

``action``: the paper's chain ``v_0, v_1, ..., v_T``. ``v_0`` is read at the end of the prompt, ``v_t`` at
    the end of action t. The difference ``v_t - v_{t-1}`` is the action's progress plus whatever the
    observation between the two revealed.
``state_and_action``: the interleaved chain ``x_1, v_1, x_2, v_2, ..., x_T, v_T``. ``x_t = V(s_t)`` is read
    after the observation, where action t begins. All values predict the same outcome, so the same
    labels and losses apply. ``v_t - x_t`` is the action's progress; ``x_{t+1} - v_t`` is the luck of
    the observation.

The difference of two neighbours is a *link* of the chain: T links, or 2 T - 1.

No value is read after the last action, because the environment's closing message gives the
outcome away.

``head`` chooses the tokens that a value depends on (``rlprm.models.heads``):

``scalar``: a state's last token, or an action's last token.
``lm``: a state's last token. An action's value adds the log-probability of the action's sampled
    tokens to the number read at the state before, see ``rlprm.models.heads.lm_head``.
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
    """The tokens that one value is computed from, as indices into a trajectory's tokens."""

    place: int
    """Token whose hidden state is the head's input."""
    start: int
    """First token whose log-probability counts; the token after ``place``."""
    stop: int
    """One past the last token whose log-probability counts; equal to ``start`` if none counts."""
    skip_start: int = 0
    """First token between ``start`` and ``stop`` that does not count: the forced end of a thought."""
    skip_stop: int = 0
    """One past the last token that does not count; equal to ``skip_start`` if all count."""

    @classmethod
    def at(cls, place: int) -> ValuePosition:
        """Return the position of a value to which no log-probability is added."""
        return cls(place, place + 1, place + 1)


def chain_positions(
    trajectory: Trajectory, value_reads: str = ACTION, head: str = SCALAR
) -> tuple[ValuePosition, ...]:
    """Return the positions of a chain's values: T + 1, or 2 T with ``state_and_action``."""
    if not trajectory.steps or (head == SCALAR and value_reads == ACTION):
        return tuple(map(ValuePosition.at, trajectory.value_positions))
    positions: list[ValuePosition] = []
    for t, step in enumerate(trajectory.steps):
        state = ValuePosition.at(step.start - 1)
        if t == 0 or value_reads == STATE_AND_ACTION:
            positions.append(state)
        if head == SCALAR:
            positions.append(ValuePosition.at(step.end))
            continue
        # Forced tokens were not chosen. An action of nothing but a forced closing token keeps it.
        skip = trajectory.forced_end(step)
        positions.append(
            state._replace(
                stop=max(step.start + 1, trajectory.message_end(step)),
                skip_start=skip.start,
                skip_stop=skip.stop,
            )
        )
    return tuple(positions)


def action_values(chain: Sequence[float], value_reads: str = ACTION) -> tuple[float, ...]:
    """Return ``v_1 ... v_T``, given the values of a chain."""
    return tuple(chain[1:] if value_reads == ACTION else chain[1::2])


def links_per_action(value_reads: str = ACTION) -> int:
    """Return how many links of the chain lead from one action's value to the next."""
    return 1 if value_reads == ACTION else 2


def step_scores(chain: Sequence[float], value_reads: str = ACTION, *, tokens: int = 0) -> StepScores:
    """Turn the values of a chain into scores of the steps.

    Args:
        chain: one value for each position of :func:`chain_positions`.
        value_reads: the chain's kind.
        tokens: model tokens that were processed.
    """
    states = tuple(chain[0::2]) if value_reads == STATE_AND_ACTION else ()
    return StepScores(chain[0], action_values(chain, value_reads), tokens, states)


def chain_labels(labels: StepLabels, value_reads: str = ACTION) -> StepLabels:
    """Return a trajectory's labels with one target for each value of a chain.

    The state before action t is the state that action t - 1 led to. With ``state_and_action`` both
    values, ``x_t`` and ``v_{t-1}``, therefore get the same target.

    Raises:
        MismatchError: for targets of progress with ``state_and_action``; they belong to the other chain.
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
