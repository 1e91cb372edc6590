"""What went wrong in the messages of an agent, worked out from stored trajectories.

An invalid action (``Step.valid`` is false) is of one kind, the first that holds:

    several_actions   the answer is that of a format to several actions (``TWO_ACTIONS``)
    cut               the message was cut at ``max_new_tokens``
    no_action         the format read no action
    refused           the environment could not carry the action out

Two counts do not depend on whether the action was valid: messages that were cut, and messages that go on with
an observation that the model invented (:func:`rlprm.data.formats.without_continuation`).

A message was cut if it has ``max_new_tokens`` tokens and no closing token among them. A forced end of a
thought counts among the tokens. The closing token was then forced, with mask 0. Another token that ends a
text forces a closing token, too. Such a message counts as cut only if that token was the last one allowed.
If tokens were made from text (``Trajectory.exact`` is False), the closing token has mask 0 only if the
message was cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from rlprm.data.formats import TWO_ACTIONS, without_continuation
from rlprm.types import Step, Trajectory

__all__ = ["COUNTED", "message_counts", "message_shares", "thought_shares", "was_cut"]

_KINDS = ("several_actions", "cut", "no_action", "refused")
COUNTED = (*(f"invalid_{kind}" for kind in _KINDS), "cut_messages", "invented_observations")
"""Names of the counts; the first ones are the kinds of invalid actions."""


def message_counts(trajectories: Sequence[Trajectory], max_new_tokens: int) -> dict[str, int]:
    """Count the messages of each kind.

    Args:
        trajectories: of any tasks. Steps whose messages are not stored count as if these were empty.
        max_new_tokens: the limit of one message in these trajectories.

    Returns:
        The number of messages under each name of ``COUNTED``. The kinds of invalid actions add up to the
        number of invalid actions.
    """
    found: Counter[str] = Counter()
    for trajectory in trajectories:
        for step, (message, answer) in zip(trajectory.steps, _messages(trajectory), strict=True):
            is_cut = was_cut(trajectory, step, max_new_tokens)
            if not step.valid:
                found[f"invalid_{_kind(step, answer, is_cut)}"] += 1
            found["cut_messages"] += is_cut
            found["invented_observations"] += without_continuation(message) != message
    return {name: found[name] for name in COUNTED}


def message_shares(trajectories: Sequence[Trajectory], max_new_tokens: int) -> dict[str, float]:
    """Return the same as shares of all messages; 0 without a message."""
    messages = sum(len(t.steps) for t in trajectories)
    counts = message_counts(trajectories, max_new_tokens)
    return {name: count / messages if messages else 0.0 for name, count in counts.items()}


def thought_shares(
    trajectories: Sequence[Trajectory], thought_tokens: Callable[[Sequence[int]], range | None]
) -> dict[str, float]:
    """Measure the thoughts of messages.

    Args:
        trajectories: of any tasks, in the tokens of one model.
        thought_tokens: returns where the thought stands in the ids of a message, see
            :meth:`rlprm.data.rendering.ChatRenderer.thought_tokens`.

    Returns:
        ``thought_rate``: share of messages with a thought. ``cut_thought_rate``: share of the thoughts that
        were ended at ``max_thinking_tokens``. ``open_thought_rate``: share of those that were never closed.
        ``thought_tokens``: mean length of a thought in tokens, without its markers. 0 without a thought.
    """
    messages = cut = left_open = 0
    lengths: list[int] = []
    for trajectory in trajectories:
        messages += len(trajectory.steps)
        for step in trajectory.steps:
            ids = trajectory.token_ids[step.start : trajectory.message_end(step)]
            place = thought_tokens(ids)
            if place is None:
                continue
            forced = trajectory.forced_end(step)
            # A forced end may begin with a line break, which is no part of the thought.
            stop = min(place.stop, forced.start - step.start) if forced else place.stop
            lengths.append(stop - place.start)
            cut += bool(forced)
            left_open += place.stop == len(ids)
    thoughts = len(lengths)
    return {
        "thought_rate": thoughts / max(messages, 1),
        "cut_thought_rate": cut / max(thoughts, 1),
        "open_thought_rate": left_open / max(thoughts, 1),
        "thought_tokens": sum(lengths) / max(thoughts, 1),
    }


def was_cut(trajectory: Trajectory, step: Step, max_new_tokens: int) -> bool:
    """Whether the message of a step was cut at ``max_new_tokens``."""
    if not trajectory.exact:  # the limit was counted in other tokens
        return trajectory.action_mask[step.end] == 0
    return trajectory.action_mask[step.end] == 0 and step.end - step.start >= max_new_tokens


def _kind(step: Step, answer: str, is_cut: bool) -> str:
    if answer == TWO_ACTIONS:  # first: more tokens would not mend it
        return "several_actions"
    if is_cut:
        return "cut"
    return "refused" if step.action else "no_action"


def _messages(trajectory: Trajectory) -> list[tuple[str, str]]:
    """Return the message of each step and the answer to it; the last messages of the agent are the steps'."""
    texts = [*(message["content"] for message in trajectory.messages), ""]
    said = [i for i, message in enumerate(trajectory.messages) if message["role"] == "assistant"]
    missing = len(trajectory.steps) - len(said)
    if missing > 0:
        return [("", "")] * len(trajectory.steps)
    return [(texts[i], texts[i + 1]) for i in said[-missing:]]
