"""One way to configure: the file, then the command line; every mistake is one line that names the setting."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlprm.errors import ArtifactError, ConfigError
from rlprm.policies.config import TaskConfig
from rlprm.prm.config import PRMConfig
from rlprm.runtime.config import own_settings, parse, setting
from rlprm.runtime.settings import check
from rlprm.stages.settings import CollectConfig, SFTStageConfig
from rlprm.types import End, EpisodeSetting


@dataclass
class Example:
    """Settings of every type this package uses."""

    name: str = setting("x", "Text.")
    count: int = setting(3, "Whole number.")
    share: float = setting(0.5, "Number.")
    flag: bool = setting(True, "Switch.")
    limit: int | None = setting(None, "Whole number or nothing.")
    names: list[str] = setting(["a"], "Several.")
    knobs: dict[str, Any] = setting({"kept": 1, "deep": {"a": 1, "b": 2}}, "Of a component.")

    def __post_init__(self) -> None:
        if self.share < 0:
            raise ConfigError(f"share: got {self.share}, allowed: 0 or more")


def from_file(tmp_path: Path, text: str, *argv: str, of: type = Example) -> Any:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return parse(of, ["--config", str(path), *argv])


def test_defaults_stand_where_nothing_is_given() -> None:
    made = parse(Example, [])
    assert made == Example()
    assert made.knobs == {"kept": 1, "deep": {"a": 1, "b": 2}}
    made.knobs["new"] = 1
    made.knobs["deep"]["a"] = 7
    made.names.append("b")
    assert Example().knobs == {"kept": 1, "deep": {"a": 1, "b": 2}}
    assert Example().names == ["a"]


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    made = from_file(tmp_path, "count: 5\nname: file\nshare: 1\n", "--name", "line", "--limit=7")
    assert (made.count, made.name, made.share, made.limit, made.flag) == (5, "line", 1, 7, True)


def test_the_file_may_stand_anywhere_and_in_either_form(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("count: 5")
    for argv in (
        ["--name", "y", "--config", str(tmp_path / "a.yaml")],
        [f"--config={tmp_path / 'a.yaml'}", "--name=y"],
    ):
        made = parse(Example, argv)
        assert (made.count, made.name) == (5, "y")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flag: false", {"flag": False}),
        ("flag: no", {"flag": False}),
        ("flag: 'false'", {"flag": False}),
        ("limit: null", {"limit": None}),
        ("limit:", {"limit": None}),
        ("limit: 4", {"limit": 4}),
        ("names: [b, c]", {"names": ["b", "c"]}),
        ("names: []", {"names": []}),
        ("share: 1e-4", {"share": 1e-4}),
        ("share: 2", {"share": 2.0}),
        ("share: '0.25'", {"share": 0.25}),
        ("count: '7'", {"count": 7}),
        ("name: '12'", {"name": "12"}),
        ("name: ''", {"name": ""}),
        ("knobs: {rate: 1e-4, big: 2E+3, word: 1e, text: '1e-4'}", None),
        ("knobs: {}", {"knobs": {}}),
    ],
)
def test_values_of_a_file(tmp_path: Path, text: str, expected: dict[str, Any] | None) -> None:
    made = from_file(tmp_path, text)
    expected = expected or {"knobs": {"rate": 1e-4, "big": 2000.0, "word": "1e", "text": "1e-4"}}
    assert {name: getattr(made, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--flag", "false"], {"flag": False}),
        (["--flag=no"], {"flag": False}),
        (["--limit", "null"], {"limit": None}),
        (["--limit", "None"], {"limit": None}),
        (["--names", "b", "c"], {"names": ["b", "c"]}),
        (["--share", "1e-4"], {"share": 1e-4}),
        (["--count=-4"], {"count": -4}),
        (["--name", "a.b"], {"name": "a.b"}),
        (["--name=--x.y"], {"name": "--x.y"}),
    ],
)
def test_values_of_the_command_line(argv: list[str], expected: dict[str, Any]) -> None:
    made = parse(Example, argv)
    assert {name: getattr(made, name) for name in expected} == expected


def test_a_dotted_name_changes_one_key_and_keeps_the_others(tmp_path: Path) -> None:
    assert parse(Example, ["--knobs.deep.a", "9"]).knobs == {"kept": 1, "deep": {"a": 9, "b": 2}}
    assert Example().knobs["deep"] == {"a": 1, "b": 2}
    made = from_file(
        tmp_path, "knobs: {levels: [a], rate: 0.5}", "--knobs.levels", "[b, c]", "--knobs.new.deep=1e-3"
    )
    assert made.knobs == {"levels": ["b", "c"], "rate": 0.5, "new": {"deep": 1e-3}}
    for text, value in {"true": True, "null": None, "a b": "a b", "{x: 1}": {"x": 1}, "''": ""}.items():
        assert parse(Example, ["--knobs.k", text]).knobs["k"] == value
    assert from_file(tmp_path, "knobs: null", "--knobs.k", "1").knobs["k"] == 1


MISTAKES = {
    # file, command line, what is said
    "unknown in the file": ("cuont: 1", [], r"'cuont' in .*settings\.yaml; did you mean 'count'"),
    "unknown on the line": ("", ["--cuont", "1"], "'cuont' in the command line; did you mean 'count'"),
    "unknown, nothing near": ("zzzzzz: 1", [], r"unknown setting 'zzzzzz' in .*settings\.yaml$"),
    "unknown and dotted": ("", ["--knob.x", "1"], "unknown setting 'knob' .*did you mean 'knobs'"),
    "hyphens": ("", ["--na-me", "1"], "unknown setting 'na_me' .*did you mean 'name'"),
    "abbreviated": ("", ["--nam", "1"], "unknown setting 'nam' .*did you mean 'name'"),
    "names that are no text": ("1: 2\nx: 3", [], "unknown setting '1'"),
    "word for a number": ("share: much", [], "share: expected float, got str 'much'"),
    "list for a number": ("share: [1]", [], r"share: expected float, got list \[1\]"),
    "truth for a number": ("share: true", [], "share: expected float, got bool True"),
    "truth for a whole number": ("count: true", [], "count: expected int, got bool True"),
    "fraction for a whole number": ("count: 1.5", [], r"count: expected int, got float 1\.5"),
    "fraction on the line": ("", ["--count", "1.5"], r"count: expected int, got str '1\.5'"),
    "number for text": ("name: 12", [], "name: expected str, got int 12"),
    "nothing for text": ("name: null", [], "name: expected str, got NoneType None"),
    "number for a switch": ("flag: 2", [], "flag: expected bool, got int 2"),
    "word for a switch": ("flag: maybe", [], "flag.*maybe"),
    "number for a list": ("names: 3", [], r"names: expected list\[str\], got int 3"),
    "list of the wrong things": ("names: [1]", [], r"names: expected list\[str\], got list \[1\]"),
    "list for a mapping": ("knobs: [1]", [], r"knobs: expected dict\[str, Any\], got list \[1\]"),
    "key of what is no mapping": ("count: 3", ["--count.x", "1"], "--count.x: 'count' is not a mapping"),
    "key of a number": ("name: y", ["--count.x", "1"], r"count: expected int, got dict \{'x': 1\}"),
    "own rule": ("share: -1", [], "share: got -1, allowed: 0 or more"),
    "stray word": ("", ["--count", "1", "stray"], "'stray' belongs to no option"),
    "value missing": ("", ["--name"], "--name needs a value"),
    "dotted value missing": ("", ["--knobs.x"], r"--knobs\.x needs a value"),
    "broken value": ("", ["--knobs.x", "[a"], r"--knobs\.x is not valid YAML: line 1: expected"),
    "broken file": ("count: 1\nnames: [a\nshare: 2", [], r"settings\.yaml is not valid YAML: line 3: "),
    "key twice": ("count: 1\nknobs:\n  x: 1\n  x: 1", [], "is not valid YAML: line 4: 'x' twice"),
    "file of a list": ("- a", [], r"settings\.yaml must hold a mapping of settings, got list"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, mistake: str) -> None:
    text, argv, said = MISTAKES[mistake]
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, text or "count: 3", *argv)
    assert re.search(said, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot read the configuration .*no\.yaml: No such file"):
        parse(Example, ["--config", str(tmp_path / "no.yaml")])
    with pytest.raises(ArtifactError, match="Is a directory"):
        parse(Example, ["--config", str(tmp_path)])
    with pytest.raises(ConfigError, match="--config needs the path"):
        parse(Example, ["--config"])
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not text"):
        parse(Example, ["--config", str(tmp_path / "binary.yaml")])
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match="mapping of settings, got NoneType"):
        parse(Example, ["--config", str(tmp_path / "empty.yaml")])


def test_help_shows_every_setting_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(Example, ["--help"], prog="rlprm example")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: rlprm example")
    for described in ("--knobs", "Of a component.", "--share", "Number."):
        assert described in shown


def test_a_configuration_made_in_python_can_be_checked_too() -> None:
    check(Example())
    made = Example()
    made.limit = "many"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"limit: expected int \| None, got str 'many'"):
        check(made)


def test_the_setting_of_an_episode_is_checked_and_handed_on() -> None:
    made = TaskConfig(end="on_success", round_limit=4, prompt="short", action_format="react")
    assert made.episode_setting() == EpisodeSetting(End.ON_SUCCESS, 4, "short", "react")
    assert TaskConfig().episode_setting() == EpisodeSetting()
    with pytest.raises(ConfigError, match="end: got 'soon', allowed: on_success, declared"):
        TaskConfig(end="soon")
    with pytest.raises(ConfigError, match="round_limit: got 0, allowed: 1 or more"):
        TaskConfig(round_limit=0)
    with pytest.raises(ConfigError, match="action_format: got 'xml', allowed: action_only, react"):
        TaskConfig(action_format="xml")


STAGES = {
    "sft": (SFTStageConfig, []),
    "collect": (CollectConfig, ["--model", "m"]),
    "train-prm": (PRMConfig, ["--model", "m", "--trajectories", "t"]),
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_parses_from_its_required_settings_alone(stage: str) -> None:
    config_type, argv = STAGES[stage]
    made = parse(config_type, argv)
    assert own_settings(made) == own_settings(parse(config_type, argv))
    with pytest.raises(ConfigError, match="unknown setting 'sede'"):
        parse(config_type, [*argv, "--sede", "1"])


@pytest.mark.parametrize("stage", ["sft", "train-prm"])
def test_settings_of_the_trainer_work_like_ours(tmp_path: Path, stage: str) -> None:
    config_type, argv = STAGES[stage]
    text = (
        "learning_rate: 1e-4\nper_device_train_batch_size: 4\nlr_scheduler_type: cosine\nlogging_steps: 2\n"
    )
    made = from_file(tmp_path, text, *argv, "--per_device_train_batch_size", "2", of=config_type)
    assert made.learning_rate == 1e-4
    assert made.per_device_train_batch_size == 2
    assert made.lr_scheduler_type == "cosine"
    assert made.bf16 is None
    for wrong, said in {
        "learning_rate: [1]": r"learning_rate: expected float, got list \[1\]",
        "learning_rate: fast": "learning_rate: expected float, got str 'fast'",
        "max_steps: 1.5": r"max_steps: expected int, got float 1\.5",
        "lr_scheduler_type: cosin": "cosin",
        "seed: true": "seed: expected int, got bool True",
    }.items():
        with pytest.raises(ConfigError, match=said):
            from_file(tmp_path, wrong, *argv, of=config_type)


def test_own_settings_are_those_this_package_declares() -> None:
    ours = own_settings(parse(SFTStageConfig, ["--size", "xs"]))
    assert ours["size"] == "xs"
    assert ours["environment"] == "babyai"
    # Declared by the library as well: their values may be changed by it.
    assert not {"learning_rate", "output_dir", "bf16", "report_to", "seed"} & set(ours)
    assert set(own_settings(Example())) == {"name", "count", "share", "flag", "limit", "names", "knobs"}
