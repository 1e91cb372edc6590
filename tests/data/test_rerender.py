"""A trajectory rendered again: the same words at the same places, in another model's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm import envs
from rlprm.data.conversation import Conversation
from rlprm.data.formats import load_format
from rlprm.data.rerender import Rerenderer, split_messages
from rlprm.errors import DataError
from rlprm.rollouts.episode import Episode, start_episode
from rlprm.rollouts.waves import rollout
from rlprm.types import End, EpisodeSetting, Message, Split, StopReason, Trajectory
from tests.data import templates
from tests.data.strategies import nfc, texts
from tests.data.templates import foreign
from tests.toys import corridor
from tests.toys.agents import ScriptedPolicy, renderer


def walked(
    script: Sequence[str], *, setting: EpisodeSetting | None = None, environment: str = "tests.toys.corridor"
) -> Trajectory:
    """An episode in which the policy says these lines, one a turn."""

    class Lines(ScriptedPolicy):
        def act(self, conversations, seeds):  # type: ignore[no-untyped-def]
            return [self._completion(script[len(c.steps)]) for c in conversations]

    (task,) = envs.load(environment).tasks(Split.TRAIN, 0, 1)
    (made,) = rollout([(task, 0)], Lines({}), setting or EpisodeSetting(prompt="short"))
    return made


def expert(environment: str, action_format: str, prompt: str) -> Trajectory:
    (task,) = envs.load(environment).tasks(Split.TRAIN, 0, 1)
    actions = envs.load(environment).demonstrate(task, end=End.DECLARED)
    write = load_format(action_format).write
    setting = EpisodeSetting(prompt=prompt, action_format=action_format)
    return walked([write(action) for action in actions], setting=setting, environment=environment)


REACT = EpisodeSetting(prompt="short", action_format="react")
LIMITED = EpisodeSetting(round_limit=2)
EPISODES = {
    "the end is declared": lambda: walked(["right", "left", "finish"]),
    "a failure": lambda: walked(["right", "pit"]),
    "the environment fails": lambda: walked(["right", "crash"]),
    "the rounds run out": lambda: walked(["right", "right"], setting=LIMITED),
    "nothing is said": lambda: walked(["", "finish"]),
    "thoughts": lambda: walked(
        ["Thought:\nWhy?\n\nAction:\nright", "Thought:\nThere.\n\nAction:\nfinish"], setting=REACT
    ),
    "an action is refused": lambda: walked(["Action: right\nAction: left", "Action: finish"], setting=REACT),
    "instructions that the assistant has acknowledged": lambda: expert("textcraft", "react", "agentgym"),
    "a real observation": lambda: expert("babyai", "action_only", "none"),
}


@pytest.mark.parametrize("name", EPISODES)
def test_the_same_tokenizer_gives_the_same_tokens(name: str) -> None:
    made = EPISODES[name]()
    assert made.steps
    again = Rerenderer(renderer()).render(replace(made, template="another"))
    assert replace(again, logprobs=made.logprobs, exact=True) == made
    assert set(again.logprobs) == {0.0}
    assert not again.exact


@pytest.mark.parametrize("template", [templates.QWEN25, templates.LLAMA3])
@pytest.mark.parametrize("name", EPISODES)
def test_another_tokenizer_gives_the_text_of_its_own_template(name: str, template: str) -> None:
    made, other = EPISODES[name](), foreign(template)
    again = Rerenderer(other).render(made)
    assert again.token_ids != made.token_ids
    assert again.template == other.template_hash
    # The whole conversation by the template itself, up to and with the last action's closing token.
    last = max(i for i, m in enumerate(made.messages) if m["role"] == "assistant")
    whole = other.tokenizer.apply_chat_template(list(made.messages[: last + 1]), tokenize=False)
    closing = other.tokenizer.decode([other.closing_id])
    assert other.tokenizer.decode(list(again.token_ids)) == whole[: whole.rindex(closing)] + closing
    assert [(s.action, s.reward) for s in again.steps] == [(s.action, s.reward) for s in made.steps]
    said = [m["content"] for m in made.messages if m["role"] == "assistant"][-len(made.steps) :]
    for step, text in zip(again.steps, said, strict=True):
        assert other.action_text(again.token_ids[step.start : step.end + 1]) == text
        assert again.token_ids[step.end] == other.closing_id
    # A step begins where the template tells the assistant to write: v_0 and the states are read there.
    generate = other.tokenizer.apply_chat_template(
        list(made.messages[: last - 2 * (len(made.steps) - 1)]), tokenize=False, add_generation_prompt=True
    )
    assert other.tokenizer.decode(list(again.token_ids[: again.prompt_length])) == generate
    unchanged = ("task", "sample", "seed", "messages", "outcome", "stop", "end", "policy", "error")
    assert all(getattr(again, field) == getattr(made, field) for field in unchanged)


@pytest.mark.trap("closing message")
def test_trap_the_closing_answer_is_not_rendered() -> None:
    made = walked(["right", "finish"])
    assert made.messages[-1]["content"] == "You are done."
    again = Rerenderer(foreign()).render(made)
    assert again.steps[-1].end == len(again.token_ids) - 1
    assert "You are done" not in foreign().tokenizer.decode(list(again.token_ids))


def test_an_observation_that_no_action_followed_is_not_rendered() -> None:
    """An unfinished candidate of a beam, or an episode that ran out of context."""
    policy = ScriptedPolicy({(): ["right"], ("right",): ["finish"]})
    episode = start_episode(corridor.tasks(Split.TRAIN, 0, 1)[0], 0, 0, EpisodeSetting(), policy)
    assert isinstance(episode, Episode)
    fresh = episode.trajectory()
    assert (fresh.steps, fresh.stop) == ((), None)
    again = Rerenderer(foreign()).render(fresh)
    assert list(again.token_ids) == foreign().prompt_ids(fresh.messages)
    assert not again.steps
    assert Rerenderer(renderer()).render(replace(fresh, template="another")) == fresh

    episode.advance(policy.act([episode.conversation], [0])[0])
    halfway = episode.trajectory()
    assert [m["role"] for m in halfway.messages] == ["user", "assistant", "user"]
    again = Rerenderer(foreign()).render(halfway)
    assert (len(again.steps), again.steps[-1].end) == (1, len(again.token_ids) - 1)
    same = Rerenderer(renderer()).render(replace(halfway, template="another"))
    assert same.token_ids == halfway.token_ids


def test_candidates_of_one_history_share_its_tokens() -> None:
    reader = Rerenderer(foreign())
    a, b = (reader.render(walked(["right", last], setting=LIMITED)) for last in ("left", "finish"))
    start = a.steps[1].start
    assert start == b.steps[1].start
    assert a.token_ids[:start] == b.token_ids[:start]
    assert a.token_ids != b.token_ids


def test_tokens_that_are_its_own_are_left_alone() -> None:
    made = walked(["right", "finish"])
    assert Rerenderer(renderer()).render(made) is made


def test_a_failed_start_has_nothing_to_render() -> None:
    failed = replace(
        walked(["finish"]), messages=(), token_ids=(), action_mask=(), logprobs=(), steps=(), error="x"
    )
    assert Rerenderer(foreign()).render(failed) == replace(failed, template=foreign().template_hash)


def test_a_cut_off_action_is_taken_as_a_whole_one() -> None:
    talk = Conversation(renderer(), [{"role": "user", "content": "The goal is cell 2."}])
    ids = renderer().action_ids("right")[:-1]
    talk.act(ids, [-1.0] * len(ids))
    made = replace(
        walked(["finish"]),
        messages=tuple(talk.messages),
        token_ids=tuple(talk.token_ids),
        action_mask=tuple(talk.action_mask),
        steps=tuple(talk.steps),
        template="another",
    )
    again = Rerenderer(renderer()).render(made)
    assert again.token_ids == made.token_ids
    assert (made.action_mask[-1], again.action_mask[-1]) == (0, 0)  # nobody sampled it


@pytest.mark.parametrize("roles", ["", "u", "uaua", "uaau", "auu"], ids=lambda roles: roles or "none")
def test_messages_that_do_not_hold_the_steps_are_refused(roles: str) -> None:
    made = walked(["right", "left", "finish"])  # three steps
    names = {"u": "user", "a": "assistant"}
    messages = tuple(Message(role=names[r], content="x") for r in f"u{roles}")
    with pytest.raises(DataError, match=rf"{len(messages)} messages do not hold its 3 steps"):
        split_messages(replace(made, messages=messages))


@settings(max_examples=60, deadline=None)
@given(texts(), st.lists(st.tuples(texts(), texts()), max_size=3))
def test_any_text_keeps_its_place(question: str, turns: list[tuple[str, str]]) -> None:
    messages = [Message(role="user", content=question)]
    for action, observation in turns:
        messages += [
            Message(role="assistant", content=action),
            Message(role="user", content=observation),
        ]
    made = walked(["finish"])
    step = made.steps[0]
    made = replace(made, messages=tuple(messages), steps=(step,) * len(turns))
    again = Rerenderer(foreign()).render(made)
    assert len(again.token_ids) == len(again.action_mask) == len(again.logprobs)
    assert sum(again.action_mask) == sum(s.end + 1 - s.start for s in again.steps)
    for s, (action, _) in zip(again.steps, turns, strict=True):
        assert foreign().action_text(again.token_ids[s.start : s.end + 1]) == nfc(action)
    assert again.stop is StopReason.DECLARED
    if turns:
        assert again.steps[-1].end == len(again.token_ids) - 1
