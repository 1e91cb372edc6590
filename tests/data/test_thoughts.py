"""A message's thought and its action, split where the first thought ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprm.data.thoughts import split_thought
from rlprm.policies.base import Completion
from rlprm.rollouts.episode import Episode, start_episode
from rlprm.types import EpisodeSetting, Split
from tests.toys import agents, corridor

LETTERS = st.text(alphabet="ab <>/thinkg\n.", max_size=30).filter(lambda t: "think>" not in t)


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("go left", False, ("", "go left")),
        (" go left\n", False, ("", " go left\n")),
        ("<think>\nleft is near\n</think>\n\ngo left", False, ("left is near", "go left")),
        ("\n<think></think>\ngo left", False, ("", "go left")),
        ("left is near\n</think>\n\ngo left", True, ("left is near", "go left")),
        ("left is near</think>go left", False, ("left is near", "go left")),  # the prompt opened it
        ("<think>\nleft is", False, ("left is", "")),  # cut by the length limit
        ("left is near, go left", True, ("left is near, go left", "")),
        ("", True, ("", "")),
        ("<think>a</think>b</think>c", False, ("a", "b</think>c")),
        ("<think>a\n\n</think>\n\n<think>b</think>c", False, ("a", "<think>b</think>c")),
        ("say <think> twice", False, ("", "say <think> twice")),
    ],
)
def test_the_thought_ends_at_the_first_closing_marker(
    text: str, opened: bool, expected: tuple[str, str]
) -> None:
    assert split_thought(text, opened=opened) == expected


@given(thought=LETTERS, action=LETTERS, opened=st.booleans())
def test_what_is_put_together_is_split_again(thought: str, action: str, opened: bool) -> None:
    head = "" if opened else "<think>\n"
    found = split_thought(f"{head}{thought}\n</think>\n\n{action}", opened=opened)
    assert found == (thought.strip("\n"), action.lstrip("\n"))


@pytest.mark.parametrize(
    ("said", "action"),
    [("<think>\nnot right\n</think>\n\nleft", "left"), ("<think>\nright", ""), ("left", "left")],
)
@pytest.mark.trap("thought as action")
def test_trap_the_environment_is_given_what_follows_the_thought(said: str, action: str) -> None:
    policy = agents.SeededPolicy()
    episode = start_episode(corridor.tasks(Split.TRAIN, 0, 1)[0], 0, 0, EpisodeSetting(), policy)
    assert isinstance(episode, Episode)
    ids = tuple(policy.renderer.action_ids(said))
    completion = Completion(ids, (0.0,) * len(ids), 0)
    assert episode.read_action(completion).action == action
    episode.advance(completion)
    assert episode.conversation.steps[0].action == action
    assert [m["content"] for m in episode.conversation.messages if m["role"] == "assistant"] == [said]
