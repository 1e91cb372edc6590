"""Checkpoints are whole or not there; a journal has no lines from behind them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlprm.errors import DataError, MismatchError
from rlprm.rl.engine.plain import PlainEngine
from rlprm.rl.keeping.checkpoints import Journal, load_newest, save_checkpoint
from rlprm.rl.state import RunState
from rlprm.runtime.processes import Processes
from tests.rl import toy
from tests.rl.toy import Learner

BATCH = toy.batch(4)
CREDIT = toy.random_credit(BATCH)
SETTINGS: dict[str, Any] = {"reward": "progress", "round_limits": {0: 6, 40: 12}, "lora_targets": ["q", "v"]}


def step(learner: Learner, seed: int) -> None:
    learner.update(BATCH, CREDIT, learner.read_old(BATCH), seed=seed)


def save(learner: Learner, folder: Path, iteration: int, *, keep: int = 2, **settings: Any) -> None:
    state = RunState(iteration, env_steps=10 * iteration, prm="runs/prm", alarms={"overrating": "much"})
    save_checkpoint(learner.engine, folder, state, {**SETTINGS, **settings}, keep=keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize("settings", [{}, {"critic": "shared"}, {"lora_r": 4, "kl_coef": 0.1}])
def test_weights_optimiser_and_progress_come_back_exactly(
    tiny_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    going = toy.learner(tiny_folder, **settings)
    step(going, 1)
    save(going, tmp_path, 7)
    at_checkpoint = toy.weights(going)
    step(going, 2)
    again = toy.learner(tiny_folder, **settings)
    found = load_newest(again.engine, tmp_path, SETTINGS)
    assert found == (RunState(7, env_steps=70, prm="runs/prm", alarms={"overrating": "much"}), {})
    assert torch.equal(toy.weights(again), at_checkpoint)
    step(again, 2)  # with the moments of the first step
    assert torch.equal(toy.weights(again), toy.weights(going))
    assert not torch.equal(toy.weights(again), at_checkpoint)


def test_a_critic_of_an_earlier_version_which_meant_something_else_is_refused(
    tiny_folder: Path, tmp_path: Path
) -> None:
    learner = toy.learner(tiny_folder)
    save(learner, tmp_path, 7)
    save(learner, tmp_path, 8, reward="outcome")
    for name in ("iteration-000007", "iteration-000008"):
        file = tmp_path / "checkpoints" / name / "state.json"
        stored = json.loads(file.read_text())
        del stored["critic_predicts"]
        file.write_text(json.dumps(stored))
    assert load_newest(learner.engine, tmp_path, {**SETTINGS, "reward": "outcome"}) is not None
    shutil.rmtree(tmp_path / "checkpoints" / "iteration-000008")
    with pytest.raises(MismatchError, match="earlier version, whose critic predicted what progress pays"):
        load_newest(learner.engine, tmp_path, SETTINGS)


@pytest.mark.parametrize("settings", [{}, {"critic": "shared"}, {"lora_r": 4}])
def test_a_run_that_is_killed_after_the_critics_warm_up_goes_on_the_same(
    tiny_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Adam has moments of the critic alone by then."""
    going = toy.learner(tiny_folder, **settings)
    going.update(BATCH, CREDIT, going.read_old(BATCH), critic_only=True)
    save(going, tmp_path, 1)
    again = toy.learner(tiny_folder, **settings)
    load_newest(again.engine, tmp_path, SETTINGS)
    before = toy.weights(again)
    for seed in (1, 2):
        step(going, seed)
        step(again, seed)
    assert torch.equal(toy.weights(again), toy.weights(going))
    assert not torch.equal(toy.weights(again, "policy"), before[: len(toy.weights(again, "policy"))])


def test_frozen_weights_are_in_no_checkpoint_and_adapters_come_back(
    tiny_folder: Path, tmp_path: Path
) -> None:
    made = toy.learner(tiny_folder, lora_r=4, critic="separate")
    save_checkpoint(made.engine, tmp_path, RunState(iteration=1), {}, keep=1)
    (file,) = (tmp_path / "checkpoints/iteration-000001").glob("model*.safetensors")
    kept = load_file(file)
    trained = {name for name, p in made.engine.model.named_parameters() if p.requires_grad}
    assert set(kept) == trained
    assert 2 * sum(t.numel() for t in kept.values()) < len(toy.weights(made))
    other = toy.learner(tiny_folder, lora_r=4, critic="separate", seed=8)
    assert not torch.equal(toy.weights(other), toy.weights(made))
    load_newest(other.engine, tmp_path, {})
    torch.testing.assert_close(toy.weights(other), toy.weights(made), atol=0, rtol=0)


def test_nothing_there_is_nothing_to_go_on_from(tiny_folder: Path, tmp_path: Path) -> None:
    learner = toy.learner(tiny_folder)
    before = toy.weights(learner)
    assert load_newest(learner.engine, tmp_path, SETTINGS) is None
    assert torch.equal(toy.weights(learner), before)


def test_the_newest_are_kept(tiny_folder: Path, tmp_path: Path) -> None:
    learner = toy.learner(tiny_folder)
    for iteration in (2, 4, 6, 10, 8):
        save(learner, tmp_path, iteration, keep=2)
    assert names(tmp_path) == ["iteration-000008", "iteration-000010"]
    found = load_newest(learner.engine, tmp_path, SETTINGS)
    assert found is not None
    assert found[0].iteration == 10


@pytest.mark.parametrize(("owner", "method"), [(PlainEngine, "save_state"), (Path, "rename")])
@pytest.mark.trap("half a file")
def test_trap_a_run_that_is_killed_while_it_saves_goes_on_from_the_checkpoint_before(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    learner = toy.learner(tiny_folder)
    save(learner, tmp_path, 2)
    at_two = toy.weights(learner)
    step(learner, 1)
    write = PlainEngine.save_state

    def killed(self: Any, folder: Path) -> None:
        if isinstance(self, PlainEngine):
            write(self, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, method, killed)
    with pytest.raises(KeyboardInterrupt):
        save(learner, tmp_path, 4)
    assert names(tmp_path) == ["iteration-000002", "iteration-000004.partial"]
    monkeypatch.undo()
    found = load_newest(learner.engine, tmp_path, SETTINGS)
    assert found is not None
    assert found[0].iteration == 2
    assert torch.equal(toy.weights(learner), at_two)
    # The next one takes the place of what was half written.
    save(learner, tmp_path, 4)
    assert names(tmp_path) == ["iteration-000002", "iteration-000004"]


def test_no_run_goes_on_from_a_checkpoint_of_another(tiny_folder: Path, tmp_path: Path) -> None:
    learner = toy.learner(tiny_folder)
    save(learner, tmp_path, 2)
    before = toy.weights(learner)
    with pytest.raises(MismatchError, match=r"reward: 'progress' there, 'outcome' now"):
        load_newest(learner.engine, tmp_path, {**SETTINGS, "reward": "outcome"})
    learner.engine.processes = Processes(0, 2)
    with pytest.raises(MismatchError, match="processes: 1 there, 2 now"):
        load_newest(learner.engine, tmp_path, SETTINGS)
    assert torch.equal(toy.weights(learner), before)


# --- the journal ---


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def journal(folder: Path, iteration: int = 0, *, writes: bool = True) -> Journal:
    return Journal(folder, iteration, writes=writes)


def test_the_journal_keeps_what_was_written(tmp_path: Path) -> None:
    first = journal(tmp_path / "new")
    for iteration in range(3):
        first.write({"iteration": iteration, "rollout/success": 0.5 * iteration})
    first.write({"iteration": 3, "eval/success": 0.25})
    assert first.rows == written(tmp_path / "new")
    assert first.column("rollout/success") == [0, 0.5, 1]
    assert first.column("eval/success") == [0.25]
    assert journal(tmp_path / "new", 4).rows == first.rows


def test_lines_behind_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    first = journal(tmp_path)
    for iteration in range(5):
        first.write({"iteration": iteration})
    again = journal(tmp_path, 2)
    again.write({"iteration": 2, "again": True})
    assert written(tmp_path) == [{"iteration": 0}, {"iteration": 1}, {"iteration": 2, "again": True}]
    assert again.rows == written(tmp_path)
    journal(tmp_path, 0)  # from the start
    assert written(tmp_path) == []


def test_a_last_line_that_was_cut_off_is_dropped_and_a_damaged_one_before_it_is_not(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"iteration": 0}\n{"iteration": 1, "rollout/succ')
    assert journal(tmp_path, 1).rows == [{"iteration": 0}]
    assert file.read_text() == '{"iteration": 0}\n'
    file.write_text('{"iterat\n{"iteration": 1}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl line 1 is not valid JSON"):
        journal(tmp_path, 2)


def test_one_process_of_several_writes(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    writer.write({"iteration": 0})
    reader = journal(tmp_path, 0, writes=False)
    reader.write({"iteration": 0, "mine": 1})
    assert reader.column("mine") == [1]
    assert written(tmp_path) == [{"iteration": 0}]
