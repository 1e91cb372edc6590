"""What is sent to an endpoint, what becomes of its answer, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from rlprm import envs
from rlprm.data.conversation import Conversation
from rlprm.data.fed_tokens import expected_fed_tokens, fed_tokens
from rlprm.data.message_counts import message_counts
from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.data.store import TrajectoryStore, from_row, to_row
from rlprm.policies.base import Completion
from rlprm.policies.openai.policy import EndpointPolicy
from rlprm.policies.openai.request import chat_messages
from rlprm.rollouts.monte_carlo import replay
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Message, Split, Task, Trajectory
from tests.data import hub_templates as hub
from tests.policies.openai.endpoints import CHAT, asking
from tests.toys import agents
from tests.toys.corridor import jobs
from tests.toys.fake_endpoint import FakeEndpoint, answering


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    with answering(FakeEndpoint()) as endpoint:
        yield endpoint


def renderer(name: str, **variables: object) -> ChatRenderer:
    tokenizer = hub.tokenizer_of(name)
    return ChatRenderer(tokenizer)


def one(policy: EndpointPolicy) -> tuple[Completion, Conversation]:
    talk = Conversation(policy.renderer, [{"role": "user", "content": "hello"}])
    (done,) = policy.act([talk], [5])
    return done, talk


def test_a_request_has_the_messages_and_what_decides_the_sample(fake: FakeEndpoint) -> None:
    fake.message_of = {"content": "right"}
    policy = asking(fake, kwargs={"top_p": 0.9, "reasoning_effort": "low"}, temperature=0.5)
    (done,) = rollout(jobs(1, 1), policy, EpisodeSetting(round_limit=2, prompt="short"))
    first, second = fake.requests
    assert first["messages"][0] == {"role": "system", "content": "Walk to the goal."}
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"] == list(done.messages[:4])
    own = {key: value for key, value in first.items() if key not in ("messages", "seed")}
    assert own == {
        "model": "toy", "temperature": 0.5, "max_tokens": 16, "top_p": 0.9, "reasoning_effort": "low",
    }  # fmt: skip
    assert all(0 <= r["seed"] < 2**31 for r in fake.requests)
    assert first["seed"] != second["seed"]


def test_tokens_are_those_that_the_tokenizer_makes_of_the_text(fake: FakeEndpoint) -> None:
    done = rollout(jobs(), asking(fake), CHAT)
    for trajectory in done:
        assert not trajectory.exact
        again = Conversation(agents.renderer(), trajectory.messages[:1])
        for number, step in enumerate(trajectory.steps):
            ids = agents.renderer().action_ids(trajectory.messages[1 + 2 * number]["content"])
            assert trajectory.token_ids[step.start : step.end + 1] == tuple(ids)
        assert trajectory.token_ids[: trajectory.prompt_length] == tuple(again.token_ids)
        assert set(trajectory.logprobs) == {0.0}
        acted = sum(step.end - step.start + 1 for step in trajectory.steps)
        assert trajectory.action_tokens == acted


def test_text_that_the_tokenizer_changes_is_kept_as_it_was_said(fake: FakeEndpoint) -> None:
    said = "e\u0301 <|im_end|> \ud800 right"  # normalised, a control token as text, half a pair
    fake.message_of = {"content": said}
    (done,) = rollout(jobs(1, 1), asking(fake), EpisodeSetting(round_limit=1))
    assert done.messages[1]["content"] == said.replace("\ud800", "?")
    assert done.token_ids.count(agents.renderer().closing_id) == 2  # of the prompt and of the message


def test_a_cut_message_has_a_forced_closing_token(fake: FakeEndpoint) -> None:
    fake.faults.append(lambda reply: reply.choice.update(finish_reason="length"))
    (done,) = rollout(jobs(1, 1), asking(fake), CHAT)
    ends = [done.action_mask[step.end] for step in done.steps]
    assert ends == [0] + [1] * (len(ends) - 1)
    assert done.token_ids[done.steps[0].end] == agents.renderer().closing_id
    assert message_counts([done], 1000)["cut_messages"] == 1


def test_an_empty_message_is_an_action_that_cannot_be_done(fake: FakeEndpoint) -> None:
    fake.message_of = {"content": None}
    (done,) = rollout(jobs(1, 1), asking(fake), EpisodeSetting(round_limit=1))
    assert (done.error, done.steps[0].action) == (None, "")
    assert done.steps[0].start == done.steps[0].end  # the closing token alone
    assert from_row(to_row(done)) == done


def test_costs_are_the_endpoint_s_own(fake: FakeEndpoint, tmp_path: Path) -> None:
    fake.usage = {
        "prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 30},
    }  # fmt: skip
    policy = asking(fake)
    policy.costs.keep_in(tmp_path)
    done = rollout(jobs(2, 2), policy, CHAT)
    steps = sum(len(t.steps) for t in done)
    assert sum(fed_tokens(done)) == 77 * steps
    assert expected_fed_tokens(done[:2], 2) == 77 * sum(len(t.steps) for t in done[:2])
    policy.costs.close()
    later = asking(fake)
    later.costs.keep_in(tmp_path)
    rollout(jobs(1, 1), later.at_temperature(0.0), CHAT)
    counts = later.costs.counts
    assert counts["requests"] == len(fake.requests)
    assert [counts[f"{kind}_tokens"] for kind in ("prompt", "cached", "completion")] == [
        number * len(fake.requests) for number in (100, 30, 7)
    ]
    assert later.costs.models == ["toy-2026"]


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": "x"}, {"prompt_tokens": -1, "completion_tokens": 2}]
)
def test_without_a_count_the_tokenizer_counts(fake: FakeEndpoint, usage: dict[str, Any] | None) -> None:
    fake.usage = usage
    policy = asking(fake)
    done, talk = one(policy)
    assert done.fed_tokens == len(talk) + len(done.ids)
    assert policy.costs.counts["requests_without_usage"] == 1


THOUGHT = "first left, then right"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", None])
def test_a_thought_is_kept_where_the_template_has_markers_and_never_sent_back(
    fake: FakeEndpoint, key: str | None
) -> None:
    fake.message_of = (
        {"content": f"<think>\n{THOUGHT}\n</think>\n\nright"}
        if key is None
        else {"content": "right", key: THOUGHT}
    )
    policy = asking(fake, renderer=renderer("qwen3"), context_length=10_000)
    (done,) = rollout(jobs(1, 1), policy, EpisodeSetting(round_limit=2))
    assert [step.action for step in done.steps] == ["right", "right"]
    assert done.messages[1] == {"role": "assistant", "content": "right", "thought": THOUGHT}
    text = policy.renderer.tokenizer.decode(list(done.token_ids))
    assert text.count(f"<think>\n{THOUGHT}\n</think>") == 2
    assert THOUGHT not in json.dumps(fake.requests)
    assert from_row(json.loads(json.dumps(to_row(done)))) == done


def test_without_markers_a_thought_is_dropped(fake: FakeEndpoint) -> None:
    fake.message_of = {"content": "right", "reasoning": THOUGHT}
    (done,) = rollout(jobs(1, 1), asking(fake), EpisodeSetting(round_limit=1))
    assert done.messages[1] == {"role": "assistant", "content": "right"}


@pytest.mark.parametrize(
    "message", [{"content": f"<think>\n{THOUGHT}"}, {"content": "", "reasoning": THOUGHT}]
)
def test_a_thought_that_was_cut_has_no_action(fake: FakeEndpoint, message: dict[str, Any]) -> None:
    def cut(reply: Any) -> None:
        reply.choice.update(finish_reason="length", message=message)

    fake.faults += [cut, cut]
    policy = asking(fake, renderer=renderer("qwen3"), context_length=10_000)
    (done,) = rollout(jobs(1, 1), policy, EpisodeSetting(round_limit=2))
    assert [step.action for step in done.steps] == ["", ""]
    said = policy.renderer.tokenizer.decode(list(done.token_ids[done.steps[0].start : done.steps[0].end]))
    assert said == f"<think>\n{THOUGHT}"
    assert THOUGHT not in json.dumps(fake.requests)
    states = replay(done, EpisodeSetting(round_limit=2), policy)
    assert states[-1].trajectory().messages == done.messages


def test_a_model_that_does_not_think_may_have_a_tokenizer_that_does(fake: FakeEndpoint) -> None:
    own = renderer("qwen3_6")
    assert own.pieces.opens_thought
    policy = asking(fake, renderer=own, context_length=10_000)
    fake.message_of = {"content": "right"}
    (done,) = rollout(jobs(1, 1), policy, EpisodeSetting(round_limit=2))
    assert [step.action for step in done.steps] == ["right", "right"]
    assert fake.requests[1]["messages"][1]["content"] == "right"


def textcraft() -> Task:
    return envs.tasks("textcraft", Split.TRAIN, 0, 1, {"depths": [1]})[0]


def call(arguments: str, name: str = "get") -> dict[str, Any]:
    return {"id": "abc", "type": "function", "function": {"name": name, "arguments": arguments}}


CALLS = EpisodeSetting(action_format="tool_call", round_limit=2)


def test_calls_of_tools_have_the_form_of_the_api(fake: FakeEndpoint) -> None:
    tools = envs.tools_of(envs.of_task(textcraft()), "textcraft", CALLS.end)
    tool = tools[0]
    arguments = dict.fromkeys(tool.parameters, "1 oak log")
    fake.message_of = {"content": None, "tool_calls": [call(json.dumps(arguments), tool.name)]}
    policy = asking(fake, renderer=renderer("qwen2_5"), context_length=10_000)
    (done,) = rollout([(textcraft(), 0)], policy, CALLS)
    assert done.error is None
    assert done.messages[1].get("tool_calls") == [{"name": tool.name, "arguments": arguments}]
    assert done.steps[0].action == tool.action.format(**arguments)
    first, second = fake.requests
    assert first["tools"] == [tool.schema() for tool in tools]
    said, answered = second["messages"][-2:]
    assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == arguments
    assert answered["tool_call_id"] == said["tool_calls"][0]["id"]
    assert answered == {
        "role": "tool",
        "tool_call_id": answered["tool_call_id"],
        "content": answered["content"],
    }
    assert "<tool_call>" in policy.renderer.tokenizer.decode(list(done.token_ids))
    assert from_row(json.loads(json.dumps(to_row(done)))) == done
    other = Rerenderer(renderer("qwen3")).render(done)
    assert [step.action for step in other.steps] == [step.action for step in done.steps]


@pytest.mark.parametrize("arguments", ["{broken", "[1]", '"text"'])
def test_a_call_that_cannot_be_read_is_text(fake: FakeEndpoint, arguments: str) -> None:
    fake.message_of = {"content": "so", "tool_calls": [call(arguments)]}
    policy = asking(fake, renderer=renderer("qwen2_5"), context_length=10_000)
    (done,) = rollout([(textcraft(), 0)], policy, CALLS)
    assert (done.error, done.steps[0].action, done.steps[0].valid) == (None, "", False)
    assert "abc" in done.messages[1]["content"]
    assert all(m["role"] in ("user", "assistant") for m in fake.requests[1]["messages"])


def test_every_call_has_an_answer() -> None:
    calls: list[Any] = [{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]
    told: list[Message] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "one call at a time"},
        {"role": "assistant", "content": "sorry"},
    ]
    sent = chat_messages(told, agents.renderer())
    assert [m["role"] for m in sent] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [m["tool_call_id"] for m in sent[2:4]] == [c["id"] for c in sent[1]["tool_calls"]]
    assert {m["content"] for m in sent[2:4]} == {"one call at a time"}


def test_the_field_comes_back_and_old_files_stay_valid(fake: FakeEndpoint, tmp_path: Path) -> None:
    fake.faults.append(lambda reply: reply.choice.update(finish_reason="content_filter"))
    ours = rollout(jobs(), asking(fake), CHAT)
    assert any(t.error for t in ours)
    theirs = rollout(jobs(), agents.SeededPolicy(), CHAT)
    assert all("exact" not in to_row(t) and "fed_tokens" not in to_row(t) for t in theirs)
    assert all(from_row(to_row(t)) == t for t in theirs)
    store = TrajectoryStore.create(tmp_path / "store", {"exact": False})
    store.write(0, ours)
    assert store.read() == ours
    loaded = datasets.load_dataset(str(store.folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert [from_row(row) for row in loaded] == ours


def test_states_are_rebuilt_from_the_text(fake: FakeEndpoint) -> None:
    policy = asking(fake)
    done: list[Trajectory] = rollout(jobs(), policy, CHAT)
    for trajectory in done:
        states = replay(trajectory, CHAT, policy)
        assert states[-1].trajectory().messages == trajectory.messages
        assert not states[-1].conversation.exact
