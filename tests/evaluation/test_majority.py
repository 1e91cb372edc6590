"""Majority voting over drawn candidates: by hand, and against every draw there is."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import pytest

from rlprm.errors import ConfigError
from rlprm.evaluation.majority import majority_of_k_curve, majority_of_n
from rlprm.evaluation.pool import Pool
from rlprm.types import Trajectory
from tests.toys.trajectories import of_steps


def vote(answers: list[str | None], rewards: list[float]) -> float:
    """The reward of one vote; equal numbers of votes are settled by lot, so their rewards are averaged."""
    reward_of = {answer: reward for answer, reward in zip(answers, rewards, strict=True) if answer}
    votes = Counter(answer for answer in answers if answer)
    if not votes:
        return 0.0
    winners = [answer for answer, count in votes.items() if count == max(votes.values())]
    return sum(reward_of[answer] for answer in winners) / len(winners)


def test_by_hand() -> None:
    # Two right answers, one wrong one, one candidate without any. k = 2: of 6 draws, right-right 1 wins,
    # right-wrong 2 are ties, right-silent 2 win, wrong-silent 1 loses: (1 + 2/2 + 2) / 6.
    curve = majority_of_k_curve(["7", "7", "8", None], [1.0, 1.0, 0.0, 0.0], [1, 2, 3, 4])
    assert curve[1] == pytest.approx(1 / 2)
    assert curve[2] == pytest.approx(4 / 6)
    # k = 3: right-right-x 2 win, right-wrong-silent 2 are ties. k = 4: two votes against one.
    assert curve[3] == pytest.approx((2 + 2 / 2) / 4)
    assert curve[4] == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_mean_over_all_draws(seed: int) -> None:
    dice = random.Random(seed)
    answers = [dice.choice(["a", "b", "c", "d", None][: 2 + seed % 4]) for _ in range(8)]
    reward_of = {"a": 1.0, "b": 0.0, "c": 0.25, "d": 0.0, None: 0.0}
    rewards = [reward_of[answer] for answer in answers]
    curve = majority_of_k_curve(answers, rewards, range(1, 9))
    for k in range(1, 9):
        draws = [
            vote([answers[i] for i in chosen], [rewards[i] for i in chosen])
            for chosen in combinations(range(8), k)
        ]
        assert curve[k] == pytest.approx(sum(draws) / len(draws))


def test_without_answers_no_vote_succeeds() -> None:
    assert majority_of_k_curve([None, None], [0.0, 0.0], [1, 2]) == {1: 0.0, 2: 0.0}
    with pytest.raises(ConfigError, match="majority of 3 cannot be drawn from a pool of 2"):
        majority_of_k_curve([None, None], [0.0, 0.0], [3])


def test_a_row_has_the_vote_of_each_task_and_the_costs_of_k_candidates() -> None:
    def answer(trajectory: Trajectory) -> str:
        return "right" if trajectory.outcome.success else f"wrong {trajectory.sample}"

    flat = [of_steps(task == "a" and i < 2, task=task, sample=i) for task in "ab" for i in range(4)]
    pool = Pool.from_trajectories(flat)
    (one, four) = majority_of_n(pool, answer, [1, 4])
    assert one.successes == {"a": 0.5, "b": 0.0}
    assert four.successes == {"a": 1.0, "b": 0.0}
    assert (four.record.name, four.record.prm_tokens) == ("majority of 4", 0.0)
    assert (four.record.env_steps, four.record.sampled_tokens) == (2, 4 * 6)  # equal actions count once
    # All candidates of a task have equal tokens: 3 are read once, and 4 sampled ones fed in each of the four.
    assert four.record.policy_tokens == 3 + 4 * 4
