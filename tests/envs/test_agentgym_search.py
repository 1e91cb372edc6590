"""Environments over HTTP: beam searches and Monte Carlo estimates."""

from __future__ import annotations

import pytest

from rlprm.errors import DataError
from rlprm.rollouts.monte_carlo import estimate, replay
from rlprm.rollouts.waves import rollout
from rlprm.search import beam
from rlprm.types import End, EpisodeSetting, StopReason, Task
from tests.toys.agentgym_episodes import policy, solution, tasks
from tests.toys.agentgym_server import AgentGymServer, drops, says, serving, world_task
from tests.toys.agents import FunctionScorer


def value(task: Task, actions: tuple[str, ...]) -> float:
    """Prefers the actions of the solution, each once."""
    return len(set(actions) & set(solution("textcraft", 1))) - 0.01 * len(actions)


def test_a_beam_search_finds_what_it_finds_in_process() -> None:
    actions = solution("textcraft", 1)
    setting = EpisodeSetting(end=End.ON_SUCCESS, round_limit=len(actions) + 1)
    with serving("textcraft") as server:
        (served,) = tasks(server)
        local = Task("textcraft", served.id, served.split, world_task("textcraft", 1).spec)
        scorer = FunctionScorer(value)
        (there,) = beam.search([served], policy("textcraft", 1), scorer, setting, n=3, m=4)
        (here,) = beam.search([local], policy("textcraft", 1), scorer, setting, n=3, m=4)
        assert there.trajectory.messages == here.trajectory.messages
        assert [s.action for s in there.trajectory.steps] == [s.action for s in here.trajectory.steps]
        assert there.trajectory.outcome.success == here.trajectory.outcome.success
        assert (there.score, there.env_steps, there.sampled_tokens) == (
            here.score,
            here.env_steps,
            here.sampled_tokens,
        )
        assert server.most_busy > 1
        assert server.created <= 3 * 4 + 3  # at most as many sessions as copies at one time
    assert there.trajectory.outcome.success


def test_a_beam_search_survives_copies_that_fail(textcraft: AgentGymServer) -> None:
    actions = solution("textcraft", 1)
    setting = EpisodeSetting(end=End.ON_SUCCESS, round_limit=len(actions) + 1)
    (task,) = tasks(textcraft)
    textcraft.faults["/step"].extend([drops, says({"error": "no"}), says("no", 500)])
    (found,) = beam.search([task], policy("textcraft", 1), FunctionScorer(value), setting, n=3, m=4)
    assert found.trajectory.stop is StopReason.SUCCESS
    with serving("textcraft") as server:
        (dead,) = tasks(server, retries=0)
    (failed,) = beam.search([dead], policy("textcraft", 1), FunctionScorer(value), setting, n=2, m=2)
    assert failed.trajectory.stop is StopReason.ERROR
    assert failed.score is None


def test_estimates_of_a_servers_states_are_those_in_process() -> None:
    setting = EpisodeSetting(end=End.ON_SUCCESS, round_limit=4)
    found = []
    with serving("textcraft") as server:
        (served,) = tasks(server)
        local = Task("textcraft", served.id, served.split, world_task("textcraft", 1).spec)
        for task in (local, served):
            (made,) = rollout([(task, 0)], policy("textcraft", 1), setting)
            states = replay(made, setting, policy("textcraft", 1))
            assert states[-1].trajectory() == made
            found.append(estimate(states[:-1], policy("textcraft", 1), 3))
        with_server = len(server.requests)
    assert found[0] == found[1]
    assert with_server > 4 * 3 * 2
    with pytest.raises(DataError, match="cannot be replayed: UnreachableError: POST"):
        replay(made, setting, policy("textcraft", 1))
