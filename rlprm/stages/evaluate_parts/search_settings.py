"""The searches of an evaluation, as the settings ``beams`` and ``searches`` ask for them."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlprm import search
from rlprm.components import canonical, check_kwargs
from rlprm.errors import ConfigError
from rlprm.functional.aggregation import AGGREGATIONS
from rlprm.search import SearchModule

__all__ = ["CHOSEN", "Search", "beam", "named"]

CHOSEN = "chosen"
"""Aggregation of a search that takes each scorer's rule of best-of-N."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NOT_SETTINGS = frozenset({"run_seed", "aggregation"})
_OF_SEARCH = ("strategy", "scorers", "policy", "temperature")
"""Keys of a search that are no settings of its strategy."""


@dataclass(frozen=True)
class Search:
    """One search, which every scorer of it runs."""

    name: str
    """Of the row; of the files, with the scorer's."""
    strategy: str
    """Name of the module in ``rlprm.search``, or of the user's own."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the strategy, the aggregation aside."""
    aggregation: str | None = CHOSEN
    """Rule that candidates are ranked by; None if the strategy has none."""
    scorers: tuple[str, ...] | None = None
    """Names of scorers; None for those of all beams."""
    policy: str | None = None
    """Folder or hub id of another policy that acts in this search; None for the evaluation's."""
    temperature: float | None = None
    """Sampling temperature of this search; None for the evaluation's."""
    is_beam: bool = False
    """Whether the setting ``beams`` asked for it."""

    @property
    def title(self) -> str:
        """What progress bars and timings call it."""
        return f"beam {self.name}" if self.is_beam else self.name

    def file_name(self, scorer: str) -> str:
        """Return the name, without an ending, of the file with the candidates of a scorer."""
        return f"{self.title.replace(' ', '-')}-{scorer}"

    @property
    def module(self) -> SearchModule:
        """The strategy."""
        return search.load(self.strategy)

    @property
    def n(self) -> int:
        """The strategy's setting ``n``; 1 if it has none."""
        return self._number("n")

    @property
    def m(self) -> int:
        """The strategy's setting ``m``; 1 if it has none."""
        return self._number("m")

    @property
    def width(self) -> int:
        """How many candidates of one task act side by side, as far as the settings say."""
        return search.width(self.module, self.settings)

    def _number(self, name: str) -> int:
        parameter = inspect.signature(self.module.search).parameters.get(name)
        value = self.settings.get(name, parameter.default if parameter else 1)
        return value if isinstance(value, int) else 1


def beam(n: int, m: int, aggregation: str) -> Search:
    """Return the beam search N×M that ``beams: [NxM]`` asks for."""
    return Search(f"{n}x{m}", "beam", {"n": n, "m": m}, aggregation, is_beam=True)


def named(name: str, given: object, aggregation: str) -> Search:
    """Return one search of the setting ``searches``.

    Args:
        name: its key.
        given: its value, ``{strategy: ..., scorers: [...], policy: ..., temperature: ..., aggregation: ...,
            settings of the strategy}``.
        aggregation: if the value holds none and the strategy takes one.

    Raises:
        ConfigError: for another form, or settings that the strategy does not have.
        UnknownComponentError: for an unknown strategy.
    """
    where = f"searches.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: got that name, allowed: letters, digits, '_', '-' and '.'")
    if not isinstance(given, Mapping) or not isinstance(given.get("strategy"), str):
        raise ConfigError(
            f"{where}: got {given!r}, allowed: a mapping with strategy, scorers and the strategy's settings"
        )
    strategy = canonical(given["strategy"])
    if strategy == "greedy":
        raise ConfigError(f"{where}.strategy: got greedy, which is a row of every table; leave it out")
    wanted = given.get("scorers")
    if wanted is not None and (not isinstance(wanted, list) or not wanted):
        raise ConfigError(f"{where}.scorers: got {wanted!r}, allowed: a list of names of scorers")
    policy = given.get("policy")
    if policy is not None and (not isinstance(policy, str) or not policy):
        raise ConfigError(f"{where}.policy: got {policy!r}, allowed: a folder or a hub id")
    temperature = given.get("temperature")
    if temperature is not None and not _is_positive(temperature):
        raise ConfigError(f"{where}.temperature: got {temperature!r}, allowed: a number above 0")
    settings = {key: value for key, value in given.items() if key not in _OF_SEARCH}
    own = settings.pop("aggregation", None)
    module = search.load(strategy)
    check_kwargs(module.search, settings, f"the search strategy {strategy}", not_settings=_NOT_SETTINGS)
    ranks = "aggregation" in inspect.signature(module.search).parameters
    if own is not None and not ranks:
        raise ConfigError(f"{where}.aggregation: got {own!r}, but the strategy {strategy} has none")
    if own is not None and own not in (CHOSEN, *AGGREGATIONS):
        raise ConfigError(f"{where}.aggregation: got {own!r}, allowed: {', '.join((CHOSEN, *AGGREGATIONS))}")
    rule = (own or aggregation) if ranks else None
    used = None if wanted is None else tuple(map(str, wanted))
    return Search(name, strategy, settings, rule, used, policy, temperature)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
