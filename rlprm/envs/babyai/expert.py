"""Demonstrations: minigrid's BabyAI bot, speaking in text actions.

The bot plans in primitive actions from what it has seen so far. At each turn it
is asked what it is up to; if the thing it wants is in view, the action that
names the thing is chosen, otherwise the bot's next primitive (or the door on its
way). The bot looks only where a turn of the text ends, so it knows no more than
the reader of the text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.verifier import ObjDesc, OpenInstr
from minigrid.utils.baby_ai_bot import (
    BabyAIBot,
    DisappearedBoxError,
    GoNextToSubgoal,
    OpenSubgoal,
    PickupSubgoal,
)

from rlprm.envs.babyai.actions import Options, find_options
from rlprm.envs.babyai.environment import make
from rlprm.envs.babyai.levels import pristine_world, task_address
from rlprm.envs.babyai.text import FINISH
from rlprm.envs.babyai.view import AHEAD, Seen, View, look, positions, thing_at
from rlprm.envs.babyai.world import DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE, World
from rlprm.errors import DemonstrationError
from rlprm.types import End, Task

__all__ = ["ROUND_LIMIT", "demonstrate"]

ROUND_LIMIT = 20
"""Turns of an episode, AgentGym's number."""

_SEARCHES_PER_TURN = 1000  # the bot can plan in circles; sound plans take below a hundred

# How the bot fails on the levels it was not made for.
_BOT_FAILURES = (AssertionError, AttributeError, IndexError, TypeError, RecursionError, DisappearedBoxError)


def demonstrate(task: Task, *, end: End) -> list[str]:
    """Return actions that solve a task, found by the expert and tried out in the environment.

    Args:
        task: What to solve.
        end: With ``End.DECLARED`` the last action is ``finish``, right after the goal is met.

    Raises:
        DemonstrationError: where the expert does not solve the task within the round limit.
    """
    level, seed = task_address(task)
    budget = ROUND_LIMIT - (end is End.DECLARED)
    actions = _solve(task, pristine_world(level, seed).fork(), budget)
    if end is End.DECLARED:
        actions.append(FINISH)
    _try_out(task, actions, end)
    return actions


def _solve(task: Task, world: World, budget: int) -> list[str]:
    expert = _Expert(world)
    actions: list[str] = []
    while world.verdict is None:
        if len(actions) == budget:
            raise DemonstrationError(f"{task.id}: the expert needs more than {budget} actions")
        try:
            actions.append(expert.act())
        except _BOT_FAILURES as error:
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
    if episode.step(actions[-1]).stop is None or not episode.outcome().success:
        raise DemonstrationError(f"{task.id}: the expert's actions {actions} do not reach the goal")


class _Expert:
    """Chooses text actions for one world and carries them out in it."""

    def __init__(self, world: World) -> None:
        """Start at the beginning of an episode."""
        self._world = world
        self._bot = _Bot(world)
        self._doors_of_goal = _goal_doors(world.instrs)
        self._last: int | None = None

    def act(self) -> str:
        """Choose one action, carry it out, and return its text."""
        self._bot.searches_left = _SEARCHES_PER_TURN
        primitive = self._bot.replan(self._last)
        if not self._bot.stack:
            # Done as the bot sees it, but the goal counts as met only after an action: the
            # agent may start in front of what it should go to. Step aside and begin again.
            self._bot.begin_again()
            primitive = RIGHT
        view = look(self._world)
        options = find_options(view, self._world.carrying, declared=False)
        action = self._choose(primitive, view, options)
        self._carry_out(options.actions[action])
        return action

    def _carry_out(self, primitives: list[int]) -> None:
        """Act, letting the bot look before and after everything that is more than a movement."""
        self._last = None
        for primitive in primitives:
            manual = primitive in (PICKUP, DROP, TOGGLE)
            if self._last is not None and (manual or self._last == TOGGLE):
                self._bot.replan(self._last)
            changed = self._world.act(primitive)
            self._last = primitive
            if not changed:
                return

    def _choose(self, primitive: int, view: View, options: Options) -> str:
        """Return the text action for what the bot wants to do next."""
        ahead = next((seen for seen in view.things if seen.cell == AHEAD), None)
        if primitive == PICKUP and ahead is not None:
            return f"pickup {ahead.name} {ahead.number}"
        if primitive == DROP:
            return "drop"
        if primitive == TOGGLE and ahead is not None:
            return self._opening_action(ahead)
        for action in (*self._towards_target(view), *self._through_door(view)):
            if action in options.actions:
                return action
        return {LEFT: "turn left", RIGHT: "turn right", FORWARD: "move forward"}[primitive]

    def _opening_action(self, door: Seen) -> str:
        """Open the door ahead: to have it open if the goal says so, else to pass."""
        if thing_at(self._world, door.cell) in self._doors_of_goal:
            return "toggle"
        return f"toggle and go through {door.name} {door.number}"

    def _towards_target(self, view: View) -> Iterator[str]:
        """Actions that lead to a visible thing the bot is after, nearest first."""
        subgoal, *later = reversed(self._bot.stack)
        if not isinstance(subgoal, GoNextToSubgoal) or subgoal.reason == "PutNext":
            return
        for seen in view.things:
            thing = thing_at(self._world, seen.cell)
            if not _wants(subgoal.datum, thing):
                continue
            if later and isinstance(later[0], PickupSubgoal):
                yield f"pickup {seen.name} {seen.number}"
            elif later and isinstance(later[0], OpenSubgoal) and thing not in self._doors_of_goal:
                yield f"toggle and go through {seen.name} {seen.number}"
            yield f"go to {seen.name} {seen.number}"

    def _through_door(self, view: View) -> Iterator[str]:
        """Actions that pass a visible open door on the bot's way."""
        doors = {
            thing_at(self._world, seen.cell).cur_pos: seen
            for seen in view.things
            if seen.name.endswith("open door")
        }
        if doors:
            for position in self._bot.way():
                if position in doors:
                    yield f"go through {doors[position].name} {doors[position].number}"


def _wants(datum: Any, thing: Any) -> bool:
    """Whether a thing is what a subgoal (an object, a description, or a position) is about."""
    if isinstance(datum, ObjDesc):
        return any(thing is candidate for candidate in datum.obj_set)
    return thing is datum


def _goal_doors(instr: Any) -> list[Any]:
    """Return the doors that an instruction asks to open."""
    if hasattr(instr, "instr_a"):
        return _goal_doors(instr.instr_a) + _goal_doors(instr.instr_b)
    return list(instr.desc.obj_set) if isinstance(instr, OpenInstr) else []


class _Seen(dict[tuple[int, int], bool]):
    """The bot's map of what it has seen; everything else is unseen."""

    def __missing__(self, position: tuple[int, int]) -> bool:
        return False


class _Bot(BabyAIBot):  # type: ignore[misc]  # minigrid is untyped
    """minigrid's bot with a faster search and view, and without knowledge the text does not give."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.vis_mask = _Seen()
        self.searches_left = _SEARCHES_PER_TURN

    def begin_again(self) -> None:
        """Forget the plan but not what was seen."""
        self.stack.clear()
        self._process_instr(self.mission.instrs)

    def way(self) -> list[tuple[int, int]]:
        """Positions on the way to the place the topmost subgoal is about, the next one first."""
        subgoal = self.stack[-1]
        datum = subgoal.datum
        if not isinstance(subgoal, GoNextToSubgoal) or isinstance(datum, ObjDesc):
            target = self._find_obj_pos(datum)[1] if isinstance(datum, ObjDesc) else None
        else:
            target = datum.cur_pos if isinstance(datum, WorldObj) else tuple(datum)
        if target is None:
            return []
        return self._shortest_path(lambda pos, cell: pos == target)[0] or []

    def _process_obs(self) -> None:
        world = self.mission
        self.vis_mask.update(dict.fromkeys(positions(world, look(world).visible), True))

    def _closest_wall_or_door_given_dir(self, position: Any, direction: Any) -> int:
        # The bot asks this to choose a side when it wants to turn round. The text does not
        # tell how far the walls at the sides are, so the answer is always the same: it turns right.
        return 0

    def _breadth_first_search(
        self,
        initial_states: list[tuple[int, int, int, int]],
        accept_fn: Callable[[tuple[int, int], Any], bool],
        ignore_blockers: bool,
    ) -> tuple[Any, Any, dict[tuple[int, int], Any]]:
        """Search as minigrid does, with a queue whose head can be taken off in constant time."""
        self.searches_left -= 1
        if self.searches_left < 0:
            raise RecursionError("the bot plans in circles")
        get, seen = self.mission.get, self.vis_mask
        queue: deque[tuple[Any, Any]] = deque((state, None) for state in initial_states)
        previous: dict[tuple[int, int], Any] = {}
        while queue:
            (i, j, di, dj), origin = queue.popleft()
            here = (i, j)
            if here in previous:
                continue
            cell = get(i, j)
            previous[here] = origin
            if accept_fn(here, cell):
                path = []
                step: Any = here
                while step:
                    path.append(step)
                    step = previous[step]
                return path, here, previous
            if here not in seen or (cell is not None and not _passable(cell, ignore_blockers)):
                continue
            for x, y in ((di, dj), (dj, di), (-dj, -di), (-di, -dj)):
                queue.append(((i + x, j + y, x, y), here))
        return None, None, previous


def _passable(thing: Any, ignore_blockers: bool) -> bool:
    if thing.type == "wall":
        return False
    return bool(thing.is_open) if thing.type == "door" else ignore_blockers
