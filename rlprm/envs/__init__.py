"""Environments; each module or folder in this package is one, found by its name."""

from __future__ import annotations

from typing import cast

from rlprm.components import available_in, load_component
from rlprm.envs.base import Environment, EnvironmentModule

__all__ = ["Environment", "EnvironmentModule", "available", "load", "missing"]

_NOT_ENVIRONMENTS = frozenset({"base"})


def available() -> list[str]:
    """Names of the environments that come with the package."""
    return available_in(__name__, exclude=_NOT_ENVIRONMENTS)


def load(name: str) -> EnvironmentModule:
    """Import an environment by name or dotted path.

    Raises:
        UnknownComponentError: listing the names there are.
    """
    return cast(EnvironmentModule, load_component(__name__, name, "environment", exclude=_NOT_ENVIRONMENTS))


def missing(name: str) -> str | None:
    """Return why an environment cannot run here (a package or a server is missing), or None.

    Raises:
        UnknownComponentError: listing the names there are.
    """
    requirements = getattr(load(name), "requirements", None)
    return None if requirements is None else cast("str | None", requirements())
