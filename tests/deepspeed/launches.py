"""Launches that several tests look at: each is made once, whatever worker asks first, and one at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[2]
TIMEOUT = 480
"""Seconds: a launch that takes longer hangs."""
_ABORTED_AT_EXIT = "terminate called without an active exception"
"""Of gloo's threads, which now and then end a process while its interpreter is ending."""
_OF_A_LAUNCH = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launched:
    """What a launch left behind."""

    folder: Path
    status: int
    output: str
    seconds: float

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """What a job has written down (``tests.deepspeed.jobs``)."""
        # Not the status: now and then a process is aborted by gloo's threads while the interpreter ends.
        assert (self.folder / "seen.json").exists(), self.output[-3000:]
        found: dict[str, Any] = json.loads((self.folder / "seen.json").read_text())
        return found

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors that a job has written down."""
        assert self.numbers
        return load_file(self.folder / "seen.safetensors")

    def named(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose names begin with some words, without these."""
        return {
            name.removeprefix(f"{prefix} "): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix} ")
        }


class Launches:
    """Makes launches in a folder that all workers of a test run share."""

    def __init__(self, root: Path, models: Path) -> None:
        self.root, self.models = root, models

    def job(self, name: str, job: str, *options: str) -> Launched:
        """Launch a job of ``tests.deepspeed.jobs``; the options are those of ``accelerate launch``."""
        launcher = ["-m", "accelerate.commands.launch", *options, "--module", "tests.deepspeed.jobs"]
        return self.run(name, [*launcher, job, str(self.models), str(self.root / name)])

    def run(self, name: str, arguments: Sequence[str]) -> Launched:
        """Run Python with arguments; what a run of this name left is not made again."""
        folder = self.root / name
        done = self.root / f"{name}.json"
        with FileLock(self.root / "lock"):  # one at a time: two would take turns on the same cores
            if not done.exists():
                folder.mkdir()
                started = time.monotonic()
                status, output = _run([sys.executable, *arguments])
                if status != 0 and _ABORTED_AT_EXIT in output:  # a stage goes on where it was, or is reused
                    status, again = _run([sys.executable, *arguments])
                    output += again
                content = {"status": status, "output": output, "seconds": time.monotonic() - started}
                done.write_text(json.dumps(content))
        return Launched(folder, **json.loads(done.read_text()))


def _run(command: Sequence[str]) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_LAUNCH}
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.terminate()  # the launcher ends its processes
            output, _ = process.communicate()
            return -1, f"{output}\nstill running after {TIMEOUT} s"
        return process.returncode, output
