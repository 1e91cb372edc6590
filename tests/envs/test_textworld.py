"""TextWorld: its words, what becomes of commands, how games are made and kept."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprm.envs import textworld
from rlprm.errors import ConfigError, DemonstrationError
from rlprm.types import End, Split, StopReason, Task

needs_textworld = pytest.mark.skipif(
    textworld.requirements() is not None, reason=str(textworld.requirements())
)


def task(**kwargs: Any) -> Task:
    return textworld.tasks(Split.TEST, 0, 1, **{"levels": [2], **kwargs})[0]


def episode(end: End = End.DECLARED, **kwargs: Any) -> tuple[textworld.TextWorld, str]:
    env = textworld.make(task(**kwargs), end=end)
    return env, env.reset()


# --------------------------------------------------------------------------- without the package


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"challenge": "chess"}, "allowed: quest, coin_collector, treasure_hunter"),
        ({"challenge": ["quest"]}, "textworld challenge: got ['quest'], allowed: quest"),
        ({"levels": []}, "textworld levels: got []"),
        ({"levels": "3"}, "textworld levels: got '3'"),
        ({"levels": [0]}, "textworld levels: got 0, allowed: whole numbers from 1 to 15"),
        ({"levels": [16]}, "from 1 to 15"),
        ({"levels": [31], "challenge": "treasure_hunter"}, "from 1 to 30"),
        ({"levels": [True]}, "textworld levels: got True"),
        ({"levels": [2, 2]}, "each number once"),
        ({"rooms": 21}, "textworld rooms: got 21"),
        ({"objects": 0}, "textworld objects: got 0"),
        ({"brief": "yes"}, "textworld brief: got 'yes'"),
    ],
)
def test_impossible_settings_are_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        textworld.tasks(Split.TRAIN, 0, 1, **setting)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"challenge": "quest"},
        {"challenge": "quest", "level": 2, "rooms": 3, "objects": 5, "brief": False, "seed": -1},
        {"challenge": "quest", "level": 2, "rooms": 3, "objects": 5, "brief": False, "seed": "../../x"},
        {"challenge": "quest", "level": 2, "rooms": "..", "objects": 5, "brief": False, "seed": 0},
    ],
)
def test_the_task_of_something_else_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not a textworld task"):
        textworld.make(Task("textworld", "t", Split.TRAIN, spec), end=End.DECLARED)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'pip install "textworld<1.8"' in str(textworld.requirements())
    with pytest.raises(ConfigError, match="pip install"):
        textworld.make(task(), end=End.DECLARED)


@needs_textworld
def test_a_cache_that_is_no_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPRM_CACHE", "~no-such-user/cache")
    with pytest.raises(ConfigError, match="RLPRM_CACHE: got '~no-such-user/cache'"):
        textworld.make(task(), end=End.DECLARED)


def test_the_module_itself_imports_neither_textworld_nor_jericho() -> None:
    code = (
        "import sys\nfrom rlprm.envs import textworld as t\nt.requirements()\n"
        "print({'textworld', 'jericho'} & {*sys.modules})"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "set()"


@given(st.text(max_size=300))
def test_a_command_is_one_short_line_of_plain_characters(action: str) -> None:
    command = textworld.normalize(action)
    assert re.fullmatch(r"[a-z0-9' -]{0,150}", command)
    assert textworld.normalize(command) == command.strip()


def test_levels_take_turns_and_settings_are_part_of_the_name() -> None:
    found = textworld.tasks(Split.DEV, 0, 3, levels=[4, 2])
    assert [t.id for t in found] == ["quest-2-3-5-100000", "quest-4-3-5-100000", "quest-2-3-5-100001"]
    (coin,) = textworld.tasks(Split.TEST, 5, 1, challenge="coin_collector", levels=[1], brief=True)
    assert coin.id == "coin_collector-1-brief-5"


# ------------------------------------------------------------------------------------- episodes


@needs_textworld
def test_the_first_observation_is_the_objective_and_the_room() -> None:
    _, announced = episode(End.ON_SUCCESS)
    _, declared = episode(End.DECLARED)
    objective, room, _ = announced.split("\n\n", maxsplit=2)
    assert "TextWorld" in objective
    assert re.match(r"-= [A-Z][\w ]+ =-\n", room)
    assert declared == announced + "\nNobody tells you when the quest is completed: answer finish once it is."
    assert not re.search(r"\$\$|^>|=-\d|\n\n\n|^\[", announced, flags=re.MULTILINE)  # banner, prompt, trace


@needs_textworld
@pytest.mark.parametrize(
    ("challenge", "level"), [("quest", 3), ("coin_collector", 2), ("treasure_hunter", 1)]
)
def test_the_walkthrough_completes_every_challenge(challenge: str, level: int) -> None:
    found = task(challenge=challenge, levels=[level])
    walkthrough = textworld.demonstrate(found, end=End.ON_SUCCESS)
    assert textworld.demonstrate(found, end=End.DECLARED) == [*walkthrough, "finish"]
    if challenge == "quest":
        assert len(walkthrough) == level
    env = textworld.make(found, end=End.ON_SUCCESS)
    env.reset()
    turns = [env.step(action) for action in walkthrough]
    assert [turn.stop for turn in turns] == [None] * (len(turns) - 1) + [StopReason.SUCCESS]
    assert all(turn.valid for turn in turns)
    assert (turns[-1].reward, turns[-1].observation[-15:]) == (1.0, "*** The End ***")
    with pytest.raises(RuntimeError, match="over"):
        env.step("look")


@needs_textworld
def test_with_declared_ends_nothing_tells_of_success_and_the_game_goes_on() -> None:
    env, _ = episode(End.DECLARED)
    *walkthrough, finish = textworld.demonstrate(task(), end=End.DECLARED)
    told = [env.step(action) for action in walkthrough]
    assert env.outcome().success
    look = env.step("look")
    assert look.observation.startswith("-= ")
    said = " ".join(turn.observation for turn in [*told, look])
    assert not re.search(r"[Ss]core|The End|completed|failed", said)
    assert [turn.reward for turn in [*told, look]] == [0.0] * (len(told) + 1)
    end = env.step(finish)
    assert (end.observation, end.reward, end.stop) == ("You have finished.", 1.0, StopReason.DECLARED)


@needs_textworld
def test_finishing_early_is_a_failure_and_no_command_where_ends_are_announced() -> None:
    env, _ = episode(End.DECLARED)
    turn = env.step("finish")
    assert (turn.stop, turn.reward, env.outcome().success) == (StopReason.DECLARED, 0.0, False)
    env, _ = episode(End.ON_SUCCESS)
    turn = env.step("finish")
    assert (turn.observation, turn.stop, turn.valid) == ("That's not a verb I recognise.", None, False)


def way_to_lose(env: textworld.TextWorld, here: str) -> list[str]:
    """Walk through a treasure hunter's rooms until taking something loses the game."""
    waiting, seen = [(env, [], here)], set()
    while waiting:
        env, path, here = waiting.pop(0)
        if (room := here.split("-= ")[1].split(" =-")[0]) in seen:
            continue
        seen.add(room)
        for thing in re.findall(r"There is an? ([\w -]+?) on the floor", here):
            if env.fork().step(f"take {thing}").stop is StopReason.FAILURE:
                return [*path, f"take {thing}"]
        for way in ("go north", "go south", "go east", "go west"):
            there = env.fork()
            if (turn := there.step(way)).valid and turn.stop is None:
                waiting.append((there, [*path, way], turn.observation))
    pytest.fail("there is nothing wrong to take")


@needs_textworld
def test_what_is_lost_stays_lost() -> None:
    hunt = task(challenge="treasure_hunter", levels=[1])
    env = textworld.make(hunt, end=End.ON_SUCCESS)
    *walk, wrong = way_to_lose(env, env.reset())
    for action in walk:
        env.step(action)
    turn = env.step(wrong)
    assert (turn.stop, turn.reward, env.outcome().success) == (StopReason.FAILURE, 0.0, False)
    assert turn.observation.endswith("*** You lost! ***")
    # Where ends are declared nobody says so, and putting it back does not help.
    back = {"north": "south", "south": "north", "east": "west", "west": "east"}
    home = [f"go {back[step.removeprefix('go ')]}" for step in reversed(walk)]
    env = textworld.make(hunt, end=End.DECLARED)
    env.reset()
    plan = [
        *walk,
        wrong,
        wrong.replace("take", "drop"),
        *home,
        *textworld.demonstrate(hunt, end=End.DECLARED),
    ]
    turns = [env.step(action) for action in plan]
    assert all(turn.valid for turn in turns)
    assert not any("lost" in turn.observation or "failed" in turn.observation for turn in turns)
    assert (turns[-1].stop, turns[-1].reward) == (StopReason.DECLARED, 0.0)


@needs_textworld
def test_what_cannot_be_done_is_answered_as_in_textworld_and_marked() -> None:
    env, _ = episode()
    answers = {
        "xyzzy": "That's not a verb I recognise.",
        "take unicorn": "You can't see any such thing.",
        "go up": "You can't go that way.",
        "": "That's not a verb I recognise.",
    }
    for action, answer in answers.items():
        turn = env.step(action)
        assert (turn.observation, turn.valid) == (answer, False)
    assert env.step("INVENTORY!").observation.startswith("You are carrying")
    assert env.step("look").valid


@needs_textworld
@pytest.mark.parametrize(
    "action",
    ["quit", "Q.", "restart", "save", "undo", "restore", "script", "score", "full score", "notify off",
     "tw-print max_score", "tw-extra-infos score", "restrict commands", "look then quit", "oops save",
     "enable print state option", "look. save", "look\nquit"],
)  # fmt: skip
def test_commands_about_the_game_are_not_played(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env, _ = episode()
    before = env.step("look").observation
    for _ in range(2):
        answer = env.step(action).observation
        assert not re.search("score|sure|Ok\\.|Restart|<", answer)
    assert env.step("look").observation == before
    assert list(tmp_path.iterdir()) == []


@needs_textworld
def test_many_episodes_of_one_game_and_several_games_do_not_meet() -> None:
    games = [task(), task(levels=[3])]
    runs = [textworld.make(game, end=End.ON_SUCCESS) for game in games for _ in range(3)]
    plans = [textworld.demonstrate(game, end=End.ON_SUCCESS) for game in games for _ in range(3)]
    alone = []
    for game, plan in zip(games, (plans[0], plans[3]), strict=True):
        env = textworld.make(game, end=End.ON_SUCCESS)
        env.reset()
        alone.append([env.step(action) for action in plan])
    for env in runs:
        env.reset()
    seen: list[list[Any]] = [[] for _ in runs]
    for turn in range(3):
        for env, plan, said in zip(runs, plans, seen, strict=True):
            if turn < len(plan):
                said.append(env.step(plan[turn]))
    assert seen == [alone[0]] * 3 + [alone[1]] * 3


@needs_textworld
def test_a_brief_objective_leaves_the_way_out() -> None:
    _, whole = episode(levels=[4])
    _, brief = episode(levels=[4], brief=True)
    assert len(brief.split("\n\n")[0]) < len(whole.split("\n\n")[0])


@needs_textworld
def test_a_walkthrough_longer_than_the_round_limit_is_no_demonstration() -> None:
    with pytest.raises(DemonstrationError, match="actions"):
        textworld.demonstrate(task(challenge="coin_collector", levels=[90]), end=End.DECLARED)


# ---------------------------------------------------------------------------- games and their files


@needs_textworld
def test_a_game_depends_on_nothing_but_its_task(tmp_path: Path) -> None:
    """Made by two processes that hash strings differently, it has the same text and walkthrough."""
    code = (
        "import json, sys\nfrom rlprm.envs import textworld\nfrom rlprm.types import End, Split\n"
        "(t,) = textworld.tasks(Split.TRAIN, 3, 1, levels=[2])\nenv = textworld.make(t, end=End.ON_SUCCESS)\n"
        "plan = textworld.demonstrate(t, end=End.ON_SUCCESS)\n"
        "print(json.dumps([env.reset(), plan, [env.step(a).observation for a in plan]]))"
    )
    told = []
    for hashing in ("1", "2"):
        surroundings = {**os.environ, "PYTHONHASHSEED": hashing, "RLPRM_CACHE": str(tmp_path / hashing)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=True
        )
        told.append(json.loads(done.stdout))
    assert told[0] == told[1]
    kept = sorted(path.name for path in next((tmp_path / "1").iterdir()).iterdir())
    assert kept == ["quest-2-3-5-1000003.json", "quest-2-3-5-1000003.z8"]  # and nothing else is left


@needs_textworld
def test_a_kept_game_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    textworld.make(task(), end=End.DECLARED)

    def fail(*_: Any) -> None:
        raise AssertionError("it was there")

    monkeypatch.setattr(textworld, "_compile", fail)
    textworld.demonstrate(task(), end=End.DECLARED)


@needs_textworld
def test_where_no_quest_exists_the_error_names_the_game(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textworld import generator

    tried = []

    def never(options: Any) -> None:
        tried.append(json.dumps(options.seeds, sort_keys=True, default=int))
        raise generator.QuestGenerationError("no such quest")

    monkeypatch.setattr(generator, "make_game", never)
    monkeypatch.setenv("RLPRM_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot generate quest-2-3-5-0: nothing was found with 20 seeds"):
        textworld.make(task(), end=End.DECLARED)
    assert len(set(tried)) == 20


@needs_textworld
def test_another_way_of_writing_the_end_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from textworld.generator import inform7

    monkeypatch.setattr(inform7, "generate_inform7_source", lambda game: "There is a room.")
    monkeypatch.setenv("RLPRM_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="not known here"):
        textworld.make(task(), end=End.DECLARED)
    assert [path for folder in tmp_path.iterdir() for path in folder.iterdir()] == []
