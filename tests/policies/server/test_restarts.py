"""Servers that were restarted have other weights, and get no work until they have the right ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rlprm.errors import MismatchError
from rlprm.policies.server.check import out_of_step
from rlprm.policies.server.policy import ServerPolicy
from rlprm.policies.server.sync import push_adapter, push_weights
from rlprm.rollouts.waves import rollout
from tests.policies.server.test_faults import CHAT, connected, content
from tests.toys import agents
from tests.toys.corridor import jobs
from tests.toys.fake_vllm import VERSION, FakeVLLM, Reply, restarted, serving

NEW = "run-1"


@pytest.fixture
def two() -> Iterator[list[FakeVLLM]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serving(FakeVLLM())) for _ in range(2)]


def pushed(*fakes: FakeVLLM, folder: Path, adapter: str | None = None) -> ServerPolicy:
    """A policy whose weights the servers have been given."""
    policy = connected(*fakes)
    policy.servers.run(push_weights(policy.servers, folder, NEW))
    if adapter is not None:
        policy.servers.run(push_adapter(policy.servers, folder, adapter, before=None))
    return policy.with_weights(revision="r", versions=frozenset({NEW}), name=adapter)


def before_request(fake: FakeVLLM, number: int, act: Callable[[], object]) -> None:
    """Let something happen before a server answers one of its requests for tokens, counted from 1."""
    whole, count = fake.generate, 0

    def counted(body: dict[str, Any]) -> Reply:
        nonlocal count
        count += 1
        if count == number:
            act()
        return whole(body)

    fake.generate = counted  # type: ignore[method-assign]


def expected(tasks: int) -> list[Any]:
    return content(rollout(jobs(tasks), agents.SeededPolicy(), CHAT))


@pytest.mark.trap("a server that was restarted within a run")
@pytest.mark.parametrize("adapter", [None, "a1"], ids=["full", "lora"])
def test_trap_the_only_server_that_lost_its_weights_ends_the_stage(
    tmp_path: Path, adapter: str | None
) -> None:
    with serving(FakeVLLM()) as fake:
        policy = pushed(fake, folder=tmp_path, adapter=adapter)
        before_request(fake, 3, fake.forget)
        with pytest.raises(MismatchError, match="was the server restarted") as error:
            rollout(jobs(4), policy, CHAT)
        assert "\n" not in str(error.value)
        assert ("adapter a1" if adapter else f"version {VERSION}, expected: {NEW}") in str(error.value)


@pytest.mark.parametrize("adapter", [None, "a1"], ids=["full", "lora"])
def test_one_of_two_that_lost_its_weights_is_left_out(
    two: list[FakeVLLM], tmp_path: Path, adapter: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    policy = pushed(*two, folder=tmp_path, adapter=adapter)
    before_request(two[0], 3, two[0].forget)
    done = rollout(jobs(6), policy, CHAT)
    assert content(done) == expected(6)
    assert [server.has_weights for server in policy.servers.all] == [False, True]
    assert caplog.text.count("is left out until it has the weights of this run") == 1
    two[0].requests.clear()
    assert content(rollout(jobs(6), policy, CHAT)) == expected(6)
    assert two[0].requests == []
    # The next weights are for both.
    policy.servers.run(push_weights(policy.servers, tmp_path, "run-2"))
    after = policy.with_weights(revision="r2", versions=frozenset({"run-2"}), name="toy")
    assert content(rollout(jobs(6), after, CHAT)) == expected(6)
    assert two[0].requests


def test_both_that_lost_their_weights_end_the_stage(two: list[FakeVLLM], tmp_path: Path) -> None:
    policy = pushed(*two, folder=tmp_path)
    for fake in two:
        before_request(fake, 2, fake.forget)
    with pytest.raises(MismatchError, match=f"version {VERSION}, expected: {NEW}"):
        rollout(jobs(6), policy, CHAT)


def test_a_push_leaves_out_a_server_that_is_gone(two: list[FakeVLLM], tmp_path: Path) -> None:
    policy = pushed(*two, folder=tmp_path)
    two[0].stop()
    policy.servers.run(push_weights(policy.servers, tmp_path, "run-2"))
    assert (two[0].version, two[1].version) == (NEW, "run-2")
    assert [server.has_weights for server in policy.servers.all] == [False, True]
    two[0].forget()
    restarted(two[0])
    two[0].requests.clear()
    now = policy.with_weights(revision="r2", versions=frozenset({"run-2"}))
    assert content(rollout(jobs(6), now, CHAT)) == expected(6)
    assert two[0].requests == []  # it is back, with its first weights


def test_a_server_that_is_restarted_within_a_push_gets_the_weights_again(tmp_path: Path) -> None:
    with serving(FakeVLLM()) as fake:
        policy = connected(fake)
        whole, ends = fake.change, iter([True])

        def die(path: str, body: Any) -> Reply:
            reply = whole(path, body)
            if path == "/reset_prefix_cache" and next(ends, False):
                reply.drop = True
                fake.stop()
                fake.forget()
                threading.Timer(0.2, restarted, [fake]).start()
            return reply

        fake.change = die  # type: ignore[method-assign]
        fake.paths.clear()
        policy.servers.run(push_weights(policy.servers, tmp_path, NEW))
        assert fake.version == NEW
        assert fake.paths.count("/collective_rpc") == 2  # the weights of the first one were lost


def test_only_what_is_missing_is_pushed_again(two: list[FakeVLLM], tmp_path: Path) -> None:
    policy = pushed(*two, folder=tmp_path)
    two[0].forget()
    for fake in two:
        fake.paths.clear()
    policy.servers.run(push_weights(policy.servers, tmp_path, NEW, only_where_missing=True))
    assert ["/collective_rpc" in fake.paths for fake in two] == [True, False]
    assert [fake.version for fake in two] == [NEW, NEW]


def test_the_comparison_leaves_out_who_lost_weights_and_who_is_gone(
    two: list[FakeVLLM], tmp_path: Path
) -> None:
    def read(ids: Sequence[int], places: Sequence[int]) -> list[float]:
        return [-1.0] * len(places)  # what the fake ones say

    prompt = agents.renderer().prompt_ids([{"role": "user", "content": "x"}])
    policy = pushed(*two, folder=tmp_path)
    two[0].forget()
    assert out_of_step(policy, [prompt], read, bound=0.1) is None
    assert [server.has_weights for server in policy.servers.all] == [False, True]
    policy = pushed(*two, folder=tmp_path)
    two[1].stop()
    assert out_of_step(policy, [prompt], read, bound=0.1) is None
    assert [server.has_weights for server in policy.servers.all] == [True, False]
