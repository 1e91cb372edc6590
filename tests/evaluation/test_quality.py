"""Step quality: pooled over tasks, within tasks, at the middle of trajectories, and calibration."""

from __future__ import annotations

import json

import pytest

from rlprm.errors import DataError
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.quality import foresight, running, step_quality
from rlprm.scorers.shortest import Shortest
from rlprm.types import StepScores, StopReason, Trajectory
from tests.toys.agents import FunctionScorer
from tests.toys.evaluations import scored_pool
from tests.toys.trajectories import of_steps, step_scores


class ByTaskAndSample:
    name = "listed"

    def __init__(self, values: dict[tuple[str, int], list[float]]) -> None:
        self.values = values

    def score(self, trajectories: list[Trajectory]) -> list[StepScores]:
        return [step_scores(self.values[t.task.id, t.sample]) for t in trajectories]


def test_the_middle_by_hand() -> None:
    # Five steps: step 3 has t/T = .6, the only one in (.4, .6]. Successes .9 and .2, failures .5
    # and .1: 3 of 4 pairs in order. In each task the success is above the failure: AUC 1 within both.
    values = {
        ("a", 0): [0, 0, 0.9, 0, 0],
        ("a", 1): [1, 1, 0.5, 1, 1],
        ("b", 0): [0, 0, 0.2, 0, 0],
        ("b", 1): [1, 1, 0.1, 1, 1],
    }
    flat = [of_steps(sample == 0, 5, task=task, sample=sample) for task, sample in values]
    found = step_quality(Pool.from_trajectories(flat).scored(ByTaskAndSample(values)), "listed")
    assert found.mid_auc == 0.75
    assert found.mid_auc_within_task == 1.0
    assert [p.auc for p in found.by_index] == [0.0, 0.0, 0.75, 0.0, 0.0]
    assert [p.auc for p in found.by_position] == [0.0, 0.0, 0.75, 0.0, 0.0]


def test_values_after_a_share_of_the_actions_by_hand() -> None:
    # Of 4 actions, the shares are v_1, v_2 and v_3. Of 2 actions: v_0, which is .5, then v_1 and v_1.
    values = {
        ("a", 0): [0.9, 0.1, 0.6, 0.0],
        ("a", 1): [0.4, 0.2],
        ("b", 0): [0.2, 0.9, 0.3, 0.0],
        ("b", 1): [0.6, 0.3],
    }
    flat = [of_steps(sample == 0, len(v), task=task, sample=sample) for (task, sample), v in values.items()]
    found = foresight(Pool.from_trajectories(flat).scored(ByTaskAndSample(values)), "listed")
    assert [point.share for point in found] == [0.25, 0.5, 0.75]
    # 25 %: successes .9 and .2, failures .5 and .5. 50 %: .1 and .9 against .4 and .6.
    # 75 %: .6 and .3 against .4 and .6.
    assert [point.auc for point in found] == [0.5, 0.5, 0.375]
    assert [point.auc_within_task for point in found] == [0.5, 0.5, 0.5]
    assert {point.tasks for point in found} == {2}


def test_values_of_running_episodes_after_fixed_numbers_of_actions_by_hand() -> None:
    # Lengths 5, 3, 4, 1 and 2: 3 on average. A quarter, a half and three quarters are 1, 2 and 2 actions.
    values = {
        ("a", 0): [0.9, 0.1, 0.6, 0.0, 0.0],
        ("a", 1): [0.4, 0.2, 0.0],
        ("a", 2): [0.5, 0.1, 0.0, 0.0],
        ("a", 3): [1.0],
        ("a", 4): [0.6, 1.0],
    }
    flat = [of_steps(sample in (0, 3), len(v), sample=sample) for (_, sample), v in values.items()]
    found = running(Pool.from_trajectories(flat).scored(ByTaskAndSample(values)), "listed")
    # After 1 action, sample 3 has ended: .9 against .4, .5 and .6. After 2, sample 4 has, too: .1 against .2
    # and .1, of which the second is a tie.
    assert [(p.share, p.t, p.auc_within_task) for p in found] == [
        (0.25, 1, 1.0),
        (0.5, 2, 0.25),
        (0.75, 2, 0.25),
    ]
    assert [(p.auc, p.tasks, p.episodes) for p in found] == [(1.0, 1, 4), (0.25, 1, 3), (0.25, 1, 3)]


def test_counting_actions_foretells_nothing_among_running_episodes() -> None:
    # Episodes that succeed are short, so that shares of an episode's own length give the outcome away.
    flat = [of_steps(i < 3, 4 + 6 * (i >= 3), task=t, sample=i) for t in "ab" for i in range(6)]
    pool = Pool.from_trajectories(flat).scored(Shortest())
    assert [point.auc_within_task for point in foresight(pool, "shortest")] == [1.0, 1.0, 1.0]
    # The mean length is 7. After 2 actions all are running, after 4 and 5 only failures are.
    assert [(p.t, p.auc_within_task, p.tasks) for p in running(pool, "shortest")] == [
        (2, 0.5, 2), (4, None, 0), (5, None, 0),
    ]  # fmt: skip


def test_episodes_of_one_action_leave_nothing_to_foretell() -> None:
    pool = Pool.from_trajectories([of_steps(i < 1, 1, sample=i) for i in range(3)]).scored(Shortest())
    assert {(p.t, p.auc, p.auc_within_task, p.tasks, p.episodes) for p in running(pool, "shortest")} == {
        (1, None, None, 0, 0)
    }


def test_knowing_only_the_task_is_seen_within_tasks() -> None:
    # Task a is easy, b is hard; the scorer knows that and nothing else.
    flat = [of_steps(i < 3, 5, task="a", sample=i) for i in range(4)]
    flat += [of_steps(i < 1, 5, task="b", sample=i) for i in range(4)]
    scorer = FunctionScorer(lambda task, _: 0.75 if task.id == "a" else 0.25, name="difficulty")
    found = step_quality(Pool.from_trajectories(flat).scored(scorer), "difficulty")
    assert found.mid_auc == 0.75  # 9 of 16 pairs in order, 6 tied
    assert found.mid_auc_within_task == 0.5
    assert found.calibration is not None
    assert found.calibration.expected_error == pytest.approx(0.0)
    assert found.calibration.brier == pytest.approx(0.75 * 0.25)


def test_one_class_has_no_auc() -> None:
    pool = Pool.from_trajectories([of_steps(True, 5, sample=i) for i in range(3)]).scored(
        FunctionScorer(lambda *_: 0.5)
    )
    found = step_quality(pool, "toy")
    assert found.mid_auc is None
    assert found.mid_auc_within_task is None


def test_what_cannot_be_scored_is_left_out_and_counted() -> None:
    failed = of_steps(True, 5, sample=2, stop=StopReason.ERROR)
    pool = Pool.from_trajectories([of_steps(True, 5), of_steps(False, 5, sample=1), failed])
    scored = pool.scored(FunctionScorer(lambda *_: 0.5))
    found = step_quality(scored, "toy", calibrate=False)
    assert (found.trajectories, found.unscored) == (2, 1)
    assert found.calibration is None
    nothing = Pool.from_trajectories([failed]).scored(FunctionScorer(lambda *_: 0.5))
    with pytest.raises(DataError, match="toy could score none of the 1 trajectories"):
        step_quality(nothing, "toy")


def test_a_scorer_that_knows_more_has_a_higher_auc_later() -> None:
    pool = scored_pool()
    known, random = step_quality(pool, "agentprm"), step_quality(pool, "random")
    assert known.by_position[-1].auc > known.by_position[0].auc + 0.2
    assert known.mid_auc > 0.6
    assert random.mid_auc == pytest.approx(0.5, abs=0.08)


def test_json_keeps_names() -> None:
    found = json.loads(json.dumps(step_quality(scored_pool(tasks=5), "agentprm").as_json()))
    assert set(found["by_position"][2]) == {"position", "auc", "successes", "failures"}
    assert set(found["calibration"]["bins"][0]) == {"low", "high", "size", "mean_value", "success_rate"}
    assert set(found) >= {"scorer", "mid_auc", "mid_auc_within_task", "by_index", "trajectories", "unscored"}
