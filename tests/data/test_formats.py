"""Ways of writing an action, and how it is read out again."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprm.data.formats import (
    FORMATS,
    TEXT_FORMATS,
    THOUGHT_FORMATS,
    TWO_ACTIONS,
    Parsed,
    load_format,
    without_continuation,
)
from rlprm.errors import UnknownComponentError
from tests.data.strategies import texts

ACTIONS = (
    "go to red ball 1",
    "click[< Prev]",
    "search[men's shoes, size 9.5]",
    "craft 4 stick using 2 log",
    "42",
)
words = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1).map(str.strip).filter(bool)
# What some format takes for its own mark-up: quotes and emphasis around a text, words that begin a line.
plain = words.filter(
    lambda text: not re.search(r"^\W|[\"'’”»*_`.,;]$|action|observation", text, re.IGNORECASE)
)
HOSTILE = (
    "Action:", "Action:\n", "Action: a\n", "Action: ```\n", "Action (1", "**Action 1:**", "x Action:",
    "Observation", "\nobservation 1", "`", "```", "`a", "\n", " ", "*", "_*", "- ", "1. ", "\"'", "ſ",
)  # fmt: skip


def test_the_formats_are_the_modules_of_the_package() -> None:
    assert set(FORMATS) >= {"action_only", "react", "react_lenient", "tool_call"}
    assert "base" not in FORMATS
    assert set(FORMATS) - set(TEXT_FORMATS) == {"tool_call"}
    assert [load_format(name).name for name in TEXT_FORMATS] == list(TEXT_FORMATS)


@pytest.mark.parametrize("name", TEXT_FORMATS)
@pytest.mark.parametrize("action", ACTIONS)
def test_what_a_format_writes_of_a_real_action_it_reads_again(name: str, action: str) -> None:
    chosen = load_format(name)
    assert chosen.parse(chosen.write(action)) == Parsed(action)


@pytest.mark.parametrize("name", TEXT_FORMATS)
@given(action=plain)
def test_what_a_format_writes_it_reads_again(name: str, action: str) -> None:
    chosen = load_format(name)
    assert chosen.parse(chosen.write(action)) == Parsed(action)


def test_react_formats_have_a_place_for_thoughts_and_bare_actions_have_none() -> None:
    assert set(THOUGHT_FORMATS) == {"react", "react_lenient"}


@pytest.mark.parametrize("name", THOUGHT_FORMATS)
@given(action=plain, thought=plain)
def test_an_action_is_read_behind_a_thought(name: str, action: str, thought: str) -> None:
    chosen = load_format(name)
    written = chosen.write(action, thought)
    assert chosen.parse(written) == Parsed(action)
    assert thought in written


@pytest.mark.parametrize("name", TEXT_FORMATS)
@given(text=texts() | st.lists(st.sampled_from([*HOSTILE, "a", "\n"])).map("".join))
def test_any_text_is_read_and_a_refusal_comes_without_an_action(name: str, text: str) -> None:
    parsed = load_format(name).parse(text)
    assert parsed.action == parsed.action.strip()
    assert not (parsed.refusal and parsed.action)


@pytest.mark.parametrize("name", TEXT_FORMATS)
@pytest.mark.parametrize("piece", HOSTILE)
def test_long_messages_are_read_in_linear_time(name: str, piece: str) -> None:
    text = piece * (100_000 // len(piece))
    nested = "".join("`*"[i % 2] * i for i in range(299, 0, -1))  # around a word: 299 wraps
    for message in (text, f"x {text}", f"Action: {text}", f"{text}x", f"Action: {nested}x{nested[::-1]}"):
        start = time.process_time()
        load_format(name).parse(message)
        assert time.process_time() - start < 1.0  # a quadratic rule takes minutes


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


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("**Action:** search[x]", "** search[x]"),
        ("Action: ```search[x]```", "```search[x]```"),
        ('Action: "search[x]"', '"search[x]"'),
        ("action: search[x]", ""),
        ("Action 1: search[x]", ""),
        ("Action: search[x]\nObservation: none", "search[x]"),
    ],
)
def test_react_stays_agentgyms_word_for_word(message: str, action: str) -> None:
    assert load_format("react").parse(message) == Parsed(action)


@pytest.mark.parametrize("second", ["turn right", "turn left"])
def test_react_refuses_two_actions_with_agentgyms_answer(second: str) -> None:
    parsed = load_format("react").parse(f"Action:\nturn left\n\nAction:\n{second}")
    assert parsed == Parsed("", refusal=TWO_ACTIONS)


def test_the_whole_message_is_the_action_without_spaces_around_it() -> None:
    assert load_format("action_only").parse(" turn left\n") == Parsed("turn left")
    assert load_format("action_only").parse("Action:\na\nAction:\nb") == Parsed("Action:\na\nAction:\nb")


def test_an_unknown_format_lists_the_known_ones() -> None:
    for name in ("json", "base", "formats", "react.py", ""):
        with pytest.raises(
            UnknownComponentError, match=f"format '{name}'; known: action_only, react, react_lenient"
        ):
            load_format(name)


@pytest.mark.parametrize(
    "heading",
    [
        "Observation: You see a door.", "Observation:", "observation: x", "OBSERVATION: x",
        "Observation 2: x", "**Observation:** x", "**Observation**: x", "### Observation",
        "> Observation: x", "- *Observation 1:* x", "2. Observation: x", "Observation (from the shop): x",
        "  Observation: x", "Observation：x",
    ],
)  # fmt: skip
def test_a_message_ends_where_the_model_invents_an_observation(heading: str) -> None:
    text = f"Thought: t\nAction: a\n{heading}\nThought: u\nAction: b"
    assert without_continuation(text) == "Thought: t\nAction: a"


@pytest.mark.parametrize(
    "text",
    [
        "Observation: You see a door.\nThought: t\nAction: a",  # repeats the last one
        "\n  **Observation:** x\nAction: a",
        "Thought: t\nObservation shows a door, so I open it.\nAction: a",
        "Thought: t\nObservations: none.\nAction: a",
        "Thought: my last\nobservation, the door, is shut.\nAction: a",
        "Thought: t. Observation: a door.\nAction: a",
        "Observation",
        "",
        "\n\n",
    ],
)
def test_other_mentions_of_an_observation_end_no_message(text: str) -> None:
    assert without_continuation(text) == text


@given(texts())
def test_what_is_kept_of_a_message_is_its_beginning(text: str) -> None:
    kept = without_continuation(text)
    assert text.startswith(kept)
    assert without_continuation(kept) == kept
