"""ReAct messages as models write them: which action each holds."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rlprm.data.formats import TWO_ACTIONS, Parsed, load_format
from tests.data.strategies import texts

REACT, LENIENT = load_format("react"), load_format("react_lenient")

READ = {
    # AgentGym's own
    "Thought:\nThe ball is near.\n\nAction:\ngo to red ball 1": "go to red ball 1",
    "Thought: I need shoes.\nAction: search[red shoes]": "search[red shoes]",
    "Thought: I need shoes. Action: search[red shoes]": "search[red shoes]",
    "Thought: I need shoes. Action:\nsearch[red shoes]": "search[red shoes]",
    "Action:   pick up   \r\n": "pick up",
    "Action:turn left": "turn left",
    "Action:\n\n\nturn left\nThen I look around.": "turn left",
    # thoughts that mention actions
    "Thought: The format says Action: first, then the text.\nAction: search[x]": "search[x]",
    'Thought: I must begin with "Action:".\n\nAction: click[b1]': "click[b1]",
    "Thought: Two steps: look; open.\nMy plan for this Action: open the door.\nAction: look": "look",
    "Thought: As `Action:` I write a search. Action: search[lamp]": "search[lamp]",
    "Thought: My last action: turn left, did nothing.\nAction: turn right": "turn right",
    "Thought: My next action: turn left. Action: turn left": "turn left",
    "Action: wait\nThe Action: above is safe.": "wait",
    "Thought: line one.\nLine two: a colon.\n\nLine three, “quoted: words”.\nAction: inventory": "inventory",
    # Markdown
    "**Action:** search[x]": "search[x]",
    "**Thought:** t\n\n**Action**: search[x]": "search[x]",
    "**Action: search[x]**": "search[x]",
    "**Action**: **search[x]**": "search[x]",
    "**Action:**\n\nsearch[x]": "search[x]",
    "**Action:**search[x]": "search[x]",
    "**Action: **search[x]": "search[x]",
    "*Action:* **search[x]**": "search[x]",
    "__Action__: _go_": "go",
    "### Action: search[x]": "search[x]",
    "## Thought\nI look.\n\n## Action\nlook": "look",
    "**Action**\nlook": "look",
    "- Thought: t\n- Action: look": "look",
    "> Action: look": "look",
    "1. Thought: t\n2. **Action:** look": "look",
    "Thought: I look. **Action:** look": "look",
    # code
    "Action: `search[x]`": "search[x]",
    "Action: `search[x]`.": "search[x]",
    "Action: ``say `hi` now``": "say `hi` now",
    "Action: ```search[x]```": "search[x]",
    "Action:\n```\nsearch[x]\n```": "search[x]",
    "Action:\n```text\nsearch[x]\n```\nI expect shoes.": "search[x]",
    "Action: ```python\nsearch[x]\n```": "search[x]",
    "Action: ```\n\nsearch[x]```": "search[x]",
    "Action:\n```search[x]\n```": "search[x]",
    "Action:\n```\nlook": "look",  # cut before the fence closed
    "Action:\n```look\n```": "look",
    "```\nThought: t\nAction: look\n```": "look",
    "Action:\n```\nAction: look\n```": "look",
    "`Action: look`": "look",
    "```Action: look```": "look",
    # quotes
    'Action: "search[x]"': "search[x]",
    "Action: 'search[men's shoes]'": "search[men's shoes]",
    "Action: “search[x]”": "search[x]",
    "Action: «ищи»": "ищи",
    'Action: **"`look`"**': "look",
    'Action: "look".': "look",
    # case and numbers
    "action: search[x]": "search[x]",
    "ACTION: search[x]": "search[x]",
    "thought: t\naction:\nlook": "look",
    "Thought 1: t\nAction 1: search[x]": "search[x]",
    "Action #2: look": "look",
    "**Action 12:** look": "look",
    "Action (3): look": "look",
    "思考：我需要一个球。\nAction：go to 红球 1": "go to 红球 1",
    # equal actions are one, and empty ones none
    "Action: look\nThought: so\nAction: look": "look",
    "**Action:**\n\nAction: look": "look",
    "Action: look\n\n**Action:** `look`": "look",
    "Action: look\nAction:": "look",
    # what the model invented
    "Thought: t\nAction: look\nObservation: a door\nThought: u\nAction: open": "look",
    "Action: look\n\n**Observation 1:** a door\n\n**Action 2:** open": "look",
    "Action: look\nobservation:\nAction: open": "look",
    "Observation: a door\nThought: u\nAction: open": "open",
    "Observation: a door\nThought: u\nAction: open\nObservation: it is open\nAction: go": "open",
    # texts that keep their quotes, brackets and signs
    'Action: click[Buy "now"]': 'click[Buy "now"]',
    "Action: click[< Prev]": "click[< Prev]",
    'Action: "a" and "b"': '"a" and "b"',
    "Action: `a` then `b`": "`a` then `b`",
    "Action: *a* and *b*": "*a* and *b*",
    "Action: go to red ball 1.": "go to red ball 1.",
    "Action: say[Action: go]": "say[Action: go]",
    "Action: 2 * 3 * 4 = 24": "2 * 3 * 4 = 24",
    "Action: search[x] (I want shoes)": "search[x] (I want shoes)",
    "Action: buy 🤖 日本": "buy 🤖 日本",
    "Action: don't": "don't",
    # LangChain's two lines are one action here; an environment refuses the name alone
    "Action: search\nAction Input: shoes": "search",
}
UNREAD = (
    "",
    "look",
    "search[x]",
    "Thought: I should look.",
    "Thought: My next action is: look",
    "Thought: my next action: look.",
    "Actions: look",
    "Action required: look",
    "Action plan: first look, then open.",
    "Interaction: look",
    "Thought: t. InterAction: look",
    "Action look",
    'The prompt says "Action:" here.',
    '{"Action": "look"}',
    "Action:",
    "Thought: t\n\n**Action:**\n\n",
    'Action: ""',
    "Action: ```\n```",
    "Thought: t\nAction:\nObservation: a door\nAction: open",
    "Thought: I look.\nObservation: a door\nAction: open",
    "Thought: I write Action: look here.\nAction:",  # the marker was there, and cut before its action
)
TWO = (
    "Action: look\nAction: open",
    "Action 1: look\nAction 2: open",
    "Thought: t\nAction: look\nThought: u\n**Action:** open",
    "Action:\n```\nlook\nopen\n```",
    "Action: ```look at it\nAction: open\n```",
    "Thought: t. Action: look Thought: u. Action: open",
    "Thought: t. Action: look\nThought: u. Action: open",
    "Thought: The Action: line comes last. Action: look",  # which of the two is meant cannot be read
)


@pytest.mark.parametrize("message", READ)
def test_the_action_of_a_message_is_read(message: str) -> None:
    assert LENIENT.parse(message) == Parsed(READ[message])


@pytest.mark.parametrize("message", UNREAD)
def test_where_no_action_is_marked_none_is_read(message: str) -> None:
    assert LENIENT.parse(message) == Parsed("")


@pytest.mark.parametrize("message", TWO)
def test_two_different_actions_are_refused_with_agentgyms_answer(message: str) -> None:
    assert LENIENT.parse(message) == Parsed("", refusal=TWO_ACTIONS)


one_line = texts().map(lambda text: text.replace("\n", " ").strip()).filter(bool)
LOOKS_MARKED = re.compile(r"[\s>#•+*_`\d.)-]*(action|observation)", re.IGNORECASE)


@given(one_line)
@example("say[Action: go]")
@example('click[Buy "now"]')
@example("- item")
@example("#1")
@example("a\u2028Observation: b")
@example("a\rAction: b")
@example("My next action is: Action: x.")
@example('"a" and "b"')
@example("”")
def test_any_action_of_one_line_that_react_writes_is_read(action: str) -> None:
    wrapped = action[0] in "\"'“‘«*_`" and action.rstrip(".,;")[-1:] in set("\"'”’»*_`")
    assume(not wrapped and not action.startswith("```") and not LOOKS_MARKED.match(action))
    assert LENIENT.write(action) == REACT.write(action)
    assert LENIENT.parse(REACT.write(action)) == Parsed(action)


@pytest.mark.parametrize(
    ("action", "read"),
    [
        ('"a"', "a"), ("`a`", "a"), ("**a**", "a"), ("```a", "a"),
        ("Action: a", "a"), ("Action", ""), ("Observation: a", ""),
    ],
)  # fmt: skip
def test_exceptions_of_what_is_read_back_are_those_of_the_docstring(action: str, read: str) -> None:
    assert LENIENT.parse(LENIENT.write(action)) == Parsed(read)


@given(
    one_line,
    st.sampled_from(["{}", "**Action:** {}", "Action 1: {}", "Thought: t\naction:\n{}", "## Action\n{}"]),
)
def test_marks_around_a_word_change_nothing(noise: str, form: str) -> None:
    assume("action" not in noise.lower() and "```" not in noise)
    message = form.format("look") if form != "{}" else "Action: look"
    assert LENIENT.parse(f"Thought: {noise}\n{message}\nObservation: {noise}\nAction: other") == Parsed(
        "look"
    )
