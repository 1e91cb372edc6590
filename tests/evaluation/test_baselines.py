"""Free baselines: the best on dev tasks, what is compared with it, and the kind of tasks."""

from __future__ import annotations

import pytest

from rlprm.evaluation.baselines import baseline_comparisons, best_free_baseline, task_kind
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.records import Costs, Measurement, measure
from rlprm.types import End, StepScores, Trajectory
from tests.toys.trajectories import of_steps


class Listed:
    def __init__(self, name: str, values: dict[int, float]) -> None:
        self.name, self.values = name, values

    def score(self, trajectories: list[Trajectory]) -> list[StepScores]:
        return [StepScores(0.0, (self.values[t.sample],) * len(t.steps)) for t in trajectories]


def answer(trajectory: Trajectory) -> str:
    return "right" if trajectory.outcome.success else f"wrong {trajectory.sample % 2}"


def dev_pool() -> Pool:
    # Two of four candidates of each task succeed: 0 and 1.
    flat = [of_steps(i < 2, task=task, sample=i) for task in "ab" for i in range(4)]
    pool = Pool.from_trajectories(flat)
    for name, values in (("good", {0: 4, 1: 3, 2: 2, 3: 1}), ("bad", {0: 1, 1: 2, 2: 3, 3: 4})):
        pool = pool.scored(Listed(name, values))
    return pool


def test_the_best_free_baseline_is_chosen_at_the_budget_and_ties_go_to_the_first() -> None:
    found = best_free_baseline(dev_pool(), {"bad": "last", "good": "last"}, 2)
    # Of 6 pairs, "good" chooses a success in all but {2, 3}, "bad" in {0, 1} alone.
    assert found.success_rates == pytest.approx({"bad": 1 / 6, "good": 5 / 6})
    assert (found.name, found.k) == ("good", 2)
    assert best_free_baseline(dev_pool(), {"bad": "last", "good": "last"}, 1).name == "bad"


def test_where_answers_compare_the_majority_is_a_free_baseline() -> None:
    found = best_free_baseline(dev_pool(), {"bad": "last"}, 4, answer)
    assert found.name == "majority"  # two votes for "right", one for each wrong answer
    assert found.success_rates == pytest.approx({"bad": 0.0, "majority": 1.0})


def row(strategy: str, scorer: str | None = None, n: int = 1, **named: object) -> Measurement:
    successes = {"a": float(strategy == "beam"), "b": 1.0}
    return measure(
        successes, [1.0, 1.0], strategy=strategy, end=End.DECLARED, scorer=scorer, n=n,
        costs=Costs(1, 1, 1, 1), **named,  # type: ignore[arg-type]
    )  # fmt: skip


def test_best_of_n_is_compared_with_greedy_and_the_majority_and_searches_with_the_best_baseline() -> None:
    rows = [
        row("greedy"), row("majority", n=2), row("majority", n=4), row("best_of_n", "prm", 4),
        row("best_of_n", "free", 2), row("best_of_n", "free", 4), row("beam", "prm", 4, m=2),
        row("search", "prm", search="again"),
    ]  # fmt: skip
    names = [(c.a, c.b, c.difference) for c in baseline_comparisons(rows, main="prm", n=4, best_free="free")]
    assert names == [
        ("best of 4, prm", "greedy", 0.0),
        ("best of 4, prm", "majority of 4", 0.0),
        ("beam 4×2, prm", "best of 4, free", 0.5),
        ("again, prm", "best of 4, free", 0.0),
    ]
    others = baseline_comparisons(rows, main="prm", n=4, best_free="majority")
    assert [(c.a, c.b) for c in others[2:]] == [
        ("beam 4×2, prm", "majority of 4"), ("again, prm", "majority of 4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("closed", "kind"), [(0.51, "guidance"), (0.5, "reranking"), (-0.2, "reranking"), (None, "reranking")]
)
def test_tasks_are_guidance_tasks_if_the_rule_closes_more_than_half_of_the_gap(
    closed: float | None, kind: str
) -> None:
    found = task_kind({"transcript": {8: 0.9, 16: closed}}, "transcript", 16)
    assert (found.kind, found.gap_closed, found.n) == (kind, closed, 16)
    assert str(found).endswith(f"{kind} task")
    assert task_kind({"prm": {16: 0.9}}, "transcript", 16).kind == "reranking"
