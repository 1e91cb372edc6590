"""Every recipe parses as its stage's configuration, and says what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlprm.runtime.config import parse
from rlprm.runtime.recipes import settings_type
from tests.cli.recipes import BASES, RECIPES, ROOT, bases_of, header, settings_of, stage_of


def test_there_are_recipes() -> None:
    assert {"sft", "collect", "train-prm", "evaluate"} <= {stage_of(recipe) for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_parses(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    parse(settings_type(stage_of(recipe)), ["--config", recipe])


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_header_says_how_to_use_it(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = header(recipe)
    assert {"Purpose", "Hardware", "Launch", "Override"} <= found.keys()
    for line in (found["Launch"], found["Override"]):
        assert f"--config {recipe}" in line
        script = f"scripts/{stage_of(recipe).replace('-', '_')}.py"
        assert f"rlprm {stage_of(recipe)} " in line or script in line
    if "rlprm " in found["Override"]:
        monkeypatch.chdir(ROOT)
        words = re.findall(r'"[^"]*"|\S+', found["Override"].split(f"rlprm {stage_of(recipe)} ", 1)[1])
        parse(settings_type(stage_of(recipe)), [word.strip('"') for word in words])


@pytest.mark.parametrize("recipe", RECIPES)
def test_models_and_data_come_from_a_recipe_beside_it(recipe: str) -> None:
    """What a stage reads under runs/ is, or lies in, a folder that another recipe beside it writes."""
    settings = settings_of(recipe)
    del settings["output_dir"]
    read = set(re.findall(r"'(runs/[^']+)'", str(settings)))
    beside = [name for name in RECIPES if Path(name).parent == Path(recipe).parent]
    written = {settings_of(name)["output_dir"] for name in beside}
    assert {path for path in read if not {path, *map(str, Path(path).parents)} & written} == set()


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_root_moves_all_that_is_read_or_written(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = ["--config", recipe, "--root", "elsewhere"]
    moved = parse(settings_type(stage_of(recipe)), arguments)
    values = [str(getattr(moved, name, None)) for name in settings_of(recipe)]
    assert moved.output_dir.startswith("elsewhere/")
    assert not [value for value in values if "runs/" in value]


@pytest.mark.parametrize("base", BASES)
def test_a_base_says_what_it_holds_and_recipes_take_it(base: str) -> None:
    assert {"Purpose", "Override"} <= header(base).keys()
    beside = [r for r in RECIPES if Path(r).parent == Path(base).parent]
    assert [r for r in beside if Path(base).name in bases_of(r)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_of_one_kind_share_root_and_episodes(recipe: str) -> None:
    """``<stage>_tiny.yaml`` takes ``_tiny.yaml``, and so on: the base with the longest name that fits."""
    stem = Path(recipe).stem.removesuffix("_lora").removesuffix("_vllm")
    beside = [Path(b) for b in BASES if Path(b).parent == Path(recipe).parent]
    kinds = [b.name for b in beside if stem.endswith(b.stem) and not b.stem.startswith("_reward_model")]
    assert max(kinds, key=len) in bases_of(recipe)


_REWARD_MODELS = ("train_prm", "train_orm", "train_pvm", "train_returns")
_LABELS = {
    "label_estimator", "label_estimator_kwargs", "label_file", "beta", "relabel", "cold_start_epochs",
}  # fmt: skip
_COMPARED = [
    (str(Path(base).parent), Path(base).stem.removeprefix("_reward_model_"))
    for base in BASES
    if Path(base).stem.startswith("_reward_model_")
]


def test_every_environment_compares_reward_models() -> None:
    folders = {str(Path(recipe).parent) for recipe in RECIPES}
    assert {folder for folder, _ in _COMPARED} == folders


@pytest.mark.parametrize(("folder", "kind"), _COMPARED)
def test_agentprm_and_its_baselines_differ_in_labels_alone(
    folder: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same initial weights, trajectories, head, values, loss, epochs, rate and batch."""
    monkeypatch.chdir(ROOT)
    files = [f"{folder}/{name}_{kind}.yaml" for name in _REWARD_MODELS]
    there = [file for file in files if file in RECIPES]
    assert len(there) >= 3
    ours, *others = (vars(parse(settings_type("train-prm"), ["--config", file])) for file in there)
    for other in others:
        different = {name for name in ours if ours[name] != other[name]}
        assert different - _LABELS == {"output_dir"}
        assert different & _LABELS


@pytest.mark.parametrize(("folder", "kind"), _COMPARED)
def test_a_clone_starts_from_the_prms_weights_and_takes_its_steps(
    folder: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    prm = parse(settings_type("train-prm"), ["--config", f"{folder}/train_prm_{kind}.yaml"])
    clone = parse(settings_type("sft"), ["--config", f"{folder}/clone_{kind}.yaml"])
    names = (
        "model", "trajectories", "held_out_fraction", "num_train_epochs", "max_steps", "seed",
        "per_device_train_batch_size", "gradient_accumulation_steps", "warmup_steps", "lr_scheduler_type",
    )  # fmt: skip
    assert {name: getattr(clone, name) for name in names} == {name: getattr(prm, name) for name in names}
    assert (clone.only_successes, clone.epochs_of) == (True, "given")


@pytest.mark.parametrize(("folder", "kind"), _COMPARED)
def test_monte_carlo_labels_are_those_of_all_trajectories_and_of_the_same_outcome(
    folder: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    pvm = parse(settings_type("train-prm"), ["--config", f"{folder}/train_pvm_{kind}.yaml"])
    estimate = parse(settings_type("estimate"), ["--config", f"{folder}/estimate_{kind}.yaml"])
    assert (pvm.label_file, pvm.trajectories) == (estimate.output_dir, estimate.trajectories)
    assert (estimate.num_tasks, estimate.samples_per_task) == (None, None)
    assert pvm.outcome == estimate.outcome
