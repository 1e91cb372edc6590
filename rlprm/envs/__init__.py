"""Environments; each module or folder in this package is one environment, loaded by its name."""

from __future__ import annotations

import bisect
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, cast

from rlprm.components import available_in, canonical, check_call, check_defined, is_built_in, load_component
from rlprm.envs.base import Environment, EnvironmentModule
from rlprm.errors import ConfigError, MismatchError
from rlprm.types import End, Split, Task, Tool

__all__ = [
    "REQUIRED",
    "Environment",
    "EnvironmentModule",
    "available",
    "belongs_to",
    "count_tasks",
    "load",
    "missing",
    "of_task",
    "tasks",
    "tools_of",
]

_NOT_ENVIRONMENTS = frozenset({"base"})
REQUIRED = ("ROUND_LIMIT", "tasks", "make", "opening")
"""What an environment module must define; see :class:`rlprm.envs.base.EnvironmentModule`."""
_loaded: dict[str, EnvironmentModule] = {}
"""Environments that the settings of this process name, by canonical name."""


def available() -> list[str]:
    """Names of the environments that come with the package."""
    return available_in(__name__, exclude=_NOT_ENVIRONMENTS)


def load(name: str) -> EnvironmentModule:
    """Import an environment by name, dotted path, or path of a ``.py`` file.

    The name must come from the run's settings. For the environment of a task, see :func:`of_task`.

    Raises:
        UnknownComponentError: listing the names there are.
        ConfigError: if a module of the user's own cannot be imported, or lacks a required name.
    """
    module = cast(
        EnvironmentModule,
        load_component(__name__, name, "environment", exclude=_NOT_ENVIRONMENTS, needs=REQUIRED),
    )
    _loaded[canonical(name)] = module
    return module


def tasks(
    name: str, split: Split, start: int, count: int, env_kwargs: Mapping[str, Any] | None = None
) -> list[Task]:
    """Return tasks of an environment; a task stores the canonical name of its environment.

    Args:
        name: of the environment, see :func:`load`.
        split: whose tasks.
        start: number of the first task.
        count: number of tasks.
        env_kwargs: settings of the environment.

    Raises:
        ConfigError: for a setting the environment does not take, a range the split does not have, or a task
            that names another module than the one that made it.
    """
    module, settings = load(name), dict(env_kwargs or {})
    check_call(module.tasks, (split, start, count), settings, f"the environment {name}")
    made = module.tasks(split, start, count, **settings)
    if is_built_in(module):
        return made
    own, stored = cast(ModuleType, module).__name__, canonical(name)
    for task in made:
        if task.environment not in (own, stored):
            raise ConfigError(
                f"the environment {name} makes tasks of {task.environment!r}, allowed: tasks of its own "
                "(environment=__name__)"
            )
    return [replace(task, environment=stored) for task in made]


def count_tasks(
    name: str, split: Split, start: int, at_most: int, env_kwargs: Mapping[str, Any] | None = None
) -> int:
    """Return how many tasks a split has from ``start`` on, or ``at_most`` if the split has more.

    Raises:
        ConfigError: if the split has no task ``start``, or for a setting the environment does not take.
    """

    def has(count: int) -> bool:
        try:
            tasks(name, split, start + count - 1, 1, env_kwargs)
        except ConfigError:
            return False
        return True

    tasks(name, split, start, 1, env_kwargs)
    if has(at_most):
        return at_most
    return bisect.bisect_left(range(2, at_most), True, key=lambda count: not has(count)) + 1


def of_task(task: Task) -> EnvironmentModule:
    """Return the environment of a task without importing code that no setting names.

    A task may come from a file. Its environment is therefore a built-in one, or one that :func:`load` was
    called with, or a module that has been imported already.

    Raises:
        MismatchError: for any other.
        ConfigError: for a module that is no environment.
    """
    name = task.environment
    if name in _loaded:
        return _loaded[name]
    if name in available() or name.startswith(f"{__name__}."):
        return load(name)
    if (module := sys.modules.get(name)) is not None:
        check_defined(
            module, REQUIRED, f"the module {name}, which task {task.id!r} names as its environment,"
        )
        return cast(EnvironmentModule, module)
    raise MismatchError(
        f"task {task.id!r} names the environment {name!r}, whose code is not loaded: a run loads the code "
        "that its settings name, never what stored data names"
    )


def tools_of(module: EnvironmentModule, name: str, end: End) -> tuple[Tool, ...]:
    """Return the tools of an environment.

    Args:
        module: of the environment.
        name: of the environment, for the message.
        end: of its episodes.

    Raises:
        ConfigError: if it declares none.
    """
    if not callable(getattr(module, "tools", None)):
        raise ConfigError(
            f"action_format: got tool_call, allowed: a text format, because {name} declares no tools"
        )
    return tuple(module.tools(end=end))


def belongs_to(task: Task, environment: str) -> bool:
    """Whether a task is of an environment; those of AgentGym's protocols are of ``agentgym`` too."""
    name = canonical(environment)
    return task.environment == name or task.environment.startswith(f"{__name__}.{name}.")


def missing(name: str) -> str | None:
    """Return why an environment cannot run here (a package or a server is missing), or None.

    Raises:
        UnknownComponentError: listing the names there are.
    """
    requirements = getattr(load(name), "requirements", None)
    return None if requirements is None else cast("str | None", requirements())
