"""The 40 levels, their splits, and the generated worlds."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
from collections.abc import Sequence
from typing import Any

import gymnasium
import minigrid  # noqa: F401  (importing it registers the levels)

from rlprm.envs._splits import numbered
from rlprm.envs.babyai.rules import ROUND_LIMIT, Rules
from rlprm.envs.babyai.world import World
from rlprm.errors import ConfigError
from rlprm.types import Split, Task

__all__ = [
    "DEFAULT_LEVELS",
    "LEVELS",
    "detours_of",
    "longest_demonstration",
    "pristine_world",
    "task_address",
    "tasks",
]

LEVELS: tuple[str, ...] = (
    "GoToRedBallGrey",
    "GoToRedBall",
    "GoToRedBallNoDists",
    "GoToObjS6",
    "GoToLocalS8N7",
    "GoToObjMazeS7",
    "GoToImpUnlock",
    "GoToSeqS5R2",
    "GoToRedBlueBall",
    "GoToDoor",
    "GoToObjDoor",
    "Open",
    "OpenRedDoor",
    "OpenDoorLoc",
    "OpenRedBlueDoorsDebug",
    "OpenDoorsOrderN4Debug",
    "Pickup",
    "UnblockPickup",
    "PickupLoc",
    "PickupDistDebug",
    "PickupAbove",
    "PutNextLocalS6N4",
    "PutNextS7N4Carrying",
    "Unlock",
    "UnlockLocalDist",
    "KeyInBox",
    "UnlockPickupDist",
    "BlockedUnlockPickup",
    "UnlockToUnlock",
    "ActionObjDoor",
    "FindObjS7",
    "KeyCorridorS6R3",
    "OneRoomS20",
    "MoveTwoAcrossS8N9",
    "SynthS5R2",
    "SynthLoc",
    "SynthSeq",
    "MiniBossLevel",
    "BossLevel",
    "BossLevelNoUnlock",
)
"""In AgentGym's order: its task ``data_idx`` is level ``data_idx % 40`` with seed ``data_idx // 40``."""

DEFAULT_LEVELS: tuple[str, ...] = ("GoToRedBall", "GoToLocalS8N7", "GoToObjDoor", "PickupLoc", "OpenDoorLoc")
"""One room to search, an object or a door to go to, pick up or open."""

_BEFORE_RULES = "GoToObjS6-v1"
"""The world of GoToObjS6 in tasks without ``rules`` in their spec, which earlier versions made."""
_REGISTERED = {
    # minigrid registered version 0 of this level, which AgentGym plays, with rooms of 4 x 4 cells (2 x 2 of
    # them free), and later withdrew it. GoToObjS4 has the same class and arguments, and so the same worlds.
    "GoToObjS6": "GoToObjS4-v0",
    _BEFORE_RULES: "GoToObjS6-v1",
}

_RULES = [rules.value for rules in Rules]
_WORLDS_KEPT = 256
_generating = threading.Lock()


def tasks(
    split: Split,
    start: int,
    count: int,
    *,
    levels: Sequence[str] = DEFAULT_LEVELS,
    rules: str = Rules.FIXED.value,
    demonstration_limit: int = ROUND_LIMIT,
    detours: float = 0.0,
    **unknown: Any,
) -> list[Task]:
    """Return tasks ``start ... start + count - 1`` of a split; the same arguments give the same tasks.

    Task ``i`` is level ``levels[i % len(levels)]`` with seed
    ``base(split) + i // len(levels)``. The base of the test split is 0, so with
    ``levels=LEVELS`` test task ``i`` is AgentGym's ``data_idx`` ``i``.

    Args:
        split: Which of the disjoint task lists.
        start: Index of the first task, at least 0.
        count: How many tasks, at least 0.
        levels: Short level names such as ``"GoToLocalS8N7"``, without repetition.
        rules: ``"fixed"``, or ``"agentgym"`` for what AgentGym's server does, mistakes included.
        demonstration_limit: Most actions of the expert's demonstrations, ``finish`` included. Raise it
            together with the episodes' ``round_limit``.
        detours: Probability in [0, 1) that the expert of the demonstrations makes a detour at a turn: it
            goes to the nearest visible thing that it does not need, or turns away. Every demonstration
            still reaches its goal.
        unknown: Nothing; any other setting is an error.

    Raises:
        ConfigError: for unknown settings, levels or rules, or a range the split does not have.
    """
    if unknown:
        raise ConfigError(
            f"unknown babyai setting {sorted(unknown)}; allowed: levels, rules, demonstration_limit, detours"
        )
    names = _checked_levels(levels)
    if rules not in _RULES:
        raise ConfigError(f"babyai rules: got {rules!r}, allowed: {', '.join(_RULES)}")
    if not _is_limit(demonstration_limit):
        raise ConfigError(f"babyai demonstration_limit: got {demonstration_limit!r}, allowed: 1 or more")
    if not _is_share(detours):
        raise ConfigError(f"babyai detours: got {detours!r}, allowed: at least 0 and below 1")
    spec: dict[str, Any] = {"rules": str(rules)}
    if demonstration_limit != ROUND_LIMIT:
        spec["demonstration_limit"] = demonstration_limit
    if detours:
        spec["detours"] = float(detours)
    addresses = numbered("babyai", Split(split), start, count, kinds=names, kind="level")
    return [
        Task("babyai", f"{level}-{seed}", Split(split), {"level": level, "seed": seed, **spec})
        for level, seed in addresses
    ]


def longest_demonstration(task: Task) -> int:
    """Return the most actions of a task's demonstration.

    Raises:
        ConfigError: if the task's ``spec`` has another limit than a positive number.
    """
    limit = task.spec.get("demonstration_limit", ROUND_LIMIT)
    if not _is_limit(limit):
        raise ConfigError(f"not a babyai task: {task.id!r} with spec {dict(task.spec)!r}")
    return int(limit)


def detours_of(task: Task) -> float:
    """Return the probability that the expert of a task makes a detour at a turn.

    Raises:
        ConfigError: if the task's ``spec`` has another value than a probability below 1.
    """
    detours = task.spec.get("detours", 0.0)
    if not _is_share(detours):
        raise ConfigError(f"not a babyai task: {task.id!r} with spec {dict(task.spec)!r}")
    return float(detours)


def task_address(task: Task) -> tuple[str, int, Rules]:
    """Return world, seed and rules of a task.

    Raises:
        ConfigError: if its ``spec`` is not one of this environment.
    """
    level, seed, rules = (task.spec.get(name) for name in ("level", "seed", "rules"))
    if (
        level not in LEVELS
        or not isinstance(seed, int)
        or isinstance(seed, bool)
        or seed < 0
        or not (rules is None or rules in _RULES)
    ):
        raise ConfigError(f"not a babyai task: {task.id!r} with spec {dict(task.spec)!r}")
    is_older = rules is None and level == "GoToObjS6"
    return _BEFORE_RULES if is_older else str(level), seed, Rules(rules or Rules.FIXED)


@functools.lru_cache(maxsize=_WORLDS_KEPT)
def pristine_world(level: str, seed: int) -> World:
    """Return the world of a level and seed at its start. Fork it, never act in it.

    Kept for the most recent tasks, because a task is usually rolled out many times.
    """
    # The lock also covers the generator, which is shared between seeds, and the
    # redirection, which is global to the process.
    with _generating, contextlib.redirect_stdout(io.StringIO()):  # "Sampling rejected: ..."
        generator = _generator(level)
        generator.reset(seed=seed)
        return World.of(generator)


@functools.cache
def _generator(level: str) -> Any:
    gym_id = f"BabyAI-{_REGISTERED.get(level, f'{level}-v0')}"
    generator = gymnasium.make(gym_id, disable_env_checker=True).unwrapped
    # Instance attribute over method: the image is never used, and drawing it costs more than the level.
    generator.gen_obs = dict
    return generator


def _checked_levels(levels: Any) -> tuple[str, ...]:
    if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
        raise ConfigError(f"babyai levels must be a non-empty list of names, got {levels!r}")
    strangers = [name for name in levels if name not in LEVELS]
    if strangers:
        raise ConfigError(f"unknown babyai level(s) {strangers}; known: {', '.join(LEVELS)}")
    if len(set(levels)) < len(levels):
        raise ConfigError(f"babyai levels must not repeat, got {list(levels)}")
    return tuple(levels)


def _is_limit(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
