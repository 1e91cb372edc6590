"""Environments that wait on a network: threads that nobody waits for, a policy that does not wait."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future

import pytest
from transformers import PreTrainedModel

from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.policies.base import Completion
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.threads import Threads, concurrency
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting
from tests.toys import agents, corridor
from tests.toys.corridor import jobs

CHAT = EpisodeSetting(round_limit=5)


def test_calls_run_side_by_side_up_to_the_width() -> None:
    barrier = threading.Barrier(3, timeout=20)
    running: list[int] = []

    def call(number: int) -> int:
        running.append(number)
        most = len(running)
        barrier.wait()
        running.remove(number)
        assert most <= 3
        return number

    with Threads(3) as threads:
        assert list(threads.map(call, range(9))) == list(range(9))


def test_one_call_after_the_other_needs_one_thread() -> None:
    with Threads(8) as threads:
        names = {threads.submit(lambda: threading.get_ident()).result() for _ in range(20)}
        time.sleep(0.01)
    assert len(names) <= 2  # a thread that has just given its result may not be free yet


def test_errors_of_every_kind_reach_the_caller() -> None:
    def ends() -> None:
        raise SystemExit(3)

    with Threads(1) as threads:
        with pytest.raises(SystemExit):
            threads.submit(ends).result()
        assert threads.submit(int, "7").result() == 7  # the thread lives on


def test_after_the_end_nothing_is_taken_and_what_waits_may_be_dropped() -> None:
    threads, begun, go = Threads(1), threading.Event(), threading.Event()

    def waits() -> bool:
        begun.set()
        return go.wait(20)

    first: Future[bool] = threads.submit(waits)
    second = threads.submit(int)
    assert begun.wait(20)
    threads.shutdown(cancel_futures=True)
    threads.shutdown()
    go.set()
    assert first.result() is True
    with pytest.raises(CancelledError):
        second.result()
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(int)


@pytest.mark.trap("hung environment")
def test_trap_a_program_ends_although_an_environment_never_answers() -> None:
    program = (
        "import threading\n"
        "from rlprm.rollouts.threads import Threads, shared_threads\n"
        "for threads in (Threads(2), shared_threads(2)):\n"
        "    threads.submit(threading.Event().wait)\n"
        "with Threads(1) as threads:\n"
        "    threads.submit(threading.Event().wait)\n"
        "print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


class PolicyThatWaits(agents.SeededPolicy):
    """Acts only while environments of the other half are at work, after the first turn."""

    def __init__(self) -> None:
        super().__init__(("left", "right"))
        self.stepping = threading.Semaphore(0)

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        if len(self.calls) >= 1:
            assert self.stepping.acquire(timeout=20)
        return super().act(conversations, seeds)


def test_the_policy_acts_for_one_half_while_the_environments_of_the_other_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = rollout(jobs(), agents.SeededPolicy(("left", "right")), CHAT)
    policy, step = PolicyThatWaits(), corridor.Corridor.step
    monkeypatch.setattr(corridor, "CONCURRENT", 12, raising=False)

    def slow(self: corridor.Corridor, action: str) -> object:
        policy.stepping.release()  # a step has begun; its answer comes later
        time.sleep(0.005)
        return step(self, action)

    monkeypatch.setattr(corridor.Corridor, "step", slow)
    assert concurrency([task for task, _ in jobs()]) == 12
    assert rollout(jobs(), policy, CHAT) == expected
    assert policy.calls[:2] == [6, 6]


def test_episodes_of_a_model_are_those_of_one_wave(
    babbler: PreTrainedModel, renderer: ChatRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = HFPolicy(babbler, renderer, revision="babbler", max_new_tokens=6)
    whole = rollout(jobs(3, 3), policy, CHAT)
    monkeypatch.setattr(corridor, "CONCURRENT", 4, raising=False)
    halves = rollout(jobs(3, 3), policy, CHAT)
    assert [t.token_ids for t in halves] == [t.token_ids for t in whole]
    for one, other in zip(halves, whole, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.outcome == other.outcome
