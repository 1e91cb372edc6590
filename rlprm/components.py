"""Find components (environments, label estimators, ...) by module name or dotted path.

There is no registry: a component is a module in its family's package, so adding
one is adding a file, and a wrong name can list the right ones.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from rlprm.errors import ConfigError, UnknownComponentError


def available_in(package: str, *, exclude: frozenset[str] = frozenset()) -> list[str]:
    """Names of the component modules in a package, sorted."""
    path = importlib.import_module(package).__path__
    names = (module.name for module in pkgutil.iter_modules(path))
    return sorted(name for name in names if name not in exclude and not name.startswith("_"))


def load_component(
    package: str, name: str, family: str, *, exclude: frozenset[str] = frozenset()
) -> ModuleType:
    """Import component ``name`` of a package, or a user's own given as a dotted path.

    Raises:
        UnknownComponentError: if there is none of that name; says which there are.
    """
    if name in available_in(package, exclude=exclude):
        return importlib.import_module(f"{package}.{name}")
    if "." in name.strip("."):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise  # the module exists and misses something of its own
            raise UnknownComponentError(f"no {family} at the dotted path {name!r}: {error}") from error
    known = ", ".join(available_in(package, exclude=exclude))
    raise UnknownComponentError(
        f"unknown {family} {name!r}; known: {known} (or the dotted path of a module of your own)"
    )


def check_kwargs(
    function: Callable[..., Any],
    kwargs: Mapping[str, Any],
    component: str,
    *,
    not_settings: frozenset[str] = frozenset(),
) -> None:
    """Refuse settings a component's function does not have; its keyword-only parameters are those it has.

    Args:
        function: the component's; one that takes ``**kwargs`` is not checked.
        kwargs: the settings, by name.
        component: what the message calls it, for instance ``"the label estimator td_gae"``.
        not_settings: keyword-only parameters that are data, and not for the user to set.

    Raises:
        ConfigError: naming the unknown settings and those there are.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = (parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)
    allowed = [name for name in names if name not in not_settings]
    unknown = sorted(set(kwargs) - set(allowed))
    if unknown:
        raise ConfigError(
            f"{component} has no setting {', '.join(map(repr, unknown))}; "
            f"allowed: {', '.join(allowed) or 'none'}"
        )
