"""What the agent sees, and where it can go within that.

Cells of the view are numbered row by row, farthest row first, left to right:
cell ``j * VIEW + i`` is ``VIEW - 1 - j`` steps ahead of the agent and ``i - VIEW // 2``
to its right. The agent stands in the middle of the last row. Sets of cells are
integers with one bit per cell.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from rlprm.envs.babyai.world import DIRECTIONS, FORWARD, LEFT, RIGHT, VIEW, WALL, World

__all__ = [
    "AGENT",
    "AHEAD",
    "Routes",
    "Seen",
    "View",
    "find_routes",
    "look",
    "name_of",
    "positions",
    "steps_to",
    "thing_at",
]

AGENT = VIEW * VIEW - 1 - VIEW // 2
"""The agent's own cell."""

AHEAD = AGENT - VIEW
"""The cell right in front of the agent."""


def steps_to(cell: int) -> tuple[int, int]:
    """Return how many steps a cell is ahead of the agent and to its right (negative: left)."""
    row, column = divmod(cell, VIEW)
    return VIEW - 1 - row, column - VIEW // 2


_COLUMN_AHEAD = tuple(range(AHEAD, -1, -VIEW))
# Nearest first; cells equally far away in the order of their numbers, as in AgentGym.
_NEAREST_FIRST = tuple(
    sorted(
        (cell for cell in range(VIEW * VIEW) if cell != AGENT), key=lambda cell: sum(map(abs, steps_to(cell)))
    )
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One visible object other than a wall."""

    cell: int
    name: str
    """Colour and type, and between them the state of a door: ``"red closed door"``."""
    number: int
    """Counts the visible objects of the same name from 1, nearest first."""
    kind: str
    """Type as minigrid calls it: ``"key"``, ``"ball"``, ``"box"``, ``"door"``, ``"goal"``, ``"lava"``."""


@dataclass(frozen=True, slots=True)
class View:
    """What is visible in one state."""

    visible: int
    """The visible cells."""
    things: tuple[Seen, ...]
    """The visible objects, nearest first."""
    sees_wall: bool
    barrier: tuple[str, int] | None
    """The nearest visible wall or box straight ahead and how many steps it is away."""
    blocked: int
    """Visible cells that cannot be walked on; doors can, whatever their state."""


def look(world: World) -> View:
    """Return what the agent sees; the same cells as minigrid's ``gen_obs_grid``."""
    origin = world.index(*world.agent_pos)
    cells = world.cells
    content = [cells[origin + offset] for offset in _offsets(world.stride, world.agent_dir)]
    visible = _visible_cells(content)
    things: list[Seen] = []
    counts: dict[str, int] = {}
    blocked, sees_wall = 0, False
    for cell in _NEAREST_FIRST:
        thing = content[cell]
        if thing is None or not visible >> cell & 1:
            continue
        if thing is WALL:
            sees_wall = True
            blocked |= 1 << cell
            continue
        kind = thing.type
        name = name_of(thing)
        number = counts[name] = counts.get(name, 0) + 1
        things.append(Seen(cell, name, number, kind))
        if kind not in ("door", "goal"):
            blocked |= 1 << cell
    return View(visible, tuple(things), sees_wall, _barrier(content, visible), blocked)


def name_of(thing: Any) -> str:
    """Return how the text calls an object, without its number."""
    if thing.type != "door":
        return f"{thing.color} {thing.type}"
    state = "open" if thing.is_open else "locked" if thing.is_locked else "closed"
    return f"{thing.color} {state} door"


def thing_at(world: World, cell: int) -> Any:
    """Return the object in a cell of the view."""
    return world.cells[world.index(*world.agent_pos) + _offsets(world.stride, world.agent_dir)[cell]]


def positions(world: World, cells: int) -> list[tuple[int, int]]:
    """Return the grid positions ``(x, y)`` of a set of cells of the view."""
    x, y = world.agent_pos
    vectors = _vectors(world.agent_dir)
    return [(x + dx, y + dy) for cell, (dx, dy) in enumerate(vectors) if cells >> cell & 1]


def _barrier(content: list[Any], visible: int) -> tuple[str, int] | None:
    for steps, cell in enumerate(_COLUMN_AHEAD, start=1):
        thing = content[cell]
        if thing is not None and visible >> cell & 1 and thing.type in ("wall", "box"):
            return thing.type, steps
    return None


@functools.cache
def _vectors(direction: int) -> tuple[tuple[int, int], ...]:
    """Vector ``(x, y)`` from the agent to each cell of its view."""
    ahead_x, ahead_y = DIRECTIONS[direction]
    right_x, right_y = DIRECTIONS[(direction + 1) % 4]
    steps = (steps_to(cell) for cell in range(VIEW * VIEW))
    return tuple(
        (ahead * ahead_x + right * right_x, ahead * ahead_y + right * right_y) for ahead, right in steps
    )


@functools.cache
def _offsets(stride: int, direction: int) -> tuple[int, ...]:
    """Distance in ``World.cells`` from the agent to each cell of its view."""
    return tuple(dy * stride + dx for dx, dy in _vectors(direction))


def _visible_cells(content: list[Any]) -> int:
    """Spread sight from the agent's cell row by row; walls and shut doors stop it."""
    visible = 0
    row = 1 << VIEW // 2
    for start in range(VIEW * (VIEW - 1), -1, -VIEW):
        if not row:
            break
        clear = 0
        for i in range(VIEW):
            thing = content[start + i]
            if thing is None or (thing is not WALL and (thing.type != "door" or thing.is_open)):
                clear |= 1 << i
        row, next_row = _spread(row, clear)
        visible |= row << start
        row = next_row
    return visible


@functools.cache  # at most 2**14 entries
def _spread(lit: int, clear: int) -> tuple[int, int]:
    """Spread sight within a row and into the next, as minigrid's ``process_vis`` does.

    Args:
        lit: Cells of the row that the row before lit up, one bit each.
        clear: Cells of the row that let sight through.

    Returns:
        The visible cells of the row, and those it lights up in the next.
    """
    ahead = 0
    for i in range(VIEW - 1):
        if lit & clear & 1 << i:
            lit |= 1 << i + 1
            ahead |= 0b11 << i
    for i in range(VIEW - 1, 0, -1):
        if lit & clear & 1 << i:
            lit |= 1 << i - 1
            ahead |= 0b11 << i - 1
    return lit, ahead


class Routes:
    """Shortest sequences of primitive actions to the cells of the view.

    Found by breadth-first search over (cell, direction), trying forward, left,
    right in this order. Cells that are not visible count as free.
    """

    __slots__ = ("_facing", "_onto", "_parents")

    def __init__(self, parents: list[int], facing: dict[int, int], onto: dict[int, int]) -> None:
        """Hold the search tree; see ``find_routes``."""
        self._parents = parents
        self._facing = facing
        self._onto = onto

    def facing(self, cell: int) -> list[int] | None:
        """Return the primitives that end next to a cell and looking at it; None if there are none."""
        return self._path(self._facing.get(cell))

    def onto(self, cell: int) -> list[int] | None:
        """Return the primitives that end on a cell; None if there are none."""
        return self._path(self._onto.get(cell))

    def _path(self, state: int | None) -> list[int] | None:
        if state is None:
            return None
        path = []
        while state != _START:
            state, action = divmod(self._parents[state], 4)
            path.append(action)
        return path[::-1]


# States are cell * 4 + turn, where turn counts quarter turns to the right since the start.
_START = AGENT * 4
_STEP = ((-1, 0), (0, 1), (1, 0), (0, -1))  # (row, column) of a step forward, by turn


def _cell_in_front(cell: int, turn: int) -> int | None:
    row, column = divmod(cell, VIEW)
    row, column = row + _STEP[turn][0], column + _STEP[turn][1]
    return row * VIEW + column if 0 <= row < VIEW and 0 <= column < VIEW else None


_IN_FRONT = tuple(_cell_in_front(cell, turn) for cell in range(VIEW * VIEW) for turn in range(4))


@functools.lru_cache(maxsize=4096)  # the same view comes back often, in other rollouts of a task above all
def find_routes(blocked: int) -> Routes:
    """Search the view once for the ways to all of its cells.

    Args:
        blocked: Cells that cannot be walked on.
    """
    parents = [-1] * (VIEW * VIEW * 4)
    parents[_START] = 0
    facing: dict[int, int] = {}
    onto: dict[int, int] = {}
    queue = [_START]
    for state in queue:
        cell, turn = state >> 2, state & 3
        onto.setdefault(cell, state)
        front = _IN_FRONT[state]
        if front is not None:
            facing.setdefault(front, state)
            ahead = front << 2 | turn
            if parents[ahead] < 0 and not blocked >> front & 1:
                parents[ahead] = state << 2 | FORWARD
                queue.append(ahead)
        for action, turned in ((LEFT, cell << 2 | turn - 1 & 3), (RIGHT, cell << 2 | turn + 1 & 3)):
            if parents[turned] < 0:
                parents[turned] = state << 2 | action
                queue.append(turned)
    return Routes(parents, facing, onto)
