"""Collections: resumed to the same bytes, refused under other settings, independent of the size of a wave."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from rlprm.data.conversation import Conversation
from rlprm.data.failures import has_failed
from rlprm.data.message_counts import COUNTED
from rlprm.data.rendering import ChatRenderer
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ArtifactError, ConfigError, MismatchError
from rlprm.policies.base import Completion, Policy
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.collection import collect
from rlprm.runtime.processes import SINGLE_PROCESS, Processes
from rlprm.runtime.record import FAILED, is_finished, read_record, recorded
from rlprm.stages import collect as stage
from rlprm.stages.settings import CollectConfig
from rlprm.types import EpisodeSetting, Split, StopReason, Trajectory, Turn
from tests.toys import corridor
from tests.toys.agents import SeededPolicy

TASKS = corridor.tasks(Split.TRAIN, 0, 5)
ACTIONS = ("right", "finish", "left", "wait")
CRASHING = ("right", "finish", "left", "crash")


class Killed(SeededPolicy):
    """Pulls the plug in the middle of a wave."""

    def __init__(self, in_wave: int) -> None:
        super().__init__(ACTIONS)
        self.in_wave = in_wave

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        begins = all(not c.steps for c in conversations)
        self.in_wave -= begins
        if self.in_wave < 0 and not begins:
            raise KeyboardInterrupt
        return super().act(conversations, seeds)


def gather(
    folder: Path,
    policy: Policy | None = None,
    wave_size: int = 4,
    seed: int = 0,
    processes: Processes = SINGLE_PROCESS,
) -> TrajectoryStore:
    return collect(
        policy or SeededPolicy(ACTIONS),
        TASKS,
        EpisodeSetting(),
        folder=str(folder),
        samples_per_task=3,
        wave_size=wave_size,
        seed=seed,
        meta={"environment": "tests.toys.corridor"},
        processes=processes,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_task_is_rolled_out_the_asked_number_of_times(tmp_path: Path) -> None:
    made = gather(tmp_path).read()
    assert [(t.task.id, t.sample) for t in made] == [(task.id, s) for task in TASKS for s in range(3)]
    assert sorted(content(tmp_path)) == [
        *("README.md", "meta.json"),
        *(f"wave-0000{n}.jsonl" for n in range(4)),
    ]
    assert StopReason.DECLARED in {t.stop for t in made}


@pytest.mark.parametrize("done", [0, 1, 3])
def test_a_killed_collection_continues_to_the_same_bytes(
    tmp_path: Path, done: int, caplog: pytest.LogCaptureFixture
) -> None:
    gather(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        gather(tmp_path / "killed", Killed(in_wave=done))
    assert len(list((tmp_path / "killed").glob("wave-*.jsonl"))) == done
    policy = SeededPolicy(ACTIONS)
    with caplog.at_level(logging.INFO):
        store = gather(tmp_path / "killed", policy)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert len(store.read()) == 15
    assert policy.calls[0] == (4 if done < 3 else 3)
    assert (f"{done} of 4 waves are there; collecting the rest" in caplog.text) == (done > 0)


def test_a_finished_collection_asks_the_policy_nothing(tmp_path: Path) -> None:
    gather(tmp_path)
    before = content(tmp_path)
    policy = SeededPolicy(ACTIONS)
    gather(tmp_path, policy)
    assert policy.calls == []
    assert content(tmp_path) == before


def test_processes_share_the_waves_and_come_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather(tmp_path / "alone")
    waited: list[int] = []
    monkeypatch.setattr(Processes, "wait", lambda self: waited.append(self.rank))
    shards = []
    for rank in (1, 0):  # 4 waves: 1 and 3, then 0 and 2
        gather(tmp_path / "shared", processes=Processes(rank, 2))
        shards.append({p.name for p in (tmp_path / "shared").glob("wave-*")})
    assert shards[0] == {"wave-00001.jsonl", "wave-00003.jsonl"}
    assert waited == [1, 0]
    assert content(tmp_path / "shared") == content(tmp_path / "alone")


def test_failures_are_kept_with_their_cause(tmp_path: Path) -> None:
    made = gather(tmp_path, SeededPolicy(CRASHING)).read()
    failed = [t for t in made if t.stop is StopReason.ERROR]
    assert 0 < len(failed) < 15
    assert {t.error for t in failed} == {"RuntimeError: the corridor collapsed"}


def mended(self: corridor.Corridor, action: str, step: Any = corridor.Corridor.step) -> Turn:
    return step(self, "wait" if action == "crash" else action)


def test_failed_episodes_are_run_again_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = sum(map(has_failed, gather(tmp_path / "again", SeededPolicy(CRASHING)).read()))
    monkeypatch.setattr(corridor.Corridor, "step", mended)
    gather(tmp_path / "whole", SeededPolicy(CRASHING))
    policy = SeededPolicy(CRASHING)
    gather(tmp_path / "again", policy)
    assert content(tmp_path / "again") == content(tmp_path / "whole")
    first_turns = [count for count in policy.calls if count <= failed]
    assert first_turns == policy.calls


def test_a_stage_with_failed_episodes_is_not_taken_for_finished(tmp_path: Path) -> None:
    for failed, finished in ((0, True), (3, False)):
        with recorded(tmp_path, "collect", {"seed": 0}) as results:
            results[FAILED] = failed
        assert is_finished(tmp_path, "collect", {"seed": 0}) is finished


def as_set(trajectories: Sequence[Trajectory]) -> set[tuple[object, ...]]:
    return {(t.task.id, t.sample, t.seed, t.token_ids, t.action_mask, t.stop, t.error) for t in trajectories}


@pytest.mark.parametrize("wave_size", [1, 6, 100])
def test_the_size_of_a_wave_changes_no_trajectory(tmp_path: Path, wave_size: int) -> None:
    usual, other = gather(tmp_path / "4").read(), gather(tmp_path / "other", wave_size=wave_size).read()
    assert len(usual) == len(as_set(usual))
    assert as_set(other) == as_set(usual)


def test_the_size_of_a_wave_changes_no_trajectory_of_a_model(
    babbler: PreTrainedModel, renderer: ChatRenderer, tmp_path: Path
) -> None:
    found = []
    for wave_size in (4, 15):
        policy = HFPolicy(babbler, renderer, revision="babbler", max_new_tokens=5)
        found.append(as_set(gather(tmp_path / str(wave_size), policy, wave_size).read()))
    assert found[0] == found[1]
    assert len({ids for *_, ids, _, _, _ in found[0]}) == 15


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("seed", lambda folder: gather(folder, seed=1)),
        ("wave_size", lambda folder: gather(folder, wave_size=5)),
        ("temperature", lambda folder: gather(folder, SeededPolicy(ACTIONS, temperature=0.5))),
        ("context_length", lambda folder: gather(folder, with_context(77))),
    ],
)
def test_a_folder_is_continued_only_with_the_same_settings(tmp_path: Path, setting: str, change) -> None:  # type: ignore[no-untyped-def]
    gather(tmp_path)
    before = content(tmp_path)
    with pytest.raises(MismatchError, match=rf"other settings \({setting}: "):
        change(tmp_path)
    assert content(tmp_path) == before


def with_context(length: int) -> SeededPolicy:
    policy = SeededPolicy(ACTIONS)
    policy.context_length = length
    return policy


def config(tiny_folder: Path, tmp_path: Path, **changes: object) -> CollectConfig:
    settings: dict[str, object] = {
        "environment": "tests.toys.corridor",
        "env_kwargs": {"length": 5},
        "model": str(tiny_folder),
        "max_new_tokens": 4,
        "round_limit": 2,
        "num_tasks": 3,
        "samples_per_task": 2,
        "wave_size": 4,
        "output_dir": str(tmp_path / "trajectories"),
    }
    return CollectConfig(**{**settings, **changes})  # type: ignore[arg-type]


def test_the_stage_records_what_it_did_and_is_reused(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run(config(tiny_folder, tmp_path))
    record = read_record(tmp_path / "trajectories")
    assert record["stage"] == "collect"
    assert record["results"]["trajectories"] == 6
    assert TrajectoryStore.open(tmp_path / "trajectories").meta["dtype"] == "float32"
    assert record["results"]["env_steps"] == 12
    assert record["results"]["stops"] == {"round_limit": 6}
    # The weights are random: all messages fill the limit, and the corridor takes any text for an action.
    assert record["results"]["cut_messages"] == 12
    assert record["results"]["cut_rate"] == 1.0
    assert {record["results"][name] for name in COUNTED if name != "cut_messages"} == {0}
    monkeypatch.setattr(CollectConfig, "load_policy", lambda _: pytest.fail("loaded the policy again"))
    assert len(stage.run(config(tiny_folder, tmp_path)).read()) == 6
    with pytest.raises(MismatchError, match=r"samples_per_task: 2 there, 3 now"):
        stage.run(config(tiny_folder, tmp_path, samples_per_task=3))


def test_episodes_without_an_answer_are_counted_where_there_are_answers(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run(config(tiny_folder, tmp_path))
    assert "unanswered" not in read_record(tmp_path / "trajectories")["results"]

    def answer(trajectory: Trajectory) -> str | None:
        assert not has_failed(trajectory)
        return "left" if trajectory.sample == 0 else None

    def collected(*args: Any, **kwargs: Any) -> TrajectoryStore:
        store = collect(*args, **kwargs)
        first, *others = store.read_wave(0)
        store.write(0, [replace(first, stop=StopReason.ERROR, error="it died"), *others])
        return store

    monkeypatch.setattr(corridor, "answer", answer, raising=False)
    answered = config(tiny_folder, tmp_path, output_dir=str(tmp_path / "answered"))
    stage.run(answered)
    assert read_record(tmp_path / "answered")["results"]["unanswered"] == 3  # of 6
    monkeypatch.setattr(stage, "collect", collected)
    stage.run(config(tiny_folder, tmp_path, output_dir=str(tmp_path / "failed")))
    results = read_record(tmp_path / "failed")["results"]
    assert (results["failed_episodes"], results["unanswered"]) == (1, 3)


def test_waves_of_another_precision_are_not_put_beside_those_that_are_there(
    tiny_folder: Path, tmp_path: Path
) -> None:
    stage.run(config(tiny_folder, tmp_path))
    (tmp_path / "trajectories" / "stage.json").unlink()
    (tmp_path / "trajectories" / "wave-00001.jsonl").unlink()
    with pytest.raises(MismatchError, match="dtype: 'float32' there, 'bfloat16' now"):
        stage.run(config(tiny_folder, tmp_path, dtype="bfloat16"))


def test_a_killed_stage_leaves_no_record_and_goes_on(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TrajectoryStore, "write", crash)
    with pytest.raises(MemoryError):
        stage.run(config(tiny_folder, tmp_path))
    with pytest.raises(ArtifactError):
        read_record(tmp_path / "trajectories")
    monkeypatch.undo()
    assert len(stage.run(config(tiny_folder, tmp_path)).read()) == 6


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model": ""}, "model: nothing given"),
        ({"temperature": -1.0}, r"temperature: got -1\.0, allowed: 0 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens: got 0, allowed: 1 or more"),
        ({"wave_size": 0}, "wave_size: got 0"),
        ({"context_length": 0}, "context_length: got 0"),
        ({"seed": -1}, "seed: got -1"),
        ({"split": "training"}, "split: got 'training', allowed: train, dev, test"),
        ({"num_tasks": 0}, "num_tasks: got 0"),
        ({"samples_per_task": 0}, "samples_per_task: got 0"),
        ({"end": "never"}, "end: got 'never', allowed: on_success, declared"),
        ({"round_limit": 0}, "round_limit: got 0"),
        ({"action_format": "json"}, "action_format: got 'json', allowed: action_only, react"),
    ],
)
def test_impossible_settings_are_refused_when_they_are_made(
    tiny_folder: Path, tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config(tiny_folder, tmp_path, **change)
