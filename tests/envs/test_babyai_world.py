"""BabyAI: the world and its copies, held against minigrid itself."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from minigrid.core.world_object import Ball, Box, Key
from minigrid.envs.babyai.core import verifier
from minigrid.envs.babyai.core.verifier import ObjDesc, PutNextInstr

from rlprm.envs import babyai
from rlprm.envs.babyai.levels import pristine_world
from rlprm.envs.babyai.view import look, name_of, positions, thing_at
from rlprm.envs.babyai.world import DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE, World
from rlprm.types import End
from tests.toys.babyai import original, room, task

# ---------------------------------------------------------------------------- against minigrid itself

COMPARED = [
    "GoToLocalS8N7",
    "GoToSeqS5R2",
    "Open",
    "OpenRedBlueDoorsDebug",
    "PickupDistDebug",
    "PutNextLocalS6N4",
    "PutNextS7N4Carrying",
    "UnlockLocalDist",
    "KeyInBox",
    "BlockedUnlockPickup",
    "MiniBossLevel",
]
MOVES = [LEFT, RIGHT, FORWARD, FORWARD, FORWARD, PICKUP, PICKUP, DROP, TOGGLE, TOGGLE]


def wander(level: str, seed: int, steps: int) -> Any:
    """Random primitive actions in minigrid and in a World at the same time."""
    env, world = original(level, seed), pristine_world(level, seed).fork()
    rng = random.Random(f"{level}-{seed}")
    ended = False
    yield env, world
    for _ in range(min(steps, env.max_steps)):
        action = rng.choice(MOVES)
        _, reward, terminated, _, _ = env.step(action)
        world.act(action)
        if not ended:
            assert terminated == (world.verdict is not None)
            assert reward == world.score
            ended = terminated
        yield env, world


def describe(thing: Any) -> tuple[str, ...] | None:
    return None if thing is None else (name_of(thing), *(describe(getattr(thing, "contains", None)) or ()))


@pytest.mark.parametrize("level", COMPARED)
def test_the_world_follows_minigrid(level: str) -> None:
    for seed in range(3):
        for env, world in wander(level, seed, 150):
            assert tuple(env.agent_pos) == world.agent_pos
            assert env.agent_dir == world.agent_dir
            assert env.step_count == world.step_count
            assert describe(env.carrying) == describe(world.carrying)
            assert list(map(describe, env.grid.grid)) == [
                describe(world.get(x, y)) for y in range(world.height) for x in range(world.width)
            ]
            assert world.things == {
                i: thing for i, thing in enumerate(world.cells) if thing is not None and thing.type != "wall"
            }


@pytest.mark.parametrize("level", COMPARED)
def test_what_is_visible_is_what_minigrid_shows(level: str) -> None:
    for seed in range(3):
        for env, world in wander(level, seed, 100):
            grid, mask = env.gen_obs_grid()
            view = look(world)
            assert view.visible == sum(1 << int(y * 7 + x) for x, y in np.argwhere(mask))
            shown = {
                y * 7 + x: name_of(grid.get(x, y))
                for x, y in map(tuple, np.argwhere(mask))
                if (x, y) != (3, 6) and grid.get(x, y) is not None and grid.get(x, y).type != "wall"
            }
            assert {seen.cell: seen.name for seen in view.things} == shown
            assert all(name_of(thing_at(world, cell)) == name for cell, name in shown.items())


def test_positions_of_view_cells_are_minigrids() -> None:
    for env, world in wander("GoToSeqS5R2", 1, 60):
        for cell in range(49):
            ((x, y),) = positions(world, 1 << cell)
            assert env.get_view_coords(x, y) == (cell % 7, cell // 7)


def test_the_verifier_shortcut_decides_like_minigrids() -> None:
    assert not verifier.use_done_actions  # the one setting of minigrid that would change the rules
    for env, world in wander("GoToObjDoor", 3, 200):
        facing = any(np.array_equal(place, env.front_pos) for place in env.instrs.desc.obj_poss)
        assert (world.instrs.verify_action(FORWARD) == "success") == facing


# ---------------------------------------------------------------------------- copies


def snapshot(world: World) -> Any:
    cells = [describe(thing) for thing in world.cells]
    return (
        cells,
        world.agent_pos,
        world.agent_dir,
        describe(world.carrying),
        world.step_count,
        world.verdict,
        world.fulfilled,
        world.score,
    )


@pytest.mark.parametrize("level", COMPARED)
def test_a_fork_acts_like_the_original_and_leaves_it_alone(level: str) -> None:
    rng = random.Random(level)
    world = pristine_world(level, 5).fork()
    for _ in range(6):
        fork, before = world.fork(), snapshot(world)
        actions = rng.choices(MOVES, k=20)
        changes = [fork.act(action) for action in actions]
        assert snapshot(world) == before
        assert [world.act(action) for action in actions] == changes
        assert snapshot(fork) == snapshot(world)


def test_a_fork_keeps_apart_what_was_apart_and_together_what_was_together() -> None:
    goal = PutNextInstr(ObjDesc("box", "red"), ObjDesc("ball", "blue"))
    things = {(3, 5): Box("red", Key("green")), (5, 5): Ball("blue")}
    world = room(things, goal)._start.fork()
    world.act(PICKUP)
    fork = world.fork()
    assert fork.carrying is not world.carrying
    assert fork.carrying is fork.instrs.desc_move.obj_set[0] is fork.instrs.preCarrying
    assert fork.carrying.contains is not world.carrying.contains
    assert fork.instrs.desc_fixed.obj_set[0] is fork.get(5, 5)
    assert fork.instrs.env is fork
    assert world.instrs.env is world


def test_a_world_from_the_cache_equals_a_fresh_one() -> None:
    def transcript() -> list[str]:
        episode = babyai.make(task("GoToSeqS5R2", 3), end=End.DECLARED)
        first = episode.reset()
        return [
            first,
            *(episode.step(a).observation for a in ("turn left", "move forward", "turn left", "check")),
        ]

    pristine_world.cache_clear()
    fresh = transcript()
    for seed in range(3):  # the generator is shared between seeds
        pristine_world("GoToSeqS5R2", seed)
    assert transcript() == fresh
    pristine_world.cache_clear()
    assert transcript() == fresh


@pytest.mark.parametrize("level", ["GoToLocalS8N7", "BossLevel", "SynthLoc"])
def test_a_generator_used_before_makes_the_same_worlds(level: str) -> None:
    pristine_world.cache_clear()
    for seed in (4, 2, 9, 4):
        env, world = original(level, seed), pristine_world(level, seed)
        assert env.mission == world.mission
        assert env.max_steps == world.max_steps
        assert list(map(describe, env.grid.grid)) == [
            describe(world.get(x, y)) for y in range(world.height) for x in range(world.width)
        ]
