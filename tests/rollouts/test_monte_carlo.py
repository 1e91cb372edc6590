"""Monte-Carlo estimates: replayed states are the stored ones, and means approach the exact value."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest

from rlprm.errors import ConfigError, DataError, MismatchError
from rlprm.rollouts.episode import Episode, episode_seed
from rlprm.rollouts.monte_carlo import estimate, replay, state_seed, waves
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Split, StopReason, Task, Trajectory
from tests.toys import corridor
from tests.toys.agents import SeededPolicy

SETTING = EpisodeSetting()
POLICY = SeededPolicy()
TASK = Task("tests.toys.corridor", "c", Split.TRAIN, {"goal": 1, "length": 3, "budget": None})


def collected(samples: int = 12) -> list[Trajectory]:
    return rollout([(TASK, sample) for sample in range(samples)], POLICY, SETTING, run_seed=3)


@cache
def exact_value(cell: int, turns_left: int) -> float:
    """Chance that a policy of uniform left, right, finish ends on cell 1 of 3 by declaring it."""
    if turns_left == 0:
        return 0.0
    finish = float(cell == 1)
    left, right = max(cell - 1, 0), min(cell + 1, 2)
    return (exact_value(left, turns_left - 1) + exact_value(right, turns_left - 1) + finish) / 3


def test_replayed_states_hold_the_stored_tokens_of_every_prefix() -> None:
    for trajectory in collected():
        states = replay(trajectory, SETTING, POLICY)
        assert len(states) == len(trajectory.steps) + 1
        assert states[-1].trajectory() == trajectory
        for turn, state in enumerate(states[:-1]):
            assert state.turn == turn
            assert state.stop is None
            length = trajectory.steps[turn].start
            assert tuple(state.conversation.token_ids) == trajectory.token_ids[:length]


def test_an_environment_that_answers_differently_is_noticed() -> None:
    trajectory = next(t for t in collected() if len(t.steps) > 2)
    elsewhere = replace(trajectory, task=replace(TASK, spec={**TASK.spec, "budget": 1}))
    with pytest.raises(DataError, match="cannot be replayed"):
        replay(elsewhere, SETTING, POLICY)


@pytest.mark.trap("other limits")
def test_trap_a_shorter_context_does_not_turn_states_into_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    trajectory = next(t for t in collected() if len(t.steps) > 2)
    short = trajectory.steps[1].start + POLICY.max_new_tokens - 1
    monkeypatch.setattr(POLICY, "context_length", short)
    with pytest.raises(DataError, match=r"now it ends after 1 of \d actions \(context_limit\)"):
        replay(trajectory, SETTING, POLICY)


def test_an_environment_that_fails_now_is_named_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    trajectory = next(t for t in collected() if len(t.steps) > 2)

    def gone(*_: object) -> str:
        raise ConnectionError("no server")

    with monkeypatch.context() as patch:
        patch.setattr(corridor.Corridor, "reset", gone)
        with pytest.raises(
            DataError, match=r"sample \d+ of task 'c' cannot be replayed: ConnectionError: no server"
        ):
            replay(trajectory, SETTING, POLICY)
    monkeypatch.setattr(corridor.Corridor, "step", gone)
    with pytest.raises(DataError, match="cannot be replayed: ConnectionError: no server"):
        replay(trajectory, SETTING, POLICY)


def test_estimates_approach_the_exact_value_of_each_state() -> None:
    trajectory = next(t for t in collected(40) if len(t.steps) >= 4)
    states = [state for state in replay(trajectory, SETTING, POLICY) if state.stop is None]
    n = 2000
    for state, found in zip(states, estimate(states, POLICY, n), strict=True):
        environment = state.env
        assert isinstance(environment, corridor.Corridor)
        expected = exact_value(environment.cell, corridor.ROUND_LIMIT - state.turn)
        assert found.rollouts == n
        assert abs(found.success - expected) < 4 * math.sqrt(expected * (1 - expected) / n) + 1e-9


def test_an_episode_that_is_over_has_its_own_outcome_and_costs_nothing() -> None:
    for trajectory in collected():
        last = replay(trajectory, SETTING, POLICY)[-1]
        (found,) = estimate([last], POLICY, 5)
        assert found.success == float(trajectory.outcome.success)
        assert (found.rollouts, found.sampled_tokens, found.env_steps) == (0, 0, 0)


def test_a_state_is_estimated_alike_alone_and_beside_others() -> None:
    states = [state for t in collected(4) for state in replay(t, SETTING, POLICY)]
    together = estimate(states, POLICY, 7)
    assert together == [estimate([state], POLICY, 7)[0] for state in states]
    assert all(state.turn == before for state, before in zip(states, [s.turn for s in states], strict=True))


def test_costs_count_what_came_after_the_state() -> None:
    # The only action is `finish`: every rollout from any state is one step of a fixed number of tokens.
    policy = SeededPolicy(actions=["finish"])
    (trajectory,) = rollout([(TASK, 0)], policy, SETTING)
    (found,) = estimate([Episode(TASK, 0, episode_seed(0, TASK, 0), SETTING, policy)], policy, 5)
    assert found.env_steps == 5
    assert found.sampled_tokens == 5 * trajectory.action_tokens


def test_the_futures_are_fresh_ones() -> None:
    # Were the episode's own seed among them, its own future would be one of its estimates.
    trajectory = next(t for t in collected(40) if len(t.steps) >= 4)
    start = replay(trajectory, SETTING, POLICY)[0]
    seeds = {start.fork(seed).next_seed() for seed in range(3)} | {start.next_seed()}
    assert len(seeds) == 4
    POLICY.seeds.clear()
    estimate([start], POLICY, 50)
    assert start.next_seed() not in POLICY.seeds[0]
    assert len(set(POLICY.seeds[0])) == 50


def test_no_rollouts_are_refused_and_failures_are_left_out() -> None:
    start = Episode(TASK, 0, 0, SETTING, POLICY)
    with pytest.raises(ConfigError, match="rollouts: got 0"):
        estimate([start], POLICY, 0)
    with pytest.raises(DataError, match="every rollout from turn 0"):
        estimate([start], SeededPolicy(actions=["crash"]), 3)
    (found,) = estimate([start], SeededPolicy(actions=["crash", "finish"]), 40)
    assert 0 < found.rollouts < 40
    assert found.success == 0.0


def test_stop_reasons_of_replayed_ends_are_kept() -> None:
    stops = {replay(t, SETTING, POLICY)[-1].stop for t in collected(60)}
    assert stops == {StopReason.DECLARED, StopReason.ROUND_LIMIT}


def test_waves_are_filled_but_not_overfilled_and_finished_episodes_take_no_room() -> None:
    running = Episode(TASK, 0, 0, SETTING, POLICY)
    over = replay(collected()[0], SETTING, POLICY)[-1]
    portions = list(waves([running, over, running, over, running], rollouts=3, wave_size=7))
    assert portions == [[running, over, running, over], [running]]
    assert list(waves([running] * 3, rollouts=9, wave_size=4)) == [[running]] * 3
    assert list(waves([], rollouts=1, wave_size=1)) == []


def test_the_seed_of_a_state_is_that_of_its_task_and_tokens() -> None:
    states = [state for t in collected(30) for state in replay(t, SETTING, POLICY)[:-1]]
    tokens = {tuple(state.conversation.token_ids) for state in states}
    assert len({state_seed(0, state) for state in states}) == len(tokens) < len(states)
    elsewhere = Episode(replace(TASK, id="d"), 0, 0, SETTING, POLICY)
    same = Episode(TASK, 7, 5, SETTING, POLICY)
    assert state_seed(0, same) == state_seed(0, states[0])
    assert len({state_seed(0, same), state_seed(1, same), state_seed(0, elsewhere)}) == 3


def test_a_policy_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(MismatchError, match="rendered with template another"):
        replay(replace(collected(1)[0], template="another"), SETTING, POLICY)
