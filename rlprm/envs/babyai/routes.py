"""Where the agent can go within its view: shortest sequences of primitive actions.

:func:`find_routes` searches the 7 x 7 view. :func:`find_server_routes` searches what AgentGym's server does,
which depends on the compass direction of the agent and breaks ties differently.
"""

from __future__ import annotations

import functools

from rlprm.envs.babyai.view import AGENT
from rlprm.envs.babyai.world import FORWARD, LEFT, RIGHT, VIEW

__all__ = ["Routes", "find_routes", "find_server_routes"]


class Routes:
    """Shortest sequences of primitive actions to the cells of the view.

    They come from a breadth-first search over (cell, direction), which tries forward, left,
    right in this order. Cells that are not visible count as free.
    """

    __slots__ = ("_facing", "_onto", "_parents", "_start")

    def __init__(
        self, parents: list[int] | dict[int, int], facing: dict[int, int], onto: dict[int, int], start: int
    ) -> None:
        """Hold the search tree; see ``find_routes``."""
        self._parents = parents
        self._facing = facing
        self._onto = onto
        self._start = start

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
        while state != self._start:
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
    return Routes(parents, facing, onto, _START)


# AgentGym's server takes the columns and rows that its search may enter from two opposite corners of the
# view. The sign of their difference decides which of the two ends counts as inside. Seen from the agent, this
# adds the row behind it if it looks right or down, and one more column at the right if it looks down or left.
# The index is that of ``DIRECTIONS``.
_ROW_BEHIND = (True, True, False, False)
_COLUMN_RIGHT = (False, True, True, False)
_WIDE = VIEW + 1


@functools.lru_cache(maxsize=4096)
def find_server_routes(blocked: int, direction: int) -> Routes:
    """Search as AgentGym's server does, beyond the view and with its choice among shortest ways.

    The server writes down the predecessor of a state each time it meets the state, until it takes the state
    off its queue. A way therefore comes from the last of the possible predecessors. The server's queue holds
    one copy of a state for each way to it. Only the order of the last copies matters for predecessors, and
    only the order of the first copies decides which state is looked at first. Both orders follow from those
    of the level before, so the copies, of which there are exponentially many, are not made here.

    Args:
        blocked: Cells of the view that cannot be walked on.
        direction: Of the agent, index of ``DIRECTIONS``.
    """
    rows, columns = VIEW + _ROW_BEHIND[direction], VIEW + _COLUMN_RIGHT[direction]
    start = _wide(*divmod(AGENT, VIEW)) << 2
    parents = {start: 0}
    facing: dict[int, int] = {}
    onto: dict[int, int] = {}

    def moves(state: int) -> list[tuple[int, int]]:
        """Return action and next state of every move to the next level."""
        cell, turn = state >> 2, state & 3
        row, column = _step_from(cell, turn)
        every = [(LEFT, cell << 2 | turn - 1 & 3), (RIGHT, cell << 2 | turn + 1 & 3)]
        if 0 <= row < rows and 0 <= column < columns and not _holds(blocked, row, column):
            every.insert(0, (FORWARD, _wide(row, column) << 2 | turn))
        # Every action changes the parity of row + column + turn, so no move stays within a level.
        return [(action, after) for action, after in every if after not in parents]

    first, last = [start], [start]  # the states of a level, in the order of their first and last copies
    while first:
        for state in first:
            row, column = divmod(state >> 2, _WIDE)
            if row < VIEW and column < VIEW:
                onto.setdefault(row * VIEW + column, state)
            row, column = _step_from(state >> 2, state & 3)
            if 0 <= row < VIEW and 0 <= column < VIEW:
                facing.setdefault(row * VIEW + column, state)
        next_first = dict.fromkeys(after for state in first for _, after in moves(state))
        next_last: dict[int, int] = {}
        for state in last:
            for action, after in moves(state):
                next_last.pop(after, None)
                next_last[after] = state << 2 | action
        parents |= next_last
        first, last = list(next_first), list(next_last)
    return Routes(parents, facing, onto, start)


def _wide(row: int, column: int) -> int:
    return row * _WIDE + column


def _step_from(wide: int, turn: int) -> tuple[int, int]:
    row, column = divmod(wide, _WIDE)
    return row + _STEP[turn][0], column + _STEP[turn][1]


def _holds(cells: int, row: int, column: int) -> bool:
    return row < VIEW and column < VIEW and bool(cells >> row * VIEW + column & 1)
