"""A trajectory in the tokens of another model: its messages are rendered again.

A reward model may have another tokenizer than the policy. The layout of a rollout stays (prompt ids |
action ids | observation ids | action ids ...), so values are read at the same positions. The
new trajectory lacks two things:

* The sampled ids. An action is encoded from its text, which may give other tokens than the policy chose.
  Characters that the policy left incomplete are already replaced in the text.
* Log-probabilities, which are 0; ``exact`` is therefore False. The mask is 1 on all tokens of an action,
  except a closing token that the length limit forced.

Score such a trajectory or train a reward model on it. Never update a policy with it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

from rlprm import envs
from rlprm.data.rendering import ChatRenderer
from rlprm.data.thoughts import CLOSE, OPEN, split_thought
from rlprm.errors import ChatTemplateError, DataError
from rlprm.types import Message, Step, Trajectory

__all__ = ["Rerenderer", "split_messages", "split_turns", "text_of"]

log = logging.getLogger(__name__)
_PIECES = 8192
"""Size of the caches of rendered messages; a beam's candidates share most of their messages."""


class Rerenderer:
    """Renders trajectories again with one tokenizer and its chat template.

    Args:
        renderer: of the model that scores them or is trained on them.
        is_quiet: log nothing. What is logged otherwise quotes the first message that had to be changed.
    """

    def __init__(self, renderer: ChatRenderer, *, is_quiet: bool = False) -> None:
        self.renderer = renderer
        self._plain = _Pieces(renderer)
        self._with_tools: dict[int, _Pieces] = {}
        self._has_warned = is_quiet

    def render(self, trajectory: Trajectory) -> Trajectory:
        """Return a trajectory in this renderer's tokens; the same object if its template is the same.

        The tokens end with the last action, as those of a rollout do. A thought gets the markers of this
        template. Where the end of a thought was forced, the tokens of the end have mask 0 again.

        Raises:
            DataError: if the messages do not match the steps, or a thought or call cannot be written.
            ConfigError: if the messages have calls of tools, and the model has no known syntax of calls.
        """
        if trajectory.template == self.renderer.template_hash:
            return trajectory
        if not trajectory.messages:  # a failed start
            return replace(trajectory, template=self.renderer.template_hash)
        prompt, turns = split_turns(trajectory)
        pieces = self._pieces_of(trajectory)
        ids = list(pieces.prompt(_key(prompt)))
        mask = [0] * len(ids)
        steps: list[Step] = []
        for step, (observations, message) in zip(trajectory.steps, turns, strict=True):
            if observations:
                between = pieces.observations(_key(observations))
                ids += between
                mask += [0] * len(between)
            said, is_closed = _with_structure(message, step)
            if not is_closed and not self.renderer.marks_thoughts:
                said, is_closed = message, True  # nothing but a cut thought: it reads the same as text
            if "thought" in said and not self.renderer.marks_thoughts:
                raise DataError(
                    f"trajectory of task {trajectory.task.id} has thoughts, which cannot be rendered for "
                    f"another chat template, because {self.renderer.thoughts}; give this stage the chat "
                    "template and its settings that the policy had"
                )
            action_ids = self._message(pieces, said, is_closed, trajectory)
            steps.append(replace(step, start=len(ids), end=len(ids) + len(action_ids) - 1))
            ids += action_ids
            of_action = [*[1] * (len(action_ids) - 1), trajectory.action_mask[step.end]]
            if trajectory.forced_end(step):
                for i in self._end_of_thought(action_ids):
                    of_action[i] = 0
            mask += of_action
        return replace(
            trajectory,
            token_ids=tuple(ids),
            action_mask=tuple(mask),
            logprobs=(0.0,) * len(ids),
            steps=tuple(steps),
            template=self.renderer.template_hash,
            exact=not steps,
        )

    def _message(
        self, pieces: _Pieces, said: Message, is_closed: bool, trajectory: Trajectory
    ) -> Sequence[int]:
        """Return the ids of a message; a call that this template cannot write is written as text."""
        try:
            return pieces.message(_key([said]), is_closed)
        except ChatTemplateError as error:
            if not said.get("tool_calls"):
                raise DataError(f"trajectory of task {trajectory.task.id}: {error}") from error
            if not self._has_warned:
                self._has_warned = True
                log.warning(
                    "a call of task %s is written as text for another chat template: %s; later ones, too",
                    trajectory.task.id, error,
                )  # fmt: skip
        calls = json.dumps(said["tool_calls"], ensure_ascii=False)
        text = "\n".join(part for part in (said["content"], calls) if part)
        plain = Message(role="assistant", content=text)
        if "thought" in said:
            plain["thought"] = said["thought"]
        return pieces.message(_key([plain]), is_closed)

    def _pieces_of(self, trajectory: Trajectory) -> _Pieces:
        if not any("tool_calls" in message for message in trajectory.messages):
            return self._plain
        module = envs.of_task(trajectory.task)
        tools = envs.tools_of(module, trajectory.task.environment, trajectory.end)
        renderer = self.renderer.with_tools(tools)
        return self._with_tools.setdefault(id(renderer), _Pieces(renderer))

    def _end_of_thought(self, action_ids: Sequence[int]) -> range:
        """Return where the end of a thought stands among the ids of a message."""
        thought, around = self.renderer.thought_tokens(action_ids), self.renderer.thoughts
        if thought is None or isinstance(around, str) or thought.stop >= len(action_ids):
            return range(0)
        start = thought.stop - around.end_ids.index(around.close_id)
        place = range(start, start + len(around.end_ids))
        if tuple(action_ids[place.start : place.stop]) == around.end_ids:
            return place
        return range(thought.stop, thought.stop + 1)  # a line break has merged with what is beside it


class _Pieces:
    """The rendered pieces of conversations, kept by their messages."""

    def __init__(self, renderer: ChatRenderer) -> None:
        self.renderer = renderer
        self.prompt = lru_cache(_PIECES)(lambda key: renderer.prompt_ids(json.loads(key)))
        self.observations = lru_cache(_PIECES)(lambda key: renderer.observations_ids(json.loads(key)))
        self.message = lru_cache(_PIECES)(
            lambda key, is_closed: renderer.message_ids(json.loads(key)[0], is_closed=is_closed)
        )


def _key(messages: Sequence[Message]) -> str:
    return json.dumps(messages)


def _with_structure(message: Message, step: Step) -> tuple[Message, bool]:
    """Split the thought off a message that was stored as one text; also return whether the thought ended.

    If the action itself holds the closing marker, the policy's template has no thoughts, and the marker was
    read as text. A cut thought that the generation prompt opened has no marker. It is rendered as text.
    """
    text = message["content"]
    opens = text.lstrip().startswith(OPEN)
    if "thought" in message or CLOSE in step.action or not (opens or CLOSE in text):
        return message, True
    thought, rest = split_thought(text)
    said = Message(role="assistant", content=rest, thought=thought)
    if "tool_calls" in message:
        said["tool_calls"] = message["tool_calls"]
    return said, CLOSE in text


def split_turns(trajectory: Trajectory) -> tuple[Sequence[Message], list[tuple[Sequence[Message], Message]]]:
    """Split a trajectory's messages into its prompt and its turns.

    The opening may contain messages of the assistant, too. With T steps, the last T messages of the
    assistant are the actions. Messages after the last action are left out.

    Returns:
        The prompt, and for each step the observations before it and the action's message. The first step has
        no observations, because they are the end of the prompt.

    Raises:
        DataError: if there is no observation between two actions, or there are fewer actions than steps.
    """
    messages = trajectory.messages
    by_agent = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    actions = by_agent[-len(trajectory.steps) :] if 0 < len(trajectory.steps) <= len(by_agent) else []
    gaps = [b - a for a, b in pairwise(actions)]
    if len(actions) < len(trajectory.steps) or any(gap < 2 for gap in gaps):
        raise DataError(
            f"trajectory of task {trajectory.task.id}, sample {trajectory.sample}: its "
            f"{len(messages)} messages do not hold its {len(trajectory.steps)} steps"
        )
    first = actions[0] if actions else len(messages)
    starts = [first, *(action + 1 for action in actions[:-1])]
    return messages[:first], [
        (messages[start:action], messages[action]) for start, action in zip(starts, actions, strict=False)
    ]


def split_messages(trajectory: Trajectory) -> tuple[Sequence[Message], list[tuple[str | None, str]]]:
    """Return the turns of :func:`split_turns` as texts: the observation before an action, and the action.

    Several observations are joined by line breaks. The first observation is None.
    """
    prompt, turns = split_turns(trajectory)
    return prompt, [
        (text_of(observations) if observations else None, message["content"])
        for observations, message in turns
    ]


def text_of(observations: Sequence[Message]) -> str:
    """Return observations as one text."""
    return "\n".join(message["content"] for message in observations)
