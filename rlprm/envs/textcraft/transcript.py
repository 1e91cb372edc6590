"""A rule that reads off the texts of an episode whether its goal was crafted: an answer says so."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["read_transcript"]

_GOAL = re.compile(r"\n\nGoal: craft (.*)\.")


def read_transcript(start: str, turns: Sequence[tuple[str, str]]) -> list[float]:
    """Return 1 from the turn on that is answered with ``Crafted ... <goal>``, and 0 before.

    See :meth:`rlprm.envs.base.EnvironmentModule.read_transcript`.
    """
    goal = _GOAL.search(start)
    crafted = re.compile(rf"Crafted \d+ minecraft:{re.escape(goal[1].replace(' ', '_'))}") if goal else None
    believed, verdicts = 0.0, []
    for _, answer in turns:
        if crafted is not None and crafted.fullmatch(answer.strip()):
            believed = 1.0
        verdicts.append(believed)
    return verdicts
