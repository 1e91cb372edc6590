"""An iteration that has lost too many episodes ends the run, which goes on once the cause is mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprm.errors import EpisodesLostError
from rlprm.types import Turn
from tests.rl.conftest import Run, rows
from tests.rl.test_resume import assert_same
from tests.toys import corridor

SETTINGS = {"iterations": 3, "save_every": 0, "tasks_per_iteration": 4}


def break_down(monkeypatch: pytest.MonkeyPatch, *, after: int, every: int) -> None:
    """Let every so many episodes fail from some reset on."""
    begun: list[bool] = []
    reset, step = corridor.Corridor.reset, corridor.Corridor.step

    def counted(self: corridor.Corridor) -> str:
        begun.append(len(begun) >= after and len(begun) % every == 0)
        self.broken = begun[-1]  # type: ignore[attr-defined]
        return reset(self)

    def breaks(self: corridor.Corridor, action: str) -> Turn:
        if self.broken:  # type: ignore[attr-defined]
            raise RuntimeError("the corridor collapsed")
        return step(self, action)

    monkeypatch.setattr(corridor.Corridor, "reset", counted)
    monkeypatch.setattr(corridor.Corridor, "step", breaks)


def test_the_run_ends_with_a_checkpoint_and_goes_on_exactly(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("whole", **SETTINGS)
    break_down(monkeypatch, after=32, every=2)  # two iterations of 16 episodes are whole
    with pytest.raises(
        EpisodesLostError,
        match=r"8 of 16 episodes of iteration 2 failed \(allowed by min_usable_share: 0\.6 usable\), the "
        r"first one: RuntimeError: the corridor collapsed; mend the cause and run the same command again",
    ) as caught:
        run("ended", **SETTINGS, min_usable_share=0.6)
    assert caught.value.exit_status == 1
    monkeypatch.undo()
    assert len(rows(tmp_path / "ended")) == 2
    run("ended", **SETTINGS)
    assert_same(tmp_path / "whole", tmp_path / "ended")


def test_fewer_losses_are_borne(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_down(monkeypatch, after=0, every=2)
    run(**{**SETTINGS, "iterations": 1}, min_usable_share=0.5)
    assert rows(tmp_path / "rl")[0]["rollout/failed"] == 0.5
