r"""AgentGym's ReAct format word for word: ``Thought:\n...\n\nAction:\n...``.

For comparisons with AgentGym's numbers. ``react_lenient`` reads what models write that keep less closely to
the format.
"""

from __future__ import annotations

import re

from rlprm.data.formats.base import TWO_ACTIONS, Parsed, write_react

__all__ = ["parse", "write"]

_ACTION = re.compile(r"Action:\s*(.*?)(?=\n|$)")

write = write_react


def parse(text: str) -> Parsed:
    """Read the line that follows ``Action:``; two of these words are refused, whatever follows them."""
    actions = _ACTION.findall(text)
    if len(actions) > 1:
        return Parsed("", refusal=TWO_ACTIONS)
    return Parsed(actions[0].strip() if actions else "")
