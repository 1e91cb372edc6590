"""Trajectories come back as they were written, whole shards or none, readable without this package."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings

from rlprm.data.probes import ActionProbe
from rlprm.data.store import FORMAT, TrajectoryStore, from_row, to_row
from rlprm.errors import ArtifactError, DataError, MismatchError
from rlprm.runtime import files
from rlprm.runtime.files import read_json, write_atomically
from rlprm.types import Outcome, StopReason, Trajectory
from tests.data.strategies import trajectories
from tests.toys.trajectories import of_steps


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    return TrajectoryStore.create(tmp_path / "store", {"seed": 0})


def failed_start() -> Trajectory:
    empty: dict[str, tuple[()]] = {"token_ids": (), "action_mask": (), "logprobs": (), "messages": ()}
    made = of_steps(steps=0, stop=StopReason.ERROR)
    return replace(made, **empty, error="RuntimeError: no server")  # type: ignore[arg-type]


def spoken() -> Trajectory:
    messages = ({"role": "user", "content": ""}, {"role": "assistant", "content": 'a\u2028"b"\n\x00 ☃'})
    return replace(of_steps(True, 2), messages=messages)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(trajectories())
def test_a_row_of_json_becomes_the_same_trajectory(made: Trajectory) -> None:
    assert from_row(json.loads(json.dumps(to_row(made), ensure_ascii=False))) == made


@settings(max_examples=60, deadline=None)
@given(trajectories())
def test_every_row_has_the_same_columns_of_the_same_types(made: Trajectory) -> None:
    def kinds(row: dict[str, object]) -> dict[str, type]:
        return {name: type(value) for name, value in row.items()}

    assert kinds(to_row(made)) == kinds(to_row(of_steps()))
    assert None not in to_row(made).values()


def test_waves_are_read_in_order_whatever_the_order_of_writing(store: TrajectoryStore) -> None:
    waves = {n: [replace(of_steps(), sample=n)] for n in (100_000, 2, 10, 0, 99_999)}
    for number, wave in waves.items():
        store.write(number, wave)
    assert [t.sample for t in TrajectoryStore.open(store.folder).read()] == [0, 2, 10, 99_999, 100_000]
    assert store.has(10)
    assert not store.has(1)


def test_text_with_separators_of_lines_stays_on_its_line(store: TrajectoryStore) -> None:
    store.write(0, [spoken(), failed_start(), spoken()])
    assert store.read() == [spoken(), failed_start(), spoken()]


def test_numbers_of_numpy_are_stored_like_others(store: TrajectoryStore) -> None:
    judged = replace(of_steps(), outcome=Outcome(np.float32(0.5), np.bool_(True), "numpy"))  # type: ignore[arg-type]
    store.write(0, [judged])
    (read,) = store.read()
    assert read.outcome == Outcome(0.5, True, "numpy")


ORDERS = {
    "failures last": [["ok", "ok"], ["failed"]],
    "failures first": [["failed"], ["ok", "failed"], ["ok"]],
    "failures only": [["failed"], ["failed"]],
}


@pytest.mark.parametrize("order", ORDERS)
def test_datasets_reads_the_folder_without_this_package(
    store: TrajectoryStore, tmp_path: Path, order: str
) -> None:
    made = {"ok": spoken(), "failed": failed_start()}
    for number, wave in enumerate(ORDERS[order]):
        store.write(number, [made[name] for name in wave])
    cache = str(tmp_path / "cache")
    rows = datasets.load_dataset(str(store.folder), split="train", cache_dir=cache)
    assert [from_row(row) for row in rows] == store.read()
    if order == "failures last":
        shards = str(store.folder / "wave-*.jsonl")
        assert list(datasets.load_dataset("json", data_files=shards, split="train", cache_dir=cache)) == list(
            rows
        )


@pytest.mark.trap("half a file")
def test_trap_a_crash_while_writing_leaves_neither_a_shard_nor_rubbish(
    store: TrajectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(os.listdir(store.folder))

    def pull_the_plug(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", pull_the_plug)
    with pytest.raises(OSError, match="disk full"):
        store.write(0, [of_steps()])
    assert sorted(os.listdir(store.folder)) == before
    assert not store.has(0)
    monkeypatch.undo()
    broken = replace(of_steps(), messages=({"role": "user", "content": object()},))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        store.write(0, [of_steps(), broken])
    assert sorted(os.listdir(store.folder)) == before


def test_a_crash_while_rewriting_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "f", "old")
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def test_files_left_by_a_killed_writer_are_not_read(store: TrajectoryStore) -> None:
    store.write(0, [of_steps()])
    (store.folder / ".wave-00001.jsonl.77").write_text('{"half')
    (store.folder / "wave-00001.jsonl.bak").write_text('{"half')
    assert len(store.read()) == 1
    assert not store.has(1)


def test_files_have_the_permissions_that_the_user_asked_for(store: TrajectoryStore) -> None:
    plain = store.folder / "plain"
    plain.write_text("")
    store.write(0, [of_steps()])
    for name in ("meta.json", "wave-00000.jsonl"):
        assert stat.S_IMODE((store.folder / name).stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def damage(name: str) -> bytes:
    row = to_row(of_steps())
    changed = {
        "cut off": lambda: json.dumps(row)[:50],
        "not utf-8": lambda: b'{"environment": "\xff\xfe"}',
        "another value": lambda: "[1, 2]",
        "blank": lambda: "",
        "column missing": lambda: json.dumps({k: v for k, v in row.items() if k != "logprobs"}),
        "columns of other lengths": lambda: json.dumps({**row, "action_mask": row["action_mask"][:-1]}),
        "steps of other lengths": lambda: json.dumps({**row, "rewards": [0.0]}),
        "step outside": lambda: json.dumps({**row, "step_ends": [3, 99]}),
        "unknown stop": lambda: json.dumps({**row, "stop": "bored"}),
        "null": lambda: json.dumps({**row, "token_ids": None}),
    }[name]()
    return changed if isinstance(changed, bytes) else changed.encode()


@pytest.mark.parametrize(
    "name",
    [
        *("cut off", "not utf-8", "another value", "blank", "column missing", "columns of other lengths"),
        *("steps of other lengths", "step outside", "unknown stop", "null"),
    ],
)
def test_a_damaged_line_is_named_and_can_be_left_out(store: TrajectoryStore, name: str) -> None:
    store.write(0, [of_steps()])
    store.write(1, [replace(of_steps(), sample=n) for n in range(3)])
    shard = store.folder / "wave-00001.jsonl"
    lines = shard.read_bytes().split(b"\n")
    lines[1] = damage(name)
    shard.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"wave-00001\.jsonl, line 2 is damaged"):
        store.read()
    with pytest.warns(UserWarning, match=r"wave-00001\.jsonl, line 2 is damaged.*left out"):
        kept = store.read(damaged="skip")
    assert [t.sample for t in kept] == [0, 0, 2]


def test_a_store_continues_only_with_the_same_settings(store: TrajectoryStore) -> None:
    store.write(0, [of_steps()])
    again = TrajectoryStore.create(store.folder, {"seed": 0})
    assert again.has(0)
    with pytest.raises(MismatchError, match=r"seed: 0 there, 1 now"):
        TrajectoryStore.create(store.folder, {"seed": 1})
    with pytest.raises(MismatchError, match=r"wave_size: None there, 8 now"):
        TrajectoryStore.create(store.folder, {"seed": 0, "wave_size": 8})
    assert len(store.read()) == 1


def test_settings_are_compared_as_json_has_them(tmp_path: Path) -> None:
    meta = {"env_kwargs": {"levels": ("a", "b")}, "round_limit": None, "temperature": 1.0}
    TrajectoryStore.create(tmp_path, meta)
    assert TrajectoryStore.create(tmp_path, meta).meta["env_kwargs"] == {"levels": ["a", "b"]}


def test_missing_empty_and_foreign_stores_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no trajectories at"):
        TrajectoryStore.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no trajectories"):
        TrajectoryStore.create(tmp_path / "empty", {}).read()
    (tmp_path / "meta.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(DataError, match=f"has format {FORMAT + 1}"):
        TrajectoryStore.open(tmp_path)
    (tmp_path / "meta.json").write_text("[]")
    with pytest.raises(DataError, match="must hold a mapping, got list"):
        TrajectoryStore.open(tmp_path)


def test_json_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no file .*absent\.json"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text('{\n"a": }')
    with pytest.raises(DataError, match=r"broken\.json is not valid JSON: .*line 2"):
        read_json(tmp_path / "broken.json")


def test_a_store_without_rows_takes_other_settings(store: TrajectoryStore) -> None:
    again = TrajectoryStore.create(store.folder, {"seed": 1})
    again.write(0, [of_steps()])
    with pytest.raises(MismatchError, match=r"seed: 1 there, 0 now"):
        TrajectoryStore.create(store.folder, {"seed": 0})


def test_a_folder_of_something_else_is_not_taken_for_trajectories(tmp_path: Path) -> None:
    # A probe's rows have all columns of a trajectory, and are states in the middle of one.
    ActionProbe.create(tmp_path / "probe", {"seed": 0}).write_rows(0, [to_row(of_steps())])
    with pytest.raises(ArtifactError, match=r"no trajectories at .*probe: it holds probed actions"):
        TrajectoryStore.open(tmp_path / "probe")
    with pytest.raises(MismatchError, match="holds probed actions made with other settings"):
        TrajectoryStore.create(tmp_path / "probe", {"seed": 0})
    assert ActionProbe.open(tmp_path / "probe").meta["seed"] == 0


def test_folders_from_before_they_said_what_they_hold_are_still_read(store: TrajectoryStore) -> None:
    store.write(0, [of_steps()])
    path = store.folder / "meta.json"
    meta = {name: value for name, value in json.loads(path.read_text()).items() if name != "holds"}
    path.write_text(json.dumps(meta))
    assert TrajectoryStore.open(store.folder).read() == [of_steps()]
    assert TrajectoryStore.create(store.folder, {"seed": 0}).has(0)
