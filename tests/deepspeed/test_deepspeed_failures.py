"""What goes wrong in a launch ends it, says why, and is passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprm.errors import MismatchError
from rlprm.models import zero
from rlprm.training import last_checkpoint
from tests.deepspeed.conftest import needs_deepspeed
from tests.deepspeed.launches import Launches


@pytest.mark.slow
@pytest.mark.deepspeed
@needs_deepspeed
def test_deepspeed_a_process_that_dies_ends_the_run_and_says_why(launches: Launches) -> None:
    ended = launches.job("dying", "dying", "--config_file", "ds_configs/cpu_zero2.yaml")
    assert ended.status == 1  # and not -1: the first process has not waited for the second for ever
    assert "RuntimeError: the second process has had enough" in ended.output
    assert not (ended.folder / "seen.json").exists()


def test_deepspeed_a_checkpoint_is_resumed_as_it_was_split_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint-3").mkdir()

    def resume(stage: int, processes: int) -> str | None:
        monkeypatch.setattr(zero, "zero_stage", lambda: stage)
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        return last_checkpoint(str(tmp_path), {"beta": 1.0})

    for _ in range(2):
        assert resume(2, 2) == str(tmp_path / "checkpoint-3")
    with pytest.raises(MismatchError, match=r"\(processes: 2 there, 4 now\)"):
        resume(2, 4)
    with pytest.raises(MismatchError, match=r"\(zero_stage: 2 there, 3 now\)"):
        resume(3, 2)
    with pytest.raises(MismatchError, match=r"zero_stage: 2 there, None now"):
        resume(0, 2)


def test_deepspeed_without_it_the_number_of_processes_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    for processes in (1, 2):
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        assert last_checkpoint(str(tmp_path), {"beta": 1.0}) == str(tmp_path / "checkpoint-3")
