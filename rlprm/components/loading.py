"""Load components by name, by dotted path, or by the path of a file."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from rlprm.components.files import import_file, is_path
from rlprm.errors import ConfigError, UnknownComponentError


def available_in(package: str, *, exclude: frozenset[str] = frozenset()) -> list[str]:
    """Names of the component modules in a package, sorted."""
    path = importlib.import_module(package).__path__
    names = (module.name for module in pkgutil.iter_modules(path))
    return sorted(name for name in names if name not in exclude and not name.startswith("_"))


def is_built_in(module: object) -> bool:
    """Whether a module comes with this package."""
    return str(getattr(module, "__name__", "")).split(".")[0] == "rlprm"


def load_component(
    package: str,
    name: str,
    family: str,
    *,
    exclude: frozenset[str] = frozenset(),
    needs: Sequence[str] = (),
) -> ModuleType:
    """Import component ``name`` of a package, or a user's own.

    Call this with names from a run's settings only. Importing a module runs its code, and a name that was
    read from a file may be anyone's.

    Args:
        package: of the family; its modules are the built-in components.
        name: of a built-in component, of an importable module (``my_package.world``), or the path of a
            ``.py`` file.
        family: what messages call it.
        exclude: modules of the package that are no components.
        needs: names that the module must define.

    Raises:
        UnknownComponentError: if there is none of that name; says which there are.
        ConfigError: if the user's module has a syntax error, lacks a package that it imports, or does not
            define what it needs to. Names file and line.
    """
    if name in available_in(package, exclude=exclude):
        return importlib.import_module(f"{package}.{name}")
    with _one_line(name, family):
        module = import_file(name, family) if is_path(name) else _import_dotted(name, family)
    if module is None:
        known = ", ".join(available_in(package, exclude=exclude))
        raise UnknownComponentError(
            f"unknown {family} {name!r}; known: {known} (or the dotted path of a module of your own, or the "
            "path of a .py file)"
        )
    check_defined(module, needs, f"the {family} {name}")
    return module


def check_defined(module: ModuleType, needs: Sequence[str], component: str) -> None:
    """Refuse a module that does not define what its family requires.

    Raises:
        ConfigError: naming what is missing.
    """
    if missing := [name for name in needs if not hasattr(module, name)]:
        raise ConfigError(f"{component} does not define {', '.join(missing)}; required: {', '.join(needs)}")


def _import_dotted(name: str, family: str) -> ModuleType | None:
    """Import a module by its name; None if the name has no dot and there is no such module of the user's."""
    if "." not in name.strip(".") and not _is_users(name):
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise  # the module exists and misses something of its own
        raise UnknownComponentError(f"no {family} at the dotted path {name!r}: {error}") from error


def _is_users(name: str) -> bool:
    """Whether a name without a dot is that of a module outside the standard library."""
    return name.isidentifier() and name not in sys.stdlib_module_names and find_spec(name) is not None


@contextmanager
def _one_line(name: str, family: str) -> Iterator[None]:
    """Turn what keeps a user's module from being imported into one line; other errors keep their traceback.

    Raises:
        ConfigError: for a syntax error, or an import that fails.
    """
    try:
        yield
    except SyntaxError as error:
        raise ConfigError(
            f"{family} {name!r} has a syntax error: {error.filename}, line {error.lineno}: {error.msg}"
        ) from error
    except ImportError as error:
        where = [
            f"{frame.filename}, line {frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith("<frozen importlib")
        ]
        raise ConfigError(f"{family} {name!r} cannot be imported: {where[-1]}: {error}") from error


def check_call(
    function: Callable[..., Any], given: Sequence[Any], kwargs: Mapping[str, Any], component: str
) -> None:
    """Refuse settings that a component's function does not take, before it is called.

    Args:
        function: the component's.
        given: its positional arguments, which are not the user's to set.
        kwargs: the settings, by name.
        component: what the message calls it.

    Raises:
        ConfigError: naming the unknown or missing settings and those there are.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function written in C
        return
    try:
        signature.bind(*given, **kwargs)
    except TypeError as error:
        settings = list(signature.parameters.values())[len(given) :]
        allowed = ", ".join(p.name for p in settings if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        unknown = ", ".join(repr(name) for name in kwargs if name not in signature.parameters)
        problem = f"has no setting {unknown}" if unknown else f"cannot take its settings ({error})"
        raise ConfigError(f"{component} {problem}; allowed: {allowed or 'none'}") from error


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
