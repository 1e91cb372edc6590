"""A conversation only grows; its columns stay aligned and its copies apart."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.data.conversation import Conversation
from rlprm.types import Step
from tests.toys import agents

RENDERER = agents.renderer()
CLOSING = RENDERER.closing_id


def conversation() -> Conversation:
    return Conversation(RENDERER, [{"role": "user", "content": "The goal is cell 2."}])


actions = st.lists(st.integers(0, len(RENDERER.tokenizer) - 1).filter(lambda i: i != CLOSING), max_size=5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(actions, st.booleans(), st.sampled_from(["", "There is a wall."])), max_size=4))
def test_columns_stay_aligned_and_hold_exactly_what_was_sampled(
    turns: list[tuple[list[int], bool, str]],
) -> None:
    talk = conversation()
    for number, (ids, closed, observation) in enumerate(turns):
        start, sampled = len(talk), [*ids, CLOSING] if closed else ids
        logprobs = [-0.5 - number - i for i in range(len(sampled))]
        said = talk.act(sampled, logprobs)
        talk.record("parsed", 0.25)
        # The action: its own tokens, then the closing token, forced where it was not sampled.
        assert talk.token_ids[start:] == [*ids, CLOSING]
        assert talk.action_mask[start:] == [1] * len(ids) + [int(closed)]
        assert talk.logprobs[start:] == [*logprobs[: len(ids)], logprobs[-1] if closed else 0.0]
        assert talk.steps[-1] == Step(start, len(talk) - 1, "parsed", 0.25)
        assert talk.messages[-1] == {"role": "assistant", "content": said}
        end = len(talk)
        talk.observe(observation)
        assert talk.token_ids[end:] == RENDERER.observation_ids(observation)
        assert set(talk.action_mask[end:]) == {0}
        assert set(talk.logprobs[end:]) == {0.0}
        assert len(talk.token_ids) == len(talk.action_mask) == len(talk.logprobs) == len(talk)
    assert len(talk.steps) == len(turns)
    assert [m["role"] for m in talk.messages] == ["user", *["assistant", "user"] * len(turns)]


def test_nothing_said_at_all_is_still_a_step() -> None:
    talk = conversation()
    prompt = len(talk)
    assert talk.act([], []) == ""
    assert talk.steps == [Step(prompt, prompt, "")]
    assert (talk.token_ids[-1], talk.action_mask[-1], talk.logprobs[-1]) == (CLOSING, 0, 0.0)


def test_a_closing_note_is_text_only() -> None:
    talk = conversation()
    talk.act(RENDERER.action_ids("finish"), [0.0] * 2)
    ids = list(talk.token_ids)
    talk.note("You are done.")
    assert talk.token_ids == ids
    assert talk.messages[-1] == {"role": "user", "content": "You are done."}


def test_a_fork_and_its_original_go_separate_ways() -> None:
    talk = conversation()
    talk.act(RENDERER.action_ids("left"), [-1.0] * len(RENDERER.action_ids("left")))
    columns = ("messages", "token_ids", "action_mask", "logprobs", "steps")

    def snapshot(of: Conversation) -> list[list[object]]:
        return [list(getattr(of, name)) for name in columns]

    before = snapshot(talk)
    fork = talk.fork()
    assert snapshot(fork) == before
    fork.record("left", 1.0)
    fork.observe("There is a wall.")
    fork.act(RENDERER.action_ids("right"), [-2.0] * len(RENDERER.action_ids("right")))
    assert snapshot(talk) == before
    forked = snapshot(fork)
    talk.observe("You are in cell 0.")
    talk.note("x")
    assert snapshot(fork) == forked
    assert fork.renderer is talk.renderer


def test_half_a_character_from_a_server_becomes_a_question_mark() -> None:
    talk = conversation()
    talk.act(RENDERER.action_ids("finish"), [0.0] * 2)
    talk.observe("cell \ud800 2")
    talk.note("done \udfff")
    assert [m["content"] for m in talk.messages[-2:]] == ["cell ? 2", "done ?"]
