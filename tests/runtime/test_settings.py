"""Every setting of every stage: bounds and choices, names that have changed, help, unused settings."""

from __future__ import annotations

import dataclasses
import logging
import math
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import SchedulerType, TrainingArguments
from trl import SFTConfig

from rlprm import envs, labels
from rlprm.errors import ConfigError
from rlprm.functional.activation import ACTIVATIONS
from rlprm.functional.aggregation import AGGREGATIONS
from rlprm.functional.kl import KL_LOSSES
from rlprm.functional.losses import PROMISE_LOSSES
from rlprm.rl import advantages, rewards
from rlprm.rl.credit import WHITENINGS
from rlprm.runtime import tracking
from rlprm.runtime.config import from_mapping, parse
from rlprm.runtime.parsing.help import default_of
from rlprm.runtime.parsing.library import library_settings
from rlprm.runtime.parsing.renames import RENAMED_SETTINGS, RENAMED_VALUES
from rlprm.runtime.recipes import STAGE_SETTINGS, settings_type
from rlprm.runtime.settings import Declaration, Settings, components_of, declarations
from rlprm.training import trainer_arguments

ROOT = Path(__file__).parents[2]
REQUIRED: dict[str, dict[str, Any]] = {
    "sft": {},
    "collect": {"model": "m"},
    "estimate": {"model": "m", "trajectories": "t"},
    "label": {"trajectories": "t"},
    "train-prm": {"model": "m", "trajectories": "t"},
    "probe-actions": {"model": "m", "trajectories": "t"},
    "train-rl": {"model": "m", "prm": "p"},
    "export": {"trajectories": "t"},
    "evaluate": {"model": "m", "scorers": {"a": "folder"}},
    "quickstart": {"recipes": str(ROOT / "recipes/babyai")},
    "serve": {"model": "m"},
    "serve-prm": {"prm": "p"},
}
"""What each stage needs to be given."""
ALL = [(stage, name) for stage in STAGE_SETTINGS for name in declarations(settings_type(stage))]


def declared(stage: str, name: str) -> Declaration:
    return declarations(settings_type(stage))[name]


def just_outside(declaration: Declaration, kind: Any) -> Iterator[Any]:
    """Values right beyond each bound, of the setting's type."""
    step: float = 1 if int in (kind, *typing.get_args(kind)) else 1e-9
    if declaration.least is not None:
        yield type(step)(declaration.least) - step
    if declaration.above is not None:
        yield type(step)(declaration.above)
    if declaration.most is not None:
        yield type(step)(declaration.most) + step
    if declaration.below is not None:
        yield type(step)(declaration.below)


BEYOND = [
    (stage, name, value)
    for stage, name in ALL
    for value in just_outside(declared(stage, name), typing.get_type_hints(settings_type(stage))[name])
]
NUMBERS = [
    (stage, name)
    for stage, name in ALL
    if float in (hint := typing.get_type_hints(settings_type(stage))[name], *typing.get_args(hint))
]
CHOICES = [(stage, name) for stage, name in ALL if declared(stage, name).choices]
FAMILIES = [(stage, name) for stage, name in ALL if declared(stage, name).family]


def words(settings: dict[str, Any]) -> list[str]:
    """Settings as a command line."""
    found = []
    for name, value in settings.items():
        if isinstance(value, dict):
            found += [word for key, inner in value.items() for word in (f"--{name}.{key}", str(inner))]
        else:
            found += [f"--{name}={value}"]
    return found


def refused(stage: str, name: str, value: Any, tmp_path: Path) -> str:
    """The one line that refuses a value, the same from a command line, a recipe and in Python."""
    kind, required = settings_type(stage), {k: v for k, v in REQUIRED[stage].items() if k != name}
    is_list = typing.get_origin(typing.get_type_hints(kind)[name]) is list
    held = [value] if is_list else value
    with pytest.raises(ConfigError) as in_python:
        kind(**{**required, name: held})
    with pytest.raises(ConfigError) as on_the_line:
        parse(kind, [*words(required), f"--{name}={value}"])
    recipe = tmp_path / "recipe.yaml"
    written = f"{value:.12f}" if isinstance(value, float) and math.isfinite(value) else f"{value}"
    recipe.write_text(
        f"{name}: {[value] if is_list else written.replace('nan', '.nan').replace('inf', '.inf')}"
    )
    with pytest.raises(ConfigError) as in_a_recipe:
        parse(kind, [*words(required), "--config", str(recipe)])
    assert str(in_python.value) == str(on_the_line.value) == str(in_a_recipe.value)
    assert "\n" not in str(in_python.value)
    return str(in_python.value)


@pytest.mark.parametrize(("stage", "name", "value"), BEYOND)
def test_a_value_beyond_a_bound_is_refused(stage: str, name: str, value: float, tmp_path: Path) -> None:
    line = refused(stage, name, value, tmp_path)
    assert line.startswith(f"{name}: got ")
    assert repr(value) in line
    declaration = declared(stage, name)
    bounds = (declaration.least, declaration.above, declaration.most, declaration.below)
    assert all(f"{bound:g}" in line.split("allowed: ")[1] for bound in bounds if bound is not None)


@pytest.mark.parametrize(("stage", "name"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_is_finite(stage: str, name: str, value: float, tmp_path: Path) -> None:
    assert refused(stage, name, value, tmp_path).startswith(f"{name}: got {value}, allowed: ")


@pytest.mark.parametrize(("stage", "name"), CHOICES)
def test_another_text_than_the_choices_is_refused(stage: str, name: str, tmp_path: Path) -> None:
    line = refused(stage, name, "zebra", tmp_path)
    allowed = ", ".join(declared(stage, name).choices)
    assert line in (f"{name}: got {got}, allowed: {allowed}" for got in ("'zebra'", "['zebra']"))


@pytest.mark.parametrize(("stage", "name"), FAMILIES)
def test_an_unknown_component_is_refused(stage: str, name: str, tmp_path: Path) -> None:
    line = refused(stage, name, "zebra", tmp_path)
    assert line.startswith(f"{name}: unknown {declared(stage, name).family} 'zebra'; known: ")


def test_there_is_something_to_refuse() -> None:
    assert len(BEYOND) > 100
    assert min(map(len, (NUMBERS, CHOICES, FAMILIES))) > 5


@pytest.mark.parametrize("stage", STAGE_SETTINGS)
def test_every_default_is_allowed(stage: str) -> None:
    kind = settings_type(stage)
    made = kind(**REQUIRED[stage])
    assert parse(kind, words(REQUIRED[stage])) == made == from_mapping(kind, REQUIRED[stage], where="here")


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_every_setting_says_what_it_is(stage: str, name: str) -> None:
    assert declared(stage, name).help[-1] in ".)"
    options = declared(stage, name).kwargs
    assert not options or options in declarations(settings_type(stage))


def test_choices_are_those_of_the_functions_that_take_them() -> None:
    rl, prm, evaluate = (declarations(settings_type(s)) for s in ("train-rl", "train-prm", "evaluate"))
    assert set(rl["whiten"].choices) == set(WHITENINGS)
    assert set(rl["kl_loss"].choices) == set(KL_LOSSES)
    assert set(prm["loss"].choices) == set(PROMISE_LOSSES)
    assert set(prm["activation"].choices) == set(ACTIVATIONS)
    assert set(evaluate["beam_aggregation"].choices) == {"chosen", *AGGREGATIONS}
    assert {*prm["lr_scheduler_type"].choices} <= {kind.value for kind in SchedulerType}


def test_components_are_found_without_importing_them() -> None:
    assert components_of("environment") == envs.available()
    assert components_of("label estimator") == labels.available()
    assert components_of("step reward") == rewards.available()
    assert components_of("advantage estimator") == advantages.available()


@pytest.mark.parametrize("stage", ["sft", "train-prm"])
def test_the_librarys_settings_are_read_from_its_source(stage: str) -> None:
    kind = settings_type(stage)
    library = {"sft": SFTConfig, "train-prm": TrainingArguments}[stage]
    real = {field.name: field for field in dataclasses.fields(library) if field.init}
    found = library_settings(kind.LIBRARY)
    assert found.keys() == real.keys() - {"remove_unused_columns", "dataset_kwargs"}
    assert found["optim_args"].hint == str | None
    assert found["dataloader_num_workers"].hint is int
    assert all(found[name].help for name in ("optim", "use_cpu", "ddp_backend"))


ON_PURPOSE = {"output_dir", "bf16", "seed", "save_strategy", "report_to", "gradient_checkpointing"}
"""Settings whose defaults differ from the library's."""


@pytest.mark.parametrize(("stage", "also"), [("sft", {"max_length"}), ("train-prm", {"eval_strategy"})])
def test_defaults_of_passed_on_settings_are_the_librarys(stage: str, also: set[str]) -> None:
    library = {"sft": SFTConfig, "train-prm": TrainingArguments}[stage]
    real = {field.name: field.default for field in dataclasses.fields(library)}
    fields = {field.name: field for field in dataclasses.fields(settings_type(stage))}
    passed_on = {n for n, d in declarations(settings_type(stage)).items() if d.library} - {"trainer_kwargs"}
    assert passed_on <= real.keys()
    different = {name for name in passed_on if default_of(fields[name]) != real[name]}
    assert different <= ON_PURPOSE | also


def test_settings_of_the_library_arrive_there(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("optim: sgd\nadam_beta2: 0.5\nmodel: m\ntrajectories: t\n")
    line = ["--config", str(tmp_path / "a.yaml"), "--lr_scheduler_kwargs", "{num_cycles: 2}"]
    made = parse(settings_type("train-prm"), [*line, "--adam-beta2=0.9", "--use_cpu", "true"])
    assert made.trainer_kwargs == {
        "optim": "sgd", "adam_beta2": 0.9, "lr_scheduler_kwargs": {"num_cycles": 2}, "use_cpu": True,
    }  # fmt: skip
    arguments = trainer_arguments(TrainingArguments, made, None)
    assert (arguments.optim, arguments.adam_beta2, arguments.seed) == ("sgd", 0.9, 0)
    assert arguments.lr_scheduler_kwargs == {"num_cycles": 2}
    for wrong, said in {
        "--adam_beta2=much": "adam_beta2: expected float",
        "--optims=sgd": "unknown setting 'optims' in the command line; did you mean 'optim'",
        "--dataset_kwargs={}": "unknown setting 'dataset_kwargs'",
        "--optim=zebra": "zebra",
    }.items():
        with pytest.raises(ConfigError, match=said) as caught:
            trainer_arguments(TrainingArguments, parse(settings_type("train-prm"), [*line, wrong]), None)
        assert "\n" not in str(caught.value)


# --- help and speed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGE_SETTINGS)
@pytest.mark.parametrize("word", ["--help", "--help-all"])
def test_help_shows_every_setting_in_80_columns(
    stage: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(settings_type(stage), [word], prog=f"rlprm {stage}")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert word == "--help-all" or len(lines) < 300
    shown = {line.split()[0][2:] for line in lines if line.startswith("  --")}
    assert declarations(settings_type(stage)).keys() <= shown


@pytest.mark.parametrize("stage", STAGE_SETTINGS)
def test_help_and_mistakes_load_no_library(stage: str, tmp_path: Path) -> None:
    """Not measured by a clock: what takes seconds is importing these."""
    (tmp_path / "typo.yaml").write_text("sede: 1\n")
    script = f"""
import sys
from rlprm import cli
for wrong in (["--seedd", "1"], ["--config", {str(tmp_path / "typo.yaml")!r}], []):
    assert not wrong or cli.main([{stage!r}, *wrong]) == 2
for shown in ("--help", "--help-all"):
    try:
        cli.main([{stage!r}, shown])
    except SystemExit as end:
        assert end.code == 0
heavy = {{"torch", "transformers", "trl", "datasets", "matplotlib", "numpy", "accelerate", "peft"}}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "unknown setting 'seedd' in the command line" in done.stderr


# --- names that have changed --------------------------------------------------------------------------------

SAMPLES = {
    "label_estimator": "td_gae", "label_estimator_kwargs": {"lam": 0.5}, "label_file": "file",
    "relabel": "batch", "lm_scale": 0.2, "advantage": "token_gae", "advantage_kwargs": {"lam": 0.5},
    "confidence_per": "token", "with_confidence": False, "on_alarm": "stop",
}  # fmt: skip
OLD = [(stage, old, new) for stage, names in RENAMED_SETTINGS.items() for old, new in names.items()]
OLD_VALUES = [
    (stage, name, old, new)
    for stage, names in RENAMED_VALUES.items()
    for name, values in names.items()
    for old, new in values.items()
]


@pytest.mark.parametrize(("stage", "old", "new"), OLD)
def test_an_old_name_gives_the_same_settings(
    stage: str, old: str, new: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind, required = settings_type(stage), {"model": "m", **REQUIRED[stage]}
    value = SAMPLES[new]
    if (stage, new) == ("label", "label_estimator_kwargs"):
        required["label_estimator"] = "td_gae"
    wanted = parse(kind, words({**required, new: value}))
    caplog.clear()
    assert parse(kind, words({**required, old: value})) == wanted
    assert f"{old} is called {new} now" in caplog.text
    recipe = tmp_path / "recipe.yaml"
    estimator = required.pop("label_estimator", None)  # on the command line it would drop the recipe's kwargs
    also = f"label_estimator: {estimator}\n" if estimator else ""
    recipe.write_text(f"{old}: {value}\n{also}")
    assert parse(kind, [*words(required), "--config", str(recipe)]) == wanted
    recipe.write_text(f"base: b.yaml\n{also}")
    (tmp_path / "b.yaml").write_text(f"{old}: {value}\nend: declared\n")
    assert parse(kind, [*words(required), "--config", str(recipe)]) == wanted
    with pytest.raises(ConfigError, match=f"{new}: given twice in the command line, also under .* {old}"):
        parse(kind, words({**required, old: value, new: value}))
    recipe.write_text(f"{old}: {value}\n{new}: {value}\n")
    with pytest.raises(ConfigError, match=rf"{new}: given twice in .*recipe\.yaml"):
        parse(kind, [*words(required), "--config", str(recipe)])


@pytest.mark.parametrize(("stage", "name", "old", "new"), OLD_VALUES)
def test_an_old_value_gives_the_same_settings(
    stage: str, name: str, old: str, new: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind, required = (
        settings_type(stage),
        {**REQUIRED[stage], **({"reward": "outcome"} if new == "cloning" else {})},
    )
    assert parse(kind, words({**required, name: old})) == parse(kind, words({**required, name: new}))
    assert f"'{old}' is called '{new}' now" in caplog.text


@pytest.mark.parametrize(("old", "new"), RENAMED_SETTINGS["train-prm"].items())
def test_settings_handed_on_to_another_stage_have_old_names_too(old: str, new: str) -> None:
    kind, required = settings_type("train-rl"), words(REQUIRED["train-rl"])
    given = words({"refresh_kwargs": {old: "x"}})
    assert parse(kind, [*required, *given]).refresh_kwargs == {new: "x"}


# --- components and their settings --------------------------------------------------------------------------

PRM_RECIPE = "model: m\ntrajectories: t\nlabel_estimator: td_gae\nlabel_estimator_kwargs: {lam: 0.9}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> list[str]:
    (tmp_path / "prm.yaml").write_text(PRM_RECIPE)
    return ["--config", str(tmp_path / "prm.yaml")]


def test_another_component_drops_the_settings_of_the_recipes(
    recipe: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    kind = settings_type("train-prm")
    made = parse(kind, [*recipe, "--label_estimator", "returns"])
    assert (made.label_estimator, made.label_estimator_kwargs) == ("returns", {})
    assert "label_estimator_kwargs" in caplog.text
    caplog.clear()
    assert parse(kind, [*recipe, "--label_estimator", "td_gae"]).label_estimator_kwargs == {"lam": 0.9}
    assert not caplog.text
    for order in ([0, 1, 2, 3], [2, 3, 0, 1]):
        given = ["--advantage_kwargs.lam", "0.5", "--advantage", "token_gae"]
        rl = Path(recipe[1]).with_name("rl.yaml")
        rl.write_text("model: m\nprm: p\nadvantage_kwargs: {lam: 0.9, other: x}")
        made = parse(settings_type("train-rl"), ["--config", str(rl), *(given[i] for i in order)])
        assert made.advantage_kwargs == {"lam": 0.5}


def test_a_setting_or_a_key_is_taken_out_of_the_recipe(recipe: list[str]) -> None:
    kind = settings_type("train-prm")
    assert parse(kind, [*recipe, "--unset", "label_estimator_kwargs.lam"]).label_estimator_kwargs == {}
    made = parse(kind, [*recipe, "--unset", "label_estimator_kwargs", "label_estimator"])
    assert (made.label_estimator, made.label_estimator_kwargs) == ("td_gae", {})
    for wrong, said in {
        "beta": "--unset beta: nothing sets it",
        "label_estimator_kwargs.gamma": "--unset label_estimator_kwargs.gamma: nothing sets it",
        "betta": "unknown setting 'betta'",
    }.items():
        with pytest.raises(ConfigError, match=said):
            parse(kind, [*recipe, "--unset", wrong])


@pytest.mark.parametrize("stage", STAGE_SETTINGS)
def test_reasons_why_settings_are_unused_name_settings(stage: str) -> None:
    made = settings_type(stage)(**REQUIRED[stage])
    assert isinstance(made, Settings)
    assert made.unused().keys() <= declarations(made).keys()


UNUSED = {
    "lm_scale (head scalar)": ("train-prm", ["--lm_scale", "0.3"]),
    "cold_start_epochs (label_estimator outcome)": (
        "train-prm", ["--label_estimator", "outcome", "--cold_start_epochs", "2"],
    ),
    "relabel (label_file is set)": ("train-prm", ["--label_file", "f", "--relabel", "batch"]),
    "lora_alpha (lora_r 0)": ("sft", ["--lora_alpha", "8"]),
    "size (model m)": ("sft", ["--model", "m", "--size", "xs"]),
    "kl_loss (kl_coef 0)": ("train-rl", ["--kl_loss", "k2"]),
    "value_clip (advantage group has no critic)": (
        "train-rl", ["--reward", "outcome", "--advantage", "group", "--value_clip", "0.2"],
    ),
    "critic_model (critic shared)": ("train-rl", ["--critic", "shared", "--critic_model", "c"]),
    "model (label_estimator returns)": ("label", ["--model", "m"]),
}  # fmt: skip


@pytest.mark.parametrize("line", UNUSED)
def test_a_setting_without_effect_is_named(line: str, caplog: pytest.LogCaptureFixture) -> None:
    stage, given = UNUSED[line]
    parse(settings_type(stage), [*words(REQUIRED[stage]), *given])
    (record,) = (r for r in caplog.records if "without effect" in r.getMessage())
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"without effect: {line}"


def test_nothing_is_named_if_everything_counts(caplog: pytest.LogCaptureFixture) -> None:
    given = ["--head", "lm", "--lm_scale", "0.3", "--cold_start_epochs", "1"]
    parse(settings_type("train-prm"), [*words(REQUIRED["train-prm"]), *given])
    assert "without effect" not in caplog.text


@pytest.mark.parametrize("stage", ["sft", "train-prm", "train-rl", "evaluate"])
def test_a_tracker_that_is_not_installed_is_one_line(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="tensorboard is not installed; pip install"):
        settings_type(stage)(**REQUIRED[stage], report_to="tensorboard")


@pytest.mark.parametrize("stage", STAGE_SETTINGS)
def test_one_default_seed(stage: str) -> None:
    fields = {field.name: field for field in dataclasses.fields(settings_type(stage))}
    assert "seed" not in fields or fields["seed"].default == 0
