"""``--overwrite``: removes what a stage wrote, refuses a folder with any other file, removes no input."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from rlprm import cli
from rlprm.errors import ConfigError, MismatchError
from rlprm.runtime.overwrite import clear, foreign_files, overwriting
from rlprm.runtime.record import is_finished, read_record, recorded
from tests.toys.pipeline import EPISODES, Pipeline

FIXTURE = Path(__file__).parents[1] / "fixtures/v0_1_0.tar.xz"


def written(folder: Path, *names: str, stage: str | None = None) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("made")
    if stage is not None:
        (folder / "stage.json").write_text(json.dumps({"stage": stage, "config": {}, "results": {}}))
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_all_that_a_run_wrote_goes_and_the_folder_stays(tmp_path: Path) -> None:
    out = written(
        tmp_path / "out", "config.json", "model.safetensors", "checkpoint-9/optimizer.pt", stage="sft"
    )
    clear(out, "sft", {"model": "tiny", "output_dir": str(out)})
    assert out.is_dir()
    assert files(out) == set()


def test_the_results_of_another_stage_stay(tmp_path: Path) -> None:
    out = written(tmp_path, "meta.json", "wave-00000.jsonl", stage="collect")
    with pytest.raises(MismatchError, match="holds the results of the stage collect, and sft removes"):
        clear(out, "sft", {})
    assert files(out) == {"meta.json", "wave-00000.jsonl", "stage.json"}


def test_files_that_were_being_written_go_too_and_a_name_that_looks_alike_stays(tmp_path: Path) -> None:
    out = written(tmp_path / "a", "meta.json", "wave-00000.jsonl", ".wave-00001.jsonl.4711", stage="collect")
    clear(out, "collect", {})
    assert files(out) == set()
    out = written(tmp_path / "b", "model.mine.safetensors.2024", stage="sft")
    with pytest.raises(MismatchError, match=r"it holds model\.mine"):
        clear(out, "sft", {})


def test_the_adapters_of_lora_are_a_stages_own(tmp_path: Path) -> None:
    names = (
        "README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/README.md",
    )
    for stage in ("sft", "train-prm"):
        assert foreign_files(written(tmp_path / stage, *names, stage=stage), stage) == []
    best = ("adapter/adapter_config.json", "best/iteration-000002/adapter/adapter_model.safetensors")
    assert foreign_files(written(tmp_path / "rl", *best, stage="train-rl"), "train-rl") == []


def test_a_run_without_a_record_is_known_by_the_stage_that_starts(tmp_path: Path) -> None:
    out = written(tmp_path, "meta.json", "wave-00000.jsonl")
    with pytest.raises(MismatchError, match=r"it holds meta.json, which the stage sft did not write"):
        clear(out, "sft", {})
    clear(out, "collect", {})
    assert files(out) == set()


@pytest.mark.parametrize(
    "name", ["notes.txt", "checkpoint-9/notes.txt", "wave-00000.jsonl", "sub/config.json"]
)
def test_a_folder_with_a_file_of_someone_else_stays_as_it_is(name: str, tmp_path: Path) -> None:
    out = written(tmp_path, "config.json", "model.safetensors", name, stage="sft")
    before = files(out)
    with pytest.raises(MismatchError, match=f"it holds {name}, which the stage sft did not write") as caught:
        clear(out, "sft", {})
    assert "\n" not in str(caught.value)
    assert files(out) == before


def test_a_model_that_no_run_wrote_stays_although_its_files_have_the_names_of_a_stages(
    tmp_path: Path,
) -> None:
    out = written(tmp_path, "config.json", "model.safetensors", "tokenizer.json")
    with pytest.raises(MismatchError, match="it has no record of a run"):
        clear(out, "sft", {})
    assert files(out) == {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_linked_folder_is_not_followed(tmp_path: Path) -> None:
    elsewhere = written(tmp_path / "elsewhere", "optimizer.pt")
    out = written(tmp_path / "out", "config.json", stage="sft")
    (out / "checkpoint-9").symlink_to(elsewhere)
    with pytest.raises(MismatchError, match="it holds checkpoint-9"):
        clear(out, "sft", {})
    assert files(elsewhere) == {"optimizer.pt"}


@pytest.mark.parametrize("inside", ["", "best/iteration-000003"])
def test_an_input_is_never_removed(inside: str, tmp_path: Path) -> None:
    out = written(tmp_path / "out", "config.json", "best/iteration-000003/config.json", stage="train-rl")
    with pytest.raises(ConfigError, match=r"overwrite: scorers.prm reads .*, the folder to clear"):
        clear(out, "train-rl", {"scorers": {"prm": str(out / inside)}})
    assert (out / "config.json").exists()


@pytest.mark.parametrize(("rank", "left"), [("0", set()), ("1", {"config.json"})])
def test_the_first_of_several_processes_clears(
    rank: str, left: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = written(tmp_path, "config.json", stage="sft")
    monkeypatch.setenv("RANK", rank)
    with overwriting(True):
        assert not is_finished(out, "sft", {})  # in every process, whether the folder is clear yet or not
        with recorded(out, "sft", {}):
            assert files(out) - {"stage.json"} == left


def test_nothing_is_cleared_unless_asked_nor_before_the_stage_begins(tmp_path: Path) -> None:
    out = written(tmp_path, "config.json", stage="sft")
    with overwriting(False):
        assert is_finished(out, "sft", {})
    with overwriting(True):
        assert not is_finished(out, "sft", {})
        assert files(out) == {"config.json", "stage.json"}
        with recorded(out, "sft", {}):
            assert files(out) == set()


def test_every_file_of_every_stage_is_known(tmp_path: Path) -> None:
    """Folders that 0.1.0 wrote: one of each stage, checkpoints, refreshed models and plots included."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    folders = [path.parent for path in tmp_path.rglob("stage.json")]
    assert {read_record(folder)["stage"] for folder in folders} >= {"sft", "collect", "train-prm", "train-rl"}
    assert {str(folder): foreign_files(folder, read_record(folder)["stage"]) for folder in folders} == {
        str(folder): [] for folder in folders
    }


def test_the_command_line_names_the_flag_and_starts_anew_with_it(
    pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = [
        "collect",
        *EPISODES,
        "--model",
        pipeline.policy,
        "--max_new_tokens",
        "8",
        "--samples_per_task",
        "1",
    ]
    stage += ["--output_dir", str(tmp_path / "out")]
    assert cli.main([*stage, "--num_tasks", "2"]) == 0
    first = read_record(tmp_path / "out")
    capfd.readouterr()
    assert cli.main([*stage, "--num_tasks", "3"]) == 2
    assert capfd.readouterr().err.splitlines()[-1].endswith("delete this one, or give --overwrite")
    assert cli.main([*stage, "--num_tasks", "3", "--overwrite"]) == 0
    again = read_record(tmp_path / "out")
    assert (first["results"]["trajectories"], again["results"]["trajectories"]) == (2, 3)
    assert "overwrite" not in again["config"]
    (tmp_path / "out/notes.txt").write_text("mine")
    assert cli.main([*stage, "--num_tasks", "2", "--overwrite"]) == 2
    assert "it holds notes.txt, which the stage collect did not write" in capfd.readouterr().err
    assert read_record(tmp_path / "out") == again
