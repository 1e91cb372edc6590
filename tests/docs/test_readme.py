"""README: its length, and its environment in 30 lines, which works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rlprm
from rlprm.types import Split
from tests.docs.blocks import ROOT, blocks


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> rlprm.api.LoadedEnvironment:
    """README's environment, saved as README says."""
    (shown,) = [block for block in blocks() if block.page.name == "README.md" and "class Lock" in block.text]
    (tmp_path / "lock.py").write_text(shown.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return rlprm.load_environment("lock.py")


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.slow
def test_the_numbers_of_the_example_are_those_that_it_prints(tmp_path: Path) -> None:
    """Within what another processor's rounding may change."""
    command = [sys.executable, str(ROOT / "examples/agentprm.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text[text.index("the agent reads the sign  ") :].split("```")[0]
    # Two columns, the left one first; without the values of the prompts.
    columns = [
        [
            float(value)
            for line in shown.splitlines()
            for value in re.findall(r"> \w+ +(\d\.\d\d)", part(line))
        ]
        for part in (lambda line: line[:50], lambda line: line[50:])
    ]
    printed = [float(value) for value in re.findall(r"> .* promise +(-?\d\.\d\d)", done.stdout)]
    assert [*columns[0], *columns[1]] == pytest.approx(printed, abs=0.15)
    shares = re.search(
        r"in (\d+) %, best-of-8 in (\d+) %, a beam 4×4 in (\d+) %, .* after RL in (\d+) %", text
    )
    assert shares is not None
    found = re.findall(r"(?:one sample|best of 8|beam of 4 x 4|one sample after RL): (\d+)%", done.stdout)
    assert [int(share) for share in shares.groups()] == pytest.approx([int(share) for share in found], abs=15)


def test_the_expert_opens_every_lock_and_one_wrong_button_jams_it(lock: rlprm.api.LoadedEnvironment) -> None:
    for task in lock.tasks("train", count=60):
        actions = lock.module.demonstrate(task, end=rlprm.End.DECLARED)
        assert len(actions) <= lock.module.ROUND_LIMIT
        episode, jammed = (lock.module.make(task, end=rlprm.End.DECLARED) for _ in range(2))
        assert episode.reset() == "The note says: " + " ".join(actions[:-1])
        turns = [episode.step(action) for action in actions]
        assert [turn.stop for turn in turns[:-1]] == [None] * 4
        assert turns[-1].stop is rlprm.StopReason.DECLARED
        assert episode.outcome().success
        jammed.reset()
        assert not jammed.step("yellow").valid
        for action in actions:
            jammed.step(action)
        assert not jammed.outcome().success


def test_a_copy_of_a_lock_is_independent(lock: rlprm.api.LoadedEnvironment) -> None:
    (task,) = lock.tasks("test", count=1)
    episode = lock.module.make(task, end=rlprm.End.DECLARED)
    episode.reset()
    copy = episode.fork()
    copy.step("red")
    for action in lock.module.demonstrate(task, end=rlprm.End.DECLARED):
        episode.step(action)
    assert episode.outcome().success


def test_no_code_is_in_two_splits(lock: rlprm.api.LoadedEnvironment) -> None:
    codes = [{tuple(task.spec["code"]) for task in lock.tasks(split, count=100)} for split in Split]
    assert sum(map(len, codes)) == len(set.union(*codes)) == 81
