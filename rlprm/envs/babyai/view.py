"""What the agent sees.

Cells of the view are numbered row by row, farthest row first, left to right:
cell ``j * VIEW + i`` is ``VIEW - 1 - j`` steps ahead of the agent and ``i - VIEW // 2``
to its right. The agent stands in the middle of the last row. Sets of cells are
integers with one bit per cell.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from rlprm.envs.babyai.world import DIRECTIONS, VIEW, WALL, World

__all__ = [
    "AGENT",
    "AHEAD",
    "Image",
    "Seen",
    "View",
    "appearance",
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


Image = tuple[str | None, ...]
"""What minigrid's image shows in each cell of the view: a name, or ``""`` for empty, or None for hidden."""


def appearance(world: World) -> Image:
    """Return what minigrid's image of a state shows; in the agent's own cell, what the agent carries."""
    origin = world.index(*world.agent_pos)
    content = [world.cells[origin + offset] for offset in _offsets(world.stride, world.agent_dir)]
    visible = _visible_cells(content)
    content[AGENT] = world.carrying
    return tuple(
        ("" if thing is None else name_of(thing)) if visible >> cell & 1 else None
        for cell, thing in enumerate(content)
    )


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
