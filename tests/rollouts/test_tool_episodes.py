"""Episodes whose actions are calls of tools: acted, stored, replayed, demonstrated and rendered again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pyarrow as pa
import pytest

from rlprm import envs
from rlprm.data.conversation import Conversation
from rlprm.data.demonstrations import Demonstration, demonstrate
from rlprm.data.importers.agentgym import to_item
from rlprm.data.message_counts import message_counts
from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer, split_turns
from rlprm.data.store import TrajectoryStore, from_row, to_row
from rlprm.errors import ConfigError, DataError
from rlprm.policies.base import Completion
from rlprm.rollouts.episode import Episode, start_episode
from rlprm.rollouts.monte_carlo import replay
from rlprm.scorers.transcript import turns_of
from rlprm.stages.sft import render
from rlprm.types import EpisodeSetting, Split, Task, Trajectory
from tests.data import hub_templates as hub
from tests.toys import agents, corridor

CALLS = EpisodeSetting(action_format="tool_call")


@cache
def renderer(name: str) -> ChatRenderer:
    return ChatRenderer(hub.tokenizer_of(name))


class Caller(agents.SeededPolicy):
    """Has a renderer of the hub; what it says comes from the test."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.renderer = renderer(name)
        self.context_length = 10_000

    def completion(self, text: str) -> Completion:
        ids = tuple(self.renderer.tokenizer(text, add_special_tokens=False)["input_ids"])
        return Completion((*ids, self.renderer.closing_id), (-1.0,) * (len(ids) + 1))


def task() -> Task:
    return envs.tasks("textcraft", Split.TRAIN, 0, 1, {"depths": [1]})[0]


def demonstration() -> Demonstration:
    found = demonstrate(task(), end=CALLS.end, prompt="none", action_format="tool_call")
    assert found is not None
    return found


def texts_of(name: str, demonstrated: Demonstration) -> list[str]:
    bound = renderer(name).with_tools(demonstrated.tools)
    said = [m for m in demonstrated.messages if m["role"] == "assistant"]
    return [bound.action_text(bound.message_ids(message)) for message in said]


def played(name: str, texts: Sequence[str]) -> Trajectory:
    policy = Caller(name)
    episode = start_episode(task(), 0, 0, CALLS, policy)
    assert isinstance(episode, Episode)
    for text in texts:
        completion = policy.completion(text)
        assert episode.read_action(completion).action == episode.fork().append_action(completion).action
        episode.advance(completion)
    return episode.trajectory()


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_6"])
def test_a_demonstration_is_the_episode_in_which_the_same_is_said(name: str) -> None:
    demonstrated = demonstration()
    episode = played(name, texts_of(name, demonstrated))
    assert episode.outcome.success
    conversation = render(demonstrated, renderer(name))
    assert tuple(conversation.token_ids) == episode.token_ids
    assert tuple(conversation.action_mask) == episode.action_mask
    messages = episode.messages[: len(demonstrated.messages)]
    assert [m["role"] for m in messages] == [m["role"] for m in demonstrated.messages]
    assert [m.get("tool_calls") for m in messages] == [m.get("tool_calls") for m in demonstrated.messages]
    assert {m["role"] for m in episode.messages[2::2]} == {"tool"}
    assert '"act"' in renderer(name).tokenizer.decode(episode.token_ids[: episode.prompt_length])


def test_calls_are_stored_and_replayed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    episode = played("qwen2_5", texts_of("qwen2_5", demonstration()))
    assert from_row(json.loads(json.dumps(to_row(episode)))) == episode
    again = replay(episode, CALLS, Caller("qwen2_5"))[-1].trajectory()
    assert replace(again, logprobs=()) == replace(episode, logprobs=(), policy=again.policy)
    store = TrajectoryStore.create(tmp_path / "calls", {"action_format": "tool_call"})
    store.write(0, [episode])
    assert store.read() == [episode]
    datasets = pytest.importorskip("datasets")
    (row,) = datasets.load_dataset(str(tmp_path / "calls"), split="train", cache_dir=str(tmp_path / "cache"))
    assert json.loads(row["messages"][1]["tool_calls"]) == episode.messages[1]["tool_calls"]
    plain = TrajectoryStore.create(tmp_path / "plain", {"action_format": "react"})
    assert "tool_calls" not in (plain.folder / "README.md").read_text(encoding="utf-8")


def test_what_is_no_call_is_answered_by_a_user_and_counted() -> None:
    call = texts_of("qwen2_5", demonstration())[0]
    broken = call.replace("}", "")
    unknown = call.replace('"act"', '"buy"')
    episode = played("qwen2_5", ["I wonder.", broken, unknown, f"{call}\n{call}"])
    assert [step.action for step in episode.steps] == [""] * 4
    assert not any(step.valid for step in episode.steps)
    answers = [observations[0] for observations, _ in split_turns(episode)[1][1:]]
    assert [m["role"] for m in answers] == ["user", "user", "tool"]
    assert answers[1]["content"] == "Error: The call of a tool could not be read."
    assert answers[2]["content"] == "Error: There is no tool buy. The tools are: act."
    counts = message_counts([episode], 100)
    assert (counts["invalid_several_actions"], counts["invalid_no_action"]) == (1, 3)
    assert len(turns_of(episode)[1]) == 4


def test_calls_are_rendered_again_in_the_syntax_of_another_model() -> None:
    demonstrated = demonstration()
    texts = texts_of("qwen2_5", demonstrated)
    here = played("qwen2_5", texts)
    there = Rerenderer(renderer("qwen3_6")).render(here)
    expected = played("qwen3_6", texts_of("qwen3_6", demonstrated))
    assert there.token_ids == expected.token_ids
    assert [(s.start, s.end) for s in there.steps] == [(s.start, s.end) for s in expected.steps]
    back = Rerenderer(renderer("qwen2_5")).render(there)
    assert back.token_ids == here.token_ids
    with pytest.raises(ConfigError, match="neither its tokenizer nor TRL says how it writes calls"):
        Rerenderer(renderer("phi3")).render(here)
    with pytest.raises(DataError, match="AgentGym's format, which has text alone"):
        to_item(here)


def test_an_environment_without_tools_is_refused() -> None:
    (without,) = corridor.tasks(Split.TRAIN, 0, 1)
    with pytest.raises(
        ConfigError, match=r"action_format: got tool_call, allowed: a text format, because .*tools"
    ):
        start_episode(without, 0, 0, CALLS, Caller("qwen2_5"))
    with pytest.raises(ConfigError, match=r"declares no tools"):
        demonstrate(without, end=CALLS.end, prompt="none", action_format="tool_call")


def test_the_embedded_tokenizer_has_no_calls() -> None:
    with pytest.raises(ConfigError, match="neither its tokenizer nor TRL says how it writes calls"):
        start_episode(task(), 0, 0, CALLS, agents.SeededPolicy())


def test_several_observations_of_a_text_environment_are_messages_of_their_own() -> None:
    conversation = Conversation(renderer("qwen2_5"), [{"role": "user", "content": "go"}])
    conversation.act([conversation.renderer.closing_id], [0.0])
    conversation.observe("one", "two")
    assert [m["content"] for m in conversation.messages[-2:]] == ["one", "two"]
    text = conversation.renderer.tokenizer.decode(conversation.token_ids)
    assert text.endswith("user\none<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n")


def call(arguments: str) -> str:
    return f'<tool_call>\n{{"name": "act", "arguments": {arguments}}}\n</tool_call>'


@pytest.mark.parametrize(
    "said",
    [
        call('{"action": ["<|eot_id|>"]}'),
        call('{"action": {"<|eot_id|>": 1}}'),
        call('{"<|eot_id|>": "x"}'),
        call('{"action": "x"}') + "\n" + call('{"action": "y"}'),
        call('{"action": 3}'),
    ],
    ids=["control in a list", "control in a nested key", "control in a key", "two calls", "a number"],
)
@pytest.mark.parametrize("other", ["llama3_1", "qwen3_6", "lfm2_2_5"])
def test_an_odd_call_is_rendered_for_another_template_as_one_message(said: str, other: str) -> None:
    to = renderer(other)
    found = Rerenderer(to).render(played("qwen2_5", [said]))
    (step,) = found.steps
    ids = found.token_ids[step.start : step.end + 1]
    assert ids.count(to.closing_id) == 1
    assert ids[-1] == to.closing_id


def test_half_a_surrogate_pair_in_a_call_can_be_stored() -> None:
    trajectory = played("qwen2_5", [call(r'{"action": "\ud83d"}')])
    assert trajectory.steps[0].action == "?"
    pa.Table.from_pylist([to_row(trajectory)])
