"""Servers that fail in many ways: rows are retried, or lost one by one; a stage ends if no server is left."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from rlprm.data.conversation import Conversation
from rlprm.errors import ConfigError, MismatchError, ServersGoneError
from rlprm.policies.server.client import Patience, Servers, printable
from rlprm.policies.server.loop import LoopThread
from rlprm.policies.server.policy import ServerPolicy
from rlprm.policies.server.served import look_at
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, StopReason, Trajectory
from tests.toys import agents
from tests.toys.corridor import jobs
from tests.toys.fake_vllm import FakeVLLM, Fault, Reply, fault, of_choice, restarted, serving

CHAT = EpisodeSetting(round_limit=4)
QUICK = Patience(timeout=1.0, attempts=3, without_server=0.6, pause=0.01)


@pytest.fixture
def fake() -> Iterator[FakeVLLM]:
    with serving(FakeVLLM()) as server:
        yield server


def connected(
    *fakes: FakeVLLM, patience: Patience = QUICK, key: str | None = None, check_weights: bool = False
) -> ServerPolicy:
    servers = Servers([fake.url for fake in fakes], patience=patience, key=key)
    served = look_at(servers, "unused", prompt=[1, 2, 3], context_length=2048, check_weights=check_weights)
    return ServerPolicy(
        servers, served, agents.renderer(), model=None, revision="r", temperature=1.0, max_new_tokens=16,
        context_length=2048,
    )  # fmt: skip


def expected() -> list[Trajectory]:
    """What episodes are without a fault: each action is a function of its seed."""
    return rollout(jobs(), agents.SeededPolicy(), CHAT)


def content(trajectories: list[Trajectory]) -> list[tuple[tuple[int, ...], StopReason | None]]:
    return [(t.token_ids, t.stop) for t in trajectories]


def nan(reply: Reply) -> None:
    reply.choice["logprobs"]["content"][0]["logprob"] = float("nan")


FAULTS: dict[str, Fault] = {
    "500": fault(status=500, content={"error": {"message": "out of memory"}}),
    "503 with a pause": fault(status=503, headers={"retry-after": "0.05"}),
    "429": fault(status=429, content="busy"),
    "200 with an error": fault(content={"error": "engine is dead"}),
    "cut JSON": fault(raw=b'{"choices": [{"token_'),
    "no JSON": fault(raw=b"\xff\xfe\x00"),
    "an empty answer": fault(raw=b""),
    "deep JSON": fault(raw=b"[" * 200_000),
    "an abort": of_choice(finish_reason="abort"),
    "another number of log-probabilities": of_choice(logprobs={"content": []}),
    "NaN": nan,
    "a broken connection": fault(drop=True),
    "no answer in time": fault(wait=1.5),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_request_that_fails_once_is_sent_again_with_its_seed(fake: FakeVLLM, name: str) -> None:
    policy = connected(fake)
    fake.requests.clear()
    fake.faults += [lambda reply: None, FAULTS[name], lambda reply: None, FAULTS[name]]
    assert content(rollout(jobs(), policy, CHAT)) == content(expected())
    seeds = [(tuple(r["token_ids"]), r["sampling_params"]["seed"]) for r in fake.requests]
    assert len(seeds) == len(set(seeds)) + 2


def test_a_row_that_fails_too_often_is_lost_alone(fake: FakeVLLM) -> None:
    whole = fake.generate

    def fail_for_one_task(body: dict[str, Any]) -> Reply:
        reply = whole(body)
        if body["token_ids"][: len(prompt)] == prompt:
            reply.status, reply.content = 500, {"error": {"message": "bad \x1b[2J row"}}
        return reply

    policy = connected(fake)
    first = jobs()[0][0]
    prompt = list(expected()[0].token_ids[: expected()[0].prompt_length])
    fake.generate = fail_for_one_task  # type: ignore[method-assign]
    done = rollout(jobs(), policy, CHAT)
    lost = [t for t in done if t.stop is StopReason.ERROR]
    assert {t.task.id for t in lost} >= {first.id}
    assert len(lost) < len(done)
    assert all("500" in str(t.error) and "\x1b" not in str(t.error) for t in lost)
    kept = [a for a, b in zip(expected(), done, strict=True) if b.stop is not StopReason.ERROR]
    assert content([t for t in done if t.stop is not StopReason.ERROR]) == content(kept)


def test_a_refused_request_is_not_repeated(fake: FakeVLLM) -> None:
    policy = connected(fake)
    fake.requests.clear()
    fake.faults.append(fault(status=400, content={"error": {"message": "too long"}}))
    (done,) = rollout(jobs(1, 1), policy, CHAT)
    assert done.stop is StopReason.ERROR
    assert "400: too long" in str(done.error)
    assert len(fake.requests) == 1


def test_without_any_server_the_stage_ends(fake: FakeVLLM, caplog: pytest.LogCaptureFixture) -> None:
    policy = connected(fake)
    fake.stop()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ServersGoneError, match="same command again") as error,
    ):
        rollout(jobs(), policy, CHAT)
    assert error.value.exit_status == 1
    assert "waiting for it" in caplog.text


def test_a_server_that_comes_back_goes_on(fake: FakeVLLM) -> None:
    policy = connected(fake, patience=Patience(timeout=1.0, attempts=3, without_server=10.0, pause=0.02))
    fake.stop()
    threading.Timer(0.5, restarted, [fake]).start()
    assert content(rollout(jobs(), policy, CHAT)) == content(expected())


def test_another_server_takes_over() -> None:
    with ExitStack() as stack:
        fakes = [stack.enter_context(serving(FakeVLLM())) for _ in range(2)]
        policy = connected(*fakes)
        count = 0
        whole = fakes[0].generate

        def die_soon(body: dict[str, Any]) -> Reply:
            nonlocal count
            count += 1
            reply = whole(body)
            reply.drop = count > 3
            if count == 4:
                threading.Thread(target=fakes[0].stop).start()
            return reply

        fakes[0].generate = die_soon  # type: ignore[method-assign]
        assert content(rollout(jobs(4), policy, CHAT)) == content(
            rollout(jobs(4), agents.SeededPolicy(), CHAT)
        )
        assert count >= 4


def test_an_episode_stays_with_its_server() -> None:
    with ExitStack() as stack:
        fakes = [stack.enter_context(serving(FakeVLLM())) for _ in range(3)]
        policy = connected(*fakes)
        for fake in fakes:
            fake.requests.clear()
        done = rollout(jobs(6, 2), policy, CHAT)
        assert sum(bool(fake.requests) for fake in fakes) >= 2
        by_server = [[r["token_ids"] for r in fake.requests] for fake in fakes]
        for trajectory in done:
            later = [list(trajectory.token_ids[: step.start]) for step in trajectory.steps]
            assert any(all(prompt in prompts for prompt in later) for prompts in by_server)


def test_a_refused_key_ends_the_stage_and_is_not_shown() -> None:
    with serving(FakeVLLM(key="secret-key")) as fake:
        with pytest.raises(ConfigError, match="VLLM_API_KEY") as error:
            connected(fake, key="wrong-key")
        assert "wrong-key" not in str(error.value)
        assert content(rollout(jobs(), connected(fake, key="secret-key"), CHAT)) == content(expected())


def test_weights_of_another_version_end_the_stage(fake: FakeVLLM) -> None:
    policy = connected(fake)
    fake.version = "v2"
    with pytest.raises(MismatchError, match=r"version v2, expected: v1"):
        rollout(jobs(), policy, CHAT)
    now = policy.with_weights(revision="r2", versions=frozenset({"v2"}))
    assert {t.policy for t in rollout(jobs(), now, CHAT)} == {"r2"}


@pytest.mark.trap("raw log-probabilities of a server")
def test_trap_raw_log_probabilities_are_refused() -> None:
    with serving(FakeVLLM(raw_logprobs=True)) as fake, pytest.raises(ConfigError, match="processed_logprobs"):
        connected(fake)


def test_a_longer_context_than_the_server_has_is_refused(fake: FakeVLLM) -> None:
    fake.max_model_len = 100
    with pytest.raises(ConfigError, match="context_length: got 2048, allowed: up to 100"):
        connected(fake)


def test_servers_must_serve_the_same() -> None:
    with serving(FakeVLLM()) as one, serving(FakeVLLM()) as other:
        other.model = "another"
        with pytest.raises(MismatchError, match="another"):
            connected(one, other)


def test_a_server_without_the_endpoint_is_refused(fake: FakeVLLM) -> None:
    fake.faults.append(fault(status=404, content={"detail": "Not Found"}))
    with pytest.raises(ConfigError, match="enable-scale-out"):
        connected(fake)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", ""])
def test_an_address_is_one(url: str) -> None:
    with pytest.raises(ConfigError, match="server: got"):
        Servers([url])


def test_nothing_that_a_server_says_steers_a_terminal() -> None:
    said = printable("a\x1b[2Jb\n\x07é\u202e" + "x" * 500)
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 300


def test_fed_tokens_are_those_that_the_prefix_cache_did_not_have(fake: FakeVLLM) -> None:
    policy = connected(fake)
    talk = Conversation(policy.renderer, [{"role": "user", "content": "x"}])
    (done,) = policy.act([talk], [0])
    assert done.fed_tokens == len(talk) - 2 + len(done.ids) - 1


def test_greedy_and_other_temperatures(fake: FakeVLLM) -> None:
    policy = connected(fake)
    fake.requests.clear()
    rollout(jobs(1, 2), policy.at_temperature(0.0), CHAT)
    assert {r["sampling_params"]["temperature"] for r in fake.requests} == {0.0}
    assert policy.temperature == 1.0


def test_every_fault_is_a_fault(fake: FakeVLLM) -> None:
    policy = connected(fake)
    spoils: list[Callable[[Reply], None]] = [
        f for n, f in FAULTS.items() if n not in ("429", "503 with a pause")
    ]
    for spoil in spoils:
        fake.faults[:] = [spoil] * QUICK.attempts
        (done,) = rollout(jobs(1, 1), policy, EpisodeSetting(round_limit=1))
        assert done.stop is StopReason.ERROR
        assert "attempts failed" in str(done.error)
        policy = connected(fake) if not policy.servers.all[0].is_up else policy


def test_the_time_without_a_server_begins_when_the_last_one_is_lost() -> None:
    with serving(FakeVLLM()) as one, serving(FakeVLLM()) as other:
        patience = Patience(timeout=1.0, attempts=3, without_server=1.0, pause=0.01)
        policy = connected(one, other, patience=patience)
        one.stop()
        assert content(rollout(jobs(4), policy, CHAT)) == content(
            rollout(jobs(4), agents.SeededPolicy(), CHAT)
        )
        threading.Event().wait(1.2)  # longer than the patience, with one server there
        other.stop()
        threading.Timer(0.4, restarted, [other]).start()
        assert content(rollout(jobs(4), policy, CHAT)) == content(
            rollout(jobs(4), agents.SeededPolicy(), CHAT)
        )


def test_a_server_that_answers_nothing_useful_is_refused(fake: FakeVLLM) -> None:
    fake.answer = lambda path, body: _broken()  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="server: "):
        connected(fake)


def _broken() -> Reply:
    reply = Reply("?")
    reply.status = 500
    return reply


def test_a_server_that_cannot_read_again_leaves_the_check_out(
    fake: FakeVLLM, caplog: pytest.LogCaptureFixture
) -> None:
    policy = connected(fake)
    done = rollout(jobs(1, 1), policy, CHAT)
    fake.faults += [fault(status=400, content="no")]
    assert policy.reread(done) is None
    assert "no server reads stored tokens again" in caplog.text


def test_servers_of_different_weights_are_refused() -> None:
    with serving(FakeVLLM()) as one, serving(FakeVLLM()) as other:
        one.version, other.version = "default", "rl-3"
        with pytest.raises(MismatchError, match="rl-3"):
            connected(one, other, check_weights=True)


def test_a_server_that_keeps_the_weights_of_a_run_is_refused(fake: FakeVLLM) -> None:
    fake.version = "rl-3"
    with pytest.raises(MismatchError, match="weights of version rl-3, which a run has handed on"):
        connected(fake, check_weights=True)


@pytest.mark.parametrize("retry", [0, 5, 10_000])
def test_a_pause_is_bounded(retry: int) -> None:
    assert 0 < Patience().before(retry) <= 30


def test_what_is_interrupted_may_clean_up() -> None:
    cleaned = threading.Event()

    async def wait_and_clean() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            cleaned.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        main = threading.main_thread().ident or 0
        threading.Timer(0.3, signal.pthread_kill, [main, signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            LoopThread().run(wait_and_clean())
    finally:
        signal.signal(signal.SIGINT, before)
    assert cleaned.is_set()
