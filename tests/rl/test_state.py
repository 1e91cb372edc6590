"""The state of a run follows from the state before and one iteration's results."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from rlprm.rl.state import IterationFacts, RunState, next_state, with_dev_outcome

BEGUN = RunState(4, env_steps=100, tokens=900, prm="runs/prm", best_iteration=2, best_success=0.5,
                 alarms={"overrating": "iteration 3: much"}, seconds={"time/rollout": 1.5})  # fmt: skip


def test_counts_and_seconds_add_up() -> None:
    facts = IterationFacts(7, 60, seconds={"time/rollout": 0.25, "time/save": 2.0})
    after = next_state(BEGUN, facts)
    assert (after.iteration, after.env_steps, after.tokens) == (5, 107, 960)
    assert after.seconds == {"time/rollout": 1.75, "time/save": 2.0}
    assert (after.prm, after.best_iteration, after.best_success) == ("runs/prm", 2, 0.5)
    assert BEGUN.seconds == {"time/rollout": 1.5}  # the state before is left as it was


def test_a_sign_keeps_the_iteration_that_showed_it_first() -> None:
    after = next_state(BEGUN, IterationFacts(0, 0, signs={"overrating": "more", "divergence": "wide"}))
    assert after.alarms == {"overrating": "iteration 3: much", "divergence": "iteration 4: wide"}


@pytest.mark.parametrize(("outcome", "best"), [(0.25, (2, 0.5)), (0.5, (2, 0.5)), (0.75, (5, 0.75))])
def test_the_best_policy_is_the_first_of_the_highest_outcome(outcome: float, best: tuple[int, float]) -> None:
    after = next_state(BEGUN, IterationFacts(0, 0, dev_outcome=outcome))
    assert (after.best_iteration, after.best_success) == best


def test_the_policy_before_rl_is_a_candidate_even_if_it_never_succeeds() -> None:
    assert with_dev_outcome(RunState(), 0.0) == RunState(best_iteration=0, best_success=0.0)


def test_a_new_prm_takes_the_place_of_the_present_one() -> None:
    assert next_state(BEGUN, IterationFacts(0, 0, prm="runs/refreshed")).prm == "runs/refreshed"
    assert next_state(BEGUN, IterationFacts(0, 0)).prm == "runs/prm"


def test_a_state_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        BEGUN.iteration = 9  # type: ignore[misc]
