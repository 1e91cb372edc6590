"""A trajectory as text for people."""

from __future__ import annotations

from rlprm.types import Message, StepScores, Trajectory

__all__ = ["episode_text"]


def episode_text(trajectory: Trajectory, scores: StepScores | None = None) -> str:
    """Return an episode as lines of text, with the promise and progress of each action if there are scores.

    Args:
        trajectory: finished or not.
        scores: its step scores.

    Returns:
        A line for each message (only the first line of a message), ``>`` in front of actions, and a last line
        that says how the episode ended.

    Raises:
        ValueError: if there are not as many values as actions.
    """
    promises = [""] * len(trajectory.steps)
    if scores is not None:
        pairs = zip(scores.values, scores.progress, trajectory.steps, strict=True)
        promises = [f"promise {value:5.2f}   progress {change:+5.2f}" for value, change, _ in pairs]
    remaining = iter(promises)
    lines = []
    if scores is not None:
        lines.append(f"promise of the task: {scores.initial:.2f}")
    for message in trajectory.messages:
        text = _words_of(message).strip().partition("\n")[0]
        if message["role"] == "assistant":
            lines.append(f"    > {text:<24} {next(remaining)}".rstrip())
        else:
            lines.append(text)
    outcome = trajectory.outcome
    ending = "goes on" if trajectory.stop is None else f"stopped: {trajectory.stop.value}"
    lines.append(f"({ending}, {'success' if outcome.success else 'no success'}, score {outcome.score:.2f})")
    return "\n".join(lines)


def _words_of(message: Message) -> str:
    """Return a message's text, or its calls if it has no other text."""
    calls = (
        f"{call['name']}({', '.join(map(str, call['arguments'].values()))})"
        for call in message.get("tool_calls", [])
    )
    return message["content"].strip() or ", ".join(calls)
