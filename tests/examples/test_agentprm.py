"""The examples run, and show what their text says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ``agentprm.py`` prints, started from another folder."""
    command = [sys.executable, str(EXAMPLES / "agentprm.py")]
    folder = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment())
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def share(pattern: str, text: str) -> float:
    (found,) = re.findall(rf"{pattern}(\d+)%", text)
    return int(found) / 100


def test_agentprm_is_short_enough_to_read() -> None:
    assert len((EXAMPLES / "agentprm.py").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_first_policy_guesses(story: str) -> None:
    assert 0.2 < share("policy: ", story) < 0.7
    assert "episodes succeed after 300 demonstrations" in story


def test_the_prm_tells_reading_the_sign_from_guessing(story: str) -> None:
    """Both episodes that are shown succeed: the PRM values what the agent knew, not its luck."""
    reads, guesses = story.split("promise of the task")[1:3]
    values = [[float(v) for v in re.findall(r"promise +(-?[\d.]+) ", part)] for part in (reads, guesses)]
    assert "> left" in reads
    assert "The goal is cell" in reads
    assert "The goal is cell" not in guesses
    assert all(part.count("(stopped: declared, success, score 1.00)") == 1 for part in (reads, guesses))
    assert min(values[0]) > 0.6
    assert max(values[1]) < 0.5


def test_search_and_rl_do_better_than_one_sample(story: str) -> None:
    before = share("one sample: ", story)
    assert share("best of 8: ", story) > before + 0.1
    assert share("beam of 4 x 4: ", story) > before + 0.1
    assert share("one sample after RL: ", story) > before + 0.05
    assert story.count("RL, iteration") == 8
