"""Failed episodes are counted and spoken of; where nothing worked there is no rate."""

from __future__ import annotations

import logging

import pytest

from rlprm.data.failures import report_failures
from rlprm.errors import EpisodesFailedError
from rlprm.evaluation.bon import best_of_n, sample_mean
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.table import results_tables
from rlprm.rl.monitor.measure import measure
from rlprm.rollouts.waves import rollout
from rlprm.scorers.random import Random
from rlprm.types import EpisodeSetting, Split, Trajectory
from tests.rl.toy import PolicySampler
from tests.toys import corridor
from tests.toys.agents import SeededPolicy

TASKS = corridor.tasks(Split.TEST, 0, 5)
CAUSE = "RuntimeError: the corridor collapsed"


def episodes(*actions: str) -> list[Trajectory]:
    return rollout([(task, n) for task in TASKS for n in range(4)], SeededPolicy(actions), EpisodeSetting())


def test_failures_are_counted_with_their_commonest_cause(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        failed = report_failures("rollouts", episodes("right", "left", "finish", "crash"))
    assert 0 < failed < 20
    assert f"rollouts: {failed} of 20 episodes failed" in caplog.text
    assert CAUSE in caplog.text


def test_nothing_is_said_where_nothing_failed(caplog: pytest.LogCaptureFixture) -> None:
    assert report_failures("rollouts", episodes("right", "finish")) == 0
    assert not caplog.records


def test_no_episode_that_worked_is_an_error_and_no_rate_of_zero() -> None:
    with pytest.raises(EpisodesFailedError, match=f"all 20 episodes failed, 20 by: {CAUSE}"):
        report_failures("rollouts", episodes("crash"))


def test_every_row_of_a_pool_tells_how_many_of_it_failed() -> None:
    made = episodes("right", "left", "finish", "crash")
    failed = report_failures("pool", made)
    pool = Pool.from_trajectories(made).scored(Random())
    for measured in (sample_mean(pool), *best_of_n(pool, "random", "last", [1, 4])):
        assert measured.record.failed == failed
        title = str(results_tables([measured.record])[0].title)
        assert f"up to {failed} failed episodes a row count as not solved" in title


def test_a_policy_is_not_measured_in_an_environment_that_is_dead() -> None:
    class Crashing(SeededPolicy):
        def at_temperature(self, temperature: float) -> Crashing:
            return self

        def clear(self) -> None:
            pass

    with pytest.raises(EpisodesFailedError):
        measure(PolicySampler(Crashing(("crash",))), TASKS, EpisodeSetting(), samples=2)
