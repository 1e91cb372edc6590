"""An endpoint that fails in many ways: rows are retried, or lost one by one; a stage ends if it is gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from rlprm.errors import ConfigError, ServersGoneError
from rlprm.policies.server.client import Patience
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, StopReason, Trajectory
from tests.policies.openai.endpoints import CHAT, QUICK, asking
from tests.toys.corridor import jobs
from tests.toys.fake_endpoint import KEY, FakeEndpoint, answering
from tests.toys.fake_vllm import Fault, fault, of_choice

ONE = EpisodeSetting(round_limit=1)


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    with answering(FakeEndpoint()) as endpoint:
        yield endpoint


def texts(trajectories: list[Trajectory]) -> list[tuple[list[str], StopReason | None]]:
    return [([step.action for step in t.steps], t.stop) for t in trajectories]


ONCE: dict[str, Fault] = {
    "500": fault(status=500, content={"error": {"message": "out of memory"}}),
    "429 with a pause": fault(status=429, headers={"retry-after": "0.05"}),
    "429 with a date": fault(status=429, headers={"retry-after": formatdate(0)}),
    "200 with an error": fault(content={"error": {"message": "the provider is down"}}),
    "no choices": fault(content={"choices": []}),
    "a list": fault(content=[1]),
    "cut JSON": fault(raw=b'{"choices": [{"mess'),
    "deep JSON": fault(raw=b"[" * 200_000),
    "no message": of_choice(message=None),
    "content that is no text": of_choice(message={"content": 3}),
    "an abort": of_choice(finish_reason=None),
    "a broken connection": fault(drop=True),
    "no answer in time": fault(wait=1.5),
}


@pytest.mark.parametrize("name", ONCE)
def test_a_request_that_fails_once_is_sent_again_with_its_seed(fake: FakeEndpoint, name: str) -> None:
    whole = texts(rollout(jobs(), asking(fake), CHAT))
    fake.requests.clear()
    fake.faults += [lambda reply: None, ONCE[name], lambda reply: None, ONCE[name]]
    assert texts(rollout(jobs(), asking(fake), CHAT)) == whole
    seeds = [(str(r["messages"]), r["seed"]) for r in fake.requests]
    assert len(seeds) == len(set(seeds)) + 2


@pytest.mark.parametrize("name", [name for name in ONCE if not name.startswith("429")])
def test_a_row_that_fails_too_often_is_lost_with_its_cause(fake: FakeEndpoint, name: str) -> None:
    fake.faults += [ONCE[name]] * QUICK.attempts
    (lost,) = rollout(jobs(1, 1), asking(fake), ONE)
    assert lost.stop is StopReason.ERROR
    assert "attempts failed" in str(lost.error)
    assert fake.url not in str(lost.error)


AT_ONCE: dict[str, tuple[Fault, str]] = {
    "a filter": (of_choice(finish_reason="content_filter"), "content_filter"),
    "a refusal": (of_choice(message={"content": None, "refusal": "I \x1b[2Jcannot"}), r"I \\x1b[2Jcannot"),
    "a 400": (fault(status=400, content={"error": {"message": "too long"}}), "400: too long"),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_refused_conversation_is_lost_alone_and_not_repeated(fake: FakeEndpoint, name: str) -> None:
    spoil, cause = AT_ONCE[name]
    fake.faults.append(spoil)
    done = rollout(jobs(), asking(fake), ONE)
    lost = [t for t in done if t.stop is StopReason.ERROR]
    assert len(lost) == 1
    assert cause.replace(r"\\", "\\") in str(lost[0].error)
    assert len(fake.requests) == len(done)


def test_a_pause_that_is_asked_for_is_kept(fake: FakeEndpoint) -> None:
    fake.faults.append(fault(status=429, headers={"retry-after": "0.4"}))
    started = time.monotonic()
    rollout(jobs(1, 1), asking(fake), ONE)
    assert time.monotonic() - started > 0.4


def test_without_the_endpoint_the_stage_ends(fake: FakeEndpoint, caplog: pytest.LogCaptureFixture) -> None:
    policy = asking(fake)
    fake.stop()
    with caplog.at_level(logging.INFO), pytest.raises(ServersGoneError, match="same command again") as error:
        rollout(jobs(), policy, CHAT)
    assert error.value.exit_status == 1
    assert fake.url not in caplog.text + str(error.value)


def test_an_endpoint_that_is_busy_for_everybody_ends_the_stage(fake: FakeEndpoint) -> None:
    fake.faults += [fault(status=429, content={"error": {"message": "quota exceeded"}})] * 10_000
    with pytest.raises(ServersGoneError, match=r"quota exceeded.*same command again"):
        rollout(jobs(), asking(fake), CHAT)


def test_an_endpoint_without_a_list_of_models_comes_back(fake: FakeEndpoint) -> None:
    fake.faults.append(fault(drop=True))
    policy = asking(fake, patience=Patience(timeout=1.0, attempts=3, without_server=5.0, pause=0.02))
    (done,) = rollout(jobs(1, 1), policy, ONE)
    assert done.stop is not StopReason.ERROR
    assert "/v1/models" in fake.paths
    assert policy.servers.all[0].returns == 1


def test_an_unknown_model_ends_the_stage(fake: FakeEndpoint) -> None:
    fake.faults.append(fault(status=404, content={"error": {"message": "The model `toy` does not exist"}}))
    with pytest.raises(ConfigError, match=r"endpoint_model: .*does not exist"):
        rollout(jobs(1, 1), asking(fake), CHAT)


def test_a_refused_key_ends_the_stage_and_is_not_shown() -> None:
    with answering(FakeEndpoint(key=KEY)) as fake:
        with pytest.raises(ConfigError, match="OPENAI_API_KEY") as error:
            rollout(jobs(1, 1), asking(fake, key="sk-wrong"), CHAT)
        assert "sk-wrong" not in str(error.value)
        done = rollout(jobs(), asking(fake, key=KEY), CHAT)
        assert not any(t.error for t in done)


def test_a_key_that_the_endpoint_repeats_is_not_stored() -> None:
    with answering(FakeEndpoint(key=KEY)) as fake:
        fake.faults += [
            fault(status=500, content={"error": {"message": f"bad header Bearer {KEY}"}}),
            fault(content={"error": {"message": KEY}}),
            fault(status=400, raw=f"<html>{KEY}".encode()),
        ]
        (lost,) = rollout(jobs(1, 1), asking(fake, key=KEY), ONE)
        assert "***" in str(lost.error)
        assert KEY not in str(lost.error)


def test_the_name_of_the_length_limit_is_found_out_once() -> None:
    with answering(FakeEndpoint(limit="max_completion_tokens")) as fake:
        policy = asking(fake)
        done = rollout(jobs(1, 1), policy, CHAT)
        rollout(jobs(1, 2), policy.at_temperature(0.0), CHAT)
    assert done[0].error is None
    refused = [r for r in fake.requests if "max_tokens" in r]
    assert len(refused) == 1
    assert all(r["max_completion_tokens"] == 16 for r in fake.requests[1:])
