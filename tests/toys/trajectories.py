"""Trajectories that a test writes down: by a picture of the tokens, by a number of steps, or by words.

Every trajectory that no policy made comes from :func:`trajectory`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.types import End, Outcome, Split, Step, StepScores, StopReason, Task, Trajectory
from tests.toys import agents


def trajectory(
    tokens: str,
    *,
    success: bool = False,
    score: float | None = None,
    task: str = "a",
    split: Split = Split.TRAIN,
    sample: int = 0,
    stop: StopReason | None = StopReason.DECLARED,
    actions: Iterable[str] = (),
    rewards: Sequence[float] = (),
    valid: bool = True,
    logprob: float = -1.0,
    **columns: Any,
) -> Trajectory:
    """An episode from a picture of its tokens.

    Args:
        tokens: ``.`` of the environment, ``a`` sampled, ``t`` forced at the end of a thought; ``c`` closes an
            action and was sampled, ``f`` closes one and was forced. Token ``i``, from 1, has the id ``i``.
        success: of the outcome.
        score: of the outcome, if not 0 or 1.
        task: its id.
        split: of the task.
        sample: among the task's; also the seed.
        stop: why it ended; an error gets a cause.
        actions: the text of each step; ``wait`` for those that are not given.
        rewards: the environment's own, of each step; 0 for those that are not given.
        valid: of every step.
        logprob: of every sampled token.
        columns: any field of the trajectory, instead of what follows from the above.
    """
    mask = tuple(int(token in "ac") for token in tokens)
    spans = [match.span() for match in re.finditer("[at]*[cf]", tokens)]
    texts = itertools.chain(actions, itertools.repeat("wait"))
    earned = itertools.chain(rewards, itertools.repeat(0.0))
    steps = (
        Step(start, end - 1, text, reward, valid)
        for (start, end), text, reward in zip(spans, texts, earned, strict=False)
    )
    defaults: dict[str, Any] = {
        "task": Task("tests.toys.corridor", task, split),
        "sample": sample,
        "seed": sample,
        "messages": (),
        "token_ids": tuple(range(1, len(tokens) + 1)),
        "action_mask": mask,
        "logprobs": tuple(logprob * sampled for sampled in mask),
        "steps": tuple(steps),
        "outcome": Outcome(float(success) if score is None else score, success, "toy"),
        "stop": stop,
        "end": End.DECLARED,
        "temperature": 1.0,
        "policy": "toy",
        "template": "toy",
        "error": "RuntimeError: toy" if stop is StopReason.ERROR else None,
    }
    return Trajectory(**{**defaults, **columns})


def of_steps(
    success: bool = False,
    steps: int = 2,
    *,
    action_tokens: int = 3,
    split: Split = Split.TEST,
    **settings: Any,
) -> Trajectory:
    """A trajectory of ``steps`` actions of ``action_tokens`` tokens each, with one token between them.

    Args:
        success: of the outcome.
        steps: how many; the text of the first is ``action 1``.
        action_tokens: of every action.
        split: of the task.
        settings: of :func:`trajectory`.
    """
    tokens = "." + ".".join(["a" * (action_tokens - 1) + "c"] * steps)
    texts = [f"action {t}" for t in range(1, steps + 1)]
    return trajectory(tokens, success=success, split=split, actions=texts, logprob=0.0, **settings)


def of_words(
    actions: Sequence[str],
    success: bool,
    *,
    task: str = "a",
    closing: str = "You are done.",
    renderer: ChatRenderer | None = None,
    **settings: Any,
) -> Trajectory:
    """A trajectory with the tokens that a rollout of these actions would have recorded.

    Args:
        actions: the text of each step.
        success: of the outcome.
        task: its id, also a word of the prompt.
        closing: the last observation, which is never a token.
        renderer: of the tokens; the toy policies' own by default.
        settings: of :func:`trajectory`.
    """
    renderer = renderer or agents.renderer()
    conversation = Conversation(renderer, [{"role": "user", "content": f"The goal is cell 3. {task}"}])
    for number, action in enumerate(actions, start=1):
        ids = renderer.action_ids(action)
        conversation.act(ids, [-1.0] * len(ids))
        conversation.record(action, 0.0)
        if number < len(actions):
            conversation.observe(f"You are in cell {number}.")
    conversation.note(closing)
    columns = {
        name: tuple(getattr(conversation, name))
        for name in ("messages", "token_ids", "action_mask", "logprobs", "steps")
    }
    return trajectory("", success=success, task=task, template=renderer.template_hash, **columns, **settings)


def step_scores(values: Sequence[float], tokens: int = 7) -> StepScores:
    return StepScores(0.5, tuple(values), tokens)
