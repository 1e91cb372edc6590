"""What goes wrong in messages, counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprm import envs
from rlprm.data.conversation import Conversation
from rlprm.data.formats import TWO_ACTIONS
from rlprm.data.message_counts import COUNTED, message_counts, message_shares
from rlprm.data.store import from_row, to_row
from rlprm.policies.base import Completion
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Message, Split, Step, Trajectory
from tests.data.strategies import trajectories
from tests.toys import agents
from tests.toys.agents import SeededPolicy
from tests.toys.trajectories import trajectory

NONE = dict.fromkeys(COUNTED, 0)


def said(tokens: str, *turns: tuple[str, str, str, bool]) -> Trajectory:
    """An episode of (message, action, answer, valid); an opening of three messages comes first."""
    made = trajectory(tokens)
    messages = [("system", "Be brief."), ("assistant", "Action: OK\nObservation: none"), ("user", "Go.")]
    for text, _, answer, _ in turns:
        messages += [("assistant", text), ("user", answer)]
    steps = [
        replace(step, action=action, valid=valid)
        for step, (_, action, _, valid) in zip(made.steps, turns, strict=True)
    ]
    return replace(
        made,
        messages=tuple(Message(role=role, content=text) for role, text in messages),
        steps=tuple(steps),
    )


def test_every_kind_is_counted_where_it_belongs() -> None:
    episode = said(
        ".aac.aaaf.aaf.ac.ac.aaaf",
        ("Action: look", "look", "A door.", True),
        ("Action: open the do", "open the do", "Nothing happens.", False),  # cut at 3 tokens
        ("Action: jump", "jump", "Nothing happens.", False),  # ended by another token, before the limit
        ("I wait.", "", "Nothing happens.", False),
        ("Action: a\nAction: b", "", TWO_ACTIONS, False),
        ("Action: look\nObservation: a", "look", "A door.", True),  # cut, and valid
    )
    expected = {
        "invalid_several_actions": 1,
        "invalid_cut": 1,
        "invalid_no_action": 1,
        "invalid_refused": 1,
        "cut_messages": 2,
        "invented_observations": 1,
    }
    assert message_counts([episode], 3) == expected
    assert list(message_counts([episode], 3)) == list(COUNTED)
    assert message_shares([episode], 3) == {name: count / 6 for name, count in expected.items()}
    assert message_shares([episode, episode], 3) == message_shares([episode], 3)
    # With a higher limit none was cut: all forced closing tokens are those of other ends.
    assert message_counts([episode], 4) == {
        **expected, "invalid_cut": 0, "invalid_refused": 2, "cut_messages": 0,
    }  # fmt: skip


def test_a_message_that_was_cut_within_a_second_action_has_several() -> None:
    episode = said(".aaf", ("Action: a\nAction: b", "", TWO_ACTIONS, False))
    assert message_counts([episode], 2) == {**NONE, "invalid_several_actions": 1, "cut_messages": 1}


def test_a_message_that_closes_at_the_limit_was_not_cut() -> None:
    assert message_counts([said(".aac", ("a", "a", "b", True))], 3) == NONE


def test_without_messages_or_steps_nothing_is_known_of_the_texts() -> None:
    assert message_counts([], 3) == NONE
    assert message_shares([], 3) == dict.fromkeys(COUNTED, 0.0)
    assert message_shares([trajectory(".")], 3) == dict.fromkeys(COUNTED, 0.0)
    bare = trajectory(".ac.aaf", actions=("", "jump"), valid=False)
    assert message_counts([bare], 2) == {
        **NONE, "invalid_no_action": 1, "invalid_cut": 1, "cut_messages": 1,
    }  # fmt: skip


@given(st.lists(trajectories(), max_size=3), st.integers(1, 4), st.data())
def test_the_kinds_add_up_to_the_invalid_actions(
    episodes: list[Trajectory], limit: int, data: st.DataObject
) -> None:
    def drawn(step: Step) -> Step:
        return replace(step, valid=data.draw(st.booleans()))

    episodes = [replace(e, steps=tuple(map(drawn, e.steps))) for e in episodes]
    counts = message_counts(episodes, limit)
    kinds = [counts[name] for name in COUNTED if name.startswith("invalid_")]
    assert sum(kinds) == sum(not step.valid for e in episodes for step in e.steps)
    assert counts["invalid_cut"] <= counts["cut_messages"] <= sum(len(e.steps) for e in episodes)
    assert message_counts([from_row(to_row(e)) for e in episodes], limit) == counts


def test_collections_without_the_column_of_validity_are_counted() -> None:
    row = to_row(said(".aaf", ("Action: a\nObservation: b", "a", "c", False)))
    del row["valid"]
    assert message_counts([from_row(row)], 2) == {**NONE, "cut_messages": 1, "invented_observations": 1}


class Speaker(SeededPolicy):
    """Says whole messages, each cut at the limit as a model's would be."""

    def __init__(self, messages: Sequence[str], limit: int) -> None:
        super().__init__()
        self.messages, self.max_new_tokens = messages, limit

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        texts = [self.messages[len(conversation.steps)] for conversation in conversations]
        ids = [tuple(self.renderer.action_ids(text))[: self.max_new_tokens] for text in texts]
        return [Completion(of_row, (-1.0,) * len(of_row)) for of_row in ids]


@pytest.mark.parametrize(
    ("action_format", "several", "no_action", "refused"), [("react", 2, 1, 1), ("react_lenient", 1, 0, 1)]
)
def test_a_rollout_is_counted_as_it_happened(
    action_format: str, several: int, no_action: int, refused: int
) -> None:
    messages = (
        "Action: inventory\nObservation: a\nAction: jump",
        "action: inventory",
        "Action: jump",
        "Action: jump\nAction: inventory",
        "Action: jump " + "and so on " * 20,
    )
    limit = 1 + max(len(agents.renderer().action_ids(message)) for message in messages[:4])
    policy = Speaker(messages, limit)
    policy.context_length = 10 * 2048
    (task,) = envs.load("textcraft").tasks(Split.TRAIN, 0, 1)
    setting = EpisodeSetting(round_limit=5, action_format=action_format)
    (made,) = rollout([(task, 0)], policy, setting)
    assert message_counts([made], limit) == {
        "invalid_several_actions": several,
        "invalid_cut": 1,
        "invalid_no_action": no_action,
        "invalid_refused": refused,
        "cut_messages": 1,
        "invented_observations": 1,
    }
