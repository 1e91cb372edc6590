"""Pools: grouping by task, and everything that must not get into one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlprm.errors import ConfigError, DataError, MismatchError
from rlprm.evaluation.pool import Pool
from rlprm.scorers.random import Random
from rlprm.scorers.shortest import Shortest
from rlprm.scorers.with_confidence import WithConfidence
from rlprm.types import End, StopReason, Trajectory
from tests.toys.agents import FunctionScorer
from tests.toys.trajectories import of_steps


def test_groups_by_task_and_sorts_by_sample() -> None:
    flat = [of_steps(task=task, sample=sample) for sample in (1, 0) for task in ("b", "a")]
    pool = Pool.from_trajectories(flat)
    assert pool.task_ids == ("b", "a")
    assert [[t.sample for t in row] for row in pool.trajectories] == [[0, 1], [0, 1]]
    assert (pool.n, pool.end) == (2, End.DECLARED)
    assert [(t.task.id, t.sample) for t in pool.flat] == [("b", 0), ("b", 1), ("a", 0), ("a", 1)]


def test_actions_that_candidates_begin_with_are_carried_out_once() -> None:
    def acting(sample: int, *actions: str) -> Trajectory:
        walked = of_steps(sample=sample, steps=len(actions))
        steps = [replace(step, action=action) for step, action in zip(walked.steps, actions, strict=True)]
        return replace(walked, steps=tuple(steps))

    pool = Pool.from_trajectories([acting(0, "left", "left"), acting(1, "left", "right"), acting(2, "right")])
    # One candidate: 2, 2 or 1 steps. Two: {left, left left, left right}, {left, left left, right} or
    # {left, left right, right}. Three: left, left left, left right, right.
    assert [pool.expected_steps(k) for k in (1, 2, 3)] == pytest.approx([5 / 3, 3, 4])
    with pytest.raises(ConfigError, match="4"):
        pool.expected_steps(4)


def test_each_scorer_is_asked_once_and_its_scores_stand_with_their_trajectories() -> None:
    failed = of_steps(task="b", sample=0, stop=StopReason.ERROR)
    pool = Pool.from_trajectories(
        [of_steps(steps=3), of_steps(sample=1, steps=1), failed, of_steps(task="b", sample=1)]
    )
    scored = pool.scored(Shortest()).scored(Random())
    lengths = [[s and len(s.values) for s in row] for row in scored.scores_of("shortest")]
    assert lengths == [[3, 1], [None, 2]]
    assert set(scored.scores) == {"shortest", "random"}
    assert not pool.scores


def test_an_unknown_scorer_and_a_name_used_twice_are_refused() -> None:
    pool = Pool.from_trajectories([of_steps()]).scored(Shortest())
    with pytest.raises(ConfigError, match="no scores of 'random' in this pool"):
        pool.weighed(WithConfidence(Random()))
    with pytest.raises(ConfigError, match=r"no scores of 'orm' in this pool; there are: shortest"):
        pool.scores_of("orm")
    with pytest.raises(ConfigError, match="two scorers have the name 'shortest'"):
        pool.scored(Shortest())


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(DataError, match="gave step 1 the score nan"):
        Pool.from_trajectories([of_steps()]).scored(FunctionScorer(lambda *_: float("nan")))


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ([], "at least one"),
        (
            [of_steps(), of_steps(sample=1), of_steps(task="b")],
            "'b' has 1 trajectories, the first task 2",
        ),
        ([of_steps(), of_steps()], "same sample number twice"),
        ([of_steps(stop=None)], "unfinished"),
    ],
)
def test_impossible_pools_are_refused(flat: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Pool.from_trajectories(flat)


@pytest.mark.parametrize("change", [{"end": End.ON_SUCCESS}, {"template": "other"}])
def test_trajectories_that_cannot_be_compared_are_refused(change: dict) -> None:
    with pytest.raises(MismatchError, match="sample 1 of task 'a'"):
        Pool.from_trajectories([of_steps(), replace(of_steps(sample=1), **change)])


def test_weighed_scores_take_no_other_scorers_name() -> None:
    weighed = Pool.from_trajectories([of_steps()]).scored(Random()).weighed(WithConfidence(Random()))
    with pytest.raises(ConfigError, match=r"two scorers have the name 'random\_x_policy'"):
        weighed.weighed(WithConfidence(Random()))


def test_weighed_scores_are_those_of_the_weighing_scorer_itself() -> None:
    made = Pool.from_trajectories([of_steps(steps=2, sample=0), of_steps(steps=0, sample=1)])
    weighing = WithConfidence(FunctionScorer(lambda *_: 0.7))
    assert made.scored(weighing.scorer).weighed(weighing).scores_of(weighing.name) == made.scored(
        weighing
    ).scores_of(weighing.name)
