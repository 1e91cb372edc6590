"""What goes wrong in a launch ends it, says why, and is passed on."""

from __future__ import annotations

import pytest

from tests.deepspeed.conftest import needs_deepspeed
from tests.deepspeed.launches import PATIENCE, Launches

pytestmark = [pytest.mark.slow, pytest.mark.deepspeed, needs_deepspeed]


def test_deepspeed_a_process_that_dies_ends_the_run_and_says_why(launches: Launches) -> None:
    ended = launches.job("dying", "dying", "--config_file", "ds_configs/cpu_zero2.yaml")
    assert ended.status == 1
    assert "RuntimeError: the second process has had enough" in ended.output
    assert ended.seconds < PATIENCE / 2
    assert not (ended.folder / "seen.json").exists()
