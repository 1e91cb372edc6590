"""minigrid's BabyAI bot on a :class:`World`: its planning, with a fast search and a view of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.verifier import ObjDesc, PutNextInstr
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError, DropSubgoal, GoNextToSubgoal

from rlprm.envs.babyai.view import look, positions
from rlprm.envs.babyai.world import World

__all__ = ["BOT_FAILURES", "SEARCHES_PER_TURN", "Bot"]

SEARCHES_PER_TURN = 1000
"""The bot can plan in circles; sound plans take below a hundred searches."""

BOT_FAILURES = (AssertionError, AttributeError, IndexError, TypeError, RecursionError, DisappearedBoxError)
"""How the bot fails on goals it was not made for."""


class _Map(dict[tuple[int, int], bool]):
    """The bot's map of what it has seen; everything else is unseen."""

    def __missing__(self, position: tuple[int, int]) -> bool:
        return False


class Bot(BabyAIBot):
    """minigrid's bot with a faster search and view, and without knowledge the text does not give."""

    def __init__(self, world: World) -> None:
        """Plan for the goal of a world that is at its start."""
        super().__init__(world)
        self.vis_mask = _Map()
        self.searches_left = SEARCHES_PER_TURN

    def begin_again(self) -> None:
        """Forget the plan but not what was seen."""
        self.stack.clear()
        self._process_instr(self.mission.instrs)

    def way(self) -> list[tuple[int, int]]:
        """Return the free positions to the place the topmost subgoal is about, the next one first."""
        subgoal = self.stack[-1]
        datum = subgoal.datum
        if not isinstance(subgoal, GoNextToSubgoal):
            return []
        if isinstance(datum, ObjDesc):
            target = self._find_obj_pos(datum)[1]
        else:
            target = datum.cur_pos if isinstance(datum, WorldObj) else tuple(datum)
        return self._shortest_path(lambda pos, cell: pos == target)[0] or []

    def _process_instr(self, instr: Any) -> None:
        carrying = self.mission.carrying
        if not isinstance(instr, PutNextInstr) or not any(carrying is it for it in instr.desc_move.obj_set):
            super()._process_instr(instr)
            return
        # minigrid's bot would look for the object, which is in the agent's hands already.
        self.stack.append(DropSubgoal(self))
        self.stack.append(GoNextToSubgoal(self, instr.desc_fixed, reason="PutNext"))

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
