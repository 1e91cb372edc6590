"""Calls that every process must make: who makes another one, or none, is named instead of waited for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlprm.errors import ConfigError
from rlprm.runtime import processes
from rlprm.runtime.processes import COLLECTIVES, DEBUG_COLLECTIVES, collective

ROOT = Path(__file__).parents[2]


def messages(case: str, folder: Path, *, limit: str = "60") -> list[str]:
    """What each of two processes raised."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run(
        [sys.executable, *launcher, "--module", "tests.runtime.collective_calls", case, str(folder)],
        cwd=ROOT,
        env={
            **{k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")},
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            DEBUG_COLLECTIVES: limit,
        },
        timeout=180,
        capture_output=True,
        check=False,
    )
    return [(folder / f"{rank}.txt").read_text() for rank in range(2)]


@pytest.mark.slow
def test_processes_that_agree_are_left_to_it(tmp_path: Path) -> None:
    assert messages("agreeing", tmp_path) == ["nothing", "nothing"]


@pytest.mark.slow
def test_a_process_that_makes_another_call_is_named_in_all_of_them(tmp_path: Path) -> None:
    # 3 saves, 3 measurements and the 3 gathers inside them came before.
    message = "the processes disagree at collective call 10: rank 0 called measure; rank 1 called save"
    assert messages("other", tmp_path) == [message, message]


@pytest.mark.slow
def test_a_process_that_makes_no_call_is_named_when_time_is_up(tmp_path: Path) -> None:
    started = time.monotonic()
    first, _ = messages("missing", tmp_path, limit="3")
    assert (
        first
        == "the processes disagree at collective call 2: rank 0 called save; rank 1 called nothing in time"
    )
    assert time.monotonic() - started < 120


def test_one_process_has_nobody_to_disagree_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG_COLLECTIVES, "1")
    before = processes._Calls.number
    assert processes.SINGLE_PROCESS.gather([1, 2]) == [1, 2]
    assert processes._Calls.number == before


@pytest.mark.parametrize(("given", "seconds"), [("1", 600.0), ("true", None), ("30", 30.0)])
def test_the_switch_is_1_or_a_number_of_seconds(
    monkeypatch: pytest.MonkeyPatch, given: str, seconds: float | None
) -> None:
    monkeypatch.setenv(DEBUG_COLLECTIVES, given)
    if seconds is None:
        with pytest.raises(ConfigError, match="RLPRM_DEBUG_COLLECTIVES: got 'true', allowed: 1, or a number"):
            processes._time_limit()
    else:
        assert processes._time_limit() == seconds


def test_the_mark_keeps_the_function_and_its_result() -> None:
    @collective
    def doubled(number: int) -> int:
        """Return twice a number."""
        return 2 * number

    assert doubled(4) == 8
    assert doubled.__doc__ == "Return twice a number."
    assert f"{__name__}.{doubled.__qualname__}" in COLLECTIVES
