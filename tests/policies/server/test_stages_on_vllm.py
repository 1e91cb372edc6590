"""Stages that act through a real vLLM server, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlprm import cli
from rlprm.data.store import TrajectoryStore
from rlprm.errors import TrainingError
from rlprm.models.loading import load_causal_lm
from rlprm.rl.samplers.server import ServerSampler
from tests.deepspeed.conftest import needs_deepspeed
from tests.deepspeed.launches import Launches
from tests.vllm_server import RealServer, full

EPISODES = [
    "--environment", "tests.toys.corridor", "--round_limit", "4", "--max_new_tokens", "8",
    "--dtype", "float32",
]  # fmt: skip
RL = [
    "--prm", "", "--reward", "outcome", "--advantage", "leave_one_out", "--iterations", "2",
    "--tasks_per_iteration", "4", "--samples_per_task", "3", "--num_tasks", "20", "--learning_rate", "1e-2",
    "--eval_every", "0", "--test_tasks", "2", "--test_samples", "1", "--bf16", "false",
    "--entropy_coef", "1.0",  # a random policy never succeeds, and must change all the same
]  # fmt: skip


def on(server: RealServer, stage: str, output: Path, *more: str) -> int:
    named = ["--model", str(server.model), "--server", server.url, "--output_dir", str(output)]
    return cli.main([stage, *EPISODES, *named, *more])


def journal(folder: Path) -> list[dict[str, float]]:
    """The numbers that a run has written down, without times and memory."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {n: number for n, number in row.items() if not n.startswith(("time/", "memory/")) and n != "watch"}
        for row in rows
    ]


def test_a_collection_is_that_of_this_process(vllm: RealServer, tmp_path: Path) -> None:
    collect = ["--num_tasks", "4", "--samples_per_task", "2", "--temperature", "0", "--wave_size", "3"]
    assert on(vllm, "collect", tmp_path / "a", *collect) == 0
    here = ["--model", str(vllm.model), "--output_dir", str(tmp_path / "b")]
    assert cli.main(["collect", *EPISODES, *here, *collect]) == 0
    theirs, ours = (TrajectoryStore.open(tmp_path / name) for name in "ab")
    assert [t.token_ids for t in theirs.read()] == [t.token_ids for t in ours.read()]
    assert str(theirs.meta["engine"]).startswith("vllm ")
    assert "engine" not in ours.meta
    assert on(vllm, "collect", tmp_path / "b", *collect) == 2  # engines do not mix in a folder


def test_evaluate_searches_through_the_server(vllm: RealServer, tmp_path: Path) -> None:
    searches = ["--num_tasks", "2", "--budgets", "1", "2", "--beams", "2x2"]
    dev = ["--num_dev_tasks", "2", "--chosen_at", "2"]
    clone = ["--scorers.clone.kind", "model_confidence", "--scorers.clone.model", str(vllm.model)]
    assert on(vllm, "evaluate", tmp_path, *searches, *dev, *clone) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert any(row["strategy"] == "beam" for row in summary["evaluation"])


@pytest.mark.parametrize("adapters", [[], ["--lora_r", "4"]], ids=["full", "lora"])
def test_train_rl_acts_with_the_weights_it_trains(
    vllm: RealServer, tmp_path: Path, adapters: list[str]
) -> None:
    assert on(vllm, "train-rl", tmp_path / "rl", *RL, *adapters) == 0
    rows = [json.loads(line) for line in (tmp_path / "rl/metrics.jsonl").read_text().splitlines()]
    assert [row["ppo/sampler_mismatch"] < 1e-4 for row in rows] == [True, True]
    before, after = (load_causal_lm(str(folder), dtype="float32") for folder in (vllm.model, tmp_path / "rl"))
    moved = max((a - b).abs().max() for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert moved > 1e-3
    (left,) = (tmp_path / "rl/sync").iterdir()  # older versions are removed
    assert left.name.endswith("-2") if adapters else left.name == "weights"


def test_train_rl_learns_while_the_server_runs_the_next_episodes(vllm: RealServer, tmp_path: Path) -> None:
    ahead = [*RL, "--iterations", "3", "--max_staleness", "1", "--save_every", "1"]
    assert on(vllm, "train-rl", tmp_path / "rl", *ahead) == 0
    rows = [json.loads(line) for line in (tmp_path / "rl/metrics.jsonl").read_text().splitlines()]
    assert [row["rollout/staleness"] for row in rows] == [0, 1, 1]
    assert rows[0]["ppo/sampler_mismatch"] < 1e-4
    assert all(row["ppo/sampler_mismatch"] > 1e-4 for row in rows[1:])  # the policy has learned since
    kept = TrajectoryStore.open(tmp_path / "rl/checkpoints/iteration-000002/rollouts").read()
    assert {t.policy.rpartition("-")[2] for t in kept} == {"1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
        pytest.param(
            ["accelerate.commands.launch", "--config_file", "ds_configs/cpu_zero2.yaml"],
            marks=[full, needs_deepspeed, pytest.mark.deepspeed],
        ),
    ],
    ids=["ddp", "zero2"],
)
def test_two_processes_train_as_one_does(vllm: RealServer, tmp_path: Path, launcher: list[str]) -> None:
    """The first process hands weights on and compares them; both ask the server for their episodes."""
    assert on(vllm, "train-rl", tmp_path / "alone", *RL) == 0
    named = ["--model", str(vllm.model), "--server", vllm.url, "--output_dir", str(tmp_path / "shared")]
    stage = ["-m", *launcher, "--module", "rlprm.cli", "train-rl", *EPISODES, *named, *RL]
    done = Launches(tmp_path, tmp_path).run("launch", stage)
    assert done.status == 0, done.output[-3000:]
    alone, shared = journal(tmp_path / "alone"), journal(tmp_path / "shared")
    assert len(alone) == 2
    for one, other in zip(alone, shared, strict=True):
        assert one.keys() - other.keys() <= {"ppo/policy_grad_norm"}  # which DeepSpeed does not tell
        assert other == pytest.approx({name: one[name] for name in other}, abs=1e-4, rel=1e-4)


def test_train_rl_ends_if_the_server_keeps_other_weights(
    vllm: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    push = ServerSampler._push_weights

    def only_at_the_start(self: ServerSampler, engine: object) -> None:
        if self._version == 0:
            push(self, engine)  # type: ignore[arg-type]

    monkeypatch.setattr(ServerSampler, "_push_weights", only_at_the_start)
    assert on(vllm, "train-rl", tmp_path / "rl", *RL) == TrainingError.exit_status
    said = capfd.readouterr().err
    assert "after version 1 of the weights was handed on" in said
    assert "likely cause: weights" in said
