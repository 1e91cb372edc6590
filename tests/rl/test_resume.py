"""A run that was killed goes on to exactly what it would have come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlprm.data.store import TrajectoryStore
from rlprm.errors import MismatchError
from rlprm.models.loading import revision_of
from rlprm.models.manifest import Manifest
from rlprm.prm.config import PRMConfig
from rlprm.prm.trainer import PRMTrainer
from rlprm.rl.config import RLConfig
from rlprm.rl.engine.plain import PlainEngine
from rlprm.rl.monitor.measure import TaskResults
from rlprm.rl.samplers.base import Sampler
from rlprm.rl.trainer import RLTrainer
from rlprm.runtime.config import parse
from rlprm.runtime.files import read_json, write_json
from rlprm.stages import train_prm
from rlprm.stages import train_rl as stage
from tests.rl.conftest import Run, rows

KINDS: dict[str, dict[str, Any]] = {
    "progress": {"save_every": 2, "eval_every": 1, "eval_tasks": 6, "test_tasks": 6, "test_samples": 1,
                 "lr_schedule": "cosine", "critic_warmup_iterations": 1},
    "outcome": {"save_every": 2, "reward": "outcome", "advantage": "leave_one_out", "prm": "",
                "select": "last", "kl_coef": 0.05, "warmup_iterations": 3},
    "adapters": {"save_every": 2, "lora_r": 4, "learning_rate": 1e-2, "critic": "shared", "ppo_epochs": 2},
    "last measured": {"save_every": 2, "eval_every": 3, "eval_tasks": 6, "critic_warmup_iterations": 3},
}  # fmt: skip


def kill(monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, when: Callable[..., bool]) -> None:
    """Stop a run dead where a method is called with some arguments."""
    inner = getattr(owner, method)

    def killed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            raise KeyboardInterrupt
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(owner, method, killed)


def without_time(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in found]


def assert_same(one: Path, other: Path) -> None:
    weights, again = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert without_time(rows(one)) == without_time(rows(other))


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_weights_and_numbers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings = {"iterations": 5, "tasks_per_iteration": 4, "round_limits": {0: 4, 3: 6}, **KINDS[kind]}
    whole = run("whole", **settings)
    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: iteration == 3)
    with pytest.raises(KeyboardInterrupt):
        run("killed", **settings)
    monkeypatch.undo()
    assert len(rows(tmp_path / "killed")) == 3  # one more than the checkpoint has
    done: list[int] = []
    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: bool(done.append(iteration)))
    resumed = run("killed", **settings)
    assert done == [2, 3, 4]
    assert_same(tmp_path / "whole", tmp_path / "killed")
    assert {k: v for k, v in resumed.items() if k != "seconds"} == {
        k: v for k, v in whole.items() if k != "seconds"
    }


@pytest.mark.parametrize(
    ("owner", "method", "when"),
    [
        (stage, "_measure_test", lambda model: model.endswith("killed")),
        (PlainEngine, "save_policy", lambda *_: True),
        (RLTrainer, "_iterate", lambda iteration: iteration != 0),
    ],
)
def test_killed_at_the_end_or_before_the_first_checkpoint(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    method: str,
    when: Callable[..., bool],
) -> None:
    settings = {"iterations": 2, "save_every": 2, "test_tasks": 4, "test_samples": 1}
    run("whole", **settings)
    kill(monkeypatch, owner, method, when)
    with pytest.raises(KeyboardInterrupt):
        run("killed", **settings)
    assert not (tmp_path / "killed/stage.json").exists()
    monkeypatch.undo()
    run("killed", **settings)
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_what_was_measured_before_training_is_not_measured_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"iterations": 2, "save_every": 1, "test_tasks": 4, "repeat_probe": 32, "round_limit": 10}
    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: iteration == 1)
    with pytest.raises(KeyboardInterrupt):
        run(**settings)
    monkeypatch.undo()
    kept = {name: (tmp_path / "rl" / name).read_text() for name in ("before.json", "repeat_probe.json")}
    measure = stage.measure_saved

    def only_after(sampler: Sampler, model: str, *rest: Any) -> TaskResults:
        assert Path(model) == tmp_path / "rl", "measured again"
        return measure(sampler, model, *rest)

    monkeypatch.setattr(stage, "measure_saved", only_after)
    monkeypatch.setattr(stage, "probe_repeats", lambda *_, **__: pytest.fail("probed again"))
    summary = run(**settings)
    assert kept == {name: (tmp_path / "rl" / name).read_text() for name in kept}
    assert ("repeat_probe" in summary) == (kept["repeat_probe.json"] != "null\n")
    assert summary["before"]["tasks"] == 4


@pytest.mark.parametrize(
    "known",
    [
        ("sample", "greedy"),
        ("sample", "greedy", "sample_score", "greedy_score"),
        tuple(name for name in TaskResults.__dataclass_fields__ if name != "messages"),
    ],
)
def test_a_file_without_all_measures_of_an_earlier_version_is_made_again_with_the_policy_before_rl(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: tuple[str, ...]
) -> None:
    settings = {"iterations": 3, "save_every": 2, "test_tasks": 4, "test_samples": 2}
    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: iteration == 2)
    with pytest.raises(KeyboardInterrupt):
        run(**settings)
    monkeypatch.undo()
    file = tmp_path / "rl/before.json"
    kept = read_json(file)
    write_json(file, {name: kept[name] for name in known})
    run(**settings)
    assert read_json(file) == kept


def test_no_run_goes_on_with_other_settings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: iteration == 1)
    with pytest.raises(KeyboardInterrupt):
        run(save_every=1)
    monkeypatch.undo()
    with pytest.raises(MismatchError, match=r"iteration-000001 was made .*gamma: 1\.0 there, 0\.9 now"):
        run(save_every=1, gamma=0.9)
    run(save_every=2, micro_batch_tokens=5_000)  # says how, not what


# --- the PRM as the policy drifts ---


@pytest.mark.slow
def test_the_prm_is_trained_on_and_a_resumed_run_goes_on_with_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walker_prm: Path
) -> None:
    settings = {
        "iterations": 3, "save_every": 2, "refresh_every": 2, "num_tasks": 8,
        "refresh_kwargs": {"learning_rate": 1e-3, "disable_tqdm": True},
    }  # fmt: skip
    used: list[str] = []
    load = stage.load_scorer

    def watched(path: str, config: RLConfig) -> Any:
        used.append(path)
        return load(path, config)

    monkeypatch.setattr(stage, "load_scorer", watched)
    run("whole", **settings)
    folder = tmp_path / "whole/refresh"
    assert used == [str(walker_prm), str(folder / "prm-000002")]
    found = Manifest.load(folder / "prm-000002")
    assert (found.label_estimator, found.end, found.policy) == ("returns", "declared", "whole-rl")
    assert found.base == revision_of(str(walker_prm)) != revision_of(used[1])
    assert len(TrajectoryStore.open(folder / "trajectories-000000").read()) == 2 * 8 * 4
    values = [row["prm/initial_value"] for row in rows(tmp_path / "whole")]
    assert abs(values[1] - values[0]) < 1e-5  # v_0 of the same prompts
    assert abs(values[2] - values[1]) > 1e-3

    kill(monkeypatch, RLTrainer, "_iterate", lambda iteration: iteration == 2)
    with pytest.raises(KeyboardInterrupt):
        run("killed", **settings)
    monkeypatch.undo()
    monkeypatch.setattr(stage, "load_scorer", watched)
    used.clear()
    run("killed", **settings)
    assert used == [str(tmp_path / "killed/refresh/prm-000002")]
    assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_a_run_killed_within_a_refresh_resumes_exactly(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "iterations": 3, "save_every": 1, "refresh_every": 2, "num_tasks": 8,
        "refresh_kwargs": {"learning_rate": 1e-3, "disable_tqdm": True},
    }  # fmt: skip
    run("whole", **settings)
    step = PRMTrainer.training_step

    def killed(self: PRMTrainer, *inputs: Any) -> Any:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *inputs)

    monkeypatch.setattr(PRMTrainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run("killed", **settings)
    monkeypatch.undo()
    run("killed", **settings)
    assert_same(tmp_path / "whole", tmp_path / "killed")
    prms = [
        load_file(tmp_path / name / "refresh/prm-000002/model.safetensors") for name in ("whole", "killed")
    ]
    assert all(torch.equal(weight, prms[1][name]) for name, weight in prms[0].items())


@pytest.mark.slow
def test_a_refresh_is_the_stage_train_prm_and_changes_no_random_number(
    run: Run, tmp_path: Path, walker_prm: Path
) -> None:
    changes = {"iterations": 3, "save_every": 2, "num_tasks": 8}
    run("refreshed", refresh_every=2, refresh_kwargs={"disable_tqdm": True}, **changes)
    run("plain", **changes)
    states = [
        torch.load(next((tmp_path / name).rglob("random_states_0.pkl")), weights_only=False)
        for name in ("refreshed", "plain")
    ]
    assert torch.equal(states[0]["torch_manual_seed"], states[1]["torch_manual_seed"])
    assert states[0]["random_state"] == states[1]["random_state"]
    folder = tmp_path / "refreshed/refresh"
    record = json.loads((folder / "prm-000002/stage.json").read_text())
    settings = [
        "--model", str(walker_prm), "--trajectories", str(folder / "trajectories-000000"),
        "--output_dir", str(tmp_path / "alone"), "--label_estimator", "returns", "--cold_start_epochs", "0",
        "--num_train_epochs", "1", "--learning_rate", "1e-4", "--eval_strategy", "no",
        "--seed", str(record["config"]["seed"]),
    ]  # fmt: skip
    train_prm.run(parse(PRMConfig, settings))
    inside, alone = (load_file(f / "model.safetensors") for f in (folder / "prm-000002", tmp_path / "alone"))
    before = load_file(walker_prm / "model.safetensors")
    assert max((inside[name] - before[name]).abs().max() for name in before) > 1e-4
    for name, weight in inside.items():
        torch.testing.assert_close(weight, alone[name], atol=1e-6, rtol=0)
