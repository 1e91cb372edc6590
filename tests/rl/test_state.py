"""The state of a run follows from the state before and one iteration's results."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
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


@pytest.mark.parametrize(
    ("outcomes", "kept"),
    [
        ((0.5, 0.4501, 0.4), (2, 0.5)),  # less than one standard error below; then more
        ((0.5, 0.45, 0.4), (1, 0.5)),  # at one standard error: no more
        ((0.5, 0.45, 0.6, 0.5), (3, 0.6)),  # a new highest one
        ((0.3, 0.6, 0.58, 0.56, 0.2), (4, 0.6)),  # it does not creep down: the highest one counts
        ((0.6, 0.56, 0.53), (2, 0.6)),
    ],
)
def test_the_latest_policy_within_one_standard_error_of_the_highest_is_kept(
    outcomes: tuple[float, ...], kept: tuple[int, float]
) -> None:
    state = RunState(1)
    for outcome in outcomes:
        state = with_dev_outcome(state, outcome, 0.05)
        state = replace(state, iteration=state.iteration + 1)
    assert (state.best_iteration, state.best_success) == kept


def chosen(success: list[float], rule: str, generator: np.random.Generator) -> float:
    """True success of the policy that a rule keeps, by single samples of 128 dev tasks; mean of 400 runs."""
    difficulty = generator.normal(0.0, 1.5, 20_000)
    levels = [1 / (1 + np.exp(-(difficulty + shift))) for shift in success]
    found = []
    for _ in range(400):
        tasks = generator.choice(20_000, 128)
        state = RunState()
        for level in levels:
            samples = generator.binomial(1, level[tasks])
            error = samples.std(ddof=1) / np.sqrt(128) if rule == "one standard error" else 0.0
            state = replace(with_dev_outcome(state, samples.mean(), error), iteration=state.iteration + 1)
        found.append(levels[state.best_iteration].mean())
    return float(100 * (np.mean(found) - max(level.mean() for level in levels)))


def test_the_rule_of_one_standard_error_loses_less_unless_success_falls_slowly() -> None:
    # Points lost against the best of nine policies; the table is in docs/rl.md.
    rises, falls = list(np.linspace(0, 1.2, 9)), list(-np.linspace(0, 1.2, 9))
    collapses = [*np.linspace(0, 1.2, 6), -1.0, -3.0, -5.0]
    lost = {
        (name, rule): chosen(success, rule, np.random.default_rng(0))
        for name, success in (("rises", rises), ("collapses", collapses), ("falls", falls))
        for rule in ("highest", "one standard error")
    }
    assert lost["rises", "highest"] < -1.1 < -0.6 < lost["rises", "one standard error"]
    assert lost["collapses", "highest"] < -0.8 < -0.5 < lost["collapses", "one standard error"]
    assert -5.0 < lost["falls", "one standard error"] < lost["falls", "highest"]  # its price


def test_the_policy_before_rl_is_a_candidate_even_if_it_never_succeeds() -> None:
    assert with_dev_outcome(RunState(), 0.0) == RunState(best_iteration=0, best_success=0.0)


def test_a_new_prm_takes_the_place_of_the_present_one() -> None:
    assert next_state(BEGUN, IterationFacts(0, 0, prm="runs/refreshed")).prm == "runs/refreshed"
    assert next_state(BEGUN, IterationFacts(0, 0)).prm == "runs/prm"


def test_a_state_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        BEGUN.iteration = 9  # type: ignore[misc]
