"""Environments over HTTP: instructions, experts, settings and tasks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from rlprm import envs
from rlprm.envs import agentgym
from rlprm.errors import ConfigError, DemonstrationError
from rlprm.rollouts.waves import rollout
from rlprm.types import End, EpisodeSetting, Split, Task
from tests.toys.agentgym_episodes import tasks
from tests.toys.agentgym_server import PROTOCOLS, AgentGymServer, serving
from tests.toys.agents import SeededPolicy


@pytest.mark.parametrize("name", ["babyai", "textcraft"])
@pytest.mark.parametrize("style", ["none", "short", "agentgym"])
def test_instructions_are_those_of_the_same_world_in_process(name: str, style: str) -> None:
    here = envs.load(name).opening(end=End.ON_SUCCESS, style=style)
    assert envs.load(f"rlprm.envs.agentgym.{name}").opening(end=End.ON_SUCCESS, style=style) == here


def test_webshops_client_says_ok_in_its_own_way() -> None:
    module = envs.load("rlprm.envs.agentgym.webshop")
    opening = module.opening(end=End.DECLARED, style="agentgym")
    assert [m["role"] for m in opening] == ["user", "assistant"]
    assert opening[1]["content"] == "Ok."
    assert "search[" in opening[0]["content"]
    assert "Action:" in opening[0]["content"]
    assert "Action:" not in module.opening(end=End.DECLARED, style="short")[0]["content"]


@pytest.mark.parametrize("name", ["agentgym", *(f"rlprm.envs.agentgym.{p}" for p in PROTOCOLS)])
def test_a_server_has_no_expert_and_the_error_names_agenttraj(name: str) -> None:
    task = Task(name, "babyai_1", Split.TRAIN)
    with pytest.raises(DemonstrationError, match=r"no demonstration of babyai_1: .* AgentTraj"):
        envs.load(name).demonstrate(task, end=End.ON_SUCCESS)
    assert "server" in str(envs.missing(name))


def test_servers_that_end_on_success_refuse_declared_ends() -> None:
    with serving("babyai") as server:
        (task,) = tasks(server)
        for make in (envs.load(task.environment).make, envs.load("agentgym").make):
            with pytest.raises(ConfigError, match="end: got declared, allowed: on_success"):
                make(task, end=End.DECLARED)
        with pytest.raises(ConfigError, match="end: got declared"):
            rollout([(task, 0)], SeededPolicy(), EpisodeSetting(end=End.DECLARED))
        assert server.requests == []
    with serving("webshop") as shop:
        (task,) = tasks(shop)
        assert envs.load(task.environment).make(task, end=End.DECLARED).reset()


def test_tasks_are_slices_of_the_data_indices(textcraft: AgentGymServer) -> None:
    indices = {"train": ["0-3", 9, "9"], "test": 5}
    made = agentgym.tasks(
        Split.TRAIN, 1, 4, server=f"{textcraft.url}/", protocol="textcraft", data_indices=indices
    )
    assert [t.id for t in made] == ["textcraft_1", "textcraft_2", "textcraft_3", "textcraft_9"]
    assert {t.environment for t in made} == {"rlprm.envs.agentgym.textcraft"}
    address = {"server": textcraft.url, "timeout": 60.0, "retries": 5, "max_unanswered_starts": 4}
    assert made[0].spec == {**address, "data_idx": 1}
    assert json.loads(json.dumps(made[0].spec)) == made[0].spec
    module = envs.load("rlprm.envs.agentgym.textcraft")
    assert module.tasks(Split.TRAIN, 1, 4, server=textcraft.url, data_indices=indices) == made
    assert module.tasks(Split.DEV, 0, 0, server=textcraft.url, data_indices=indices) == []
    assert textcraft.requests == []


def test_a_tenth_of_train_is_dev_where_none_is_named() -> None:
    def of(split: Split, count: int, **indices: Any) -> list[str]:
        settings = {"server": "http://h:1", "protocol": "textcraft", "data_indices": indices}
        return [task.id for task in agentgym.tasks(split, 0, count, **settings)]

    assert of(Split.DEV, 2, train="0-19") == ["textcraft_9", "textcraft_19"]
    assert of(Split.TRAIN, 18, train="0-19") == [f"textcraft_{i}" for i in range(19) if i != 9]
    assert of(Split.TRAIN, 20, train="0-19", dev=30) == [f"textcraft_{i}" for i in range(20)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"server": ""}, "agentgym server: got ''; give the URL"),
        ({"server": "localhost:8000"}, "server: got 'localhost:8000', allowed: http://host:port"),
        ({"server": "http://h:port"}, "server: got 'http://h:port'"),
        ({"server": "http://"}, "server: got 'http://'"),
        ({"server": "http://h/?a=1"}, "server: got"),
        ({"server": 3}, "agentgym server: got 3"),
        ({"server": "http://h o:1"}, "server: got 'http://h o:1', allowed: no white space or control"),
        ({"server": "http://h/a b"}, "server: got 'http://h/a b', allowed: no white space or control"),
        ({"server": " http://h:1"}, "allowed: no white space or control characters"),
        ({"server": "http://h:1\n"}, r"server: got 'http://h:1\n', allowed: no white space or control"),
        ({"server": "http://h\x00:1"}, "allowed: no white space or control characters"),
        ({"server": "http://h:1/\x7f"}, "allowed: no white space or control characters"),
        ({"server": "http://h:1/\xa0"}, "allowed: no white space or control characters"),
        ({"server": "http://h:1/\xe4"}, "server: got 'http://h:1/\xe4', allowed: http://host:port"),
        ({"protocol": "alfworld"}, "agentgym protocol: got 'alfworld', allowed: babyai, textcraft, webshop"),
        ({"timeout": 0}, "agentgym timeout: got 0"),
        ({"timeout": float("inf")}, "agentgym timeout: got inf"),
        ({"timeout": True}, "agentgym timeout: got True"),
        ({"timeout": 1e300}, "agentgym timeout: got 1e+300, allowed: a number of seconds above 0, 86,400"),
        ({"timeout": 10**400}, "agentgym timeout: got 1000"),
        ({"timeout": float("nan")}, "agentgym timeout: got nan"),
        ({"retries": -1}, "agentgym retries: got -1"),
        ({"retries": 1.5}, "agentgym retries: got 1.5"),
        ({"max_unanswered_starts": 0}, "agentgym max_unanswered_starts: got 0, allowed: 1 or more"),
        ({"max_unanswered_starts": True}, "agentgym max_unanswered_starts: got True"),
        ({"tiemout": 1}, "has no setting 'tiemout'; allowed: server, data_indices, timeout, retries"),
        ({"data_indices": None}, "agentgym data_indices: got None, allowed: train, dev, test"),
        ({"data_indices": {"eval": 3}}, "agentgym data_indices: got {'eval': 3}"),
        ({"data_indices": {"test": -1}}, "agentgym data_indices: got -1"),
        ({"data_indices": {"test": ["5-3"]}}, "agentgym data_indices: got '5-3', allowed: first-last"),
        ({"data_indices": {"test": "0-9999999999"}}, "allowed: first-last, 1,000,000 at most"),
        ({"data_indices": {"test": [1.5]}}, "agentgym data_indices: got 1.5"),
        ({"data_indices": {"test": [None]}}, "agentgym data_indices: got None"),
        ({"data_indices": {"test": 3, "train": "0-3"}}, "3 is in train and in test"),
        ({"data_indices": {"test": "0-3"}}, "data_indices.test has 4 data indices of textcraft, got start 2"),
        ({"data_indices": {"train": 0}}, "data_indices.test has 0 data indices"),
    ],
)
def test_impossible_settings_are_one_line(settings: dict[str, Any], message: str) -> None:
    usual = {"server": "http://h:1", "protocol": "textcraft", "data_indices": {"test": "0-9"}}
    with pytest.raises(ConfigError) as caught:
        agentgym.tasks(Split.TEST, 2, 3, **{**usual, **settings})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_of_another_environment_is_refused() -> None:
    stranger = Task("agentgym", "textcraft_1", Split.TEST, {"goal": "stick"})
    with pytest.raises(ConfigError, match="not a task of an AgentGym server"):
        agentgym.make(stranger, end=End.ON_SUCCESS)
    (task,) = agentgym.tasks(
        Split.TEST, 0, 1, server="http://h:1", protocol="textcraft", data_indices={"test": 1}
    )
    for wrong in ({"timeout": 1e300}, {"max_unanswered_starts": 0}):
        with pytest.raises(ConfigError, match="not a task of an AgentGym server"):
            agentgym.make(replace(task, spec={**task.spec, **wrong}), end=End.ON_SUCCESS)
    with pytest.raises(ConfigError, match="allowed: no white space"):
        agentgym.make(replace(task, spec={**task.spec, "server": "http://h o:1"}), end=End.ON_SUCCESS)
    earlier = {name: value for name, value in task.spec.items() if name != "max_unanswered_starts"}
    agentgym.make(replace(task, spec=earlier), end=End.ON_SUCCESS)
    with pytest.raises(ConfigError, match="protocol: got 'alfworld'"):
        agentgym.make(Task("agentgym", "alfworld_1", Split.TEST), end=End.ON_SUCCESS)
