"""SIGTERM and SIGINT end a run where it can be resumed from, to exactly what it would have come to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlprm.rl.samplers.base as base
import rlprm.rl.trainer as module
from rlprm.errors import RunInterruptedError
from rlprm.rl.trainer import RLTrainer
from rlprm.runtime.supervision.signals import listening
from rlprm.stages import train_rl as stage
from tests.rl.conftest import Run, rows
from tests.rl.test_resume import assert_same

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {"iterations": 4, "tasks_per_iteration": 4, "save_every": 0, "wave_size": 4}


def send_at(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, number: int = signal.SIGTERM
) -> list[int]:
    """Send this process a signal within a call of a function, counted from 1."""
    calls: list[int] = []
    inner: Callable[..., Any] = getattr(owner, name)

    def sending(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(calls) + 1)
        if calls[-1] == call:
            os.kill(os.getpid(), number)
        return inner(*args, **kwargs)

    monkeypatch.setattr(owner, name, sending)
    return calls


@pytest.mark.parametrize(
    ("owner", "name", "call", "saved"),
    [
        (base, "rollout", 10, 2),  # the second of four waves of the third iteration
        (module, "assign_credit", 3, 2),
        (module, "update", 3, 3),
        (module, "iteration_metrics", 4, 4),
    ],
)
def test_a_signal_saves_a_checkpoint_that_a_run_goes_on_from_exactly(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, saved: int
) -> None:
    whole = run("whole", **SETTINGS)
    calls = send_at(monkeypatch, owner, name, call)
    with pytest.raises(RunInterruptedError, match=f"SIGTERM: {saved} iterations are in the last") as caught:
        run("ended", **SETTINGS)
    assert caught.value.exit_status == 143
    assert calls[-1] == call, "nothing more is begun"
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "ended/checkpoints").iterdir()] == [f"iteration-{saved:06d}"]
    assert len(rows(tmp_path / "ended")) == saved
    resumed = run("ended", **SETTINGS)
    assert_same(tmp_path / "whole", tmp_path / "ended")
    apart = {"seconds"} if saved < SETTINGS["iterations"] else {"seconds", "bf16_load"}  # other episodes
    assert {k: v for k, v in resumed.items() if k not in apart} == {
        k: v for k, v in whole.items() if k not in apart
    }


def test_no_checkpoint_is_written_if_none_is_wanted_or_nothing_is_done(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_at(monkeypatch, module, "update", 2, signal.SIGINT)
    with pytest.raises(RunInterruptedError, match="0 iterations are in the last checkpoint") as caught:
        run(**SETTINGS, save_on_preemption=False)
    assert caught.value.exit_status == 130
    monkeypatch.undo()
    send_at(monkeypatch, base, "rollout", 1)
    with pytest.raises(RunInterruptedError, match="0 iterations"):
        run(**SETTINGS)
    assert not (tmp_path / "rl/checkpoints").exists()


def test_a_signal_before_training_ends_the_run_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    send_at(monkeypatch, stage, "_probe", 1)
    monkeypatch.setattr(RLTrainer, "train", lambda _: pytest.fail("the run went on"))
    with pytest.raises(RunInterruptedError, match="SIGTERM: the run has ended; run the same command"):
        run(**SETTINGS)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_only_a_late_second_ctrl_c_ends_a_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with listening() as signals, signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # passed on by a launcher
        now[0] += 60
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received() == signal.SIGINT
        with pytest.raises(RunInterruptedError, match="SIGINT: the run has ended at once"):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_ends_both_with_one_checkpoint(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "rl"
    given = {**settings, "iterations": 1000, "output_dir": str(output), "report_to": "none"}
    words = [
        word
        for name, value in given.items()
        for key, one in (
            [(f"{name}.{k}", v) for k, v in value.items()] if isinstance(value, dict) else [(name, value)]
        )
        for word in (f"--{key}", str(one))
    ]
    # A real launch knows nothing of this process.
    environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with subprocess.Popen(
        [*launcher, "--module", "rlprm.cli", "train-rl", *words],
        cwd=ROOT, env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as launch:  # fmt: skip
        try:
            until(lambda: (output / "metrics.jsonl").exists())
            workers = children_of(launch.pid)
            assert len(workers) == 2
            os.kill(workers[-1], signal.SIGTERM)
            _, said = launch.communicate(timeout=60)
        finally:
            launch.kill()
    assert said.count("rlprm: RunInterruptedError: SIGTERM: ") == 2
    assert "exitcode  : 143" in said
    (checkpoint,) = (output / "checkpoints").iterdir()
    assert len(rows(output)) == int(checkpoint.name.removeprefix("iteration-"))


def until(there: Callable[[], bool], seconds: float = 90) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, in order."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
