"""A launch with FSDP is refused in one line, by its file and in its processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprm.errors import ConfigError
from rlprm.rl.engine import start_accelerator
from rlprm.runtime.accelerate import launch_of

LINE = r"got distributed_type FSDP, allowed for train-rl: MULTI_GPU, .*DEEPSPEED \(zero2 and zero3"


def test_by_the_launch_file(tmp_path: Path) -> None:
    file = tmp_path / "fsdp.yaml"
    file.write_text("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\nnum_processes: 2\n")
    with pytest.raises(ConfigError, match=LINE):
        launch_of("train-rl", ["--accelerate_config", str(file)])
    assert launch_of("train-prm", ["--accelerate_config", str(file)]) is not None


def test_in_a_process_of_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=LINE):
        start_accelerator(bf16=False)
