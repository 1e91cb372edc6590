"""The grid world: minigrid's objects and rules, without its images, and cheap to copy.

``MiniGridEnv.step`` draws an image for every primitive action and
``copy.deepcopy`` copies random generators and spaces. A :class:`World` holds
only what the rules need. It offers the attributes that minigrid's verifier and
its bot read (``grid``, ``agent_pos``, ``front_pos``, ``unwrapped``, ...), so both
work on it unchanged; the tests hold it against the original.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from minigrid.core.actions import Actions
from minigrid.core.world_object import Wall, WorldObj
from minigrid.envs.babyai.core.verifier import GoToInstr, Instr, ObjDesc

__all__ = ["DIRECTIONS", "DROP", "FORWARD", "LEFT", "PICKUP", "RIGHT", "TOGGLE", "VIEW", "WALL", "World"]

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)
"""Primitive actions, numbered as in ``minigrid.core.actions.Actions``."""

DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Unit vectors ``(x, y)`` of the agent's directions: right, down, left, up."""

VIEW = 7
"""Cells the agent sees ahead (its own row included) and from side to side."""

WALL = Wall()
"""Stands for every wall: walls never change, so all worlds share one."""

_VECTORS = tuple(np.array(direction) for direction in DIRECTIONS)
_MARGIN = VIEW - 1  # so that a view from any cell stays inside `cells`


class World:
    """State of one episode in primitive actions.

    Attributes:
        width: Columns of the grid.
        height: Rows of the grid.
        stride: Length of a row of ``cells``.
        cells: The grid row by row with a margin of walls on every side: empty cells
            are None, walls are ``WALL``, everything else is an object of this world.
        things: The objects in ``cells`` by index, walls left out.
        agent_pos: ``(x, y)`` of the agent, without the margin.
        agent_dir: Index into ``DIRECTIONS``.
        carrying: The object in the agent's hands, or None.
        step_count: Primitive actions so far.
        max_steps: Primitive actions after which minigrid ends the episode.
        mission: The goal as minigrid words it.
        instrs: minigrid's verifier of the goal.
        verdict: What the verifier decided, ``"success"`` or ``"failure"``; None before.
            It is not consulted again.
        latest: What the verifier decided of the last primitive action: ``"success"``, ``"failure"``
            or ``"continue"``.
        score: minigrid's reward when the goal was met, 0.0 otherwise.
    """

    __slots__ = (
        "agent_dir",
        "agent_pos",
        "carrying",
        "cells",
        "fulfilled",
        "height",
        "instrs",
        "latest",
        "max_steps",
        "mission",
        "score",
        "step_count",
        "stride",
        "things",
        "verdict",
        "width",
    )

    width: int
    height: int
    stride: int
    cells: list[Any]
    things: dict[int, Any]
    agent_pos: tuple[int, int]
    agent_dir: int
    carrying: Any
    step_count: int
    max_steps: int
    mission: str
    instrs: Any
    verdict: str | None
    """The first one, as in minigrid: ``success``, ``failure``, or None."""
    latest: str
    fulfilled: bool
    """Whether the last primitive action fulfilled the mission."""
    score: float
    """minigrid's reward of the latest success; 0 before."""

    # What minigrid's verifier and bot expect of an environment.
    actions = Actions
    agent_view_size = VIEW

    @classmethod
    def of(cls, env: Any) -> Self:
        """Take over a minigrid environment that was just reset (its objects are copied)."""
        copier = _Copier()
        world = cls()
        world.width, world.height = int(env.width), int(env.height)
        world.stride = world.width + 2 * _MARGIN
        world.cells = [WALL] * (world.stride * (world.height + 2 * _MARGIN))
        world.things = {}
        for y in range(world.height):
            for x in range(world.width):
                world.set(x, y, copier.thing(env.grid.get(x, y)))
        world.agent_pos = _integers(env.agent_pos)
        world.agent_dir = int(env.agent_dir)
        world.carrying = copier.thing(env.carrying)
        world.step_count, world.max_steps = int(env.step_count), int(env.max_steps)
        world.mission = str(env.mission)
        world.instrs = copier.instruction(env.instrs, world)
        world.verdict, world.latest, world.fulfilled, world.score = None, "continue", False, 0.0
        return world

    def fork(self) -> World:
        """Return an independent copy in the same state."""
        copier = _Copier()
        other = World()
        other.width, other.height, other.stride = self.width, self.height, self.stride
        other.cells = self.cells.copy()
        other.things = {}
        for index, thing in self.things.items():
            other.cells[index] = other.things[index] = copier.thing(thing)
        other.agent_pos, other.agent_dir = self.agent_pos, self.agent_dir
        other.carrying = copier.thing(self.carrying)
        other.step_count, other.max_steps = self.step_count, self.max_steps
        other.mission = self.mission
        other.instrs = copier.instruction(self.instrs, other)
        other.verdict, other.latest = self.verdict, self.latest
        other.fulfilled, other.score = self.fulfilled, self.score
        return other

    def index(self, x: int, y: int) -> int:
        """Return where cell ``(x, y)`` is in ``cells``."""
        return (y + _MARGIN) * self.stride + x + _MARGIN

    def act(self, action: int) -> bool:
        """Carry out one primitive action, as minigrid's ``step`` does.

        Returns:
            Whether it changed anything in the world.
        """
        self.step_count += 1
        changed = self._carry_out(action)
        if action == DROP:
            _update_positions(self.instrs)
        verdict = self.latest = self.instrs.verify(action)
        if self.verdict is None and verdict != "continue":
            self.verdict = verdict
        self.fulfilled = verdict == self.verdict == "success"
        if verdict == "success":
            self.score = 1 - 0.9 * (self.step_count / self.max_steps)
        return changed

    def _carry_out(self, action: int) -> bool:
        if action == LEFT:
            self.agent_dir = (self.agent_dir - 1) % 4
            return True
        if action == RIGHT:
            self.agent_dir = (self.agent_dir + 1) % 4
            return True
        front = self.front_pos
        index = self.index(*front)
        ahead = self.cells[index]
        if action == FORWARD:
            if ahead is not None and not ahead.can_overlap():
                return False
            self.agent_pos = front
            return True
        if action == PICKUP:
            if ahead is None or self.carrying is not None or not ahead.can_pickup():
                return False
            self.carrying = ahead
            ahead.cur_pos = (-1, -1)
            self._put(index, None)
            return True
        if action == DROP:
            if ahead is not None or self.carrying is None:
                return False
            self._put(index, self.carrying)
            self.carrying.cur_pos = front
            self.carrying = None
            return True
        if action == TOGGLE:
            return ahead is not None and bool(ahead.toggle(self, front))
        raise ValueError(f"unknown primitive action {action}")

    def _put(self, index: int, thing: Any) -> None:
        self.cells[index] = thing
        if thing is None or thing is WALL:
            self.things.pop(index, None)
        else:
            self.things[index] = thing

    # ------- what minigrid's verifier, objects and bot call on an environment or its grid -------

    @property
    def unwrapped(self) -> World:
        """The environment without wrappers."""
        return self

    @property
    def grid(self) -> World:
        """The grid; this object plays both parts."""
        return self

    def get(self, x: int, y: int) -> Any:
        """Return what stands at ``(x, y)``."""
        return self.cells[(y + _MARGIN) * self.stride + x + _MARGIN]

    def set(self, x: int, y: int, thing: Any) -> None:
        """Put an object, or None, at ``(x, y)``."""
        self._put(self.index(x, y), thing)

    @property
    def front_pos(self) -> tuple[int, int]:
        """The cell in front of the agent."""
        (x, y), (dx, dy) = self.agent_pos, DIRECTIONS[self.agent_dir]
        return x + dx, y + dy

    @property
    def dir_vec(self) -> Any:
        """Direction of the agent as an array."""
        return _VECTORS[self.agent_dir]

    @property
    def right_vec(self) -> Any:
        """Direction to the right of the agent as an array."""
        return _VECTORS[(self.agent_dir + 1) % 4]

    def room_from_pos(self, x: int, y: int) -> None:
        """Return nothing: rooms matter only to "on your left" and the like, which is settled at reset."""


class _GoTo(GoToInstr):
    """The same check without building two arrays for each candidate position."""

    def verify_action(self, action: int) -> str:
        return "success" if self.env.front_pos in self.desc.obj_poss else "continue"


class _Copier:
    """Copies objects and instructions so that what was one object stays one object."""

    def __init__(self) -> None:
        self._copies: dict[int, Any] = {}

    def thing(self, thing: Any) -> Any:
        """Copy an object of the grid; walls are all the same."""
        if thing is None or thing is WALL:
            return thing
        if thing.type == "wall":
            return WALL
        copy = self._copies.get(id(thing))
        if copy is None:
            copy = self._copies[id(thing)] = _shell(type(thing), thing)
            if copy.cur_pos is not None:
                copy.cur_pos = _integers(copy.cur_pos)
            copy.contains = self.thing(copy.contains)
        return copy

    def instruction(self, instr: Any, world: World) -> Any:
        """Copy an instruction with its state, for another world."""
        kind = _GoTo if type(instr) is GoToInstr else type(instr)
        copy = _shell(kind, instr)
        copy.env = world
        for name, value in vars(instr).items():
            if isinstance(value, ObjDesc):
                setattr(copy, name, self._description(value))
            elif isinstance(value, Instr):
                setattr(copy, name, self.instruction(value, world))
            elif isinstance(value, WorldObj):  # what was carried before the last action
                setattr(copy, name, self.thing(value))
        return copy

    def _description(self, desc: Any) -> Any:
        copy = self._copies.get(id(desc))
        if copy is None:
            copy = self._copies[id(desc)] = _shell(ObjDesc, desc)
            copy.obj_set = [self.thing(thing) for thing in desc.obj_set]
            copy.obj_poss = desc.obj_poss.copy()
        return copy


def _shell(kind: Any, original: Any) -> Any:
    """Return a shallow copy of an object, as class ``kind``."""
    copy = object.__new__(kind)
    copy.__dict__.update(original.__dict__)
    return copy


def _integers(position: Any) -> tuple[int, int]:
    """Replace numpy's integers, which are slow to add, by plain ones."""
    return int(position[0]), int(position[1])


def _update_positions(instr: Any) -> None:
    """Tell every clause of an instruction that an object was put down."""
    if hasattr(instr, "instr_a"):
        _update_positions(instr.instr_a)
        _update_positions(instr.instr_b)
    else:
        instr.update_objs_poss()
