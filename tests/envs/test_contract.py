"""What every environment promises, checked for each one that is found; a new environment needs no mention."""

from __future__ import annotations

import inspect
import pickle
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlprm import envs
from rlprm.data.formats import Parsed
from rlprm.data.formats.tool_call import action_of, call_of
from rlprm.errors import ConfigError, DemonstrationError
from rlprm.rollouts.waves import rollout
from rlprm.types import End, EpisodeSetting, Split, StopReason, Task
from tests.envs.given import GIVEN, ends_of, environment_of, load
from tests.envs.shared import any_value, one_line_at_most
from tests.toys.agents import SeededPolicy

LONGEST_OBSERVATION = 20_000  # characters; about the context of a small model

pytestmark = pytest.mark.parametrize("name", [*envs.available(), *GIVEN])

both_ends = pytest.mark.parametrize("end", list(End))

# Anything at all, and near misses: words of real actions with something else around them.
_WORDS = "go to pickup pick up toggle turn left move search click [ ] get craft 1 99 red ball Action: finish"
_words = st.sampled_from(_WORDS.split(" "))
HUGE = [
    *(shape.format("a" * 100_000) for shape in ("{}", "search[{}e]", "click[{}]", "get 1 {}", "go to {}")),
    "search[" + "ab " * 40_000 + "]",
    "#### " + "9" * 100_000,
    "craft 1 x using " + "1 a, " * 25_000,
]
any_action = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=st.characters(categories=["Cc", "Cf", "Zs", "So"]), max_size=20),
    st.lists(_words, max_size=6).map(" ".join),
    st.sampled_from(["", " ", "\n", "go to " * 5_000, "\x00", "\ud800"]),
    st.sampled_from(HUGE),
)


@pytest.fixture(autouse=True)
def _can_run_here(name: str, request: pytest.FixtureRequest) -> None:
    if reason := envs.missing(environment_of(name)):
        pytest.skip(reason)
    if (end := request.node.callspec.params.get("end", ends_of(name)[0])) not in ends_of(name):
        pytest.skip(f"{name} has no end {end}")


def test_an_end_that_an_environment_does_not_have_is_a_config_error(name: str) -> None:
    (task,) = load(name).tasks(Split.TRAIN, 0, 1)
    for end in set(End) - set(ends_of(name)):
        with pytest.raises(ConfigError, match="end: got"):
            load(name).make(task, end=end)


def solvable(name: str, end: End, count: int = 3) -> list[tuple[Task, list[str]]]:
    """The first tasks that the expert solves, with its actions."""
    found = []
    for task in load(name).tasks(Split.TRAIN, 0, 40):
        try:
            found.append((task, load(name).demonstrate(task, end=end)))
        except DemonstrationError:
            continue
        if len(found) == count:
            return found
    pytest.fail(f"the expert of {name} solves fewer than {count} of 40 tasks")


def play(name: str, task: Task, end: End, actions: list[str]) -> list[object]:
    """Everything an episode shows."""
    env = load(name).make(task, end=end)
    return [env.reset(), *(env.step(action) for action in actions), env.outcome()]


@both_ends
def test_the_same_task_and_actions_give_the_same_episode(name: str, end: End) -> None:
    for task, actions in solvable(name, end):
        assert play(name, task, end, actions) == play(name, task, end, actions)


@both_ends
def test_fork_continues_like_the_original_and_apart_from_it(name: str, end: End) -> None:
    module = load(name)
    for task, actions in solvable(name, end):
        whole = play(name, task, end, actions)
        for cut in range(len(actions)):
            env = module.make(task, end=end)
            env.reset()
            for action in actions[:cut]:
                env.step(action)
            fork, idle = env.fork(), env.fork()
            before = idle.outcome()
            assert [fork.step(action) for action in actions[cut:]] == whole[1 + cut : -1]
            assert fork.outcome() == whole[-1]
            assert idle.outcome() == before
            assert [env.step(action) for action in actions[cut:]] == whole[1 + cut : -1]


@both_ends
def test_an_agent_that_gets_nowhere_is_stopped_by_a_limit(name: str, end: End) -> None:
    limit = load(name).ROUND_LIMIT
    policy = SeededPolicy(("zzz",))
    policy.context_length = 1_000_000
    task = load(name).tasks(Split.TRAIN, 0, 1)[0]
    (made,) = rollout([(task, 0)], policy, EpisodeSetting(end=end))
    assert made.stop in (StopReason.ROUND_LIMIT, StopReason.ENV_LIMIT), made.error
    assert len(made.steps) == limit or made.stop is StopReason.ENV_LIMIT
    assert not made.outcome.success
    (short,) = rollout([(task, 0)], policy, EpisodeSetting(end=end, round_limit=2))
    assert (short.stop, len(short.steps)) == (StopReason.ROUND_LIMIT, 2)


def test_splits_have_no_instance_in_common(name: str) -> None:
    tasks = load(name).tasks
    lists = {split: tasks(split, 0, 50) for split in Split}
    for split, members in lists.items():
        assert {task.split for task in members} == {split}
        assert {task.environment for task in members} == {environment_of(name)}
    every = [task for members in lists.values() for task in members]
    assert len({task.id for task in every}) == len(every)
    assert len({repr(sorted(task.spec.items())) for task in every}) == len(every)


def test_task_ranges_are_slices_of_one_list(name: str) -> None:
    tasks = load(name).tasks
    for split in Split:
        assert tasks(split, 7, 13) == tasks(split, 0, 30)[7:20]
        assert tasks(split, 3, 0) == []


def test_impossible_task_settings_are_config_errors(name: str) -> None:
    tasks = load(name).tasks
    with pytest.raises(ConfigError):
        tasks(Split.TRAIN, 0, 1, no_such_setting=True)
    with pytest.raises(ConfigError):
        tasks(Split.TRAIN, -1, 1)
    with pytest.raises(ConfigError):
        tasks(Split.TEST, 0, 10**12)


@both_ends
def test_any_action_string_is_answered(name: str, end: End) -> None:
    task = load(name).tasks(Split.TRAIN, 0, 1)[0]
    start = load(name).make(task, end=end)
    start.reset()

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(any_action, max_size=5))
    def answers(actions: list[str]) -> None:
        env = start.fork()
        for action in actions:
            turn = env.step(action)
            assert isinstance(turn.observation, str)
            assert len(turn.observation) <= LONGEST_OBSERVATION
            if turn.stop is not None:
                break
        assert 0.0 <= env.outcome().score <= 1.0

    answers()


def test_a_huge_action_is_answered_at_once(name: str) -> None:
    module = load(name)
    start = module.make(module.tasks(Split.TRAIN, 0, 1)[0], end=ends_of(name)[0])
    start.reset()
    for action in HUGE:
        started = time.process_time()
        start.fork().step(action)
        assert time.process_time() - started < 1, action[:20]


def test_any_value_of_a_setting_is_taken_or_refused_in_one_line(name: str) -> None:
    tasks = load(name).tasks
    parameters = inspect.signature(tasks).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    assert names

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(names), any_value)
    def taken_or_refused(setting: str, value: object) -> None:
        assert one_line_at_most(lambda: tasks(Split.TRAIN, 0, 1, **{setting: value}))

    taken_or_refused()


@both_ends
def test_expert_succeeds_within_the_round_limit_and_the_episode_stops(name: str, end: End) -> None:
    module = load(name)
    for task, actions in solvable(name, end, count=8):
        assert 0 < len(actions) <= module.ROUND_LIMIT
        first, *turns, outcome = play(name, task, end, actions)
        assert first
        assert outcome.success
        assert outcome.definition.startswith(f"{environment_of(name)}: ")
        assert all(turn.stop is None for turn in turns[:-1])
        assert turns[-1].stop in (StopReason.SUCCESS, StopReason.DECLARED)


def test_a_rule_reads_success_off_the_texts_of_the_experts_episode(name: str) -> None:
    module = load(name)
    if not hasattr(module, "read_transcript"):
        pytest.skip(f"{name} has no rule that reads transcripts")
    end = End.DECLARED if End.DECLARED in ends_of(name) else ends_of(name)[0]
    for task, actions in solvable(name, end, count=8):
        start, *played, _ = play(name, task, end, actions)
        turns = [
            (action, "" if turn.stop is StopReason.DECLARED else turn.observation)
            for action, turn in zip(actions, played, strict=True)
        ]
        believed = module.read_transcript(start, turns)
        assert len(believed) == len(turns)
        assert all(0 <= value <= 1 for value in believed)
        assert believed[-1] == max(believed) > 0
        assert module.read_transcript(start, []) == []
        for count in range(len(turns)):  # what comes later changes no verdict
            assert module.read_transcript(start, turns[:count]) == believed[:count]
        assert module.read_transcript("nothing", [("nothing", "nothing")]) == [0]


@both_ends
def test_an_expert_that_explains_itself_has_a_thought_for_every_action(name: str, end: End) -> None:
    module = load(name)
    if not hasattr(module, "explain"):
        pytest.skip(f"{name} has no thoughts")
    for task, actions in solvable(name, end, count=8):
        thoughts = module.explain(task, actions)
        assert len(thoughts) == len(actions)
        assert all(thought and "\n" not in thought for thought in thoughts)


def test_observations_are_bounded_along_demonstrations(name: str) -> None:
    end = ends_of(name)[0]
    for task, actions in solvable(name, end, count=8):
        first, *turns, _ = play(name, task, end, actions)
        assert max(len(first), *(len(turn.observation) for turn in turns)) <= LONGEST_OBSERVATION


@both_ends
def test_outcome_is_valid_right_after_reset(name: str, end: End) -> None:
    module = load(name)
    env = module.make(module.tasks(Split.DEV, 0, 1)[0], end=end)
    env.reset()
    assert not env.outcome().success


def test_nothing_is_printed(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    end = ends_of(name)[0]
    for task, actions in solvable(name, end, count=5):
        play(name, task, end, actions)
    assert capfd.readouterr().out == ""


def test_tasks_survive_pickling(name: str) -> None:
    for task in load(name).tasks(Split.TEST, 0, 5):
        assert pickle.loads(pickle.dumps(task)) == task


@both_ends
@pytest.mark.parametrize("style", ["none", "short", "agentgym"])
def test_opening_ends_before_the_users_turn(name: str, end: End, style: str) -> None:
    messages = load(name).opening(end=end, style=style)
    assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
    assert (style == "none") == (messages == [])


def test_an_unknown_opening_style_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError):
        load(name).opening(end=End.DECLARED, style="no such style")


def test_fixed_phrases_are_distinct_and_not_empty(name: str) -> None:
    phrases = load(name).FIXED_PHRASES
    assert all(phrases)
    assert len(set(phrases)) == len(phrases)


@both_ends
def test_every_action_of_the_expert_is_a_call_of_one_tool(name: str, end: End) -> None:
    module = load(name)
    if not hasattr(module, "tools"):
        with pytest.raises(
            ConfigError, match="action_format: got tool_call, allowed: a text format, because"
        ):
            envs.tools_of(module, name, end)
        return
    tools = envs.tools_of(module, name, end)
    for tool in tools:
        parameters = tool.schema()["function"]["parameters"]
        assert parameters["required"] == list(parameters["properties"]) == list(tool.parameters)
        assert all(f"{{{parameter}}}" in tool.action for parameter in tool.parameters)
    for _, actions in solvable(name, end):
        for action in actions:
            assert action_of([call_of(action, tools)], tools) == Parsed(action)
