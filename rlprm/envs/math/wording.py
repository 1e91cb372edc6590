"""The words of the environment: instructions, and phrases of the generated problems."""

from __future__ import annotations

from rlprm.envs import _openings
from rlprm.envs._openings import AGENTGYM_ACKNOWLEDGEMENT, Instructions
from rlprm.types import End, Message

__all__ = ["FIXED_PHRASES", "opening"]

FIXED_PHRASES: tuple[str, ...] = (
    # lines of reasoning
    " + ",
    " - ",
    " * ",
    " / ",
    " = ",
    "#### ",
    # numbers of two digits, where there are no larger ones: each is one thing to learn about
    *map(str, range(10, 21)),
    # symbolic problems
    "What is ",
    # worded problems
    " has ",
    " finds ",
    " more.",
    " gives ",
    " away.",
    " swaps them for ",
    " times as many.",
    " keeps one of ",
    " equal parts.",
    " How many ",
    " does ",
    " have now?",
)
"""Of the generated problems: beside these they have numbers, names and things, which BPE learns."""

_SHORT = (
    "Solve the problem step by step. Each of your replies is one line of reasoning and nothing else; "
    "an empty answer means: go on. Then reply with the final answer alone: #### and the number, "
    "for instance #### 24, or the letter of the right choice, for instance #### B."
)

_AGENTGYM = """\
You are given a problem and solve it step by step.
In every round you write one line of reasoning as your action; the environment answers nothing, and you go \
on with the next line. When the solution is complete, your action is the final answer alone: "####" and the \
number, or, where choices are given, the letter of the right one.
"""
_AGENTGYM_FORMAT = """\
Write every reply in this format:
Thought:
<Your Thought>

Action:
<Your Action>

Reminder:
1. An action is a single line. \
Example of a line of reasoning: 48 / 2 = 24 clips were sold in May. \
Example of a final answer: #### 24. \
Another: #### B
2. The final answer ends the task, whether it is right or wrong."""

_STYLES = {
    "short": Instructions(_SHORT, finish=""),
    "agentgym": Instructions(_AGENTGYM, "", _AGENTGYM_FORMAT, AGENTGYM_ACKNOWLEDGEMENT),
}


def opening(*, end: End, style: str) -> list[Message]:
    """Return the messages that precede the problem.

    Args:
        end: Without effect: an answer is declared either way.
        style: ``"none"``, ``"short"`` (answer with the bare line) or ``"agentgym"`` (the
            Thought/Action format of AgentGym; it has no such environment of its own).

    Raises:
        ConfigError: for another style.
    """
    return _openings.opening(_STYLES, end=end, style=style)
