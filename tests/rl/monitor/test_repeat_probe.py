"""Whether a reward pays for repeating what changes nothing, on episodes whose every value is stated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from rlprm import envs
from rlprm.rl.credit import CreditSetting
from rlprm.rl.monitor.repeat_probe import RepeatProbe, probe_repeats, repeat_actions
from rlprm.rollouts.waves import rollout
from rlprm.stages import train_rl as stage
from rlprm.types import EpisodeSetting, Split, Task, Trajectory
from tests.toys.agents import FunctionScorer, ScriptedPolicy

SETTING = EpisodeSetting(round_limit=12)
AT_THE_WALL = ScriptedPolicy({(): ["left"], ("left",): ["left"], ("left", "left"): ["finish"]})
"""Twice against the wall of cell 0; doing it again changes nothing."""
ON_THE_WAY = ScriptedPolicy({(): ["right"], ("right",): ["right"], ("right", "right"): ["finish"]})
Values = Callable[[Task, tuple[str, ...]], float]


def episodes(policy: ScriptedPolicy, setting: EpisodeSetting = SETTING, count: int = 4) -> list[Trajectory]:
    tasks = envs.load("tests.toys.corridor").tasks(Split.TRAIN, 0, count, length=4)
    return rollout([(task, 0) for task in tasks], policy, setting)


def probe(
    trajectories: Sequence[Trajectory],
    value: Values,
    reward: str,
    *,
    policy: ScriptedPolicy = AT_THE_WALL,
    setting: EpisodeSetting = SETTING,
    count: int = 8,
) -> RepeatProbe | None:
    credit = CreditSetting(reward=reward)
    idle = repeat_actions(trajectories, policy, setting, episodes=count, seed=0)
    return probe_repeats(idle, FunctionScorer(value), credit)


def constant(task: Task, actions: tuple[str, ...]) -> float:
    return 0.3


def flattered(task: Task, actions: tuple[str, ...]) -> float:
    """Likes long episodes; each a little more or less."""
    return 0.1 + (0.05 + 0.001 * int(task.id[-1])) * len(actions)


def test_a_reward_that_pays_for_staying_is_hackable() -> None:
    found = probe(episodes(AT_THE_WALL), constant, "promise")
    assert found is not None
    assert found.is_hackable
    assert found == RepeatProbe(4, pytest.approx(0.3), 0.0, pytest.approx(0.3), 0.0)


@pytest.mark.parametrize("reward", ["progress", "terminal", "outcome"])
def test_a_reward_that_does_not_is_not(reward: str) -> None:
    found = probe(episodes(AT_THE_WALL), constant, reward)
    assert found is not None
    assert not found.is_hackable
    assert found.paid_per_repeat == 0


def test_what_a_prm_makes_of_repeats_by_hand() -> None:
    # Under progress each repeat of task i is paid .05 + .001 i; the last of four is left out, as an end.
    found = probe(episodes(AT_THE_WALL), flattered, "progress")
    assert found is not None
    assert found.episodes == 4
    assert found.paid_per_repeat == pytest.approx(0.0515, abs=1e-6)
    assert found.paid_per_step == pytest.approx(0.0515, abs=1e-6)
    # standard deviation of 0, 1, 2, 3 over n - 1: 1.29; of their mean: half of it
    assert found.error == pytest.approx(0.000645, abs=1e-6)
    assert found.value_change == pytest.approx(3 * 0.0515, abs=1e-6)
    assert found.is_hackable


def test_noise_is_not_taken_for_pay() -> None:
    def noisy(task: Task, actions: tuple[str, ...]) -> float:
        return 0.5 + (0.01 if int(task.id[-1]) % 2 else -0.0098) * len(actions)

    found = probe(episodes(AT_THE_WALL), noisy, "progress")
    assert found is not None
    assert found.paid_per_repeat == pytest.approx(0.0001, abs=1e-6)
    assert not found.is_hackable


def test_of_one_episode_nobody_can_tell() -> None:
    found = probe(episodes(AT_THE_WALL), constant, "promise", count=1)
    assert found is not None
    assert found.episodes == 1
    assert not found.is_hackable


def test_actions_that_change_something_are_no_repeats() -> None:
    assert probe(episodes(ON_THE_WAY), constant, "promise", policy=ON_THE_WAY) is None
    assert probe([], constant, "promise") is None


def test_episodes_too_short_to_repeat_in_are_left_alone() -> None:
    # One turn has to be left behind four repeats.
    short = EpisodeSetting(round_limit=5)
    assert probe(episodes(AT_THE_WALL, short), constant, "promise", setting=short) is None


def test_the_first_process_alone_asks_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    class Second:
        rank, is_main = 1, False

        def gather_all(self, own: list[object]) -> list[list[object]]:
            assert own == []
            return [["what the first one found"], own]

    monkeypatch.setattr(stage, "repeat_actions", lambda *_, **__: pytest.fail("asked"))
    trainer = SimpleNamespace(processes=Second())
    assert stage._repeats(trainer, []) == ["what the first one found"]  # type: ignore[arg-type]
