"""BabyAI's tasks, rooms made by hand, and what an observation lists."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import gymnasium
from minigrid.core.grid import Grid
from minigrid.envs.babyai.core.verifier import GoToInstr, ObjDesc

from rlprm.envs.babyai.environment import BabyAI
from rlprm.envs.babyai.served import ServedBabyAI
from rlprm.envs.babyai.world import World
from rlprm.types import End, Split, Task

RIGHTWARD, DOWNWARD, LEFTWARD, UPWARD = range(4)

_Episode = TypeVar("_Episode", BabyAI, ServedBabyAI)


def task(level: str, seed: int = 0) -> Task:
    return Task("babyai", f"{level}-{seed}", Split.TEST, {"level": level, "seed": seed, "rules": "fixed"})


def original(level: str, seed: int) -> Any:
    """minigrid's own environment, just reset."""
    env = gymnasium.make(f"BabyAI-{level}-v0", disable_env_checker=True).unwrapped
    env.reset(seed=seed)
    return env


def room(
    things: dict[tuple[int, int], Any],
    goal: Any,
    agent: tuple[int, int] = (3, 6),
    direction: int = UPWARD,
    end: End = End.ON_SUCCESS,
    carrying: Any = None,
) -> BabyAI:
    """An episode in a room of 6 x 6 free cells, (1, 1) to (6, 6), made by hand."""
    return BabyAI(start(things, goal, agent, direction, carrying), end=end)


def served_room(
    things: dict[tuple[int, int], Any],
    goal: Any,
    agent: tuple[int, int] = (3, 6),
    direction: int = UPWARD,
    carrying: Any = None,
    size: int = 8,
) -> ServedBabyAI:
    """The same by AgentGym's rules; ``size`` counts the walls of the room."""
    return ServedBabyAI(start(things, goal, agent, direction, carrying, size))


def start(
    things: dict[tuple[int, int], Any],
    goal: Any,
    agent: tuple[int, int],
    direction: int,
    carrying: Any = None,
    size: int = 8,
) -> World:
    """A world of one room, with the step limit of a room of 8 x 8 cells: 64."""
    env = original("GoToRedBallNoDists", 0)
    env.width = env.height = env.room_size = size
    env.grid = Grid(size, size)
    env.grid.wall_rect(0, 0, size, size)
    for position, thing in things.items():
        env.put_obj(thing, *position)
    env.agent_pos, env.agent_dir, env.carrying = agent, direction, carrying
    env.instrs = goal
    env.mission = goal.surface(env)
    goal.reset_verifier(env)
    return World.of(env)


def goto(kind: str, color: str) -> GoToInstr:
    return GoToInstr(ObjDesc(kind, color))


def started(episode: _Episode) -> _Episode:
    episode.reset()
    return episode


def listed(observation: str) -> list[str]:
    """The available actions as the agent reads them."""
    return re.findall(r'"([^"]*)"', observation.splitlines()[-1])
