"""Test-time search: more samples for a task, and a scorer that chooses among them.

Each module in this package is one strategy, loaded by its name, with a function
``search``. A result is a trajectory, the costs of the search, and a record of every candidate.

A strategy is best written as a plan for one task (:mod:`rlprm.search.rounds`), which then runs for all tasks
side by side, with exact costs and within its budget.
"""

from __future__ import annotations

from typing import cast

from rlprm.components import available_in, load_component
from rlprm.search.base import SearchModule, SearchResult
from rlprm.search.record import Node

__all__ = ["REQUIRED", "Node", "SearchModule", "SearchResult", "available", "load", "side_by_side"]

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


def side_by_side(module: SearchModule) -> tuple[str, ...]:
    """Names of the settings that multiply the candidates of a task that act side by side.

    A strategy names them in ``SIDE_BY_SIDE``. Of one that does not, every setting with such a name counts.
    """
    return cast(tuple[str, ...], getattr(module, "SIDE_BY_SIDE", _SIDE_BY_SIDE))
