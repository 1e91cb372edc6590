"""The table of BabyAI's demonstrations says which levels have some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "babyai_expert.py"


def test_a_level_has_a_row_with_what_is_solved_within_each_limit() -> None:
    levels = ["GoToRedBall", "KeyInBox", "BlockedUnlockPickup"]
    printed = subprocess.run(
        [sys.executable, str(SCRIPT), "--tasks", "3", "--levels", *levels],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    head, _, easy, impossible, long = (line.strip("| ").split(" | ") for line in printed.splitlines())
    assert head[1::2] == ["limit 20: solved of 3", "limit 40: solved of 3"]
    assert easy[1:] == ["3", easy[2], "3", easy[2]]
    assert impossible[1:] == ["0", "–", "0", "–"]
    assert long[1:4] == ["0", "–", "3"]
    assert 20 < float(long[4]) <= 40
