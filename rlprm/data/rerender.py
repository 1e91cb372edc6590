"""A trajectory in the tokens of another model: its messages rendered again.

A reward model may sit on another backbone than the policy whose trajectories it reads.
The layout stays that of a rollout (prompt ids | action ids | observation ids | action ids ...), so
that values are read at the same places. What a trajectory loses on the way:

* The ids that were sampled. An action is encoded from its text, which need not give the tokens the
  policy chose, and characters the policy left unfinished are already replaced in the text.
* Log-probabilities (0 here). The mask is 1 on all tokens of an action, but for a closing token that the
  length limit forced.

Such a trajectory is for reading and for training a reward model, never for updating a policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

from rlprm.data.rendering import ChatRenderer
from rlprm.errors import DataError
from rlprm.types import Message, Step, Trajectory

__all__ = ["Rerenderer"]

_PIECES = 8192
"""Rendered pieces that are kept: the candidates of a beam share most of theirs."""


class Rerenderer:
    """Renders trajectories again with one tokenizer and its chat template.

    Args:
        renderer: of the model that is to read them.
    """

    def __init__(self, renderer: ChatRenderer) -> None:
        self.renderer = renderer
        self._prompt = lru_cache(_PIECES)(self._prompt_ids)
        self._action = lru_cache(_PIECES)(renderer.action_ids)
        self._observation = lru_cache(_PIECES)(renderer.observation_ids)

    def render(self, trajectory: Trajectory) -> Trajectory:
        """Return a trajectory in this renderer's tokens; the same object where it is in them already.

        Like the tokens of a rollout, they end with the last action.

        Raises:
            DataError: if its messages do not have its steps.
        """
        if trajectory.template == self.renderer.template_hash:
            return trajectory
        if not trajectory.messages:  # a failed start
            return replace(trajectory, template=self.renderer.template_hash)
        prompt, turns = split_messages(trajectory)
        ids = list(self._prompt(tuple((m["role"], m["content"]) for m in prompt)))
        mask = [0] * len(ids)
        steps: list[Step] = []
        for step, (observation, action) in zip(trajectory.steps, turns, strict=True):
            if observation is not None:
                between = self._observation(observation)
                ids += between
                mask += [0] * len(between)
            said = self._action(action)
            steps.append(replace(step, start=len(ids), end=len(ids) + len(said) - 1))
            ids += said
            mask += [*[1] * (len(said) - 1), trajectory.action_mask[step.end]]
        return replace(
            trajectory,
            token_ids=tuple(ids),
            action_mask=tuple(mask),
            logprobs=(0.0,) * len(ids),
            steps=tuple(steps),
            template=self.renderer.template_hash,
        )

    def _prompt_ids(self, messages: tuple[tuple[str, str], ...]) -> list[int]:
        return self.renderer.prompt_ids([Message(role=role, content=text) for role, text in messages])


def split_messages(trajectory: Trajectory) -> tuple[Sequence[Message], list[tuple[str | None, str]]]:
    """Split a trajectory's messages into its prompt and its turns.

    The opening may hold words of the assistant, too: actions are the last messages of its role,
    as many as there are steps. What follows the last action is left out.

    Returns:
        The prompt, and for each step the observation before it (None for the first, whose
        observation ends the prompt) and the action's message.

    Raises:
        DataError: if that is not how the messages stand.
    """
    messages = trajectory.messages
    said = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    actions = said[len(said) - len(trajectory.steps) :] if len(trajectory.steps) <= len(said) else []
    gaps = [b - a for a, b in pairwise(actions)]
    if len(actions) < len(trajectory.steps) or any(gap != 2 for gap in gaps):
        raise DataError(
            f"trajectory of task {trajectory.task.id}, sample {trajectory.sample}: its "
            f"{len(messages)} messages do not hold its {len(trajectory.steps)} steps"
        )
    first = actions[0] if actions else len(messages)
    return messages[:first], [
        (None if i == first else messages[i - 1]["content"], messages[i]["content"]) for i in actions
    ]
