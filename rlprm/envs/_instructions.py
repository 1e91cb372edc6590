"""The instructions of environments that are played both in process and on AgentGym's servers."""

from __future__ import annotations

from rlprm.envs._openings import AGENTGYM_ACKNOWLEDGEMENT, Instructions

__all__ = ["BABYAI", "TEXTCRAFT", "WEBSHOP"]

_BABYAI_SHORT = (
    "Reach the goal in a grid of rooms. Answer each observation with one of its available actions, "
    "word for word and nothing else."
)
_BABYAI_SHORT_FINISH = " Nobody tells you when the goal is met: answer finish once it is."

_BABYAI_AGENTGYM = """\
You explore rooms to reach goals. In every round you receive an observation, and you reply with a thought \
and one action that brings you closer to the goal you were given at the start.

These actions exist:

- turn right

- turn left

- move forward

- go to <obj> <id>

- pick up <obj> <id>

- go through <door> <id>: only if <door> is an open door.

- toggle and go through <door> <id>: <door> may be closed or locked. To open a locked door you have to carry \
a key of the same color.

- toggle: opens the closed or locked door directly in front of you.
"""
_BABYAI_AGENTGYM_FINISH = """
- finish: ends the task. You are not told when the goal is reached, so take this action as soon as it is.
"""
_BABYAI_AGENTGYM_FORMAT = """\
Write every reply in this format:
Thought:
<Your Thought>

Action:
<Your Action>"""

BABYAI = {
    "short": Instructions(_BABYAI_SHORT, _BABYAI_SHORT_FINISH),
    "agentgym": Instructions(
        _BABYAI_AGENTGYM, _BABYAI_AGENTGYM_FINISH, _BABYAI_AGENTGYM_FORMAT, AGENTGYM_ACKNOWLEDGEMENT
    ),
}

_TEXTCRAFT_SHORT = (
    "Craft the goal from the given recipes. Answer each observation with one command and nothing else: "
    "get <count> <item>, craft <count> <item> using <count> <item>, ..., or inventory. "
    "What no recipe makes can be got; each craft uses exactly the counts of its recipe."
)
_TEXTCRAFT_SHORT_FINISH = " Nobody tells you when the goal is met: answer finish once it is."

_TEXTCRAFT_AGENTGYM = """\
You are given a few recipes for crafting items in Minecraft. A crafting command has the form \
"craft [target object] using [input ingredients]".
In every round you receive an observation, and you reply with one action. You can "get" an object \
(an ingredient) from the environment, look at what you hold with "inventory", or "craft" a target with one \
of the crafting commands.
"""
_TEXTCRAFT_AGENTGYM_FINISH = """\
You are not told when the goal is reached: end the task with "finish" as soon as it is.
"""
_TEXTCRAFT_AGENTGYM_FORMAT = """\
Write every reply in this format:
Thought:
<Your Thought>

Action:
<Your Action>

Reminder:
1. Always give the quantity with "get" and "craft". \
Example of get: get 1 lapis lazuli. \
Example of craft: craft 1 blue dye using 1 lapis lazuli. \
Another: craft 1 golden carrot using 8 gold nugget, 1 carrot
2. With "get", do not say where the item comes from.
3. Use ONLY the crafting commands you are given. But where one names a kind of ingredient such as "planks", \
you can use any ingredient of that kind, for instance "dark oak planks"."""

TEXTCRAFT = {
    "short": Instructions(_TEXTCRAFT_SHORT, _TEXTCRAFT_SHORT_FINISH),
    "agentgym": Instructions(
        _TEXTCRAFT_AGENTGYM, _TEXTCRAFT_AGENTGYM_FINISH, _TEXTCRAFT_AGENTGYM_FORMAT, AGENTGYM_ACKNOWLEDGEMENT
    ),
}

_WEBSHOP_SHORT = (
    "Shop for what the instruction asks for. Answer each page with one action and nothing else: "
    "search[words] where there is a search bar, or click[value] with one of the page's buttons. "
    "click[buy now] ends the task."
)
_WEBSHOP_AGENTGYM = """\
You are shopping on the web and follow the instruction you are given.
In every round you receive an observation, the page you are on, and you reply with one action. You can \
search where the page has a search bar, and click one of its buttons.

An action has one of these forms:
search[keywords]
click[value]

You choose the keywords, with care; the value of a click must be a button of the page. An action that is not \
valid does nothing. Buying ends the task.
"""
_WEBSHOP_AGENTGYM_FORMAT = """\
Write every reply in this format:
Thought:
<Your Thought>

Action:
<Your Action>"""

# Nothing to add where the end is declared: the purchase is the end either way.
WEBSHOP = {
    "short": Instructions(_WEBSHOP_SHORT, finish=""),
    "agentgym": Instructions(_WEBSHOP_AGENTGYM, "", _WEBSHOP_AGENTGYM_FORMAT, acknowledgement="Ok."),
}
