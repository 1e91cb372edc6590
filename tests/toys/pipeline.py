"""One small run of every stage, shared by the tests of what comes after it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlprm import cli
from rlprm.prm.config import PRMConfig
from rlprm.runtime.config import parse
from rlprm.stages import collect, sft
from rlprm.stages import train_prm as prm
from rlprm.stages.settings import CollectConfig, SFTStageConfig

EPISODES = ["--environment", "tests.toys.corridor", "--env_kwargs.length", "4", "--round_limit", "6"]


@dataclass(frozen=True)
class Pipeline:
    """Folders of a policy, its rollouts, and two models trained on them."""

    policy: str
    rollouts: str
    agentprm: str
    orm: str

    @property
    def acting(self) -> list[str]:
        """Arguments of a stage in which the policy goes on from stored trajectories."""
        source = ["--model", self.policy, "--trajectories", self.rollouts]
        return [*EPISODES, *source, "--temperature", "1.5", "--max_new_tokens", "8"]

    @property
    def evaluation(self) -> list[str]:
        """Arguments of a very small evaluation, its output folder aside."""
        return [
            *EPISODES, "--model", self.policy, "--scorers.agentprm", self.agentprm, "--scorers.orm", self.orm,
            "--num_tasks", "6", "--num_dev_tasks", "5", "--budgets", "1", "2", "4", "--chosen_at", "4",
            "--beams", "2x2", "--temperature", "1.5", "--max_new_tokens", "8",
        ]  # fmt: skip


def run_pipeline(root: Path) -> Pipeline:
    """Train a policy of 0.1 million parameters to walk a corridor, badly, and models that judge it."""
    folders = Pipeline(*(str(root / name) for name in ("policy", "rollouts", "agentprm", "orm")))
    quiet = ["--disable_tqdm", "true", "--bf16", "false"]
    sft.run(
        parse(
            SFTStageConfig,
            [*EPISODES, *quiet, "--size", "xs", "--vocab_size", "300", "--context_length", "512", "--workers",
             "1", "--num_demonstrations", "64", "--num_train_epochs", "6", "--learning_rate", "5e-3",
             "--per_device_train_batch_size", "8", "--output_dir", folders.policy],
        )
    )  # fmt: skip
    collect.run(
        parse(
            CollectConfig,
            [*EPISODES, "--model", folders.policy, "--first_task", "1000", "--num_tasks", "16",
             "--samples_per_task", "4", "--temperature", "1.5", "--max_new_tokens", "8", "--output_dir",
             folders.rollouts],
        )
    )  # fmt: skip
    for folder, estimator in ((folders.agentprm, "td_gae"), (folders.orm, "outcome")):
        prm.run(
            parse(
                PRMConfig,
                [*quiet, "--model", folders.policy, "--trajectories", folders.rollouts, "--label_estimator",
                 estimator, "--num_train_epochs", "2", "--learning_rate", "1e-3", "--held_out_fraction",
                 "0.25", "--output_dir", folder],
            )
        )  # fmt: skip
    return folders


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail the user's way, and return its one line."""
    capfd.readouterr()
    assert cli.main(arguments) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("rlprm: ")
    return line


def summary_of(folder: Path) -> dict[str, Any]:
    """What an evaluation has written down."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary
