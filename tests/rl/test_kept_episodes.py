"""``keep_rollouts``: the episodes of a run, each once, as ``collect`` and ``datasets`` read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError
from rlprm.rl.keeping.episodes import kept_count
from rlprm.rl.trainer import RLTrainer
from rlprm.runtime.overwrite import foreign_files
from rlprm.types import Trajectory
from tests.rl.conftest import Run, rows
from tests.rl.test_resume import kill

PER_ITERATION = 8 * 4


def watched(monkeypatch: pytest.MonkeyPatch) -> list[list[Trajectory]]:
    """The episodes of every collection."""
    seen: list[list[Trajectory]] = []
    collect = RLTrainer.collect

    def watching(self: RLTrainer, iteration: int, **options: object) -> list[Trajectory]:
        seen.append(collect(self, iteration, **options))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(RLTrainer, "collect", watching)
    return seen


def test_all_episodes_are_there_in_order(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    seen = watched(monkeypatch)
    run(keep_rollouts="all", iterations=2, prm="", reward="outcome", advantage="leave_one_out")
    store = TrajectoryStore.open(tmp_path / "rl/rollouts")
    kept = store.read()
    assert [t.token_ids for t in kept] == [t.token_ids for of in seen for t in of]
    assert {t.policy for t in kept} == {"rl-rl"}, "train-prm learns from one policy"
    assert store.meta["environment"] == "tests.toys.corridor"
    success = [t.outcome.success for t in store.read_wave(1)]
    assert sum(success) / len(success) == rows(tmp_path / "rl")[1]["rollout/success"]
    table = datasets.load_dataset(
        str(tmp_path / "rl/rollouts"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert table["success"][:] == [t.outcome.success for t in kept]
    assert foreign_files(tmp_path / "rl", "train-rl") == []


@pytest.mark.parametrize(("keep", "left"), [("all", [0, 1, 2, 3]), ("last 2", [2, 3])])
def test_a_resumed_run_has_no_episode_twice(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, left: list[int]
) -> None:
    settings = {"iterations": 4, "save_every": 2, "keep_rollouts": keep}
    run("whole", **settings)
    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: iteration == 3)
    with pytest.raises(KeyboardInterrupt):
        run("killed", **settings)
    monkeypatch.undo()
    run("killed", **settings)
    whole, killed = (TrajectoryStore.open(tmp_path / name / "rollouts") for name in ("whole", "killed"))
    assert [t.token_ids for t in killed.read()] == [t.token_ids for t in whole.read()]
    assert [number for number in range(5) if killed.has(number)] == left
    assert len(killed.read()) == PER_ITERATION * len(left)


def test_nothing_is_kept_unless_it_is_asked_for(run: Run, tmp_path: Path) -> None:
    run(iterations=1)
    assert not (tmp_path / "rl/rollouts").exists()


@pytest.mark.parametrize(("keep", "count"), [("all", None), ("none", 0), ("last 7", 7)])
def test_what_may_be_kept(keep: str, count: int | None) -> None:
    assert kept_count(keep) == count


@pytest.mark.parametrize("keep", ["last", "last 0", "7", "some", "last -1"])
def test_anything_else_is_refused(keep: str) -> None:
    with pytest.raises(ConfigError, match=r"keep_rollouts: got '.*', allowed: none, all, last N"):
        kept_count(keep)
