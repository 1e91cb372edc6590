"""Demonstrations: minigrid's BabyAI bot, speaking in text actions.

The bot plans in primitive actions from what it has seen so far. At each turn it
is asked what it is up to. If the thing it wants is in view, the expert takes the
action that names the thing; otherwise the bot's next primitive, or the door on
its way. The bot looks where a turn of the text ends (and before it handles
something), so it knows little more than a reader of the text.

An expert with detours is distracted at some turns, and goes to the nearest thing that it does not need.
A policy that is cloned from this expert learns the detours, too, and is imperfect when it has converged.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from minigrid.envs.babyai.core.verifier import ObjDesc, OpenInstr
from minigrid.utils.baby_ai_bot import GoNextToSubgoal, OpenSubgoal, PickupSubgoal

from rlprm.envs.babyai.actions import Options, find_options
from rlprm.envs.babyai.bot import BOT_FAILURES, SEARCHES_PER_TURN, Bot
from rlprm.envs.babyai.environment import make
from rlprm.envs.babyai.levels import detours_of, longest_demonstration, pristine_world, task_address
from rlprm.envs.babyai.rules import Rules
from rlprm.envs.babyai.served import ServedBabyAI
from rlprm.envs.babyai.view import AHEAD, Seen, View, appearance, look, thing_at
from rlprm.envs.babyai.wording import FINISH
from rlprm.envs.babyai.world import DIRECTIONS, DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE, World
from rlprm.errors import DemonstrationError
from rlprm.types import End, Task

__all__ = ["demonstrate"]

_MOVEMENTS = {LEFT: "turn left", RIGHT: "turn right", FORWARD: "move forward"}


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Return actions that solve a task, found by the expert and tried out in the environment.

    Args:
        task: What to solve.
        end: With ``End.DECLARED`` the last action is ``finish``, right after the goal is met.

    Raises:
        DemonstrationError: if the expert does not solve the task in the actions that its spec allows, by
            default AgentGym's round limit.
        ConfigError: if the task is not one of this environment, or ``end`` does not fit its rules.
    """
    declared = end is End.DECLARED
    actions = _solve(task, longest_demonstration(task) - declared)
    if declared:
        actions.append(FINISH)
    _try_out(task, actions, end)
    return actions


def _solve(task: Task, budget: int) -> list[str]:
    name, seed, rules = task_address(task)
    world = pristine_world(name, seed).fork()
    expert = _Expert(world, rules, detours_of(task), random.Random(f"{name}-{seed}"))
    actions: list[str] = []
    # By AgentGym's rules a failure does not end the episode, and a success counts at the end of an action.
    while world.verdict is None if rules is Rules.FIXED else world.latest != "success":
        if len(actions) == budget:
            raise DemonstrationError(f"{task.id}: the expert needs more than {budget} actions")
        try:
            actions.append(expert.act())
        except BOT_FAILURES as error:
            raise DemonstrationError(f"{task.id}: the expert failed after {actions}: {error!r}") from error
    return actions


def _try_out(task: Task, actions: list[str], end: End) -> None:
    episode = make(task, end=end)
    episode.reset()
    for action in actions[:-1]:
        if episode.step(action).stop is not None:
            raise DemonstrationError(
                f"{task.id}: the episode ends at {action!r}, before the end of {actions}"
            )
    last = episode.step(actions[-1])
    # AgentGym's server goes on after a success that pays no more than 0.5.
    is_over = last.stop is not None or isinstance(episode, ServedBabyAI)
    if not is_over or not episode.outcome().success:
        raise DemonstrationError(f"{task.id}: the expert's actions {actions} do not reach the goal")


class _Expert:
    """Chooses text actions for one world and carries them out in it."""

    def __init__(self, world: World, rules: Rules, detours: float, rng: random.Random) -> None:
        """Start at the beginning of an episode.

        Args:
            world: the expert acts in it.
            rules: of the text actions.
            detours: probability of a detour at each turn.
            rng: decides on detours.
        """
        self._world = world
        self._rules = rules
        self._detours = detours
        self._rng = rng
        self._bot = Bot(world)
        self._goal_doors = _doors_to_open(world.instrs)
        self._options = Options()
        self._wish: int | None = None  # the bot's latest suggestion
        self._deed: int | None = None  # the latest primitive, as the bot is to know it

    def act(self) -> str:
        """Choose one action, carry it out, and return its text."""
        self._bot.searches_left = SEARCHES_PER_TURN
        self._consult()
        if not self._bot.stack:
            # The bot thinks it is done, but the goal counts as met only after an action: the
            # agent may start in front of what it should go to. Step aside and begin again.
            self._bot.begin_again()
            self._wish = RIGHT
        view = look(self._world)
        world = self._world
        self._options = find_options(
            view, world.carrying, declared=False, rules=self._rules, direction=world.agent_dir
        )
        available = self._options.actions
        action = next(idea for idea in self._ideas(view) if self._is_sound(available.get(idea)))
        if self._detours and self._rng.random() < self._detours:
            action = self._detour(action)
        self._carry_out(available[action])
        return action

    def _detour(self, wanted: str) -> str:
        """Return the way to the nearest visible thing that is not wanted; without any, another turn."""
        ways = {
            action: primitives
            for action, primitives in self._options.actions.items()
            if action.startswith("go to ") and len(primitives) > 1
        }
        others = [a for a, primitives in ways.items() if a != wanted and self._is_sound(primitives)]
        if others:
            return min(others, key=lambda action: len(ways[action]))
        return "turn right" if wanted == "turn left" else "turn left"

    def _consult(self) -> None:
        self._wish = self._bot.replan(self._deed)

    def _carry_out(self, primitives: list[int]) -> None:
        """Act; the bot plans again before and after everything that is more than a movement."""
        self._deed = None
        image = appearance(self._world)
        for position, primitive in enumerate(primitives):
            handles = primitive not in _MOVEMENTS
            if position > 0 and (handles or primitives[position - 1] not in _MOVEMENTS):
                self._consult()
            if not self._world.act(primitive):
                break
            # The bot would undo an action that it did not plan, so the action is not passed to it.
            self._deed = None if handles and primitive != self._wish else primitive
            if self._rules is Rules.AGENTGYM:
                before, image = image, appearance(self._world)
                if image == before:
                    break

    def _text(self, verb: str, seen: Seen) -> str:
        """Return the text of an action on a thing; empty if the action is not available."""
        return self._options.texts.get((verb, seen.cell), "")

    def _ideas(self, view: View) -> Iterator[str]:
        """Texts for what the bot wants to do next, best first; not all of them need be possible."""
        ahead = next((seen for seen in view.things if seen.cell == AHEAD), None)
        if self._wish == DROP:
            yield "drop"
        if self._wish == PICKUP and ahead is not None:
            yield self._text("pickup", ahead)
        if self._wish == TOGGLE and ahead is not None:
            yield self._opening(ahead)
        if self._wish in _MOVEMENTS:
            yield from self._towards_target(view)
            yield from self._through_open_door(view)
            if self._bot.stack[-1].is_exploratory():
                yield from self._exploring(view)
            yield _MOVEMENTS[self._wish]
        yield "turn right"  # the wish has no words, for instance to close a door

    def _opening(self, door: Seen) -> str:
        """Open a door: to have it open if the goal says so, else to pass."""
        if thing_at(self._world, door.cell) in self._goal_doors:
            return "toggle"
        return self._text("toggle and go through", door)

    def _towards_target(self, view: View) -> Iterator[str]:
        """Go to, pick up or open a visible thing that the bot is after, the nearest first."""
        subgoal, *later = reversed(self._bot.stack)
        if not isinstance(subgoal, GoNextToSubgoal) or subgoal.reason == "PutNext":
            return
        purpose = later[0] if later else None
        for seen in view.things:
            thing = thing_at(self._world, seen.cell)
            if not _is_about(subgoal.datum, thing):
                continue
            if isinstance(purpose, PickupSubgoal):
                yield self._text("pickup", seen)
            if isinstance(purpose, OpenSubgoal) and thing not in self._goal_doors:
                yield self._text("toggle and go through", seen)
            yield self._text("go to", seen)

    def _through_open_door(self, view: View) -> Iterator[str]:
        """Pass a visible open door that is on the bot's way."""
        doors = {
            thing_at(self._world, seen.cell).cur_pos: self._text("go through", seen)
            for seen in view.things
            if seen.name.endswith("open door")
        }
        if doors:
            yield from (doors[position] for position in self._bot.way() if position in doors)

    def _exploring(self, view: View) -> Iterator[str]:
        """Rather than walk for a better look at a room, leave it; do not turn in a doorway.

        The bot looks into every corner first, for which the turns do not suffice.
        """
        in_doorway = self._world.get(*self._world.agent_pos) is not None
        if self._wish == FORWARD or in_doorway:
            for seen in view.things:
                if seen.name.endswith("closed door"):
                    yield self._text("toggle and go through", seen)
            yield _MOVEMENTS[FORWARD]

    def _is_sound(self, primitives: list[int] | None) -> bool:
        """Whether an action is available, does something, and leads over free cells that were seen.

        The environment's own routes lead through shut doors and unseen cells as well.
        """
        (x, y), direction = self._world.agent_pos, self._world.agent_dir
        for primitive in primitives or ():
            if primitive == FORWARD:
                dx, dy = DIRECTIONS[direction]
                x, y = x + dx, y + dy
                thing = self._world.get(x, y)
                if (x, y) not in self._bot.vis_mask or not (thing is None or thing.can_overlap()):
                    return False
            elif primitive in _MOVEMENTS:
                direction = (direction + (1 if primitive == RIGHT else -1)) % 4
            else:
                break  # what is handled is the end of the way
        return bool(primitives)


def _is_about(datum: Any, thing: Any) -> bool:
    """Whether a subgoal with this datum (a description, an object, a position) is about a thing."""
    if isinstance(datum, ObjDesc):
        return any(thing is candidate for candidate in datum.obj_set)
    return thing is datum


def _doors_to_open(instr: Any) -> list[Any]:
    """Return the doors that an instruction asks to open."""
    if hasattr(instr, "instr_a"):
        return _doors_to_open(instr.instr_a) + _doors_to_open(instr.instr_b)
    return list(instr.desc.obj_set) if isinstance(instr, OpenInstr) else []
