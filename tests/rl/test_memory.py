"""Memory that runs out in an update or in reading: once more with half the micro-batch, to the same end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlprm.errors import OutOfDeviceMemoryError
from rlprm.rl.actor_critic import ActorCritic
from rlprm.rl.engine.plain import PlainEngine
from rlprm.runtime.processes import Processes
from rlprm.runtime.supervision.memory import within_memory
from tests.rl import toy
from tests.rl.conftest import Run, rows

BATCH = toy.batch(12)
CREDIT = toy.random_credit(BATCH)
BUDGET = 400


def with_memory_for(monkeypatch: pytest.MonkeyPatch, tokens: int, *, when: Callable[[], bool]) -> list[int]:
    """Let a model fail where it gets more padded tokens; returns those of each forward."""
    seen: list[int] = []
    forward = ActorCritic.forward

    def limited(self: ActorCritic, token_ids_BL: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(token_ids_BL.numel())
        if when() and token_ids_BL.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, token_ids_BL, *args, **kwargs)

    monkeypatch.setattr(ActorCritic, "forward", limited)
    return seen


def learned(folder: Path, **changes: Any) -> torch.Tensor:
    learner = toy.learner(
        folder, micro_batch_tokens=BUDGET, learning_rate=0.1, minibatches=2, max_grad_norm=0.0, **changes
    )
    before = toy.weights(learner)
    learner.update(BATCH, CREDIT, learner.read_old(BATCH))
    return toy.weights(learner) - before


def test_half_the_micro_batch_learns_the_same(
    tiny_folder: Path, plain_descent: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = learned(tiny_folder)
    seen = with_memory_for(monkeypatch, BUDGET // 2, when=torch.is_grad_enabled)
    halved = learned(tiny_folder)
    assert max(seen) > BUDGET // 2
    assert caplog.text.count("out of memory with micro_batch_tokens 400: once more with 200") == 1
    assert float(whole.abs().max()) > 1e-3
    torch.testing.assert_close(halved, whole, atol=1e-6, rtol=1e-4)


def test_gradients_of_the_attempt_that_failed_are_dropped(
    tiny_folder: Path, plain_descent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learned(tiny_folder)
    backward, calls = PlainEngine.backward, []

    def fails_once(self: PlainEngine, loss: torch.Tensor) -> None:
        calls.append(1)
        backward(self, loss)
        if len(calls) == 2:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(PlainEngine, "backward", fails_once)
    torch.testing.assert_close(learned(tiny_folder), whole, atol=1e-6, rtol=1e-4)


def test_too_little_for_half_is_one_line(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory_for(monkeypatch, 20, when=torch.is_grad_enabled)
    with pytest.raises(OutOfDeviceMemoryError, match=r"micro_batch_tokens: out of memory at 200; lower it"):
        learned(tiny_folder)


def test_a_run_reads_in_halves(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"iterations": 1, "micro_batch_tokens": 1000, "kl_coef": 0.1}
    run("whole", **changes)
    with_memory_for(monkeypatch, 500, when=lambda: not torch.is_grad_enabled())
    run("halves", **changes)
    whole, halves = rows(tmp_path / "whole")[0], rows(tmp_path / "halves")[0]
    assert halves["ppo/policy_loss"] == pytest.approx(whole["ppo/policy_loss"], abs=1e-5)


def test_one_of_several_processes_does_not_begin_again() -> None:
    def attempt(_: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(OutOfDeviceMemoryError, match=r"micro_batch_tokens: out of memory at 64"):
        within_memory(attempt, 64, setting="micro_batch_tokens", again=Processes(0, 2).count == 1)
