"""How often a policy succeeds, and whether another does so more often."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from rlprm.data.conversation import Conversation
from rlprm.data.message_counts import COUNTED
from rlprm.policies.base import Completion
from rlprm.rl.monitor.measure import TaskResults, measure, paired_differences
from rlprm.types import End, EpisodeSetting, Turn
from tests.rl import toy
from tests.rl.toy import Walker, tasks
from tests.toys import corridor
from tests.toys.agents import SeededPolicy

SETTING = EpisodeSetting(round_limit=6)


def found() -> TaskResults:
    return measure(toy.PolicySampler(Walker()), tasks(), SETTING, samples=3)


def test_success_and_score_are_counted_task_by_task() -> None:
    measured = found()
    names = [f"test-{i}" for i in range(5)]
    assert all(list(of) == names for of in measured.measured().values())
    jobs = [(task, sample) for task in tasks() for sample in range(3)]
    episodes = toy.PolicySampler(Walker(), wave_size=99).collect(jobs, SETTING)
    for number, name in enumerate(names):
        own = [t.outcome for t in episodes[3 * number : 3 * number + 3]]
        assert measured.sample[name] == sum(o.success for o in own) / 3
        assert measured.sample_score[name] == pytest.approx(sum(o.score for o in own) / 3)
    assert 0 < sum(measured.sample.values()) < sum(measured.sample_score.values()) < 5
    assert set(measured.greedy.values()) == {0.0}  # always right, never done
    assert {*measured.greedy_score.values()} <= {0.5 / (1 + distance) for distance in range(4)}
    means = measured.means()
    behaviour = {"declared", "declared_success", "invalid_actions", *COUNTED}
    greedy = {f"greedy_{name}" for name in behaviour}
    assert means.keys() == {"success", "score", "greedy", "greedy_score", *behaviour, *greedy}
    assert means["success"] == pytest.approx(sum(measured.sample.values()) / 5)
    assert means["greedy_score"] == pytest.approx(sum(measured.greedy_score.values()) / 5)


class Dancer(SeededPolicy):
    """Goes right, dances and finishes, at every temperature."""

    def at_temperature(self, temperature: float) -> Dancer:
        return Dancer(temperature=temperature)

    def clear(self) -> None:
        """Forget nothing."""

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        said = ("right", "dance", "finish")
        return [self._completion(said[len(conversation.steps)]) for conversation in conversations]


def test_declared_ends_and_invalid_actions_are_counted_task_by_task(monkeypatch: pytest.MonkeyPatch) -> None:
    step = corridor.Corridor.step

    def refuses(self: corridor.Corridor, action: str) -> Turn:
        return replace(step(self, action), valid=action != "dance")

    monkeypatch.setattr(corridor.Corridor, "step", refuses)
    policy = Dancer()
    cells = {task.id: task.spec["goal"] for task in tasks()}
    ended = measure(toy.PolicySampler(policy), tasks(), SETTING, samples=2)
    assert set(ended.sample_declared.values()) == set(ended.greedy_declared.values()) == {1.0}
    assert (
        ended.sample_declared_success
        == ended.sample
        == {task: float(cell == 1) for task, cell in cells.items()}
    )
    for invalid in (ended.sample_invalid_actions, ended.greedy_invalid_actions):
        assert list(invalid.values()) == pytest.approx([1 / 3] * 5)
    for how in ("sample", "greedy"):
        assert ended.messages[f"{how}_invalid_refused"] == pytest.approx(ended.sample_invalid_actions)
        assert set(ended.messages[f"{how}_cut_messages"].values()) == {0.0}
    assert TaskResults(**json.loads(json.dumps(asdict(ended)))) == ended
    cut_off = measure(toy.PolicySampler(policy), tasks(), EpisodeSetting(round_limit=2), samples=2)
    assert set(cut_off.sample_declared.values()) == {0.0}
    assert set(cut_off.sample_invalid_actions.values()) == {0.5}
    waits = EpisodeSetting(round_limit=2, end=End.ON_SUCCESS)
    met = measure(toy.PolicySampler(policy), tasks(), waits, samples=2)
    assert met.sample_declared_success == met.greedy_declared_success == {}
    assert met.means().keys() == ended.means().keys() - {"declared_success", "greedy_declared_success"}
    assert "sample_declared_success" not in met.as_json()
    assert "sample_declared_success" not in paired_differences(met, met)


def test_failed_episodes_count_as_failures_without_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    step = corridor.Corridor.step

    def breaks(self: corridor.Corridor, action: str) -> Turn:
        if self.actions == 1:
            raise RuntimeError("the corridor collapsed")
        return step(self, action)

    monkeypatch.setattr(corridor.Corridor, "step", breaks)
    measured = found()
    assert set(measured.sample.values()) == {0.0}
    ended_at_once = [share for share in measured.sample_score.values() if share > 0]
    assert len(ended_at_once) < 5  # who declares at once has a score; who goes on has failed, with 0


def test_two_policies_are_compared_task_by_task() -> None:
    score = {"a": 0.5, "b": 0.5, "c": 1.0}
    before = TaskResults({"a": 0.0, "b": 0.5, "c": 1.0}, {"a": 0.0, "b": 0.0, "c": 1.0}, score, score)
    better = {"a": 0.8, "b": 0.8, "c": 1.0}
    after = TaskResults({"a": 0.25, "b": 0.75, "c": 1.0}, {"a": 1.0, "b": 0.0, "c": 0.0}, better, score)
    difference: Any = paired_differences(before, after)
    assert difference["sample"]["mean"] == pytest.approx(1 / 6, abs=1e-4)
    # No task got worse: neither does any sample of tasks.
    assert 0.0 <= difference["sample"]["low"] < 1 / 6 < difference["sample"]["high"] <= 0.25
    assert difference["greedy"]["mean"] == 0.0
    assert difference["greedy"]["low"] < 0 < difference["greedy"]["high"]
    assert difference["sample_score"]["mean"] == pytest.approx(0.2, abs=1e-4)
    assert difference["greedy_score"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    told: Any = after.as_json()
    assert told["tasks"] == 3
    assert told["sample_score"]["mean"] == pytest.approx(2.6 / 3, abs=1e-4)
    assert told["sample"]["mean"] == pytest.approx(2 / 3, abs=1e-4)
