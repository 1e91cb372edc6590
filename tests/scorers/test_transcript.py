"""The scorer ``transcript``: what short rules read off texts, and what is kept from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from minigrid.core.world_object import Ball, Box, Door, Key
from minigrid.envs.babyai.core.verifier import (
    BeforeInstr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
)

from rlprm import envs, scorers
from rlprm.envs import babyai, textcraft, webshop
from rlprm.errors import ConfigError, MismatchError
from rlprm.rollouts.waves import rollout
from rlprm.scorers.transcript import Transcript, turns_of
from rlprm.types import End, EpisodeSetting, Split, StopReason, Trajectory
from tests.toys.agents import ScriptedPolicy
from tests.toys.babyai import goto, room


def read(episode: babyai.BabyAI, actions: Sequence[str]) -> tuple[list[float], bool]:
    """What BabyAI's rule believes after each action, and whether the mission is fulfilled in the end."""
    start = episode.reset()
    turns = [(action, episode.step(action).observation) for action in actions]
    return babyai.read_transcript(start, turns), episode.outcome().success


def of_actions(environment: str, actions: Sequence[str], end: End = End.DECLARED) -> Trajectory:
    """The trajectory of given actions in an environment's first training task."""
    script = {tuple(actions[:count]): [action] for count, action in enumerate(actions)}
    policy = ScriptedPolicy(script)
    policy.context_length = 100_000
    policy.max_new_tokens = 200
    task = envs.load(environment).tasks(Split.TRAIN, 0, 1)[0]
    setting = EpisodeSetting(end=end, round_limit=len(actions))
    (made,) = rollout([(task, 0)], policy, setting)
    assert [step.action for step in made.steps] == list(actions), made.error
    return made


def expert(environment: str) -> list[str]:
    module = envs.load(environment)
    return module.demonstrate(module.tasks(Split.TRAIN, 0, 1)[0], end=End.DECLARED)


def test_a_thing_is_reached_when_it_is_one_step_ahead_and_left_when_it_no_longer_is() -> None:
    things = {(3, 3): Ball("red"), (5, 6): Ball("blue")}
    episode = room(things, goto("ball", "red"), end=End.DECLARED)
    actions = ["move forward", "move forward", "drop", "turn left"]
    assert read(episode, actions) == ([0, 1, 1, 0], False)  # drop is refused, which changes nothing
    assert read(room(things, goto("ball", "red"), end=End.DECLARED), actions[:3]) == ([0, 1, 1], True)


def test_a_thing_counts_as_picked_up_when_it_is_newly_carried() -> None:
    goal = PickupInstr(ObjDesc("key", "green"))
    episode = room({(3, 5): Key("green"), (3, 2): Box("red")}, goal, end=End.DECLARED)
    assert read(episode, ["pickup green key 1", "pickup red box 1"]) == ([1, 1], True)
    episode = room({(3, 5): Key("green"), (3, 2): Box("red")}, goal, end=End.DECLARED)
    assert read(episode, ["pickup green key 1", "turn left", "turn right"]) == ([1, 0, 0], False)


def test_a_door_is_opened_by_toggling_the_one_that_is_named() -> None:
    goal = OpenInstr(ObjDesc("door", "blue"))
    doors = {(3, 5): Door("blue"), (4, 6): Door("grey")}
    assert read(room(doors, goal, end=End.DECLARED), ["toggle"]) == ([1], True)
    other = ["turn right", "toggle", "turn left"]
    assert read(room(doors, goal, end=End.DECLARED), other) == ([0, 0, 0], False)
    through = ["toggle and go through blue closed door 1", "turn left"]
    assert read(room(doors, goal, end=End.DECLARED), through)[0] == [1, 0]
    through = ["turn right", "toggle and go through grey closed door 1"]
    assert read(room(doors, goal, end=End.DECLARED), through) == ([0, 0], False)


def test_a_thing_is_put_next_to_another_when_it_is_dropped_beside_it() -> None:
    goal = PutNextInstr(ObjDesc("ball", "red"), ObjDesc("box", "blue"))
    for box, beside in (((4, 5), 1), ((2, 5), 1), ((3, 4), 1), ((4, 4), 0), ((3, 3), 0)):
        episode = room({(3, 1): Ball("red"), box: Box("blue")}, goal, end=End.DECLARED, carrying=Ball("red"))
        start = episode.reset()
        assert babyai.read_transcript(start, [("drop", episode.step("drop").observation)]) == [beside], box


def test_of_a_sequence_the_last_part_has_to_be_fulfilled_by_the_last_action() -> None:
    goal = BeforeInstr(goto("ball", "red"), goto("box", "blue"))
    things = {(3, 5): Box("blue"), (1, 6): Ball("red")}
    assert "go to the red ball, and go to the blue box" in room(things, goal, end=End.DECLARED).reset()
    actions = ["turn left", "go to red ball 1", "turn right", "turn right", "go to blue box 1", "finish"]
    episode = room(things, goal, end=End.DECLARED)
    assert read(episode, actions) == ([0, 0.5, 0.5, 0.5, 1, 1], True)
    late = [*actions[:-1], "turn left"]
    assert read(room(things, goal, end=End.DECLARED), late) == ([0, 0.5, 0.5, 0.5, 1, 0.5], False)


def test_a_goal_of_textcraft_is_crafted_once_an_answer_says_so() -> None:
    start = "Crafting commands:\ncraft 4 oak planks using 1 oak log\n\nGoal: craft oak planks."
    turns = [
        ("craft oak planks using 1 oak log", "Could not find enough items to craft minecraft:oak_planks"),
        ("get 1 oak log", "Got 1 oak log"),
        ("craft 2 dark oak planks using 1 log", "Crafted 2 minecraft:dark_oak_planks"),
        ("craft oak planks using 1 oak log", "Crafted 4 minecraft:oak_planks"),
        ("inventory", "Inventory: [oak planks] (4) "),
    ]
    assert textcraft.read_transcript(start, turns) == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("separator", [" [SEP] ", "\n"])
def test_a_product_is_compared_with_the_words_of_the_instruction_and_its_cap(separator: str) -> None:
    asked = ["Instruction:", "i need warm boots, in red color, and price lower than 40.00 dollars"]
    start = separator.join(["WebShop", *asked, "Search"])
    results = [*asked, "Back to Search", "Page 1 (Total results: 2)", "B01", "Warm Boots", "$20.0"]

    def item(price: str) -> str:
        shown = ["color", "red", "blue", "Warm Boots", f"Price: {price}", "Rating: 5", "Features", "Buy Now"]
        return separator.join([*asked, "Back to Search", "< Prev", *shown])

    features = separator.join([*asked, "Back to Search", "< Prev", "any color"])
    turns = [
        ("search[boots]", separator.join(results)),
        ("click[b01]", item("$20.0")),  # warm, boots, cap
        ("click[red]", item("$20.0")),  # and red; the words are warm, boots, red, color
        ("click[Features]", features),  # and color
        ("click[< Prev]", item("$20.0")),
        ("click[Buy Now]", ""),
    ]
    believed = webshop.read_transcript(start, turns)
    assert believed == pytest.approx([0, 0.5 * 3 / 5, 0.5 * 4 / 5, 0.5, 0.5, 1])
    dear = [("click[b01]", item("$50.0")), ("click[< Prev]", separator.join(results))]
    assert webshop.read_transcript(start, dear) == pytest.approx([0.5 * 2 / 5, 0])


def test_scores_are_what_the_environments_rule_believes_after_each_answer() -> None:
    actions = expert("textcraft")
    made = of_actions("textcraft", actions)
    (scores,) = Transcript("textcraft").score([made])
    assert made.outcome.success
    assert (scores.initial, scores.values[0], scores.values[-1], scores.tokens) == (0, 0, 1, 0)
    start, turns = turns_of(made)
    assert scores.values == tuple(textcraft.read_transcript(start, turns))
    assert start.startswith("Crafting commands:")
    assert [action for action, _ in turns] == actions


def test_the_answer_to_the_last_action_counts_while_the_episode_goes_on() -> None:
    crafted = of_actions("textcraft", expert("textcraft")[:-1])  # without finish
    assert crafted.stop is StopReason.ROUND_LIMIT
    for stop in (StopReason.ROUND_LIMIT, None, StopReason.SUCCESS):
        (scores,) = Transcript("textcraft").score([replace(crafted, stop=stop)])
        assert scores.values[-1] == 1
    (scores,) = Transcript("textcraft").score([replace(crafted, stop=StopReason.DECLARED)])
    assert scores.values[-1] == 0


def test_the_closing_page_of_a_purchase_which_states_the_reward_is_hidden() -> None:
    made = of_actions("webshop", expert("webshop"))
    assert made.stop is StopReason.DECLARED
    assert "Your score" in made.messages[-1]["content"]
    assert turns_of(made)[1][-1] == (made.steps[-1].action, "")
    other = replace(made, messages=(*made.messages[:-1], {"role": "user", "content": "Your score 0.0"}))
    assert Transcript("webshop").score([made]) == Transcript("webshop").score([other])


def test_scores_depend_on_texts_alone() -> None:
    made = of_actions("babyai", expert("babyai"))
    blind = replace(made, outcome=replace(made.outcome, score=0.0, success=False), token_ids=(), logprobs=())
    assert Transcript("babyai").score([made]) == Transcript("babyai").score([blind])


def test_an_episode_that_failed_at_its_start_has_no_steps_to_score() -> None:
    made = of_actions("textcraft", ["inventory"])
    failed = replace(made, messages=(), steps=(), stop=StopReason.ERROR)
    (scores,) = Transcript("textcraft").score([failed])
    assert (scores.initial, scores.values) == (0, ())


def test_an_environment_without_a_rule_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"transcript: the environment math has no read_transcript"
    ) as caught:
        scorers.build("transcript", {"kind": "transcript", "environment": "math"})
    assert "\n" not in str(caught.value)


def test_a_trajectory_of_another_environment_is_refused() -> None:
    made = of_actions("textcraft", ["inventory"])
    with pytest.raises(MismatchError, match="reads transcripts of babyai, got a trajectory of textcraft"):
        Transcript("babyai").score([made])
