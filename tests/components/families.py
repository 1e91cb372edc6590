"""The families of components, so that each test goes through all of them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rlprm import envs, labels, scorers, search
from rlprm.envs.base import EnvironmentModule
from rlprm.labels.base import EstimatorModule
from rlprm.rl import advantages, rewards
from rlprm.rl.advantages.base import AdvantageModule
from rlprm.rl.rewards.base import RewardModule
from rlprm.scorers.base import ScorerModule
from rlprm.search.base import SearchModule
from tests.toys import corridor


class Family(NamedTuple):
    """One family, and a built-in or toy module of it that is a single file."""

    package: Any
    noun: str
    protocol: type
    example: ModuleType
    optional: frozenset[str] = frozenset()


FAMILIES = {
    "envs": Family(
        envs,
        "environment",
        EnvironmentModule,
        corridor,
        frozenset({"FIXED_PHRASES", "tools", "demonstrate", "explain", "read_transcript", "answer"}),
    ),
    "labels": Family(labels, "label estimator", EstimatorModule, labels.load("returns")),  # type: ignore[arg-type]
    "search": Family(search, "search strategy", SearchModule, search.load("greedy")),  # type: ignore[arg-type]
    "rewards": Family(rewards, "step reward", RewardModule, rewards.load("promise")),  # type: ignore[arg-type]
    "advantages": Family(
        advantages,
        "advantage estimator",
        AdvantageModule,
        advantages.load("group"),  # type: ignore[arg-type]
    ),
    "scorers": Family(
        scorers,
        "scorer",
        ScorerModule,
        scorers.load("shortest"),  # type: ignore[arg-type]
        frozenset({"WEIGHTS", "revision"}),
    ),
}


def text_of(module: ModuleType) -> str:
    """The source of a module that is one file."""
    return Path(str(module.__file__)).read_text(encoding="utf-8")
