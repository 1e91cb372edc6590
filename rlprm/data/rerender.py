"""A trajectory in the tokens of another model: its messages are rendered again.

A reward model may have another tokenizer than the policy. The layout of a rollout stays (prompt ids |
action ids | observation ids | action ids ...), so values are read at the same positions. The
new trajectory lacks two things:

* The sampled ids. An action is encoded from its text, which may give other tokens than the policy chose.
  Characters that the policy left incomplete are already replaced in the text.
* Log-probabilities, which are 0. The mask is 1 on all tokens of an action, except a closing token that the
  length limit forced.

Score such a trajectory or train a reward model on it. Never update a policy with it.
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
"""Size of the caches of rendered messages; a beam's candidates share most of their messages."""


class Rerenderer:
    """Renders trajectories again with one tokenizer and its chat template.

    Args:
        renderer: of the model that scores them or is trained on them.
    """

    def __init__(self, renderer: ChatRenderer) -> None:
        self.renderer = renderer
        self._prompt = lru_cache(_PIECES)(self._prompt_ids)
        self._action = lru_cache(_PIECES)(renderer.action_ids)
        self._observation = lru_cache(_PIECES)(renderer.observation_ids)

    def render(self, trajectory: Trajectory) -> Trajectory:
        """Return a trajectory in this renderer's tokens; the same object if its template is the same.

        The tokens end with the last action, as those of a rollout do.

        Raises:
            DataError: if the messages do not match the steps.
        """
        if trajectory.template == self.renderer.template_hash:
            return trajectory
        if not trajectory.messages:  # a failed start
            return replace(trajectory, template=self.renderer.template_hash)
        prompt, turns = split_messages(trajectory)
        if any("</think>" in action for _, action in turns):
            raise DataError(
                f"trajectory of task {trajectory.task.id} has thoughts, which cannot be rendered for another "
                "chat template; give this stage the chat template and its settings that the policy had"
            )
        ids = list(self._prompt(tuple((m["role"], m["content"]) for m in prompt)))
        mask = [0] * len(ids)
        steps: list[Step] = []
        for step, (observation, action) in zip(trajectory.steps, turns, strict=True):
            if observation is not None:
                between = self._observation(observation)
                ids += between
                mask += [0] * len(between)
            action_ids = self._action(action)
            steps.append(replace(step, start=len(ids), end=len(ids) + len(action_ids) - 1))
            ids += action_ids
            mask += [*[1] * (len(action_ids) - 1), trajectory.action_mask[step.end]]
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

    The opening may contain messages of the assistant, too. With T steps, the last T messages of the
    assistant are the actions. Messages after the last action are left out.

    Returns:
        The prompt, and for each step the observation before it and the action's message. The first
        observation is None, because it is the end of the prompt.

    Raises:
        DataError: if actions and observations do not alternate, or there are fewer actions than steps.
    """
    messages = trajectory.messages
    by_agent = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    actions = by_agent[-len(trajectory.steps) :] if 0 < len(trajectory.steps) <= len(by_agent) else []
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
