"""What changes with the iterations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprm.errors import ConfigError
from rlprm.rl.schedule import learning_rate_factor, round_limit_at, round_limits, scheduled_tasks


def factors(schedule: str, iterations: int = 10, **settings: float) -> list[float]:
    return [
        learning_rate_factor(i, iterations, schedule=schedule, **settings)  # type: ignore[arg-type]
        for i in range(iterations)
    ]


def test_step_sizes_by_hand() -> None:
    assert factors("constant", 3) == [1, 1, 1]
    assert factors("linear", 4) == [1, 0.75, 0.5, 0.25]
    assert factors("linear", 4, minimum=0.2) == pytest.approx([1, 0.8, 0.6, 0.4])
    # half a cosine: 1, cos² of π/8, ½, ...
    assert factors("cosine", 4) == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert factors("constant", 5, warmup=3) == [0.25, 0.5, 0.75, 1, 1]
    assert factors("linear", 5, warmup=1) == [0.5, 1, 0.75, 0.5, 0.25]


def test_a_run_that_gets_more_iterations_goes_from_its_present_rate_to_the_new_end() -> None:
    # 4 iterations, line: 1, 0.75, 0.5, 0.25. After 2 of them there are 6: from 0.5 in four steps.
    found = [learning_rate_factor(i, 6, schedule="linear", since=2, start=0.5) for i in range(2, 6)]
    assert found == [0.5, 0.375, 0.25, 0.125]
    cosine = [learning_rate_factor(i, 6, schedule="cosine", since=2, start=0.5) for i in range(2, 6)]
    assert cosine == pytest.approx([f / 2 for f in factors("cosine", 4)])
    # A change during the warm-up leaves the warm-up as it is.
    changed = [learning_rate_factor(i, 5, schedule="linear", warmup=3, since=1, start=0.5) for i in range(5)]
    assert changed == [0.25, 0.5, 0.75, 1, 0.5]


@given(
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    iterations=st.integers(1, 40),
    warmup=st.integers(0, 50),
    minimum=st.floats(0, 1),
)
def test_no_iteration_is_without_a_step_and_none_above_the_rate(
    schedule: str, iterations: int, warmup: int, minimum: float
) -> None:
    found = factors(schedule, iterations, warmup=warmup, minimum=minimum)
    assert all(0 < factor <= 1 for factor in found)
    assert all(factor >= minimum for factor in found[warmup:])
    assert found[:warmup] == sorted(found[:warmup])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)


@given(per_iteration=st.integers(1, 12), num_tasks=st.integers(1, 12), iterations=st.integers(1, 8))
def test_without_a_shuffle_tasks_come_in_order_and_never_twice_in_the_same_pass(
    per_iteration: int, num_tasks: int, iterations: int
) -> None:
    listed = [
        task
        for iteration in range(iterations)
        for task in scheduled_tasks(iteration, per_iteration, num_tasks, shuffle_seed=None)
    ]
    in_order = [divmod(place, num_tasks) for place in range(per_iteration * iterations)]
    assert [(task.before, task.number) for task in listed] == in_order


@given(
    per_iteration=st.integers(1, 12), num_tasks=st.integers(1, 12), passes=st.integers(1, 4),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_a_shuffled_pass_holds_every_task_once(
    per_iteration: int, num_tasks: int, passes: int, seed: int
) -> None:
    iterations = -(-passes * num_tasks // per_iteration)
    shuffled = [
        task
        for iteration in range(iterations)
        for task in scheduled_tasks(iteration, per_iteration, num_tasks, shuffle_seed=seed)
    ]
    for number in range(passes):
        of_pass = shuffled[number * num_tasks : (number + 1) * num_tasks]
        assert {task.before for task in of_pass} == {number}
        assert sorted(task.number for task in of_pass) == list(range(num_tasks))


def test_the_order_of_tasks_depends_on_seed_and_pass_alone() -> None:
    def order(seed: int, iteration: int = 0) -> list[int]:
        return [task.number for task in scheduled_tasks(iteration, 50, 50, shuffle_seed=seed)]

    assert order(0) == order(0)
    assert len({tuple(order(0)), tuple(order(1)), tuple(order(0, iteration=1)), tuple(range(50))}) == 4


def test_the_curriculum_of_round_limits() -> None:
    schedule = {0: 6, 40: 12, 10: 8}
    assert [round_limit_at(i, schedule, 30) for i in (0, 9, 10, 39, 40, 1000)] == [6, 6, 8, 8, 12, 12]
    assert round_limit_at(5, {}, 30) == 30
    assert round_limit_at(5, {}, None) is None
    assert round_limit_at(5, {"0": 6, "5": "7"}, None) == 7  # as the command line and JSON have it


@pytest.mark.parametrize("wrong", [{1: 6}, {0: 0}, {0: "many"}, {"first": 6}, {0: None}, {0: 6, 3: -1}])
def test_a_curriculum_that_makes_no_sense_is_refused(wrong: dict[object, object]) -> None:
    with pytest.raises(ConfigError, match=r"round_limits: got \{.*allowed: .* e\.g\. \{0: 6, 40: 12\}"):
        round_limits(wrong)
