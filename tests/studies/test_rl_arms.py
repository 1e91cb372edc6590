"""Arms of agent RL: differences are paired by task, within a seed."""

from __future__ import annotations

from rlprm.rl.config import RLConfig
from studies.rl.arms import ARMS, COMPARED, differences, table
from studies.stages import parsed


def row(arm: str, seed: int, outcomes: list[float]) -> dict[str, object]:
    mean = {"mean": 50.0, "low": 40.0, "high": 60.0}
    return {
        "arm": arm,
        "about": ARMS[arm].about,
        "seed": seed,
        "env_steps": 30,
        "owed_steps": 10,
        "iterations": 2,
        "dev": 50.0,
        "prm_share": [],
        "turns": [3.0, 4.0],
        "alarm": None,
        **{f"sample_{when}": mean for when in ("before", "after", "difference")},
        "greedy_after": mean,
        "test_tasks": outcomes,
    }


def test_differences_pair_tasks_and_stay_within_a_seed() -> None:
    rows = [
        row("plus_progress_1", 0, [1.0, 0.5, 0.0, 1.0]),
        row("from_zero", 0, [0.5, 0.0, 0.0, 0.5]),
        row("from_zero", 1, [1.0, 1.0, 1.0, 1.0]),
    ]
    (found,) = differences(rows)
    assert (found["seed"], found["arm"], found["minus"]) == (0, "plus_progress_1", "from_zero")
    assert found["mean"] == 37.5
    assert 0 < found["low"] < 37.5 < found["high"] <= 50
    assert "+37.5 [" in table({"rows": rows, "differences": [found]})


def test_pairs_name_arms_and_every_arm_is_a_run_that_parses() -> None:
    assert {name for pair in COMPARED for name in pair} <= set(ARMS)
    for arm in ARMS.values():
        prm = "runs/prm" if arm.prm else ""
        overrides = {"reward": "outcome", "prm": prm, "refresh_every": 0, **arm.settings}
        config = parsed(RLConfig, "train_rl", overrides)
        assert config.advantage == arm.settings["advantage"]
