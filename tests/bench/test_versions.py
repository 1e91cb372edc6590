"""The benchmark of two versions runs, here against the same version, and finds equal results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = {"rollouts": 3, "beam": 3, "candidates": 48, "padded": 48, "update": 2, "labels": 3}


def test_a_version_gives_the_results_of_itself(tiny_folder: Path) -> None:
    settings = [
        "--environment", "tests.toys.corridor", "--model", str(tiny_folder), "--max_new_tokens", "4",
        "--round_limit", "2", "--output_dir", "-",
    ]  # fmt: skip
    printed = subprocess.run(
        [
            sys.executable, str(ROOT / "scripts" / "bench" / "versions.py"),
            "--against", str(ROOT), "--count", "3", "--times", "1", *settings,
        ],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = re.findall(
        r"^(\w+): [\d.]+ ms before, .* (\d+) of (\d+) results are equal$", printed, re.MULTILINE
    )
    assert {part: int(count) for part, _, count in found} == PARTS
    assert all(equal == count for _, equal, count in found)
