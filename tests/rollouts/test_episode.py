"""Episodes: why they stop, which tokens they keep, and where their values and rewards belong."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rlprm import envs
from rlprm.data.conversation import Conversation
from rlprm.data.formats import TWO_ACTIONS
from rlprm.data.message_counts import message_counts
from rlprm.data.rendering import ChatRenderer
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, ContextLengthError, UnknownComponentError
from rlprm.policies.base import Completion
from rlprm.rollouts.episode import Episode, episode_seed, start_episode
from rlprm.rollouts.waves import finish_episodes, rollout
from rlprm.types import End, EpisodeSetting, Outcome, Split, StopReason, Task, Trajectory
from tests.toys import corridor
from tests.toys.agents import ScriptedPolicy, SeededPolicy

SETTING = EpisodeSetting()


class Reciter(SeededPolicy):
    """Says one line after another in every conversation; as many tokens of it as are allowed."""

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self.lines = lines

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        self.calls.append(len(conversations))
        return [self._cut(self.lines[min(len(c.steps), len(self.lines) - 1)]) for c in conversations]

    def _cut(self, line: str) -> Completion:
        ids = self.spell(line)[: self.max_new_tokens]
        return Completion(tuple(ids), tuple(-1.0 - i for i in range(len(ids))))

    def spell(self, line: str) -> list[int]:
        return self.renderer.action_ids(line)


class Speller(Reciter):
    """Samples every action letter by letter, as no tokenizer would encode it."""

    def spell(self, line: str) -> list[int]:
        letters: list[int] = self.renderer.tokenizer.convert_tokens_to_ids(list(line))
        return [*letters, self.renderer.closing_id]


def task(goal: int = 2, budget: int | None = None, name: str = "a") -> Task:
    spec = {"goal": goal, "length": 4, "budget": budget}
    return Task("tests.toys.corridor", name, Split.TRAIN, spec)


def play(*lines: str, on: Task | None = None, setting: EpisodeSetting = SETTING) -> Trajectory:
    (made,) = rollout([(on or task(), 0)], Reciter(*lines), setting)
    return made


@pytest.mark.parametrize(
    ("lines", "budget", "end", "stop", "steps", "success"),
    [
        (("right", "right", "finish"), None, End.DECLARED, StopReason.DECLARED, 3, True),
        (("right", "finish"), None, End.DECLARED, StopReason.DECLARED, 2, False),
        (("right", "right", "left"), None, End.ON_SUCCESS, StopReason.SUCCESS, 2, True),
        (("right", "pit"), None, End.DECLARED, StopReason.FAILURE, 2, False),
        (("left", "sleep"), 9, End.DECLARED, StopReason.ENV_LIMIT, 2, False),
        (("left",), None, End.DECLARED, StopReason.ROUND_LIMIT, corridor.ROUND_LIMIT, False),
        # The agent's own end counts, also with its last turn.
        (("left",) * 5 + ("finish",), None, End.DECLARED, StopReason.DECLARED, 6, False),
        (("right", "crash"), None, End.DECLARED, StopReason.ERROR, 2, False),
    ],
)
def test_stop_reasons(
    lines: tuple[str, ...], budget: int | None, end: End, stop: StopReason, steps: int, success: bool
) -> None:
    made = play(*lines, on=task(budget=budget), setting=EpisodeSetting(end=end))
    assert (made.stop, len(made.steps), made.outcome.success, made.end) == (stop, steps, success, end)
    assert [step.action for step in made.steps] == [*lines, *lines[-1:] * 6][:steps]
    assert (made.error is None) == (stop is not StopReason.ERROR)


def test_the_round_limit_of_the_setting_wins_over_the_environments() -> None:
    assert len(play("left", setting=EpisodeSetting(round_limit=2)).steps) == 2
    assert len(play("left", setting=EpisodeSetting(round_limit=9)).steps) == 9


def test_the_context_limit_stops_before_a_prompt_that_leaves_no_room_for_an_action() -> None:
    free = play("left", setting=EpisodeSetting(round_limit=9))
    policy = Reciter("left")
    # Room for exactly three turns: the fourth prompt and an action of full length would need one more token.
    fourth_prompt = free.steps[3].start
    for spare, expected in ((0, 4), (-1, 3)):
        policy.context_length = fourth_prompt + policy.max_new_tokens + spare
        (made,) = rollout([(task(), 0)], policy, EpisodeSetting(round_limit=9))
        assert made.stop is StopReason.CONTEXT_LIMIT
        assert len(made.steps) == expected
        assert made.token_ids == free.token_ids[: free.steps[expected - 1].end + 1]
        assert made.messages[-1] == {"role": "user", "content": "There is a wall."}


def test_a_prompt_that_does_not_fit_is_an_error_of_the_settings() -> None:
    policy = Reciter("left")
    policy.context_length = policy.max_new_tokens + 5
    with pytest.raises(ContextLengthError, match=r"prompt of task a has \d+ tokens; with 16 for an action"):
        rollout([(task(), 0)], policy, SETTING)
    with pytest.raises(UnknownComponentError):
        play("left", setting=EpisodeSetting(action_format="json"))


@pytest.mark.trap("silent gap")
def test_trap_a_failed_step_is_recorded_with_its_cause_and_the_others_go_on() -> None:
    script = {
        (): ["right", "crash"],
        ("right",): ["finish"],
    }
    good, bad = rollout([(task(goal=1), 0), (task(name="b"), 0)], ScriptedPolicy(script), SETTING)
    assert good.stop is StopReason.DECLARED
    assert good.outcome.success
    assert bad.stop is StopReason.ERROR
    assert bad.error == "RuntimeError: the corridor collapsed"
    assert bad.outcome == Outcome(0.0, False, "error")
    assert [step.action for step in bad.steps] == ["crash"]
    assert bad.token_ids[-1] == bad.token_ids[bad.steps[0].end]


def fail_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let task b fail as a server would, and task c as a setting would."""
    build = corridor.make

    def sometimes(of: Task, *, end: End) -> corridor.Corridor:
        if of.id == "b":
            raise ConnectionError("no server")
        if of.id == "c":
            raise ConfigError("no such level")
        return build(of, end=end)

    monkeypatch.setattr(corridor, "make", sometimes)


def test_an_environment_without_fork_is_one_line_if_a_copy_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = next(kind for kind in corridor.Corridor.__mro__ if "fork" in vars(kind))
    monkeypatch.delattr(owner, "fork")
    episode = start_episode(task(), 0, 1, SETTING, Reciter("finish"))
    assert isinstance(episode, Episode)
    with pytest.raises(ConfigError, match=r"has no fork\(\), which beam search"):
        episode.fork()


def test_an_environment_that_cannot_start_is_recorded_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_to_start(monkeypatch)
    policy = Reciter("finish")
    bad, good = rollout([(task(name="b"), 7), (task(), 0)], policy, SETTING)
    assert (bad.stop, bad.error, bad.steps, bad.token_ids) == (
        StopReason.ERROR,
        "ConnectionError: no server",
        (),
        (),
    )
    assert (bad.task.id, bad.sample) == ("b", 7)
    assert good.stop is StopReason.DECLARED
    assert policy.calls == [1]
    with pytest.raises(ConfigError, match="no such level"):
        rollout([(task(name="c"), 0)], policy, SETTING)


def test_a_judgement_that_fails_is_recorded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_: corridor.Corridor) -> Outcome:
        raise TimeoutError("judge is down")

    monkeypatch.setattr(corridor.Corridor, "outcome", unreachable)
    made = play("finish")
    assert (made.stop, made.error) == (StopReason.ERROR, "TimeoutError: judge is down")
    assert [step.action for step in made.steps] == ["finish"]


def test_token_ids_end_with_the_last_action_and_the_closing_message_is_text_only() -> None:
    made = play("right", "right", "finish")
    closing = Reciter("x").renderer.closing_id
    assert made.messages[-1] == {"role": "user", "content": "You are done."}
    assert made.steps[-1].end == len(made.token_ids) - 1
    assert made.token_ids[-1] == closing
    text = Reciter("x").renderer.tokenizer.decode(made.token_ids)
    assert "You are done." not in text
    assert text.count("<|im_end|>") == 1 + 2 * 3 - 1


@pytest.mark.parametrize("limit", [16, 2, 1])
@pytest.mark.trap("value position")
def test_trap_values_and_rewards_belong_to_the_closing_token_of_their_action(limit: int) -> None:
    policy = Reciter("right", "right")
    policy.max_new_tokens = limit
    (made,) = rollout([(task(), 0)], policy, EpisodeSetting(end=End.ON_SUCCESS, round_limit=2))
    renderer = policy.renderer
    prompt = renderer.prompt_ids(made.messages[:1])
    assert made.token_ids[: len(prompt)] == tuple(prompt)
    assert made.prompt_length == len(prompt)
    assert made.value_positions == (len(prompt) - 1, *(step.end for step in made.steps))
    cut_off = limit < len(policy.spell("right"))
    assert cut_off == (limit < 16)
    for step in made.steps:
        assert made.token_ids[step.end] == renderer.closing_id
        assert renderer.closing_id not in made.token_ids[step.start : step.end]
        sampled = made.action_mask[step.start : step.end + 1]
        # A closing token that was forced was not sampled: its mask is 0, that of all others 1.
        assert sampled == (1,) * (len(sampled) - 1) + (0 if cut_off else 1,)
        said = renderer.action_text(made.token_ids[step.start : step.end + 1])
        assert said == renderer.action_text(policy.spell("right")[:limit]) == step.action
    inside = [s for step in made.steps for s in range(step.start, step.end + 1)]
    assert sum(made.action_mask) == sum(made.action_mask[i] for i in inside) == made.action_tokens
    assert all((p != 0.0) == bool(m) for p, m in zip(made.logprobs, made.action_mask, strict=True))
    if not cut_off:
        assert [step.reward for step in made.steps] == [0.0, 1.0]


@pytest.mark.trap("zero reward")
def test_trap_a_step_without_reward_is_still_a_step() -> None:
    made = play("right", "left", "finish")
    assert [(step.action, step.reward) for step in made.steps] == [
        ("right", 0.0),
        ("left", 0.0),
        ("finish", 0.0),
    ]


@pytest.mark.trap("re-encoding")
def test_trap_sampled_ids_are_kept_although_their_text_would_be_encoded_otherwise(tmp_path: Path) -> None:
    policy = Speller("right", "right", "finish")
    (made,) = rollout([(task(), 0)], policy, SETTING)
    assert made.outcome.success
    for step, line in zip(made.steps, policy.lines, strict=True):
        sampled = made.token_ids[step.start : step.end + 1]
        assert list(sampled) == policy.spell(line)
        assert list(sampled) != policy.renderer.action_ids(line)
        assert step.action == line
    encoded_again = list(policy.renderer.prompt_ids(made.messages[:1]))
    for message in made.messages[1:-1]:
        assistant = message["role"] == "assistant"
        encode = policy.renderer.action_ids if assistant else policy.renderer.observation_ids
        encoded_again += encode(message["content"])
    assert policy.renderer.tokenizer.decode(encoded_again) == policy.renderer.tokenizer.decode(made.token_ids)
    assert encoded_again != list(made.token_ids)
    store = TrajectoryStore.create(tmp_path, {})
    store.write(0, [made])
    assert store.read() == [made]


@pytest.mark.trap("invented observation")
def test_trap_the_action_before_an_invented_observation_is_carried_out_and_no_other() -> None:
    policy = Reciter(
        "Thought: go.\nAction: right\nObservation: You are in cell 9.\nAction: finish", "Action: left"
    )
    policy.max_new_tokens = 256
    (made,) = rollout([(task(), 0)], policy, EpisodeSetting(action_format="react_lenient", round_limit=2))
    assert [step.action for step in made.steps] == ["right", "left"]
    assert made.messages[2]["content"] == "You are in cell 1."
    counts = message_counts([made], policy.max_new_tokens)
    assert {name for name, count in counts.items() if count} == {"invented_observations"}


def test_the_environment_is_not_asked_where_no_action_can_be_read() -> None:
    policy = Reciter("Action:\nright\nAction:\nright", "Action:\nright")
    policy.max_new_tokens = 64
    (made,) = rollout([(task(), 0)], policy, EpisodeSetting(action_format="react", round_limit=2))
    assert [step.action for step in made.steps] == ["", "right"]
    assert made.messages[2]["content"] == TWO_ACTIONS
    assert [step.valid for step in made.steps[:2]] == [False, True]
    assert made.messages[4]["content"] == "You are in cell 1."
    assert made.stop is StopReason.ROUND_LIMIT


def test_results_stand_in_the_order_of_the_jobs_and_finished_episodes_cost_nothing() -> None:
    jobs = [(task(goal=g, name=f"goal {g}"), s) for g in (3, 1, 2) for s in (0, 1)]
    policy = ScriptedPolicy({("right",) * n: ["right"] for n in range(6)})
    made = rollout(jobs, policy, EpisodeSetting(end=End.ON_SUCCESS))
    assert [(t.task, t.sample) for t in made] == jobs
    assert [len(t.steps) for t in made] == [3, 3, 1, 1, 2, 2]
    assert policy.calls == [6, 4, 2]


def test_running_counts_what_is_left_and_leaves_finished_episodes_alone() -> None:
    policy = ScriptedPolicy({("right",) * n: ["right"] for n in range(6)})
    setting = EpisodeSetting(end=End.ON_SUCCESS)
    episodes = [Episode(task(goal=g), 0, g, setting, policy) for g in (1, 2, 3)]
    left: list[int] = []
    finish_episodes(episodes, policy, on_turn=left.append)
    assert left == [2, 1, 0]
    before = [e.trajectory() for e in episodes]
    finish_episodes(episodes, policy)
    assert [e.trajectory() for e in episodes] == before
    assert policy.calls == [3, 2, 1]


def test_an_unfinished_episode_can_be_looked_at() -> None:
    policy = Reciter("right")
    episode = Episode(task(), 3, 11, SETTING, policy)
    blank = episode.trajectory()
    assert (blank.stop, blank.steps, blank.prompt_length) == (None, (), len(blank.token_ids))
    assert blank.value_positions == (len(blank.token_ids) - 1,)
    episode.advance(policy.act([episode.conversation], [0])[0])
    begun = episode.trajectory()
    assert (begun.stop, len(begun.steps), begun.outcome.success) == (None, 1, False)
    assert begun.token_ids[-1] == policy.renderer.closing_id
    assert len(begun.token_ids) < len(episode.conversation)


def test_what_is_stored_names_policy_template_and_setting(renderer: ChatRenderer) -> None:
    policy = Reciter("finish")
    policy.temperature, policy.revision = 0.7, "abc"
    (made,) = rollout([(task(), 5)], policy, EpisodeSetting(end=End.ON_SUCCESS, round_limit=1), run_seed=9)
    assert (made.temperature, made.policy, made.template) == (0.7, "abc", renderer.template_hash)
    assert (made.end, made.sample, made.seed) == (End.ON_SUCCESS, 5, episode_seed(9, task(), 5))


def test_a_fork_and_its_original_go_separate_ways() -> None:
    policy = Reciter("right", "right", "finish")
    episode = Episode(task(), 0, 1, SETTING, policy)
    episode.advance(policy.act([episode.conversation], [0])[0])
    fork = episode.fork(seed=2)
    assert (episode.seed, fork.seed) == (1, 2)
    assert episode.fork().seed == 1
    before = replace(episode.trajectory(), seed=2)
    assert fork.trajectory() == before
    finish_episodes([fork], policy)
    assert fork.stop is StopReason.DECLARED
    assert replace(episode.trajectory(), seed=2) == before
    assert episode.stop is None
    finish_episodes([episode], policy)
    assert replace(episode.trajectory(), seed=2) == fork.trajectory()


def test_tasks_samples_and_runs_have_seeds_of_their_own() -> None:
    tasks = [task(name=name) for name in ("a", "b", "ab", "ba", "aa", "train-1", "train-11", "")]
    runs = (0, 1, 2**32, 2**40 + 1)
    seeds = [episode_seed(run, t, sample) for run in runs for t in tasks for sample in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Nothing but the task's id matters.
    other = replace(tasks[0], spec={}, split=Split.TEST)
    assert episode_seed(0, other, 3) == episode_seed(0, tasks[0], 3)


def test_every_turn_and_branch_of_an_episode_has_a_seed_of_its_own() -> None:
    policy = Reciter("left")
    seeds = []
    for number in range(3):
        episode = start_episode(task(), 0, episode_seed(0, task(), number), SETTING, policy)
        assert isinstance(episode, Episode)
        while episode.stop is None:
            seeds += [episode.next_seed(branch) for branch in range(4)]
            assert episode.next_seed() == episode.next_seed(0)
            episode.advance(policy.act([episode.conversation], [0])[0])
    assert len(seeds) == 3 * corridor.ROUND_LIMIT * 4 == len(set(seeds))


def test_an_action_that_cannot_be_done_is_told_from_one_that_can() -> None:
    module = envs.load("textcraft")
    (goal,) = module.tasks(Split.TRAIN, 0, 1)
    (made,) = rollout([(goal, 0)], Reciter("inventory", "jump", "finish"), SETTING)
    assert [step.valid for step in made.steps] == [True, False, True]


def test_what_could_not_be_done_is_kept_on_disk(tmp_path: Path) -> None:
    (goal,) = envs.load("textcraft").tasks(Split.TRAIN, 0, 1)
    made = rollout([(goal, 0)], Reciter("jump", "finish"), SETTING)
    store = TrajectoryStore.create(tmp_path, {})
    store.write(0, made)
    assert store.read() == made


def meeting(monkeypatch: pytest.MonkeyPatch, of: int, names: Sequence[str]) -> None:
    """Let methods of the corridor wait until so many threads are in them; alone they fail."""
    monkeypatch.setattr(corridor, "CONCURRENT", of, raising=False)
    for name in names:
        barrier = threading.Barrier(of, timeout=20)
        method = getattr(corridor.Corridor, name)

        def together(
            *arguments: object, barrier: threading.Barrier = barrier, method: object = method
        ) -> object:
            barrier.wait()
            return method(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(corridor.Corridor, name, together)


def test_environments_that_wait_on_a_network_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [(task(name=name), sample) for name in "ab" for sample in range(3)]
    setting = EpisodeSetting(end=End.ON_SUCCESS, round_limit=3)
    script = {("left",) * n: ["left", "left", "left"] for n in range(6)}
    one_after_another = rollout(jobs, ScriptedPolicy(script), setting)
    meeting(monkeypatch, 3, ["reset", "step"])
    assert rollout(jobs, ScriptedPolicy(script), setting) == one_after_another
    assert all(len(made.steps) == 3 for made in one_after_another)


def test_asking_at_once_changes_neither_order_nor_results(monkeypatch: pytest.MonkeyPatch) -> None:
    def some(action: str) -> SeededPolicy:
        return SeededPolicy(("left", "right", "right", "finish", action))

    jobs = [(task(goal=1 + n % 3, name=f"{n}"), sample) for n in range(7) for sample in range(3)]
    before = rollout(jobs, some("crash"), SETTING, run_seed=5)
    monkeypatch.setattr(corridor, "CONCURRENT", 4, raising=False)
    assert rollout(jobs, some("crash"), SETTING, run_seed=5) == before
    assert len({made.stop for made in before}) >= 3
    assert any(made.stop is StopReason.ERROR for made in before)


def test_failures_to_begin_at_once_are_recorded_and_impossible_settings_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_to_start(monkeypatch)
    monkeypatch.setattr(corridor, "CONCURRENT", 4, raising=False)
    made = rollout([(task(name=name), 0) for name in "abab"], Reciter("finish"), SETTING)
    assert [t.error for t in made] == [None, "ConnectionError: no server"] * 2
    with pytest.raises(ConfigError, match="no such level"):
        rollout([(task(name=name), 0) for name in "abc"], Reciter("finish"), SETTING)
