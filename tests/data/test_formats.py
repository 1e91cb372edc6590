"""Ways of writing an action, and how it is read out again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprm.data.formats import FORMATS, TWO_ACTIONS, Parsed, load_format
from rlprm.errors import UnknownComponentError

words = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1).map(str.strip).filter(bool)


@pytest.mark.parametrize("name", FORMATS)
@given(action=words.filter(lambda text: "Action:" not in text))
def test_what_a_format_writes_it_reads_again(name: str, action: str) -> None:
    chosen = load_format(name)
    assert chosen.name == name
    assert chosen.parse(chosen.write(action)) == Parsed(action)


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("Thought:\nThe ball is near.\n\nAction:\ngo to red ball 1", "go to red ball 1"),
        ("Thought: x\n\nAction: turn left\nand more", "turn left"),
        ("Action:   pick up   \n", "pick up"),
        ("Action:", ""),
        ("Action:\n\n", ""),
        ("turn left", ""),
        ("", ""),
        ("my next action is: turn left", ""),
    ],
)
def test_react_reads_the_line_after_action(message: str, action: str) -> None:
    assert load_format("react").parse(message) == Parsed(action)


def test_react_refuses_two_actions_with_agentgyms_answer() -> None:
    parsed = load_format("react").parse("Action:\nturn left\n\nAction:\nturn right")
    assert parsed == Parsed("", refusal=TWO_ACTIONS)


def test_the_whole_message_is_the_action_without_spaces_around_it() -> None:
    assert load_format("action_only").parse(" turn left\n") == Parsed("turn left")
    assert load_format("action_only").parse("Action:\na\nAction:\nb") == Parsed("Action:\na\nAction:\nb")


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(UnknownComponentError, match="format 'json'; known: action_only, react"):
        load_format("json")
