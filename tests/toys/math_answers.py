"""Episodes of one message, and the expression that GSM8K's evaluation was published with."""

from __future__ import annotations

import re

from rlprm.envs import math
from rlprm.types import End, Split, StopReason, Task

PUBLISHED = re.compile(r"#### (\-?[0-9\.\,]+)")
"""The expression of GSM8K's evaluation."""


def task_of(answer: str, rule: str = "flexible", letters: str = "") -> Task:
    return math.Problem("How many?", (f"#### {answer}",), answer, letters, rule).task("t", Split.TRAIN)


def played(message: str, answer: str, rule: str = "flexible", letters: str = "") -> tuple[bool, float]:
    """Whether a message ends the episode, and what it is paid."""
    env = math.make(task_of(answer, rule, letters), end=End.DECLARED)
    env.reset()
    turn = env.step(message)
    assert turn.stop in (None, StopReason.DECLARED)
    assert env.outcome().score == turn.reward
    return turn.stop is not None, turn.reward
