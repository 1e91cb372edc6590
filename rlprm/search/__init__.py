"""Test-time search: more samples for a task, and a scorer that chooses among them.

Each module in this package is one strategy, loaded by its name, with a function
``search``. A result is a trajectory, the costs of the search, and a record of every candidate.

A strategy is best written as a plan for one task (:mod:`rlprm.search.rounds`), which then runs for all tasks
side by side, with exact costs and within its budget.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, cast

from rlprm.components import available_in, load_component
from rlprm.search.base import EPISODES, SearchModule, SearchResult
from rlprm.search.record import Node

__all__ = ["REQUIRED", "Node", "SearchModule", "SearchResult", "available", "load", "width"]

_NOT_STRATEGIES = frozenset({"base", "ledger", "record", "rounds"})
REQUIRED = ("search",)
_SIDE_BY_SIDE = ("n", "m", "k", "width", "trees")


def available() -> list[str]:
    """Names of the search strategies that come with the package."""
    return available_in(__name__, exclude=_NOT_STRATEGIES)


def load(name: str) -> SearchModule:
    """Import a strategy by name, dotted path, or path of a ``.py`` file.

    The name must come from the run's settings.

    Raises:
        UnknownComponentError: listing the names there are.
        ConfigError: if a module of the user's own cannot be imported, or lacks a required name.
    """
    return cast(
        SearchModule,
        load_component(__name__, name, "search strategy", exclude=_NOT_STRATEGIES, needs=REQUIRED),
    )


def width(module: SearchModule, settings: Mapping[str, Any]) -> int:
    """How many candidates of one task act side by side at most, as far as the settings say.

    Args:
        module: a strategy. Its ``SIDE_BY_SIDE`` names the settings that multiply them. Without these names,
            every setting counts that is called n, m, k, width or trees.
        settings: of the strategy; those that are missing have their defaults, and no limit counts as 16.
    """
    names: tuple[str, ...] = getattr(module, "SIDE_BY_SIDE", _SIDE_BY_SIDE)
    parameters = inspect.signature(module.search).parameters
    defaults = {name: parameters[name].default if name in parameters else 1 for name in names}
    values = [settings.get(name, default) for name, default in defaults.items()]
    counts = [EPISODES if value is None else value for value in values]
    return math.prod(max(count, 1) for count in counts if isinstance(count, int))
