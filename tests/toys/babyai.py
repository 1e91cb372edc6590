"""BabyAI's tasks, rooms made by hand, and what an observation lists."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
from minigrid.core.grid import Grid
from minigrid.envs.babyai.core.verifier import GoToInstr, ObjDesc

from rlprm.envs.babyai.environment import BabyAI
from rlprm.envs.babyai.world import World
from rlprm.types import End, Split, Task

RIGHTWARD, DOWNWARD, LEFTWARD, UPWARD = range(4)


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
    env = original("GoToRedBallNoDists", 0)
    env.grid = Grid(8, 8)
    env.grid.wall_rect(0, 0, 8, 8)
    for position, thing in things.items():
        env.put_obj(thing, *position)
    env.agent_pos, env.agent_dir, env.carrying = agent, direction, carrying
    env.instrs = goal
    env.mission = goal.surface(env)
    goal.reset_verifier(env)
    return BabyAI(World.of(env), end=end)


def goto(kind: str, color: str) -> GoToInstr:
    return GoToInstr(ObjDesc(kind, color))


def started(episode: BabyAI) -> BabyAI:
    episode.reset()
    return episode


def listed(observation: str) -> list[str]:
    """The available actions as the agent reads them."""
    return re.findall(r'"([^"]*)"', observation.splitlines()[-1])
