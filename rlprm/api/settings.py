"""Keyword arguments of the public face become the settings of the library, or an error of one line."""

from __future__ import annotations

from typing import Any, TypedDict, TypeVar

from rlprm.data.formats import check_format
from rlprm.errors import ConfigError, refuse_unknown
from rlprm.runtime.config import from_mapping
from rlprm.types import End, EpisodeSetting

__all__ = ["EpisodeKwargs", "build_config", "check_at_least_one", "check_parts", "episode_setting"]

_T = TypeVar("_T")


class EpisodeKwargs(TypedDict, total=False):
    """How episodes are run; see :class:`rlprm.EpisodeSetting` for the defaults."""

    end: End | str
    round_limit: int | None
    prompt: str
    action_format: str


def build_config(config_type: type[_T], function: str, **settings: Any) -> _T:
    """Build a stage's configuration from keyword arguments.

    Raises:
        ConfigError: for an unknown setting, a wrong type or an impossible value.
    """
    return from_mapping(config_type, settings, where=f"the arguments of {function}")


def episode_setting(kwargs: EpisodeKwargs) -> EpisodeSetting:
    """Return how episodes are run.

    Raises:
        ConfigError: for an unknown or impossible setting.
    """
    given: dict[str, Any] = dict(kwargs)
    refuse_unknown(set(given), set(EpisodeKwargs.__annotations__), "how episodes are run")
    end = given.pop("end", End.DECLARED)
    if end not in set(End):
        raise ConfigError(f"end: got {end!r}, allowed: {', '.join(End)}")
    setting = EpisodeSetting(End(end), **given)
    check_format(setting.action_format)
    if setting.round_limit is not None:
        check_at_least_one(round_limit=setting.round_limit)
    return setting


def check_parts(*, policy: object, seed: int, prm: object = None) -> None:
    """Refuse what cannot act or score, for instance the path of a model that was not loaded.

    Raises:
        ConfigError: naming the argument, what was received and what is allowed.
    """
    if not hasattr(policy, "act"):
        raise ConfigError(f"policy: got {policy!r}, allowed: a policy, see load_policy")
    if prm is not None and not hasattr(prm, "score"):
        raise ConfigError(f"prm: got {prm!r}, allowed: an object with a score method, see load_prm")
    if seed < 0:
        raise ConfigError(f"seed: got {seed}, allowed: 0 or more")


def check_at_least_one(**numbers: int) -> None:
    """Refuse numbers below 1.

    Raises:
        ConfigError: naming the setting, what was received and what is allowed.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{name}: got {number}, allowed: 1 or more")
