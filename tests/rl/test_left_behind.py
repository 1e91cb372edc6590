"""What a run leaves behind: summary, journal, curves, the policy, and what may be reused of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlprm.errors import MismatchError
from rlprm.models.loading import revision_of
from rlprm.rl.config import RLConfig
from rlprm.rl.trainer import RLTrainer
from rlprm.runtime.record import read_record
from rlprm.stages import train_rl as stage
from tests.rl.conftest import Run, column, column_of_those_that_have, rows


@pytest.fixture(scope="module")
def finished(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything on; never to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "rl"
    changes = {
        "iterations": 4, "save_every": 2, "eval_every": 2, "eval_tasks": 10, "test_tasks": 20,
        "test_samples": 2, "kl_coef": 0.01, "output_dir": str(folder),
        "report_to": "tensorboard", "table_every": 2,
    }  # fmt: skip
    stage.run(RLConfig(**{**settings, **changes}))
    return folder


def test_a_summary_compares_before_and_after_on_the_same_tasks(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    for name in ("before", "after"):
        found = summary[name]
        assert found["tasks"] == 20
        per_task = json.loads((finished / f"{name}.json").read_text())
        for how in ("sample", "greedy", "sample_score", "greedy_score"):
            assert found[how]["low"] <= found[how]["mean"] <= found[how]["high"]
            assert sorted(per_task[how]) == sorted(f"test-{i}" for i in range(20))
            assert found[how]["mean"] == pytest.approx(sum(per_task[how].values()) / 20, abs=1e-4)
    before = summary["before"]
    assert before["sample"]["mean"] < before["sample_score"]["mean"]  # a failure nearby has a score, too
    difference = summary["after"]["sample"]["mean"] - before["sample"]["mean"]
    assert summary["difference"]["sample"]["mean"] == pytest.approx(difference, abs=1e-3)
    assert difference > 0.1
    assert summary["iterations"] == 4
    assert summary["env_steps"] == rows(finished)[-1]["rollout/env_steps"]
    assert summary["tokens"] == rows(finished)[-1]["rollout/sampled_tokens"]
    assert summary["alarm"] == []
    assert summary["trained_parameters"] > 200_000
    assert {f"time/{phase}" for phase in ("rollout", "score", "evaluate", "update", "eval", "save")} == set(
        summary["seconds"]
    )
    assert min(summary["seconds"].values()) > 0
    record = read_record(finished)
    assert record["stage"] == "train-rl"
    assert record["results"]["after"] == summary["after"]


def test_every_iteration_is_in_the_journal(finished: Path) -> None:
    found = rows(finished)
    assert [row["iteration"] for row in found] == [0, 1, 2, 3]
    measured = {"eval/success", "eval/greedy", "eval/score", "eval/greedy_score"}
    assert [len(measured & row.keys()) for row in found] == [0, 4, 0, 4]
    expected = {
        "rollout/success", "rollout/turns", "rollout/failed", "rollout/repeated_actions", "reward/prm",
        "reward/outcome", "reward/kl_penalty", "reward/total", "prm/overrating", "prm/final_value",
        "ppo/policy_loss", "ppo/value_loss", "ppo/entropy", "ppo/approx_kl", "ppo/clip_fraction",
        "ppo/grad_norm", "ppo/policy_grad_norm", "ppo/critic_grad_norm", "ppo/learning_rate",
        "ppo/kl_to_reference", "ppo/sampler_mismatch", "time/update", "ppo/ratio_min", "ppo/ratio_max",
        "ppo/clip_low_fraction", "ppo/clip_high_fraction", "ppo/importance_weight_min",
        "ppo/importance_weight_max", "rollout/groups_without_signal", "time/rollout_tokens_per_second",
        "time/score_tokens_per_second", "time/update_tokens_per_second", "memory/host_peak_gib",
    }  # fmt: skip
    assert {"before/success", "before/greedy"} <= found[0].keys()
    assert [row for row in found[1:] if "before/success" in row] == []
    for row in found:
        assert expected <= row.keys()
        assert row["ppo/ratio_min"] <= 1 <= row["ppo/ratio_max"]
        assert row["ppo/clip_low_fraction"] + row["ppo/clip_high_fraction"] == pytest.approx(
            row["ppo/clip_fraction"],
            abs=2e-3,  # which weighs steps equally, not tokens
        )
        assert row["reward/total"] == pytest.approx(row["reward/prm"] + row["reward/outcome"], abs=1e-6)
    assert found[0]["ppo/approx_kl"] < 1e-9  # the critic's warm-up
    assert [row["ppo/policy_grad_norm"] > 0 for row in found] == [False, True, True, True]
    assert found[0]["ppo/kl_to_reference"] == pytest.approx(0, abs=1e-6)
    assert found[3]["ppo/kl_to_reference"] > 1e-4


@pytest.mark.trap("re-encoding")
def test_trap_rollout_and_training_agree_on_every_token(finished: Path) -> None:
    # Ids that were decoded and encoded again, or another temperature, would show here.
    assert max(column(finished, "ppo/sampler_mismatch")) < 1e-4


@pytest.mark.trap("broken telescope")
def test_trap_what_progress_pays_over_an_episode_is_fixed_before_it_begins(finished: Path) -> None:
    # It telescopes to -v_0, whatever the policy has learned: there is nothing to farm.
    for row in rows(finished):
        assert row["reward/prm"] == pytest.approx(-row["prm/initial_value"], abs=1e-5)
    assert column(finished, "prm/final_value")[-1] != pytest.approx(column(finished, "prm/final_value")[0])


def test_curves_are_drawn(finished: Path) -> None:
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "curves.png").stat().st_size > 10_000


def test_what_is_logged_can_be_read_by_tensorboard(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    logged = [event.value for event in events.Scalars("rollout/success")]
    assert logged == pytest.approx(column(finished, "rollout/success"))
    assert [event.step for event in events.Scalars("eval/success")] == [1, 3]
    assert [event.step for event in events.Tensors("rollout/trajectories/text_summary")] == [0, 2]


def test_the_best_policy_on_dev_tasks_is_kept(finished: Path) -> None:
    found = column_of_those_that_have(finished, "eval/success")
    summary = json.loads((finished / "summary.json").read_text())
    best = max(found, key=lambda iteration: (found[iteration], -iteration))
    assert summary["selected_iteration"] == best + 1
    kept = finished / "best" / f"iteration-{best + 1:06d}"
    assert revision_of(str(kept)) == revision_of(str(finished))
    assert [path.name for path in (finished / "best").iterdir()] == [kept.name]
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == [
        "iteration-000002",
        "iteration-000004",
    ]


def test_a_finished_run_is_reused_and_no_other_takes_its_folder(
    finished: Path, settings: dict[str, Any], trainers: list[RLTrainer]
) -> None:
    record = read_record(finished)["config"]
    known = {name: record[name] for name in ("iterations", "eval_every", "eval_tasks", "test_tasks")}
    known |= {name: record[name] for name in ("test_samples", "kl_coef")}
    same = {**settings, **known, "output_dir": str(finished), "save_every": 1, "micro_batch_tokens": 99}
    assert stage.run(RLConfig(**same)) == json.loads((finished / "summary.json").read_text())
    assert not trainers
    with pytest.raises(MismatchError, match=r"holds a finished run with other settings \(kl_coef: 0\.01"):
        stage.run(RLConfig(**{**same, "kl_coef": 0.5}))


def test_the_saved_policy_is_the_trained_one_for_stock_transformers(
    run: Run, tmp_path: Path, trainers: list[RLTrainer], walker_policy: Path
) -> None:
    run(iterations=2)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "rl", dtype="float32").state_dict()
    trained = trainers[0].engine.model.policy.state_dict()
    assert saved.keys() == trained.keys()
    assert all(torch.equal(saved[name], trained[name]) for name in trained)
    assert revision_of(str(tmp_path / "rl")) != revision_of(str(walker_policy))
    assert (tmp_path / "rl/tokenizer.json").exists()


def test_a_run_with_adapters_saves_merged_weights(
    run: Run, tmp_path: Path, trainers: list[RLTrainer], walker_policy: Path
) -> None:
    run(iterations=2, lora_r=4, learning_rate=1e-2, kl_coef=0.01)
    assert rows(tmp_path / "rl")[1]["ppo/kl_to_reference"] == pytest.approx(0, abs=1e-5)  # before its update
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "rl", dtype="float32").eval()
    assert not any("lora" in name for name in load_file(tmp_path / "rl/model.safetensors"))
    assert (tmp_path / "rl/adapter/adapter_model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(walker_policy, dtype="float32").eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        trained, before = trainers[0].engine.model.policy.eval()(input_ids=ids).logits, base(ids).logits
        torch.testing.assert_close(saved(ids).logits, trained, atol=1e-4, rtol=0)
    assert (trained - before).abs().max() > 1e-2


@pytest.mark.slow
def test_a_run_is_tracked_by_wandb_without_a_key(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    try:
        changes = {
            "iterations": 2,
            "report_to": "wandb",
            "table_every": 1,
            "output_dir": str(tmp_path / "rl"),
        }
        stage.run(RLConfig(**{**settings, **changes}))
    finally:
        wandb.teardown()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    content = next(folder.glob("run-*.wandb")).read_bytes()
    assert all(name in content for name in (b"rollout/success", b"reward/prm", b"turn_gae", b"curves"))
    assert len(list((folder / "files/media/table/rollout").glob("trajectories_*.table.json"))) == 2
