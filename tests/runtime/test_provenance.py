"""What a policy, trajectories and a PRM were made with, against a run's own settings: one line, or none."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm.models.manifest import Manifest
from rlprm.rl.config import RLConfig
from rlprm.rl.loading import load_scorer
from rlprm.runtime import provenance
from rlprm.runtime.config import parse
from rlprm.runtime.provenance import Difference, differences, episode_settings, settings_of_model
from rlprm.stages import collect, estimate, evaluate, probe_actions, train_rl
from rlprm.types import End
from tests.toys.pipeline import EPISODES, Pipeline

SETTING: dict[str, Any] = {
    "environment": "babyai",
    "env_kwargs": {"levels": ["GoToObj", "PickupLoc"], "rooms": 1},
    "end": "declared",
    "round_limit": 12,
    "prompt": "none",
    "action_format": "action_only",
    "temperature": 1.0,
}


@pytest.mark.parametrize(
    "here",
    [
        {},
        {"end": End.DECLARED, "env_kwargs": {"rooms": 1, "levels": ("GoToObj", "PickupLoc")}},
        {"temperature": None},
        {"seed": 3, "model": "elsewhere"},
    ],
    ids=["equal", "the same in other types", "not known", "not about episodes"],
)
def test_equal_settings_do_not_differ(here: dict[str, Any]) -> None:
    assert differences(SETTING, {**SETTING, **here}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("end", "on_success"), ("round_limit", None), ("prompt", "short"), ("action_format", "react"),
        ("temperature", 0.7), ("environment", "textcraft"),
    ],
)  # fmt: skip
def test_each_setting_of_an_episode_is_compared(name: str, value: Any) -> None:
    assert differences(SETTING, {**SETTING, name: value}) == [Difference(name, SETTING[name], value)]


def test_settings_of_the_environment_are_compared_one_by_one() -> None:
    here = {**SETTING, "env_kwargs": {"levels": ["GoToObj"], "size": 5}}
    assert [str(difference) for difference in differences(SETTING, here)] == [
        "env_kwargs.levels ['GoToObj', 'PickupLoc'] there, ['GoToObj'] here",
        "env_kwargs.rooms 1 there, None here",
        "env_kwargs.size None there, 5 here",
    ]
    # Another environment has other settings; they say nothing more.
    assert [d.name for d in differences(SETTING, {**here, "environment": "math"})] == ["environment"]


def test_a_setting_that_one_side_does_not_have_is_not_compared() -> None:
    demonstrations = {name: value for name, value in SETTING.items() if name != "temperature"}
    assert differences(demonstrations, {**SETTING, "temperature": 0.5}) == []
    assert differences({}, SETTING) == []
    assert differences(SETTING, {**SETTING, "prompt": "short"}, ["temperature"]) == []


def test_the_record_of_a_model_says_what_it_was_trained_in(tmp_path: Path) -> None:
    assert settings_of_model(str(tmp_path)) == {}
    assert settings_of_model("someone/model-of-the-hub") == {}
    file = tmp_path / "stage.json"
    file.write_text(json.dumps({"stage": "train-rl", "config": {**SETTING, "seed": 0}}))
    assert settings_of_model(str(tmp_path)) == SETTING
    # The settings of a PRM's episodes are those of its trajectories.
    file.write_text(json.dumps({"stage": "train-prm", "config": {"beta": 1.0, "data": SETTING}}))
    assert settings_of_model(str(tmp_path)) == SETTING


# --- the stages ---


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings about settings since the last call."""

    def of_provenance() -> list[str]:
        messages = [r.getMessage() for r in caplog.records if r.name == provenance.__name__]
        caplog.clear()
        return messages

    caplog.set_level(logging.WARNING)
    return of_provenance


STAGES: dict[str, tuple[Any, Any, list[str]]] = {
    "collect": (collect.run, collect.CollectConfig, ["--num_tasks", "1", "--samples_per_task", "1"]),
    "estimate": (estimate.run, estimate.EstimateConfig, ["--num_tasks", "1", "--rollouts", "1"]),
    "probe-actions": (
        probe_actions.run,
        probe_actions.ProbeActionsConfig,
        ["--num_states", "1", "--samples_per_state", "8", "--rollouts", "4"],
    ),
    "evaluate": (evaluate.run, evaluate.EvaluateConfig, []),
}


class StoppedError(Exception):
    """Ends a stage where its work would begin."""


def started(
    stage: str, pipeline: Pipeline, output: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> None:
    """Run a stage up to the loading of its policy."""

    def stop(self: Any) -> Any:
        raise StoppedError

    run, settings, own = STAGES[stage]
    arguments = ["--model", pipeline.policy, "--temperature", "1.5", "--max_new_tokens", "8"]
    if stage in ("estimate", "probe-actions"):
        arguments += ["--trajectories", pipeline.rollouts]
    if stage == "evaluate":
        arguments = pipeline.evaluation
    config = parse(settings, [*EPISODES, *arguments, *own, *more, "--output_dir", str(output)])
    monkeypatch.setattr(settings, "load_policy", stop)
    with pytest.raises(StoppedError):
        run(config)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_in_the_setting_of_its_policy_is_silent(
    stage: str,
    pipeline: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[str]],
) -> None:
    started(stage, pipeline, tmp_path, monkeypatch)
    assert lines() == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_a_policy_that_was_trained_with_another_prompt(
    stage: str,
    pipeline: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[str]],
) -> None:
    trained = {**settings_of_model(pipeline.policy), "prompt": "short"}
    monkeypatch.setattr(provenance, "settings_of_model", lambda path: trained)
    started(stage, pipeline, tmp_path, monkeypatch)
    assert lines() == [
        f"the policy {pipeline.policy} was made in another setting than it is used in: "
        "prompt 'short' there, 'none' here"
    ]


def test_another_level_is_a_transfer_in_words(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[str]]
) -> None:
    started("collect", pipeline, tmp_path, monkeypatch, "--env_kwargs.length", "5")
    (line,) = lines()
    assert line.endswith("env_kwargs.length 4 there, 5 here (this is a transfer)")


def test_a_probe_at_another_temperature_than_its_trajectories_is_named(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[str]]
) -> None:
    started("probe-actions", pipeline, tmp_path, monkeypatch, "--temperature", "0.5")
    (line,) = lines()
    assert line == (
        f"{pipeline.rollouts} was made in another setting than it is used in: temperature 1.5 there, 0.5 here"
    )


def test_a_prm_of_another_round_limit_and_temperature_is_named(
    pipeline: Pipeline, lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse(evaluate.EvaluateConfig, pipeline.evaluation)
    evaluate.load_scorer("agentprm", pipeline.agentprm, config)
    assert lines() == []
    manifest = replace(Manifest.load(pipeline.agentprm), round_limit=9, temperature=1.0)
    monkeypatch.setattr(Manifest, "load", lambda folder: manifest)
    evaluate.load_scorer("agentprm", pipeline.agentprm, config)
    assert lines() == [
        "the PRM agentprm was made in another setting than it is used in: "
        "round_limit 9 there, 6 here; temperature 1.0 there, 1.5 here"
    ]


def test_rl_names_a_policy_and_a_prm_of_another_setting(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[str]]
) -> None:
    def stop(**options: Any) -> Any:
        raise StoppedError

    monkeypatch.setattr(train_rl, "start_accelerator", stop)
    arguments = [
        "--model",
        pipeline.policy,
        "--prm",
        pipeline.agentprm,
        "--eval_every",
        "0",
        "--test_tasks",
        "0",
    ]
    for temperature, length, policy, prm in (
        ("1.5", "4", [], []),
        ("1.0", "4", [], ["temperature 1.5 there, 1.0 here"]),
        ("1.5", "5", *[["env_kwargs.length 4 there, 5 here (this is a transfer)"]] * 2),
    ):
        changed = ["--temperature", temperature, "--env_kwargs.length", length]
        config = parse(RLConfig, [*EPISODES, *arguments, *changed, "--output_dir", str(tmp_path)])
        with pytest.raises(StoppedError):
            train_rl.run(config)
        assert [line.rpartition(": ")[2] for line in lines()] == policy
        load_scorer(pipeline.agentprm, config)
        assert [line.rpartition(": ")[2] for line in lines()] == prm


def test_a_stages_settings_and_a_manifest_name_the_same_things(pipeline: Pipeline) -> None:
    config = parse(evaluate.EvaluateConfig, pipeline.evaluation)
    assert episode_settings(config).keys() == set(provenance.EPISODE_SETTINGS)
    assert episode_settings(Manifest.load(pipeline.agentprm)) == episode_settings(config)
